//! A loaded model and its workers.
//!
//! In: RGB patches. Out: one [`QuantisedMap`] or [`PredictionMap`] per patch. Never knows where a patch lies.

use std::sync::Arc;

use image::RgbImage;

use super::device::Device;
use super::error::ModelError;
use super::fake_device::{DeviceUse, FakeDevice};
use super::precision::Precision;
use super::spec::ModelSpec;
use super::tta::{Averaging, Tta};
use crate::prediction::{PredictionMap, QuantisedMap};

/// Something that predicts patches: a torch network or the analytic model.
pub trait PatchModel: Send {
    /// Predicts patches of one size. A map is its patch without the model's margin on each side.
    ///
    /// # Errors
    /// Patches of different or unusable sizes, and output that does not fit model.toml.
    fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError>;

    /// Patches that most calls will bring: a device may run fewer as if they were as many.
    fn set_batch(&mut self, _batch: usize) {}

    /// [`PatchModel::predict`] in the integers that post-processing reads.
    fn predict_quantised(&mut self, patches: &[RgbImage]) -> Result<Vec<QuantisedMap>, ModelError> {
        let maps = self.predict(patches)?;
        Ok(maps.iter().map(PredictionMap::quantised).collect())
    }
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
    /// What computes: the first of the devices.
    pub device: Device,
    /// The network's arithmetic: part of the identity.
    pub precision: Precision,
    /// Whether patches go to devices other than this CPU, in batches.
    pub(super) in_batches: bool,
    /// Views of each patch that are averaged: part of the identity.
    pub tta: Tta,
    /// Those that take a set time, if the model runs on such.
    pub(super) fake_devices: Vec<Arc<FakeDevice>>,
    /// One per device, at least one.
    pub(super) engines: Vec<Box<dyn Engine>>,
}

impl Model {
    /// One more worker, for one thread, on the first device.
    pub fn worker(&self) -> Box<dyn PatchModel> {
        self.worker_on(0)
    }

    /// Number of devices that are fed batches; 0: the CPU runs the network patch by patch.
    pub fn devices_fed(&self) -> usize {
        match self.in_batches {
            true => self.engines.len(),
            false => 0,
        }
    }

    /// What each fake device has done since it was asked the last time; empty for real ones.
    pub fn take_fake_use(&self) -> Vec<DeviceUse> {
        self.fake_devices.iter().map(|d| d.take_use()).collect()
    }

    /// One more worker, for one thread; `device` counts round the devices.
    pub fn worker_on(&self, device: usize) -> Box<dyn PatchModel> {
        let inner = self.engines[device % self.engines.len()].worker();
        match self.tta {
            Tta::None => inner,
            tta => Box::new(Averaging { inner, tta }),
        }
    }
}
