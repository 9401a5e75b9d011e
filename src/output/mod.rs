//! One writer a format.
//!
//! In: a [`SlideResult`], which the store alone can give. Out: files, each written whole or not at all. Never measures,
//! never reads a slide.

use crate::nuclei::Nucleus;
use crate::slide::frames::Frames;
use crate::store::StoreMeta;

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
}
