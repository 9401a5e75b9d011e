//! Convolutions by name: what the project's own networks are made of.
//!
//! In: layers in the order in which data flows through them, and weights that can be applied to
//! them. Out: a [`Walk`] that takes one layer after the other. Never knows how a network joins
//! them.

use tch::{Device, Kind, Tensor};

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
    /// Name, to which its tensors' names add `.weight` and `.bias`.
    pub name: String,
    /// Weight shape `[out, in / groups, k, k]`.
    pub shape: [i64; 4],
    /// Pixels from one output to the next.
    pub stride: i64,
    /// Whether each channel has a filter of its own.
    pub depthwise: bool,
    /// What follows the convolution.
    pub activation: Activation,
    /// Part of the ImageNet encoder.
    pub encoder: bool,
}

/// A convolution of stride 1 with `out` filters of `k` x `k` over `input` channels, and nothing after it.
pub fn layer(name: &str, out: i64, input: i64, k: i64) -> Layer {
    Layer {
        name: name.to_string(),
        shape: [out, input, k, k],
        stride: 1,
        depthwise: false,
        activation: Activation::Linear,
        encoder: false,
    }
}

/// Names and shapes of the tensors of a weights file of `layers`: batch norms are folded, so each
/// layer has a weight and a bias and nothing else.
pub fn parameters(layers: &[Layer]) -> Vec<(String, Vec<i64>)> {
    layers
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
    if layer.shape[2] == 1 && x.device() == Device::Cpu && has_own_kernel(x.kind()) {
        return x.mkldnn_convolution(weight, Some(bias), pads, stride, dilation, groups);
    }
    x.conv2d(weight, Some(bias), stride, pads, dilation, groups)
}

/// Whether oneDNN's kernels take values of `kind` on this CPU. Called by name they panic where they do
/// not; libtorch's own choice falls back on a slower kernel.
fn has_own_kernel(kind: Kind) -> bool {
    #[cfg(target_arch = "x86_64")]
    let takes_16_bits = std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512dq");
    #[cfg(not(target_arch = "x86_64"))]
    let takes_16_bits = true;
    tch::utils::has_mkldnn() && (kind == Kind::Float || takes_16_bits)
}

/// The same values, stored pixel by pixel. Every layer keeps that order; a CPU is faster with it.
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// RGB of 0..=255 as the encoders take it.
pub(super) fn centred(rgb: &Tensor) -> Tensor {
    channels_last(&((rgb - 127.0) / 128.0))
}

/// Twice as high and wide, each value four times.
pub(super) fn double(x: &Tensor) -> Tensor {
    x.upsample_nearest2d_vec(None::<&[i64]>, &[2.0, 2.0][..])
}

/// A way through the layers: each step takes the next one.
pub(super) struct Walk<'a> {
    layers: &'a [Layer],
    next: usize,
    with: &'a dyn Convolve,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(layers: &'a [Layer], with: &'a dyn Convolve) -> Self {
        Self {
            layers,
            next: 0,
            with,
        }
    }

    /// Whether the next layer is called `name`.
    pub(super) fn is_at(&self, name: &str) -> bool {
        self.layers.get(self.next).is_some_and(|l| l.name == name)
    }

    /// The next layer and its activation on `x`.
    pub(super) fn step(&mut self, x: &Tensor) -> Tensor {
        let layer = &self.layers[self.next];
        self.next += 1;
        let mut y = self.with.conv(layer, x);
        match layer.activation {
            Activation::Linear => y,
            Activation::Relu => y.relu_(),
            Activation::Relu6 => y.relu6_(),
        }
    }
}
