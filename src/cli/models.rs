//! Models for the commands that run one.
//!
//! In: a name or folder, a device. Out: a loaded model, kept for the next slide that asks for the same.

use std::sync::Arc;

use wsi_nuclei::config::{DeviceChoice, RunConfig};
use wsi_nuclei::machine::{libtorch, openslide};
use wsi_nuclei::model::library::Library;
use wsi_nuclei::model::{Device, Model, ModelError, Tta, device};
use wsi_nuclei::output::run_json::Engine;

use super::Failure;

/// Holds the last model, so that slides of one model load it once.
pub struct Models {
    library: Library,
    device: Device,
    tta: Tta,
    last: Option<(String, Arc<Model>)>,
}

impl Models {
    /// Settles the device and the number of threads of the whole process.
    ///
    /// # Errors
    /// A device that is not there: no slide can be done.
    pub fn new(config: &RunConfig) -> Result<Self, Failure> {
        let device = first_device(&config.device)?;
        rayon::ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .build_global()
            .map_err(|error| Failure::slides(format!("threads cannot be started: {error}")))?;
        Ok(Self {
            library: Library::from_env(),
            device,
            tta: config.tta,
            last: None,
        })
    }

    /// What computes, for run.json.
    pub fn engine(&self, config: &RunConfig) -> Engine {
        Engine {
            version: env!("CARGO_PKG_VERSION").into(),
            libtorch: libtorch().version,
            openslide: openslide().version,
            device: self.device.to_string(),
            precision: "f32".into(),
            threads: config.threads,
        }
    }

    /// Patches a batch where nobody asked for another number: a CPU runs them one by one in any case.
    pub fn default_batch(&self) -> usize {
        if self.device == Device::Cpu { 1 } else { 16 }
    }

    /// The model of a name or folder.
    pub fn get(&mut self, name: &str) -> Result<Arc<Model>, ModelError> {
        match &self.last {
            Some((last, model)) if last == name => Ok(model.clone()),
            _ => {
                // The old one goes first: two may not fit.
                self.last = None;
                let mut model = self.library.open(name)?.load(self.device)?;
                model.tta = self.tta;
                let model = Arc::new(model);
                self.last = Some((name.to_owned(), model.clone()));
                Ok(model)
            }
        }
    }
}

/// The device that a choice comes to.
pub fn first_device(choice: &DeviceChoice) -> Result<Device, Failure> {
    let devices = device::resolve(choice).map_err(Failure::slides)?;
    Ok(devices.first().copied().unwrap_or(Device::Cpu))
}
