//! How a model's work is shared out: its workers and the patches that they take at once.
//!
//! In: a loaded model and the number of threads. Out: workers for a pipeline's stages, or the maps of some patches
//! predicted by all workers together. On a CPU each thread has a worker that runs whole patches one by one, so neither
//! number can change a bit of a result; any other device is fed batches by [`LANES`] workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use rayon::prelude::*;

use super::{Device, Model, ModelError, PatchModel};
use crate::prediction::{PredictionMap, QuantisedMap};

/// Patches per batch on a GPU where nobody asked for another number.
const GPU_BATCH: usize = 16;
/// Workers, and so batches in flight, per device other than the CPU: one waits for its batch while the next is on its
/// way. libtorch gives no events to wait for, so each batch has a thread that waits.
const LANES: usize = 2;

/// The workers of devices other than the CPU, all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// Batches in flight.
    pub workers: usize,
    /// Patches in each.
    pub batch: usize,
}

/// Most patches that a worker takes at once: halved when a device has too little memory for them, for all workers.
#[derive(Debug)]
pub struct BatchLimit(AtomicUsize);

impl BatchLimit {
    /// `patches` is at least 1.
    pub fn new(patches: usize) -> Self {
        Self(AtomicUsize::new(patches.max(1)))
    }

    /// The limit now.
    pub fn patches(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives `predict` all of `patches`, in as many batches as the device's memory takes.
    ///
    /// # Errors
    /// Those of `predict`, but too little memory only for a single patch.
    pub fn predict<T>(
        &self,
        worker: &mut dyn PatchModel,
        patches: &[RgbImage],
        predict: impl Fn(&mut dyn PatchModel, &[RgbImage]) -> Result<Vec<T>, ModelError>,
    ) -> Result<Vec<T>, ModelError> {
        let mut maps = Vec::with_capacity(patches.len());
        let mut left = patches;
        while !left.is_empty() {
            let (batch, rest) = left.split_at(left.len().min(self.patches()));
            match predict(worker, batch) {
                Ok(some) => {
                    maps.extend(some);
                    left = rest;
                }
                Err(error) if error.is_out_of_memory() && batch.len() > 1 => {
                    self.0.fetch_min(batch.len() / 2, Ordering::Relaxed);
                    worker.set_batch(batch.len() / 2);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(maps)
    }
}

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

    /// What keeps devices other than the CPU busy; `None`: the CPU runs the network on each of its threads.
    pub fn feed(&self) -> Option<Feed> {
        match self.model.devices_fed() {
            0 => None,
            devices => Some(Feed {
                workers: LANES * devices,
                batch: self.batch,
            }),
        }
    }

    /// Worker number `place`, for one thread: they go round the devices.
    pub fn worker(&self, place: usize) -> Box<dyn PatchModel> {
        let mut worker = self.model.worker_on(place);
        worker.set_batch(self.batch);
        worker
    }
}

impl Model {
    /// Patches per batch where nobody asked for another number: a CPU takes them one by one in any case.
    pub fn usual_batch(&self) -> usize {
        match self.in_batches {
            false => 1,
            true => GPU_BATCH,
        }
    }

    /// Predicts patches of one size, in their order: on a CPU by all threads of rayon, on other devices in batches.
    ///
    /// # Errors
    /// What the network says of the first patch that it cannot take.
    pub fn predict_all(
        &self,
        patches: &[RgbImage],
        batch: usize,
    ) -> Result<Vec<PredictionMap>, ModelError> {
        self.for_all(patches, batch, |worker, patches| worker.predict(patches))
    }

    /// [`Model::predict_all`] in the integers that post-processing reads.
    ///
    /// # Errors
    /// As [`Model::predict_all`].
    pub fn predict_all_quantised(
        &self,
        patches: &[RgbImage],
        batch: usize,
    ) -> Result<Vec<QuantisedMap>, ModelError> {
        self.for_all(patches, batch, |worker, patches| {
            worker.predict_quantised(patches)
        })
    }

    /// Gives `predict` all patches and the workers' results back in their order.
    fn for_all<T: Send>(
        &self,
        patches: &[RgbImage],
        batch: usize,
        predict: impl Fn(&mut dyn PatchModel, &[RgbImage]) -> Result<Vec<T>, ModelError> + Sync,
    ) -> Result<Vec<T>, ModelError> {
        match self.in_batches {
            false => patches
                .par_iter()
                .map_init(
                    || self.worker(),
                    |worker, patch| predict(worker.as_mut(), std::slice::from_ref(patch)),
                )
                .collect::<Result<Vec<_>, _>>()
                .map(|maps| maps.into_iter().flatten().collect()),
            true => {
                let mut worker = self.worker();
                worker.set_batch(batch);
                BatchLimit::new(batch).predict(worker.as_mut(), patches, predict)
            }
        }
    }
}

#[cfg(test)]
mod tests;
