//! Learning a model from labelled images.
//!
//! In: a [`config::TrainConfig`] (data sets, scales, schedule), and ImageNet weights for the
//! encoder or the weights of another model. Out: a model folder. Every crop is a pure function of
//! (seed, step, index in the batch), so a killed training that goes on from its last checkpoint
//! gives the same weights as one that ran through. Held-out images serve
//! validation and the constants that [`tune`] fits, nothing else.

mod atlas;
mod augment;
pub mod average;
mod batch;
pub mod checkpoint;
pub mod config;
mod crops;
mod hovernet;
mod initial;
pub mod join;
pub mod learner;
mod losses;
mod optimizer;
pub mod package;
mod page;
pub mod run;
mod targets;
pub mod teacher;
pub mod tune;
mod validate;
mod weights;

use std::path::PathBuf;

use crate::labels::LabelError;

/// What can go wrong. Messages name the file, the place and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{0}")]
    Config(String),
    #[error(
        "step {step}: the loss is not a number: lower lr, or look at the data with `data check`"
    )]
    NotANumber { step: u64 },
    #[error(
        "not enough memory for {batch} crops at once: try --batch {fits}, with --accumulate to keep a step as large"
    )]
    Memory { batch: usize, fits: usize },
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl TrainError {
    /// A file that cannot be used, and why.
    pub fn file(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::File {
            path: path.into(),
            reason: reason.to_string(),
        }
    }
}
