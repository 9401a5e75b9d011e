//! The trainable form of the networks of our own: hovernet-lite and hovernet-wide.
//!
//! In: an ImageNet encoder, or the weights of a model. Out: the same convolutions, trained, with
//! their batch norms folded in. The statistics of the encoder's batch norms are measured once on
//! the training images and then stay fixed, because the batches are too small to estimate them;
//! scale and offset still learn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;
use tch::{Device, Kind, Tensor};

use super::{TrainError, initial};
use crate::model::design::Design;
use crate::model::layer::{Activation, Convolve, Layer, channels_last, convolve, padding};
use crate::model::network::RawMaps;
use crate::model::weights::Tensors;

/// EfficientNet's batch-norm epsilon.
const BN_EPS: f64 = 1e-3;

/// Sums of each batch norm's means and variances over batches, and the number of batches.
type NormSums = BTreeMap<String, (Tensor, Tensor, f64)>;

/// Statistics measured on recalibration batches.
#[derive(Default)]
struct Statistics {
    norms: NormSums,
    /// Standard deviation of each decoder layer's output on the first batch, after the layers
    /// before it were divided by theirs.
    spreads: BTreeMap<String, Tensor>,
}

/// A network in training. Tensors by name: `<layer>.weight` and `.bias`, in the encoder also
/// `.gain`; these learn. `.mean` and `.var` in the encoder do not.
pub struct Weights {
    design: Design,
    pub layers: Vec<Layer>,
    pub tensors: BTreeMap<String, Tensor>,
    /// Whether convolutions run in bf16; everything else is f32.
    pub bf16: bool,
    measuring: RefCell<Option<Statistics>>,
}

impl Weights {
    /// An ImageNet encoder (as scripts/imagenet_encoder.py writes it) with a random decoder.
    pub fn from_imagenet(
        design: Design,
        encoder: &Path,
        types: i64,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut found: BTreeMap<String, Tensor> = Tensor::read_safetensors(encoder)
            .map_err(|e| TrainError::file(encoder, e))?
            .into_iter()
            .collect();
        let mut rng = Rng::with_seed(seed);
        let layers = (design.layers)(types);
        let mut tensors = BTreeMap::new();
        for l in &layers {
            if !l.encoder {
                init_layer(l, &mut tensors, &mut rng);
                continue;
            }
            for part in ["weight", "gain", "bias", "mean", "var"] {
                let name = format!("{}.{part}", l.name);
                let tensor = found
                    .remove(&name)
                    .ok_or_else(|| TrainError::file(encoder, format!("has no tensor {name}")))?;
                tensors.insert(name, tensor.to_kind(Kind::Float));
            }
        }
        Ok(Self::new(design, layers, tensors))
    }

    /// The weights of a model, whose batch norms are folded: the encoder's layers get norms that
    /// are the identity. A type head of another size is initialised anew.
    pub fn from_folded(
        design: Design,
        found: &Tensors,
        types: i64,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut rng = Rng::with_seed(seed);
        let layers = (design.layers)(types);
        let mut tensors = BTreeMap::new();
        for l in &layers {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", l.name));
            let (Some(w), Some(b)) = (found.get(&weight), found.get(&bias)) else {
                init_layer(l, &mut tensors, &mut rng);
                continue;
            };
            if w.size() != l.shape {
                tracing::info!("{}: another size in the model, begun anew", l.name);
                init_layer(l, &mut tensors, &mut rng);
                continue;
            }
            tensors.insert(weight, w.to_kind(Kind::Float));
            tensors.insert(bias, b.to_kind(Kind::Float));
            if l.encoder {
                let like = |value: f64| b.to_kind(Kind::Float).full_like(value);
                tensors.insert(format!("{}.gain", l.name), like(1.0));
                tensors.insert(format!("{}.mean", l.name), like(0.0));
                tensors.insert(format!("{}.var", l.name), like(1.0 - BN_EPS));
            }
        }
        Ok(Self::new(design, layers, tensors))
    }

