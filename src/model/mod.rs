//! Networks and their folders.
//!
//! In: a model folder (model.toml + model.safetensors), a device, RGB patches. Out: [`PredictionMap`](crate::prediction::PredictionMap)s. One trait, one
//! place where a network's raw output becomes a `PredictionMap`. Never knows where on a slide a patch lies.

pub mod analytic;
pub mod convert;
pub mod device;
pub mod error;
pub mod folder;
pub mod hovernet;
pub mod library;
pub mod lite;
pub mod network;
pub mod patch_model;
pub mod pickle;
mod pool;
mod precision;
pub mod spec;
pub mod torch_file;
pub mod torchscript;
pub mod tta;
pub mod weights;

pub use device::DeviceChoice;
pub use error::ModelError;
pub use folder::ModelFolder;
pub use library::Library;
pub use network::{Network, RawMaps, to_maps};
pub use patch_model::{Model, PatchModel};
pub use pool::Pool;
pub use precision::Precision;
pub use spec::{Architecture, ModelSpec, TypeInfo};
pub use tta::Tta;
