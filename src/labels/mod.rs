//! Labelled images: pictures whose nuclei an expert marked.
//!
//! In: folders in one of several formats, and what a [`DataSet`] says about them. Out:
//! [`LabelledImage`]s for training, [`Annotation`]s (truth or predictions) for scoring, and what is
//! wrong with a set ([`check`]). An unusable file is an error that names it; nothing is dropped
//! silently. Never scores, never trains.

mod annotation;
pub mod check;
pub mod data_set;
pub mod folders;
pub mod formats;
mod ids;
mod label_map;
mod labelled_image;
mod mat_file;
mod points_table;

use std::path::PathBuf;

pub use annotation::{Annotation, Detections};
pub use data_set::{DataSet, Format, LoadedSet};
pub use labelled_image::{Dot, LabelledImage, Truth};

/// Labels that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct LabelError {
    pub path: PathBuf,
    /// What is wrong with the file, and how to cure it.
    pub reason: String,
}

impl LabelError {
    pub fn new(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self {
            path: path.into(),
            reason: reason.to_string(),
        }
    }
}
