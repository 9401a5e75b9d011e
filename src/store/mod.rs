//! The checkpoint and single source of truth of a slide: a Zarr v3 store of self-identifying chunks.
//!
//! In: one [`TileResult`] a finished tile. Out: the same, checked, for stitching and outputs. Every write is atomic
//! (temp file, fsync, rename, fsync folder). Never holds anything that an interrupted run could leave half-written.

use crate::geometry::Rect;
use crate::nuclei::{Foreground, Nucleus};

/// What one tile came to: the content of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileResult {
    /// Column and row in the tile grid.
    pub col: i32,
    pub row: i32,
    /// Proc px covered, clipped to the slide.
    pub rect: Rect,
    /// Proc px whose patch was inferred.
    pub done_px: u64,
    /// Proc px whose patch could not be read.
    pub unreadable_px: u64,
    /// Proc px of the tile that no planned patch covers.
    pub outside_px: u64,
    /// Why patches could not be read (deduplicated, at most a few).
    pub read_errors: Vec<String>,
    /// Nuclei of blobs that do not touch an inner border of the tile grid.
    pub nuclei: Vec<Nucleus>,
    /// Blobs that do: whole components of this tile, open.
    pub fragments: Vec<Foreground>,
}
