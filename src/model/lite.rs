//! HoVer-Net-lite: an EfficientNet-Lite0 encoder (Tan and Le 2019, the "lite" variant without squeeze-and-excite) and a
//! small top-down decoder with np, hv and tp heads.
//!
//! In: RGB u8 [N, 3, H, W], H and W multiples of 32. Out: [`RawMaps`] of the same H and W. Every layer is a convolution
//! with bias (batch norms folded), so a weights file holds `<layer>.weight` and `<layer>.bias` and nothing else.
//! About 37 kFLOP a px: 13 in the encoder, 24 in the decoder.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::ModelError;
use super::network::{Network, RawMaps};

/// Logit of the background in tp: the types are probabilities given that np says nucleus.
const NO_BACKGROUND: f64 = -1e4;

/// One group of inverted residual blocks: kernel, stride, expansion, output channels, blocks.
struct Stage {
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

/// EfficientNet-Lite0 up to stride 32; its last stage (320 channels) and classifier are left out.
const STAGES: [Stage; 6] = [
    stage(3, 1, 1, 16, 1),
    stage(3, 2, 6, 24, 2),
    stage(5, 2, 6, 40, 2),
    stage(3, 2, 6, 80, 3),
    stage(5, 1, 6, 112, 3),
    stage(5, 2, 6, 192, 4),
];
const STEM: i64 = 32;
/// Decoder channels at strides 16 and 8, at 4, at 2, and of the hv branch at 2.
const D8: i64 = 96;
const D4: i64 = 64;
const D2: i64 = 32;
const DHV: i64 = 32;

/// What follows a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Linear,
    /// The decoder's: nothing bounds what it may say.
    Relu,
    /// The encoder's, as ImageNet taught it: clamped to 0..=6. In the decoder, whose sums are large, it saturates and
    /// stops all learning beyond.
    Relu6,
}

/// How a layer turns its input into its output.
#[derive(Debug, Clone)]
pub struct Layer {
    pub name: String,
    /// Weight shape `[out, in / groups, k, k]`.
    pub shape: [i64; 4],
    pub stride: i64,
    /// One filter a channel.
    pub depthwise: bool,
    pub activation: Activation,
    /// Part of the ImageNet encoder.
    pub encoder: bool,
}

fn layer(name: &str, out: i64, input: i64, k: i64) -> Layer {
    Layer {
        name: name.to_string(),
        shape: [out, input, k, k],
        stride: 1,
        depthwise: false,
        activation: Activation::Linear,
        encoder: false,
    }
}

/// All layers of the network for `types` kinds of nuclei (background not counted), in the order of the data's way.
pub fn layers(types: i64) -> Vec<Layer> {
    let mut all = encoder_layers();
    let lateral = |name: &str, out, input| layer(&format!("decoder.lateral{name}"), out, input, 1);
    let conv = |name: &str, out, input| Layer {
        activation: Activation::Relu,
        ..layer(&format!("decoder.{name}"), out, input, 3)
    };
    all.extend([
        lateral("32", D8, 192),
        lateral("16", D8, 112),
        conv("conv16", D8, D8),
        lateral("8", D8, 40),
        conv("conv8", D8, D8),
        layer("decoder.down8", D4, D8, 1),
        lateral("4", D4, 24),
        conv("conv4a", D4, D4),
        conv("conv4b", D4, D4),
        layer("decoder.down4", D2, D4, 1),
        lateral("2", D2, 16),
        conv("conv2", D2, D2),
        conv("conv2hv", DHV, D2),
        layer("head.np", 4, D2, 1),
        layer("head.hv", 8, DHV, 1),
    ]);
    if types > 0 {
        all.push(layer("head.tp", types, D4, 1));
    }
    all
}

