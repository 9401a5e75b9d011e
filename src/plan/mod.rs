//! What a run will do: the patch grid of a slide and its tiles.
//!
//! In: the slide's frames, the area to look at, the model's patch sizes, the tile size. Out: a
//! [`Plan`]. The grid depends on the slide and the model alone; tiles only group patches, so their
//! size changes no result. Never reads a pixel.

mod shard;

use serde::{Deserialize, Serialize};

use crate::geometry::Rect;
use crate::slide::Frames;
use crate::tissue::Area;

pub use shard::Shard;

/// The patch grid of a slide: output squares tile the slide exactly, input windows overlap.
///
/// Patch (i, j) has the output square `[i, i+1) x [j, j+1) * patch_out_px`, clipped to the slide.
/// Its input window is `(patch_in_px - patch_out_px) / 2` px wider on every side; outside the slide
/// it is filled by reflection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGrid {
    /// Width and height of the slide, proc px.
    pub slide_px: [i32; 2],
    /// Side of the network's input, proc px.
    pub patch_in_px: i32,
    /// Side of the output square, proc px.
    pub patch_out_px: i32,
}

/// Column and row in the patch grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatchIndex {
    /// From the left, from 0.
    pub col: i32,
    /// From the top, from 0.
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
    /// The patches of this tile that run, in raster order; at least one.
    pub patches: Vec<PatchIndex>,
}

/// Everything that will be run on one slide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub grid: PatchGrid,
    /// Patches per tile in x and in y.
    pub tile_patches: i32,
    /// Tiles in x and y.
    pub tiles_xy: [i32; 2],
    /// Tiles with at least one patch, in raster order.
    pub tiles: Vec<Tile>,
}

/// How a slide was cut into tiles: what a checkpoint must know to be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileLayout {
    /// Patches per side of a tile: the checkpoint's own wins on resume.
    pub tile_patches: i32,
    /// Tiles in x and y.
    pub tiles_xy: [i32; 2],
    /// Columns and rows of the tiles that have patches, in raster order.
    pub planned_tiles: Vec<[i32; 2]>,
    pub patch_in_px: i32,
    pub patch_out_px: i32,
}

impl TileLayout {
    /// Proc px of the planned tiles, clipped to a slide of `slide_px` (width, height).
    pub fn planned_tiles_px(&self, slide_px: [i32; 2]) -> u64 {
        let grid = PatchGrid {
            slide_px,
            patch_in_px: self.patch_in_px,
            patch_out_px: self.patch_out_px,
        };
        let tiles = self.planned_tiles.iter();
        tiles
            .map(|&[col, row]| grid.blocks(col, row, self.tile_patches).area())
            .sum()
    }
}

impl PatchGrid {
    /// Columns of patches that cover the slide.
    pub fn cols(&self) -> i32 {
        div_ceil(self.slide_px[0], self.patch_out_px)
    }

    /// Rows of patches that cover the slide.
    pub fn rows(&self) -> i32 {
        div_ceil(self.slide_px[1], self.patch_out_px)
    }

    /// A patch's output square, clipped to the slide, proc px.
    pub fn out_rect(&self, patch: PatchIndex) -> Rect {
        self.blocks(patch.col, patch.row, 1)
    }

    /// A patch's input window, proc px. It is never clipped. Output px (0, 0) is input px (m, m)
    /// with m = `(patch_in_px - patch_out_px) / 2`.
    pub fn in_rect(&self, patch: PatchIndex) -> Rect {
        let margin = (self.patch_in_px - self.patch_out_px) / 2;
        Rect::new(
            patch.col * self.patch_out_px - margin,
            patch.row * self.patch_out_px - margin,
            self.patch_in_px,
            self.patch_in_px,
        )
    }

    /// Block (`col`, `row`) of `side` x `side` patches, clipped to the slide.
    fn blocks(&self, col: i32, row: i32, side: i32) -> Rect {
        let px = self.patch_out_px.saturating_mul(side);
        let (x, y) = (col.saturating_mul(px), row.saturating_mul(px));
        let [width, height] = self.slide_px;
        Rect::new(x, y, px.min(width - x).max(0), px.min(height - y).max(0))
    }
}

impl Tile {
    /// Proc px that will be predicted: those of the tile's output squares.
    pub fn planned_px(&self, grid: &PatchGrid) -> u64 {
        let squares = self.patches.iter().map(|&patch| grid.out_rect(patch));
        squares.map(|square| square.area()).sum()
    }
}

impl Plan {
    /// Chooses the patches whose output square meets `area`, and groups them into tiles with a side
    /// of about `tile_size_px` proc px: `max(1, round(tile_size_px / patch_out_px))` patches. The
    /// choice of patches does not depend on the tiles.
    pub fn new(grid: PatchGrid, tile_size_px: i32, frames: &Frames, area: &Area) -> Self {
        let tile_patches = (f64::from(tile_size_px) / f64::from(grid.patch_out_px))
            .round()
            .max(1.0) as i32;
        let tiles_xy = [
            div_ceil(grid.cols(), tile_patches),
            div_ceil(grid.rows(), tile_patches),
        ];
        let mut tiles = Vec::new();
        for row in 0..tiles_xy[1] {
            for col in 0..tiles_xy[0] {
                let patches = patches_of_tile(&grid, col, row, tile_patches)
                    .filter(|&patch| area.meets(frames.rect_to_level0(grid.out_rect(patch))))
                    .collect::<Vec<_>>();
                if !patches.is_empty() {
                    tiles.push(Tile {
                        col,
                        row,
                        rect: grid.blocks(col, row, tile_patches),
                        patches,
                    });
                }
            }
        }
        Self {
            grid,
            tile_patches,
            tiles_xy,
            tiles,
        }
    }

    /// What a checkpoint keeps of this plan.
    pub fn layout(&self) -> TileLayout {
        TileLayout {
            tile_patches: self.tile_patches,
            tiles_xy: self.tiles_xy,
            planned_tiles: self.tiles.iter().map(|t| [t.col, t.row]).collect(),
            patch_in_px: self.grid.patch_in_px,
            patch_out_px: self.grid.patch_out_px,
        }
    }

    /// Number of patches in all tiles.
    pub fn patches(&self) -> usize {
        self.tiles.iter().map(|tile| tile.patches.len()).sum()
    }

    /// Proc px that will be predicted.
    pub fn planned_px(&self) -> u64 {
        let tiles = self.tiles.iter();
        tiles.map(|tile| tile.planned_px(&self.grid)).sum()
    }
}

/// The patches of a tile, `side` x `side`, in raster order.
fn patches_of_tile(
    grid: &PatchGrid,
    col: i32,
    row: i32,
    side: i32,
) -> impl Iterator<Item = PatchIndex> + use<> {
    let (cols, rows) = (grid.cols(), grid.rows());
    let range = |tile: i32, end: i32| {
        let start = tile.saturating_mul(side);
        start..start.saturating_add(side).min(end)
    };
    let (cols, rows) = (range(col, cols), range(row, rows));
    rows.flat_map(move |row| cols.clone().map(move |col| PatchIndex { col, row }))
}

fn div_ceil(px: i32, side: i32) -> i32 {
    let side = side.max(1);
    px / side + i32::from(px % side > 0)
}

#[cfg(test)]
mod tests;
