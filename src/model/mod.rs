//! Networks and their folders.
//!
//! In: a model folder (model.toml + model.safetensors), a device, RGB patches. Out:
//! [`PredictionMap`](crate::prediction::PredictionMap)s. One trait, and one place where a network's
//! raw output becomes a `PredictionMap`. Never knows where on a slide a patch lies.
//!
//! Without the feature `torch`: model.toml, checkpoints as arrays, and the analytic model.

pub mod analytic;
#[cfg(feature = "torch")]
pub mod convert;
#[cfg(feature = "torch")]
pub mod design;
pub mod device;
#[cfg(feature = "torch")]
mod efficientnet;
pub mod error;
pub mod fake_device;
#[cfg(feature = "torch")]
pub mod folder;
pub mod hovernet;
#[cfg(feature = "torch")]
mod joined;
#[cfg(feature = "torch")]
pub mod layer;
#[cfg(feature = "torch")]
pub mod library;
#[cfg(feature = "torch")]
pub mod lite;
#[cfg(feature = "torch")]
pub mod network;
pub mod patch_model;
pub mod pickle;
mod pool;
mod precision;
pub mod spec;
pub mod torch_file;
#[cfg(feature = "torch")]
mod torch_worker;
#[cfg(feature = "torch")]
pub mod torchscript;
pub mod tta;
pub mod types_from;
#[cfg(feature = "torch")]
pub mod weights;
#[cfg(feature = "torch")]
pub mod wide;

pub use device::{Device, DeviceChoice};
pub use error::ModelError;
#[cfg(feature = "torch")]
pub use folder::ModelFolder;
#[cfg(feature = "torch")]
pub use library::Library;
#[cfg(feature = "torch")]
pub use network::Network;
pub use patch_model::{Model, PatchModel};
pub use pool::{BatchLimit, Feed, Pool};
pub use precision::Precision;
pub use spec::{Architecture, ModelSpec, TypeInfo};
pub use tta::Tta;
pub use types_from::{TypesFile, TypesFrom};
