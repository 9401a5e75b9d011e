//! HoVer-Net-lite: an EfficientNet-Lite0 encoder (Tan and Le 2019, the "lite" variant without
//! squeeze-and-excite) and a small top-down decoder with np, hv and tp heads.
//!
//! In: RGB u8 `[N, 3, H, W]`, H and W multiples of 32. Out: [`RawMaps`] of the same H and W. Every
//! layer is a convolution with bias (batch norms are folded), so a weights file holds
//! `<layer>.weight` and `<layer>.bias` and nothing else. About 37 kFLOP per px: 13 in the encoder,
//! 24 in the decoder.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::ModelError;
use super::network::{Network, RawMaps, gpu_convolution};
use super::precision::Precision;

/// Logit of the background in tp: type probabilities are for pixels that np calls nucleus.
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
/// Channels after the encoder's first convolution.
const STEM: i64 = 32;
/// Decoder channels at strides 16 and 8.
const D8: i64 = 96;
/// At stride 4.
const D4: i64 = 64;
/// At stride 2.
const D2: i64 = 32;
/// Of the hv branch at stride 2.
const DHV: i64 = 32;

/// The function that follows a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Linear,
    /// The decoder's: unbounded.
    Relu,
    /// The encoder's, as it was trained on ImageNet: clamped to 0..=6. The decoder's larger sums
    /// would saturate it and stop the learning.
    Relu6,
}

/// How a layer turns its input into its output.
#[derive(Debug, Clone)]
pub struct Layer {
    pub name: String,
    /// Weight shape `[out, in / groups, k, k]`.
    pub shape: [i64; 4],
    pub stride: i64,
    /// Whether each channel has a filter of its own.
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

/// All layers of the network for `types` types of nuclei (background not counted), in the order in
/// which data flows through them.
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

/// Weights and how to apply them.
pub trait Convolve {
    /// The output of a layer before its activation.
    fn conv(&self, layer: &Layer, x: &Tensor) -> Tensor;
}

/// Number of zeros on each side: a stride of 1 keeps the size, and one of 2 halves it.
pub fn padding(layer: &Layer) -> i64 {
    layer.shape[2] / 2
}

/// One convolution of `layer` with `weight` and `bias`.
///
/// On one CPU thread libtorch computes a 1 x 1 convolution as a plain matrix product. oneDNN's own
/// kernel is faster, and is called by name where this libtorch has it.
pub fn convolve(layer: &Layer, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let pad = padding(layer);
    let groups = if layer.depthwise { layer.shape[0] } else { 1 };
    let (stride, pads, dilation) = ([layer.stride; 2], [pad; 2], [1, 1]);
    if layer.shape[2] == 1 && x.device() == Device::Cpu && tch::utils::has_mkldnn() {
        return x.mkldnn_convolution(weight, Some(bias), pads, stride, dilation, groups);
    }
    x.conv2d(weight, Some(bias), stride, pads, dilation, groups)
}

/// Runs the network with the weights of `with`.
///
/// `rgb` is float `[N, 3, H, W]`, 0..=255; `layers` come from [`layers`].
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

/// The same values, stored pixel by pixel. Every layer keeps that order; a CPU is faster with it.
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

    /// The lateral 1 x 1 of the encoder's features, plus the features from above, through a 3 x 3.
    fn add_then_conv(&mut self, skip: &Tensor, above: Tensor) -> Tensor {
        let sum = self.step(skip) + above;
        self.step(&sum)
    }
}

/// The network with folded weights, for inference.
pub struct Lite {
    layers: Vec<Layer>,
    weights: BTreeMap<String, (Tensor, Tensor)>,
    precision: Precision,
}

impl Convolve for Lite {
    fn conv(&self, layer: &Layer, x: &Tensor) -> Tensor {
        let (weight, bias) = &self.weights[&layer.name];
        // Only the first layer's input is of another kind.
        let x = x.to_kind(weight.kind());
        if x.device() == Device::Cpu {
            return convolve(layer, &x, weight, bias);
        }
        let groups = if layer.depthwise { layer.shape[0] } else { 1 };
        let steps = [layer.stride, padding(layer), groups];
        gpu_convolution(&x, weight, Some(bias), steps, self.precision)
    }
}

impl Lite {
    /// Builds the network from tensors on their device, checked against [`parameters`], to compute in `precision`.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn from_tensors(
        mut tensors: BTreeMap<String, Tensor>,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let types = tensors.get("head.tp.bias").map_or(0, Tensor::numel) as i64;
        let layers = layers(types);
        let mut weights = BTreeMap::new();
        for l in &layers {
            let mut take = |part: &str| {
                let name = format!("{}.{part}", l.name);
                let tensor = tensors.remove(&name);
                let tensor = tensor.ok_or(ModelError::MissingTensor(name))?;
                Ok::<_, ModelError>(tensor.f_to_kind(precision.kind())?)
            };
            let (weight, bias) = (take("weight")?, take("bias")?);
            // A CPU's kernels take weights as they come and keep their own order.
            let weight = match weight.device() {
                Device::Cpu => weight,
                _ => channels_last(&weight),
            };
            weights.insert(l.name.clone(), (weight, bias));
        }
        Ok(Self {
            layers,
            weights,
            precision,
        })
    }
}

impl Network for Lite {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError> {
        let raw = forward(&self.layers, self, &rgb.to_kind(Kind::Float));
        // tp gets its background channel here. It never wins: np alone decides what is a nucleus.
        let tp = raw.tp.map(|tp| {
            let (n, _, h, w) = tp.size4().unwrap_or((0, 0, 0, 0));
            let background = Tensor::full([n, 1, h, w], NO_BACKGROUND, (tp.kind(), tp.device()));
            Tensor::cat(&[background, tp], 1)
        });
        Ok(RawMaps { tp, ..raw })
    }
}
