//! Where to look: the tissue mask and regions of interest.
//!
//! In: a slide at low magnification (about 8 µm/px), or a PNG, GeoJSON or box. Out: a
//! [`TissueMask`] and the [`Area`] in which patches run. Never decides what a nucleus is.

mod area;
mod choice;
mod clean;
mod detect;
mod otsu;
mod plausible;
mod png;
mod region;
mod regions;

pub use area::Area;
pub use choice::{MaskChoice, TissueSource};
pub use detect::detect;
pub use plausible::{is_rich_in_hematoxylin, optical_density, share_warning, stain_warning};
pub use region::Region;
pub use regions::Regions;

use crate::slide::SlideError;

/// Errors of masks and regions. Messages name the file, the place and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TissueError {
    #[error(transparent)]
    Slide(#[from] SlideError),
    #[error("{}: {reason}", path.display())]
    Mask {
        path: std::path::PathBuf,
        reason: String,
    },
    #[error("{}: {place}: {reason}", path.display())]
    Region {
        path: std::path::PathBuf,
        place: String,
        reason: String,
    },
}

/// A grid of cells over the whole slide. Cell (i, j) covers level-0 px
/// [i, i+1) x [j, j+1) times `cell_level0_px`; the last column and row may stick out of the slide.
#[derive(Debug, Clone, PartialEq)]
pub struct TissueMask {
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Level-0 px per cell, x and y.
    pub cell_level0_px: [f64; 2],
    /// `[height, width]`, row by row; true = tissue.
    pub tissue: Vec<bool>,
}

impl TissueMask {
    /// Cells of about 8 µm over a slide, all of one kind.
    pub(crate) fn uniform(level0_size_px: [u64; 2], level0_mpp: [f64; 2], tissue: bool) -> Self {
        let (cell_level0_px, [width, height]) = detect::mask_grid(level0_size_px, level0_mpp);
        Self {
            width,
            height,
            cell_level0_px,
            tissue: vec![tissue; width as usize * height as usize],
        }
    }

    /// Everything is tissue (`--mask none`).
    pub fn all(level0_size_px: [u64; 2], level0_mpp: [f64; 2]) -> Self {
        Self::uniform(level0_size_px, level0_mpp, true)
    }

    /// Whether cell (`col`, `row`) is tissue; false outside the grid.
    pub fn is_tissue(&self, col: u32, row: u32) -> bool {
        let at = row as usize * self.width as usize + col as usize;
        col < self.width && self.tissue.get(at).copied().unwrap_or(false)
    }

    /// Whether a point (level-0 px, edge frame) is in a tissue cell.
    pub fn contains(&self, [x, y]: [f64; 2]) -> bool {
        let [w, h] = self.cell_level0_px;
        x >= 0.0 && y >= 0.0 && self.is_tissue((x / w) as u32, (y / h) as u32)
    }

    /// A cell's box in level-0 px, clipped to the slide: left, top, right, bottom.
    fn cell_level0(&self, col: u32, row: u32, level0_size_px: [u64; 2]) -> [f64; 4] {
        let [w, h] = self.cell_level0_px;
        let [right, bottom] = level0_size_px.map(|px| px as f64);
        [
            (f64::from(col) * w).min(right),
            (f64::from(row) * h).min(bottom),
            (f64::from(col + 1) * w).min(right),
            (f64::from(row + 1) * h).min(bottom),
        ]
    }

    /// mm² of tissue on the slide.
    pub fn tissue_mm2(&self, level0_size_px: [u64; 2], level0_mpp: [f64; 2]) -> f64 {
        let mut px = 0.0;
        for row in 0..self.height {
            for col in 0..self.width {
                if self.is_tissue(col, row) {
                    let cell = self.cell_level0(col, row, level0_size_px);
                    px += (cell[2] - cell[0]) * (cell[3] - cell[1]);
                }
            }
        }
        px * level0_mpp[0] * level0_mpp[1] / 1e6
    }
}

#[cfg(test)]
mod tests;
