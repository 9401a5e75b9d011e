//! How a model's work is shared out: its workers and the patches that they take at once.
//!
//! In: a loaded model and the number of threads. Out: workers for a pipeline's stages, or the maps of some patches
//! predicted by all workers together. On a CPU each thread has a worker that runs whole patches one by one, so neither
//! number can change a bit of a result; on a GPU one worker feeds the device batches.

use std::sync::Arc;

use image::RgbImage;
use rayon::prelude::*;

use super::{Device, Model, ModelError, PatchModel};
use crate::prediction::PredictionMap;

/// Patches per batch on a GPU where nobody asked for another number.
const GPU_BATCH: usize = 16;

/// A model with its share of the machine. Cheap to clone: the weights are shared.
#[derive(Clone)]
pub struct Pool {
    model: Arc<Model>,
    batch: usize,
}

impl Pool {
    /// `batch`: patches at once, or what suits the device.
    pub fn new(model: Arc<Model>, batch: Option<usize>) -> Self {
        Self {
            batch: batch.unwrap_or_else(|| model.usual_batch()).max(1),
            model,
        }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Patches that a worker takes at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    pub fn on_gpu(&self) -> bool {
        self.model.device != Device::Cpu
    }

    /// One more worker, for one thread.
    pub fn worker(&self) -> Box<dyn PatchModel> {
        self.model.worker()
    }
}

impl Model {
    /// Patches per batch where nobody asked for another number: a CPU takes them one by one in any case.
    pub fn usual_batch(&self) -> usize {
        match self.device {
            Device::Cpu => 1,
            _ => GPU_BATCH,
        }
    }

    /// Predicts patches of one size, in their order: on a CPU by all threads of rayon, on a GPU in batches.
    ///
    /// # Errors
    /// What the network says of the first patch that it cannot take.
    pub fn predict_all(
        &self,
        patches: &[RgbImage],
        batch: usize,
    ) -> Result<Vec<PredictionMap>, ModelError> {
        let maps: Result<Vec<_>, _> = match self.device {
            Device::Cpu => patches
                .par_iter()
                .map_init(
                    || self.worker(),
                    |worker, patch| worker.predict(std::slice::from_ref(patch)),
                )
                .collect(),
            _ => {
                let mut worker = self.worker();
                let batches = patches.chunks(batch.max(1));
                batches.map(|batch| worker.predict(batch)).collect()
            }
        };
        Ok(maps?.into_iter().flatten().collect())
    }
}