fn encoder_layers() -> Vec<Layer> {
    let mut all = vec![Layer {
        stride: 2,
        activation: Activation::Relu6,
        encoder: true,
        ..layer("encoder.stem", STEM, 3, 3)
    }];
    let mut input = STEM;
    let mut index = 0;
    for s in &STAGES {
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

/// Names and shapes of the tensors of a weights file.
pub fn parameters(types: i64) -> Vec<(String, Vec<i64>)> {
    layers(types)
        .iter()
        .flat_map(|l| {
            [
                (format!("{}.weight", l.name), l.shape.to_vec()),
                (format!("{}.bias", l.name), vec![l.shape[0]]),
            ]
        })
        .collect()
}

/// Multiply-accumulates an input pixel: the network's cost.
pub fn macs_per_px(types: i64) -> f64 {
    let mut scale = 1.0;
    let mut encoder = 0.0;
    for l in layers(types).iter().filter(|l| l.encoder) {
        scale /= (l.stride * l.stride) as f64;
        encoder += scale * l.shape.iter().product::<i64>() as f64;
    }
    let decoder: f64 = layers(types)
        .iter()
        .filter(|l| !l.encoder)
        .map(|l| l.shape.iter().product::<i64>() as f64 / stride_of(&l.name).pow(2) as f64)
        .sum();
    encoder + decoder
}

fn stride_of(decoder_layer: &str) -> i64 {
    match decoder_layer {
        "decoder.lateral32" => 32,
        "decoder.lateral16" | "decoder.conv16" => 16,
        "decoder.lateral8" | "decoder.conv8" | "decoder.down8" => 8,
        "decoder.lateral4" | "decoder.conv4a" | "decoder.conv4b" | "decoder.down4" | "head.tp" => 4,
        _ => 2,
    }
}

/// Gives the output of a layer before its activation: weights and how to apply them.
pub trait Convolve {
    fn conv(&self, layer: &Layer, x: &Tensor) -> Tensor;
}

/// Zeros on each side, so that a stride of 1 keeps the size and one of 2 halves it.
pub fn padding(layer: &Layer) -> i64 {
    layer.shape[2] / 2
}

/// One convolution with `weight` and `bias` as the layer says.
///
/// libtorch hands a 1x1 on one CPU thread to a plain matrix product; oneDNN's own kernel is faster there, and is asked
/// for by name where this libtorch has it.
pub fn convolve(layer: &Layer, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let pad = padding(layer);
    let groups = if layer.depthwise { layer.shape[0] } else { 1 };
    let (stride, pads, dilation) = ([layer.stride; 2], [pad; 2], [1, 1]);
    if layer.shape[2] == 1 && x.device() == Device::Cpu && tch::utils::has_mkldnn() {
        return x.mkldnn_convolution(weight, Some(bias), pads, stride, dilation, groups);
    }
    x.conv2d(weight, Some(bias), stride, pads, dilation, groups)
}

/// The data's way through the network, with whatever `with` holds as weights.
///
/// `rgb`: float [N, 3, H, W], 0..=255. `layers` as [`layers`] gives them.
pub fn forward(layers: &[Layer], with: &impl Convolve, rgb: &Tensor) -> RawMaps {
    let mut at = Walk {
        layers,
        next: 0,
        with,
    };
    let x = channels_last(&((rgb - 127.0) / 128.0));
    let mut x = at.step(&x);
    let mut skips = Vec::with_capacity(5);
    for s in &STAGES {
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
    let [c2, c4, c8, c16] = [&skips[0], &skips[1], &skips[2], &skips[3]];
    let up = |x: &Tensor| x.upsample_nearest2d_vec(None::<&[i64]>, &[2.0, 2.0][..]);

    let top = up(&at.step(&x));
    let d16 = at.add_then_conv(c16, top);
    let d8 = at.add_then_conv(c8, up(&d16));
    let d8 = at.step(&d8);
    let d4 = at.add_then_conv(c4, up(&d8));
    let d4 = at.step(&d4);
    let down4 = at.step(&d4);
    let d2 = at.add_then_conv(c2, up(&down4));
    let hv2 = at.step(&d2);
    let np = at.step(&d2).pixel_shuffle(2);
    let hv = at.step(&hv2).pixel_shuffle(2);
    let tp = at.has_next().then(|| {
        at.step(&d4)
            .upsample_bilinear2d_vec(None::<&[i64]>, false, &[4.0, 4.0][..])
    });
    RawMaps { np, hv, tp }
}

/// The same values, stored pixel by pixel: every layer keeps that order, and convolutions on a CPU like it.
fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

struct Walk<'a, C: Convolve> {
    layers: &'a [Layer],
    next: usize,
    with: &'a C,
}

impl<C: Convolve> Walk<'_, C> {
    fn has_next(&self) -> bool {
        self.next < self.layers.len()
    }

    fn step(&mut self, x: &Tensor) -> Tensor {
        let layer = &self.layers[self.next];
        self.next += 1;
        let mut y = self.with.conv(layer, x);
        match layer.activation {
            Activation::Linear => y,
            Activation::Relu => y.relu_(),
            Activation::Relu6 => y.relu6_(),
        }
    }

    /// Lateral 1x1 of the encoder's features, plus what comes from above, through a 3x3.
    fn add_then_conv(&mut self, skip: &Tensor, above: Tensor) -> Tensor {
        let sum = self.step(skip) + above;
        self.step(&sum)
    }
}

/// The network with folded weights, for inference.
pub struct Lite {
    layers: Vec<Layer>,
    weights: BTreeMap<String, (Tensor, Tensor)>,
}

impl Convolve for Lite {
    fn conv(&self, layer: &Layer, x: &Tensor) -> Tensor {
        let (weight, bias) = &self.weights[&layer.name];
        convolve(layer, x, weight, bias)
    }
}

impl Lite {
    /// `tensors` as [`parameters`] names them, already checked against it and on their device.
    pub fn from_tensors(mut tensors: BTreeMap<String, Tensor>) -> Result<Self, ModelError> {
        let types = tensors.get("head.tp.bias").map_or(0, Tensor::numel) as i64;
        let layers = layers(types);
        let mut weights = BTreeMap::new();
        for l in &layers {
            let mut take = |what: &str| {
                let name = format!("{}.{what}", l.name);
                tensors.remove(&name).ok_or(ModelError::MissingTensor(name))
            };
            weights.insert(l.name.clone(), (take("weight")?, take("bias")?));
        }
        Ok(Self { layers, weights })
    }
}

impl Network for Lite {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError> {
        let raw = forward(&self.layers, self, &rgb.to_kind(Kind::Float));
        // tp gains its background channel here: never chosen, because np alone decides what is a nucleus.
        let tp = raw.tp.map(|tp| {
            let (n, _, h, w) = tp.size4().unwrap_or((0, 0, 0, 0));
            let background = Tensor::full([n, 1, h, w], NO_BACKGROUND, (tp.kind(), tp.device()));
            Tensor::cat(&[background, tp], 1)
        });
        Ok(RawMaps { tp, ..raw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_at_most_0_8_tflop_a_mm2() {
        // 704 px of 768 are kept: 0.25 µm/px.
        let macs_per_mm2 = macs_per_px(4) * (768.0_f64 / 704.0).powi(2) * 16e6;
        assert!(2.0 * macs_per_mm2 < 0.8e12, "{macs_per_mm2}");
    }
}
