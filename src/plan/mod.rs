//! What will be done, before anything is done: the one patch grid of a slide, its tiles, and the memory budget.
//!
//! In: the slide's frames, the mask, the model's patch sizes, the tile size. Out: a [`Plan`]. The grid depends on the
//! slide and the model alone; tiles only group patches. Never reads a pixel and never changes a result.

use crate::geometry::Rect;

/// The one global grid of a slide: output squares tile it exactly, input windows overlap.
///
/// Patch (i, j) has the output square `[i, i+1) x [j, j+1) * patch_out_px`, clipped to the slide, and the input window
/// around it, `(patch_in_px - patch_out_px) / 2` wider on every side (it may stick out of the slide: reflected).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGrid {
    /// Width and height of the slide, proc px.
    pub slide_px: [i32; 2],
    pub patch_in_px: i32,
    pub patch_out_px: i32,
}

/// Column and row in the patch grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatchIndex {
    pub col: i32,
    pub row: i32,
}

/// A block of whole patches: the unit of work and of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Column and row in the tile grid.
    pub col: i32,
    pub row: i32,
    /// The tile's pixels, clipped to the slide, proc px.
    pub rect: Rect,
    /// The patches of this tile that meet the mask, in raster order. May be empty: such a tile is not run.
    pub patches: Vec<PatchIndex>,
}

/// Everything that will be run on one slide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub grid: PatchGrid,
    /// Patches a tile in x and y.
    pub tile_patches: i32,
    /// Tiles in x and y.
    pub tiles_xy: [i32; 2],
    /// Tiles with at least one patch, in raster order.
    pub tiles: Vec<Tile>,
}
