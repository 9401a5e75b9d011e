//! The project's own networks: hovernet-lite and hovernet-wide, for inference.
//!
//! In: an architecture, tensors with folded batch norms. Out: a [`Network`]. A [`Design`] is all
//! that the two differ in: their layers, and how data flows through these. Never trains.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::error::ModelError;
use super::layer::{Convolve, Layer, channels_last, convolve, padding};
use super::network::{Network, RawMaps, gpu_convolution};
use super::precision::Precision;
use super::spec::Architecture;
use super::{lite, wide};

/// Logit of the background in tp: type probabilities are for pixels that np calls nucleus.
const NO_BACKGROUND: f64 = -1e4;

/// How a network of our own is built. Its layers are convolutions with bias and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Design {
    /// All layers for so many types (background not counted), in the order in which data flows.
    pub layers: fn(types: i64) -> Vec<Layer>,
    /// The raw maps of float RGB `[N, 3, H, W]`, 0..=255; tp has no background.
    pub forward: fn(layers: &[Layer], with: &dyn Convolve, rgb: &Tensor) -> RawMaps,
}

impl Design {
    /// The design of `architecture`; `None` if it is not one of our own.
    pub const fn of(architecture: Architecture) -> Option<Self> {
        match architecture {
            Architecture::HovernetLite => Some(Self {
                layers: lite::layers,
                forward: lite::forward,
            }),
            Architecture::HovernetWide => Some(Self {
                layers: wide::layers,
                forward: wide::forward,
            }),
            Architecture::HovernetFast
            | Architecture::HovernetOriginal
            | Architecture::Torchscript
            | Architecture::Analytic => None,
        }
    }
}

/// A network with folded weights.
pub struct Folded {
    design: Design,
    layers: Vec<Layer>,
    weights: BTreeMap<String, (Tensor, Tensor)>,
    precision: Precision,
}

impl Convolve for Folded {
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

impl Folded {
    /// Builds the network of `design` from tensors on their device, names and shapes checked, to compute in
    /// `precision`.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn from_tensors(
        design: Design,
        types: i64,
        mut tensors: BTreeMap<String, Tensor>,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let layers = (design.layers)(types);
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
            design,
            layers,
            weights,
            precision,
        })
    }
}

impl Network for Folded {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError> {
        let raw = (self.design.forward)(&self.layers, self, &rgb.to_kind(Kind::Float));
        // tp gets its background channel here. It never wins: np alone decides what is a nucleus.
        let tp = raw.tp.map(|tp| {
            let (n, _, h, w) = tp.size4().unwrap_or((0, 0, 0, 0));
            let background = Tensor::full([n, 1, h, w], NO_BACKGROUND, (tp.kind(), tp.device()));
            Tensor::cat(&[background, tp], 1)
        });
        Ok(RawMaps { tp, ..raw })
    }
}
