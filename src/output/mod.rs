//! One writer a format.
//!
//! In: a [`SlideResult`], which the store alone can give, and pictures. Out: files, each written whole or not at all.
//! Never reads a slide, and never writes a clock, a host or a random number into a result (run.json is no result).

mod atomic;
pub mod labels;
pub mod nuclei_json;
mod outline;
pub mod pictures;
pub mod record;
pub mod run_json;
pub mod summary_json;

#[cfg(test)]
pub(crate) mod fixture;

use std::path::PathBuf;

use crate::nuclei::Nucleus;
use crate::slide::frames::Frames;
use crate::store::StoreMeta;

pub use record::Record;

/// A file that could not be written. Messages name the file, what happened and the cure.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("{}: cannot be written: {source}: check the folder, its rights and the free space", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
}

/// Everything the writers need about one finished slide.
#[derive(Debug, Clone, PartialEq)]
pub struct SlideResult {
    pub meta: StoreMeta,
    /// Sorted by first pixel in raster order; a nucleus's id is its place, from 1.
    pub nuclei: Vec<Nucleus>,
    pub done_px: u64,
    pub unreadable_px: u64,
    /// Planned tiles' proc px that no patch covers.
    pub outside_px: u64,
    /// Planned tiles without a valid chunk (0 when complete).
    pub missing_tiles: usize,
    pub read_errors: Vec<String>,
}

impl SlideResult {
    pub fn frames(&self) -> &Frames {
        &self.meta.frames
    }

    /// The nuclei with their ids, types and level-0 coordinates, in order of id.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (1u64..)
            .zip(&self.nuclei)
            .map(|(id, nucleus)| Record::new(id, nucleus, self))
    }
}

/// To 6 significant digits, so that tables stay readable; the same text on every machine. `None` for what is no number.
pub fn significant(value: f64) -> Option<f64> {
    if !value.is_finite() {
        return None;
    }
    // Scientific notation rounds decimally, once.
    format!("{value:.5e}").parse().ok()
}
