//! Models by name, for a run.
//!
//! In: a [`RunConfig`], then names or folders. Out: a [`Pool`] of workers per model; the last one is kept, so
//! that slides of one model load it once.

use std::sync::{Arc, OnceLock};

use super::run_json::Engine;
use super::{RunConfig, RunError};
use crate::machine::{libtorch, openslide};
use crate::model::{Architecture, Device, DeviceChoice, Library, ModelError, Pool, device};

/// Loads models onto the run's device.
pub struct Models {
    library: Library,
    device: Device,
    config: RunConfig,
    last: Option<(String, Pool)>,
}

impl Models {
    /// Settles the device, and the number of threads of the whole process.
    ///
    /// # Errors
    /// A device that is not there, or threads that cannot be started: no slide can be done.
    pub fn new(config: &RunConfig) -> Result<Self, RunError> {
        let device = first_device(&config.device)?;
        start_threads(config.threads)?;
        Ok(Self {
            library: Library::from_env(),
            device,
            config: config.clone(),
            last: None,
        })
    }

    /// What computes, for run.json.
    pub fn engine(&self) -> Engine {
        Engine {
            version: env!("CARGO_PKG_VERSION").into(),
            libtorch: libtorch().version,
            openslide: openslide().version,
            device: self.device.to_string(),
            precision: "f32".into(),
            threads: self.config.threads,
        }
    }

    /// The model of a name or folder, loaded.
    ///
    /// # Errors
    /// A model that is not there or cannot be loaded.
    pub fn get(&mut self, name: &str) -> Result<Pool, ModelError> {
        if let Some((last, pool)) = &self.last
            && last == name
        {
            return Ok(pool.clone());
        }
        // The old one goes first: two may not fit.
        self.last = None;
        let mut model = self.library.open(name)?.load(self.device)?;
        model.tta = self.config.tta;
        if let (Some(mpp), Architecture::HovernetFast | Architecture::HovernetOriginal) =
            (self.config.hovernet_mpp, model.spec.architecture)
        {
            model.spec.mpp = mpp;
        }
        let pool = Pool::new(Arc::new(model), self.config.batch_size);
        self.last = Some((name.to_owned(), pool.clone()));
        Ok(pool)
    }
}

/// The device that a choice comes to.
///
/// # Errors
/// A device that is not there.
pub fn first_device(choice: &DeviceChoice) -> Result<Device, RunError> {
    // Nothing was started, whatever the slides: it is the command line that asks for what is not there.
    let devices = device::resolve(choice).map_err(|error| RunError::Usage(error.to_string()))?;
    Ok(devices.first().copied().unwrap_or(Device::Cpu))
}

/// Starts the process's worker threads; a process has one set of them, started by its first run.
fn start_threads(threads: usize) -> Result<(), RunError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        builder.build_global().map_err(|error| error.to_string())
    };
    let started = STARTED.get_or_init(start).clone();
    started.map_err(|error| RunError::Machine(format!("threads cannot be started: {error}")))
}