    pub fn new(design: Design, layers: Vec<Layer>, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            design,
            layers,
            tensors,
            bf16: false,
            measuring: RefCell::new(None),
        }
    }

    /// The same network with `others` in place of the tensors of the same names.
    pub fn with_tensors(&self, others: &BTreeMap<String, Tensor>) -> Self {
        let own = self.tensors.iter().map(|(n, t)| (n.clone(), t.detach()));
        let mut all: BTreeMap<_, _> = own.collect();
        all.extend(others.iter().map(|(n, t)| (n.clone(), t.shallow_clone())));
        Self {
            bf16: self.bf16,
            ..Self::new(self.design, self.layers.clone(), all)
        }
    }

    /// Names of the tensors that learn.
    pub fn learning_names(&self) -> Vec<String> {
        let fixed = |name: &str| name.ends_with(".mean") || name.ends_with(".var");
        self.tensors.keys().filter(|n| !fixed(n)).cloned().collect()
    }

    /// Replaces the encoder's batch-norm statistics by those of `batches` (u8 [N, 3, H, W]), and
    /// scales the decoder's weights so that the output of every layer has a standard deviation of 1
    /// (Mishkin and Matas 2016): the encoder's features are up to 20 times as large, and their sums
    /// grow from one stride to the next.
    pub fn recalibrate(&mut self, batches: &[Tensor]) {
        let _guard = tch::no_grad_guard();
        *self.measuring.borrow_mut() = Some(Statistics::default());
        for rgb in batches {
            let _ = self.raw_maps(rgb);
        }
        let found = self.measuring.take().unwrap_or_default();
        for (name, (mean, var, n)) in found.norms {
            self.tensors.insert(format!("{name}.mean"), mean / n);
            self.tensors.insert(format!("{name}.var"), var / n);
        }
        for (name, spread) in found.spreads {
            if let Some(weight) = self.tensors.get_mut(&format!("{name}.weight")) {
                *weight /= spread;
            }
        }
    }

    /// Raw maps of u8 `[N, 3, H, W]`, as the layers compute them.
    pub fn raw_maps(&self, rgb: &Tensor) -> RawMaps {
        let rgb = rgb.to_kind(Kind::Float);
        // The layout that a GPU's convolutions want; all later layers keep it.
        let rgb = match rgb.device() {
            Device::Cuda(_) => channels_last(&rgb),
            _ => rgb,
        };
        (self.design.forward)(&self.layers, self, &rgb)
    }

    /// Weight and bias with the batch norm folded in.
    fn folded(&self, l: &Layer) -> (Tensor, Tensor) {
        let get = |part: &str| &self.tensors[&format!("{}.{part}", l.name)];
        let (weight, bias) = (get("weight"), get("bias"));
        if !l.encoder {
            return (weight.shallow_clone(), bias.shallow_clone());
        }
        let scale = get("gain") * (get("var") + BN_EPS).rsqrt();
        (
            weight * scale.view([-1, 1, 1, 1]),
            bias - get("mean") * scale,
        )
    }

    /// All layers with their batch norms folded: the tensors of a weights file.
    pub fn fold(&self) -> Vec<(String, Tensor)> {
        let _guard = tch::no_grad_guard();
        self.layers
            .iter()
            .flat_map(|l| {
                let (weight, bias) = self.folded(l);
                [
                    (format!("{}.weight", l.name), weight),
                    (format!("{}.bias", l.name), bias),
                ]
            })
            .collect()
    }

    /// The output of a decoder layer, divided by its standard deviation on the first batch. Heads
    /// keep their small outputs, so that no type or direction is preferred.
    fn normalise_output(
        &self,
        l: &Layer,
        x: &Tensor,
        spreads: &mut BTreeMap<String, Tensor>,
    ) -> Tensor {
        let (weight, bias) = self.folded(l);
        let y = convolve(l, x, &weight, &bias);
        if l.name.starts_with("head.") {
            return y;
        }
        let spread = spreads
            .entry(l.name.clone())
            .or_insert_with(|| y.std(true).clamp_min(1e-3));
        y / &*spread
    }

    /// A convolution normalised by the statistics of its batch, which are added to `sums`.
    fn measure_norm(&self, l: &Layer, x: &Tensor, sums: &mut NormSums) -> Tensor {
        let get = |part: &str| &self.tensors[&format!("{}.{part}", l.name)];
        let pad = padding(l);
        let groups = if l.depthwise { l.shape[0] } else { 1 };
        let y = x.conv2d(
            get("weight"),
            None::<&Tensor>,
            [l.stride, l.stride],
            [pad, pad],
            [1, 1],
            groups,
        );
        let dims: &[i64] = &[0, 2, 3];
        let mean = y.mean_dim(dims, false, Kind::Float);
        let var = y.var_dim(dims, false, false);
        let entry = sums
            .entry(l.name.clone())
            .or_insert_with(|| (mean.zeros_like(), var.zeros_like(), 0.0));
        *entry = (&entry.0 + &mean, &entry.1 + &var, entry.2 + 1.0);
        let scale = get("gain") * (var + BN_EPS).rsqrt();
        let offset = get("bias") - mean * &scale;
        y * scale.view([1, -1, 1, 1]) + offset.view([1, -1, 1, 1])
    }
}

impl Convolve for Weights {
    fn conv(&self, l: &Layer, x: &Tensor) -> Tensor {
        if let Some(found) = self.measuring.borrow_mut().as_mut() {
            return if l.encoder {
                self.measure_norm(l, x, &mut found.norms)
            } else {
                self.normalise_output(l, x, &mut found.spreads)
            };
        }
        let (weight, bias) = self.folded(l);
        if !self.bf16 {
            return convolve(l, x, &weight, &bias);
        }
        let half = |t: &Tensor| t.to_kind(Kind::BFloat16);
        convolve(l, &half(x), &half(&weight), &half(&bias))
    }
}

/// Random weights (He et al. 2015), zero bias. Heads start small, so that no type is preferred.
fn init_layer(l: &Layer, tensors: &mut BTreeMap<String, Tensor>, rng: &mut Rng) {
    let fan_in = (l.shape[1] * l.shape[2] * l.shape[3]) as f64;
    let gain = if l.name.starts_with("head.") {
        0.1
    } else if l.activation != Activation::Linear {
        2.0
    } else {
        1.0
    };
    let weight = initial::draw_normal(&l.shape, (gain / fan_in).sqrt(), rng);
    tensors.insert(format!("{}.weight", l.name), weight);
    tensors.insert(
        format!("{}.bias", l.name),
        Tensor::zeros([l.shape[0]], (Kind::Float, Device::Cpu)),
    );
}
