//! Where to look: the tissue mask and regions of interest.
//!
//! In: a slide's low magnification (about 8 µm/px), or a PNG, GeoJSON or box. Out: a [`TissueMask`]. Decides which
//! patches run, never what a nucleus is.

use crate::slide::SlideError;

/// What can go wrong with a mask. Messages name the file, the place and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TissueError {
    #[error(transparent)]
    Slide(#[from] SlideError),
    #[error("{}: {reason}", path.display())]
    Mask {
        path: std::path::PathBuf,
        reason: String,
    },
}

/// A grid of cells over the whole slide; cell (i, j) covers level-0 px [i, i+1) x [j, j+1) times `cell_level0_px`.
/// The last column and row may stick out of the slide.
#[derive(Debug, Clone, PartialEq)]
pub struct TissueMask {
    pub width: u32,
    pub height: u32,
    /// Level-0 px a cell, x and y.
    pub cell_level0_px: [f64; 2],
    /// `width * height`, row by row; true = tissue.
    pub tissue: Vec<bool>,
}
