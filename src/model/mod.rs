//! Networks and their folders.
//!
//! In: a model folder (model.toml + model.safetensors), a device, RGB patches. Out: [`PredictionMap`]s. One trait, one
//! place where a network's raw output becomes a `PredictionMap`. Never knows where on a slide a patch lies.

pub mod map;
pub mod spec;

pub use map::PredictionMap;
pub use spec::{Architecture, ModelSpec, TypeInfo};
pub mod lite;
pub mod network;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("missing {0}")]
    MissingTensor(String),
}
