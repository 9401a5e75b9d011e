//! A loaded model and its workers.
//!
//! In: RGB patches. Out: one [`PredictionMap`] per patch. Never knows where a patch lies.

use image::RgbImage;

use super::device::Device;
use super::error::ModelError;
use super::spec::ModelSpec;
use super::tta::{Averaging, Tta};
use crate::prediction::PredictionMap;

/// Something that predicts patches: a torch network or the analytic model.
pub trait PatchModel: Send {
    /// Predicts patches of one size. A map is its patch without the model's margin on each side.
    ///
    /// # Errors
    /// Patches of different or unusable sizes, and output that does not fit model.toml.
    fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError>;
}

/// What gives out workers, however many are asked for.
pub(super) trait Engine: Send + Sync {
    fn worker(&self) -> Box<dyn PatchModel>;
}

impl<T: PatchModel + Clone + Sync + 'static> Engine for T {
    fn worker(&self) -> Box<dyn PatchModel> {
        Box::new(self.clone())
    }
}

/// A model on its device. Weights are held once, however many workers there are.
pub struct Model {
    pub spec: ModelSpec,
    /// SHA-256 of the weights file, or of the rule's name for a model without weights: part of the
    /// identity.
    pub weights_sha256: String,
    pub device: Device,
    /// Views of each patch that are averaged: part of the identity.
    pub tta: Tta,
    pub(super) engine: Box<dyn Engine>,
}

impl Model {
    /// One more worker, for one thread.
    pub fn worker(&self) -> Box<dyn PatchModel> {
        let inner = self.engine.worker();
        match self.tta {
            Tta::None => inner,
            tta => Box::new(Averaging { inner, tta }),
        }
    }
}
