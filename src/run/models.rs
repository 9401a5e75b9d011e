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
    devices: Vec<Device>,
    config: RunConfig,
    last: Option<(String, Pool)>,
}

impl Models {
    /// Settles the device, and the number of threads of the whole process.
    ///
    /// # Errors
    /// A device that is not there, or threads that cannot be started: no slide can be done.
    pub fn new(config: &RunConfig) -> Result<Self, RunError> {
        let devices = devices(&config.device)?;
        start_threads(config.threads)?;
        Ok(Self {
            library: Library::from_env(),
            devices,
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
            device: devices_text(&self.devices),
            precision: self.config.precision.name().into(),
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
        let folder = self.library.open(name)?;
        let mut model = folder.load_on(&self.devices, self.config.precision)?;
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

/// `cpu`, `cuda:0` or `cuda:0,1`.
fn devices_text(devices: &[Device]) -> String {
    let indices = devices.iter().filter_map(|device| match device {
        Device::Cpu => None,
        Device::Cuda(index) => Some(*index),
    });
    match indices.collect::<Vec<_>>() {
        indices if indices.is_empty() => DeviceChoice::Cpu.to_string(),
        indices => DeviceChoice::Cuda(indices).to_string(),
    }
}

/// The first device that a choice comes to.
///
/// # Errors
/// A device that is not there.
pub fn first_device(choice: &DeviceChoice) -> Result<Device, RunError> {
    Ok(devices(choice)?.first().copied().unwrap_or(Device::Cpu))
}

fn devices(choice: &DeviceChoice) -> Result<Vec<Device>, RunError> {
    // Nothing was started, whatever the slides: it is the command line that asks for what is not there.
    device::resolve(choice).map_err(|error| RunError::Usage(error.to_string()))
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
