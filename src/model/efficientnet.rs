//! The encoders: EfficientNet-Lite (Tan and Le 2019, the "lite" variants without
//! squeeze-and-excite).
//!
//! In: a table of stages, centred RGB. Out: the features at strides 2, 4, 8, 16 and 32. The last
//! stage (320 or more channels) and the classifier are left out. Never holds a weight.

use tch::Tensor;

use super::layer::{Activation, Layer, Walk, layer};

/// One group of inverted residual blocks: kernel, stride, expansion, output channels, blocks.
pub(super) struct Stage {
    kernel: i64,
    stride: i64,
    expand: i64,
    out: i64,
    blocks: usize,
}

const fn stage(kernel: i64, stride: i64, expand: i64, out: i64, blocks: usize) -> Stage {
    Stage {
        kernel,
        stride,
        expand,
        out,
        blocks,
    }
}

/// EfficientNet-Lite0 up to stride 32.
pub(super) const LITE0: [Stage; 6] = [
    stage(3, 1, 1, 16, 1),
    stage(3, 2, 6, 24, 2),
    stage(5, 2, 6, 40, 2),
    stage(3, 2, 6, 80, 3),
    stage(5, 1, 6, 112, 3),
    stage(5, 2, 6, 192, 4),
];
/// EfficientNet-Lite2 up to stride 32.
pub(super) const LITE2: [Stage; 6] = [
    stage(3, 1, 1, 16, 1),
    stage(3, 2, 6, 24, 3),
    stage(5, 2, 6, 48, 3),
    stage(3, 2, 6, 88, 4),
    stage(5, 1, 6, 120, 4),
    stage(5, 2, 6, 208, 5),
];
/// Channels after the first convolution.
const STEM: i64 = 32;

/// The layers of an encoder, in order.
pub(super) fn encoder_layers(stages: &[Stage]) -> Vec<Layer> {
    let mut all = vec![Layer {
        stride: 2,
        activation: Activation::Relu6,
        encoder: true,
        ..layer("encoder.stem", STEM, 3, 3)
    }];
    let mut input = STEM;
    let mut index = 0;
    for s in stages {
        for block in 0..s.blocks {
            let prefix = format!("encoder.blocks.{index}");
            let wide = input * s.expand;
            let encoder = |name: &str, out, input, k| Layer {
                encoder: true,
                ..layer(&format!("{prefix}.{name}"), out, input, k)
            };
            if s.expand > 1 {
                all.push(Layer {
                    activation: Activation::Relu6,
                    ..encoder("expand", wide, input, 1)
                });
            }
            all.push(Layer {
                activation: Activation::Relu6,
                depthwise: true,
                stride: if block == 0 { s.stride } else { 1 },
                ..encoder("depthwise", wide, 1, s.kernel)
            });
            all.push(encoder("project", s.out, wide, 1));
            input = s.out;
            index += 1;
        }
    }
    all
}

/// What an encoder sees.
pub(super) struct Features {
    /// At strides 2, 4, 8 and 16.
    pub skips: [Tensor; 4],
    /// At stride 32.
    pub top: Tensor,
}

/// Walks through the layers of `stages` (see [`encoder_layers`]) with `centred` RGB.
pub(super) fn encode(at: &mut Walk, stages: &[Stage; 6], centred: &Tensor) -> Features {
    let mut x = at.step(centred);
    let mut skips = Vec::with_capacity(4);
    for s in stages {
        // The features of a stride are complete just before the next stride begins.
        if s.stride == 2 {
            skips.push(x.shallow_clone());
        }
        for block in 0..s.blocks {
            let input = x.shallow_clone();
            if s.expand > 1 {
                x = at.step(&x);
            }
            x = at.step(&x);
            x = at.step(&x);
            if block > 0 {
                x += input;
            }
        }
    }
    let mut skips = skips.into_iter();
    Features {
        skips: std::array::from_fn(|_| skips.next().unwrap_or_default()),
        top: x,
    }
}
