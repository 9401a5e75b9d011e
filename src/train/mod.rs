//! Learning a model from labelled images.
//!
//! In: a [`config::TrainConfig`] (data sets, scales, schedule) and, for the encoder, ImageNet weights. Out: a model
//! folder. Every crop is a pure function of (seed, step, place in the batch), so a training that was killed goes on
//! from its last checkpoint as if it had not been. Never reads a held-out image.

mod answers;
pub mod augment;
pub mod average;
pub mod batch;
pub mod check;
pub mod checkpoint;
pub mod confidence;
pub mod config;
pub mod crops;
pub mod data;
mod division;
pub mod formats;
pub mod hovernet;
pub mod initial;
pub mod learner;
mod least_squares;
pub mod losses;
pub mod optimizer;
pub mod package;
pub mod page;
pub mod run;
pub mod targets;
pub mod teacher;
pub mod tune;
pub mod validate;
pub mod weights;

use std::path::PathBuf;

/// What can go wrong. Messages name the file, the place and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
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
    pub fn file(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::File {
            path: path.into(),
            reason: reason.to_string(),
        }
    }
}
