//! Networks in training: what the training loop needs of every architecture.
//!
//! In: an architecture, and weights to start from. Out: a [`Learner`].

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::TrainError;
use super::config::TrainConfig;
use super::hovernet::HoverNet;
use super::losses::{self, Batch, Loss};
use super::run::Start;
use super::weights::Weights;
use crate::model::Architecture;
use crate::model::design::Design;
use crate::model::hovernet::Mode;
use crate::model::network::RawMaps;
use crate::model::weights::Tensors;

/// The architectures that learn, for messages.
pub const LEARNING: &str = "hovernet-lite, hovernet-wide, hovernet-fast and hovernet-original";

/// A network whose weights learn.
pub trait Learner {
    /// All tensors by name: those that learn, and the statistics of batch norms.
    fn tensors(&self) -> &BTreeMap<String, Tensor>;
    fn tensors_mut(&mut self) -> &mut BTreeMap<String, Tensor>;
    /// Names of the tensors that learn in step `step` (from 0).
    fn learning_names(&self, step: u64) -> Vec<String>;
    /// Raw maps, with gradients, of u8 `[N, 3, H, W]`.
    fn forward(&self, rgb: &Tensor, step: u64) -> RawMaps;
    fn loss(&self, raw: &RawMaps, batch: &Batch) -> Loss;
    /// Raw maps of u8 `[N, 3, H, W]` by the weights `averaged` (the tensors that learn); `None` if
    /// the architecture cannot learn from them.
    fn forward_averaged(
        &self,
        averaged: &BTreeMap<String, Tensor>,
        rgb: &Tensor,
    ) -> Option<RawMaps>;
    /// The tensors of a weights file: `averaged` (the tensors that learn) with the statistics.
    fn export(&self, averaged: &BTreeMap<String, Tensor>) -> Vec<(String, Tensor)>;
    /// Measures the statistics of batch norms on `batches`, in architectures whose statistics stay
    /// fixed during training.
    fn measure_norms(&mut self, batches: &[Tensor]);
}

/// The network of a training before its first step, and whether it has batch-norm statistics.
///
/// # Errors
/// An architecture that cannot learn, or weights that cannot be read.
pub fn build_learner(
    config: &TrainConfig,
    start: &Start,
    bf16: bool,
) -> Result<(Box<dyn Learner>, bool), TrainError> {
    let (types, seed) = (config.types.len(), config.seed);
    let mode = match config.model.architecture {
        Architecture::HovernetFast => Mode::Fast,
        Architecture::HovernetOriginal => Mode::Original,
        own => {
            let design = Design::of(own).ok_or_else(|| {
                TrainError::Config(format!("{} does not learn: {LEARNING} do", own.name()))
            })?;
            let types = types as i64;
            let (mut weights, has_statistics) = match start {
                Start::Encoder(path) => (Weights::from_imagenet(design, path, types, seed)?, false),
                Start::Model(found) => (Weights::from_folded(design, found, types, seed)?, true),
            };
            weights.bf16 = bf16;
            return Ok((Box::new(weights), has_statistics));
        }
    };
    let read;
    let found = match start {
        Start::Model(found) => found,
        Start::Encoder(path) => {
            read = read_tensors(path)?;
            if !read.contains_key("conv0./.weight") {
                return Err(TrainError::file(
                    path,
                    "has no conv0./.weight: a pre-activation ResNet-50 under hover_net's names is wanted",
                ));
            }
            &read
        }
    };
    let network = HoverNet::new(mode, types, found, seed, config.frozen_steps);
    Ok((Box::new(network), true))
}

fn read_tensors(path: &Path) -> Result<Tensors, TrainError> {
    let tensors = Tensor::read_safetensors(path).map_err(|e| TrainError::file(path, e))?;
    Ok(tensors.into_iter().collect())
}

/// Moves every tensor to `device`, and lets those require gradients that learn in step `step`.
pub fn prepare_tensors(learner: &mut dyn Learner, device: Device, step: u64) {
    let learning = learner.learning_names(step);
    for (name, t) in learner.tensors_mut() {
        let here = t.detach().to_device(device).copy();
        *t = here.set_requires_grad(learning.contains(name));
    }
}

impl Learner for Weights {
    fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    fn tensors_mut(&mut self) -> &mut BTreeMap<String, Tensor> {
        &mut self.tensors
    }

    fn learning_names(&self, _: u64) -> Vec<String> {
        Weights::learning_names(self)
    }

    fn forward(&self, rgb: &Tensor, _: u64) -> RawMaps {
        let raw = self.raw_maps(rgb);
        let float = |t: Tensor| t.to_kind(Kind::Float);
        RawMaps {
            np: float(raw.np),
            hv: float(raw.hv),
            tp: raw.tp.map(float),
        }
    }

    fn loss(&self, raw: &RawMaps, batch: &Batch) -> Loss {
        losses::own_loss(raw, batch)
    }

    fn forward_averaged(
        &self,
        averaged: &BTreeMap<String, Tensor>,
        rgb: &Tensor,
    ) -> Option<RawMaps> {
        Some(self.with_tensors(averaged).forward(rgb, 0))
    }

    fn export(&self, averaged: &BTreeMap<String, Tensor>) -> Vec<(String, Tensor)> {
        self.with_tensors(averaged).fold()
    }

    fn measure_norms(&mut self, batches: &[Tensor]) {
        self.recalibrate(batches);
    }
}
