//! Fragments of blobs and the blobs that they make, pixels aside.
//!
//! In: the open fragments of tiles. Out: blobs, each with the runs of its parts. Of a fragment the
//! runs are always in memory, the pixels only while there is room: else they are read from the
//! store again, when the blob or the cell of it is segmented. Never segments anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::join::group_fragments;
use crate::geometry::Rect;
use crate::nuclei::{Foreground, Run, bounds_of, cut_runs_along_grid};

/// Where the pixels of a fragment are.
#[derive(Clone)]
pub(super) enum Pixels {
    /// The whole fragment as its tile has it.
    Held(Arc<Foreground>),
    /// In the store, in the tile's list of fragments.
    Stored(StoredAt),
}

/// The place of a fragment in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StoredAt {
    /// Column and row of the tile.
    pub tile: [i32; 2],
    /// Place in the tile's list of fragments.
    pub index: usize,
}

/// The part of a blob in one tile, less what is segmented already.
pub(super) struct Fragment {
    /// In raster order, never empty.
    pub runs: Vec<Run>,
    pub pixels: Pixels,
    pub stored_at: StoredAt,
    /// Number of type channels.
    pub types: usize,
    /// Proc px of the tile.
    pub tile: Rect,
    /// Its blob is one that [`crate::nuclei::CutRule`] cuts, and cells above are segmented already.
    pub cut: bool,
}

impl Fragment {
    pub fn new(whole: Foreground, stored_at: StoredAt, tile: Rect) -> Self {
        Self {
            runs: whole.runs.clone(),
            types: whole.types,
            pixels: Pixels::Held(Arc::new(whole)),
            stored_at,
            tile,
            cut: false,
        }
    }

    /// Number of pixels in memory.
    pub fn held_px(&self) -> usize {
        match &self.pixels {
            Pixels::Held(whole) => whole.len(),
            Pixels::Stored(_) => 0,
        }
    }

    /// Leaves the pixels to the store.
    pub fn release_pixels(&mut self) {
        self.pixels = Pixels::Stored(self.stored_at);
    }

    /// The same pixels, of which only `runs` count.
    fn part(&self, runs: Vec<Run>, cut: bool) -> Self {
        Self {
            runs,
            pixels: self.pixels.clone(),
            stored_at: self.stored_at,
            types: self.types,
            tile: self.tile,
            cut,
        }
    }
}

/// The fragments of one blob, or of one cell of a blob that is cut.
pub(super) struct Blob {
    pub parts: Vec<Fragment>,
    pub cut: bool,
}

impl Blob {
    pub fn different_tiles(&self) -> Vec<Rect> {
        let mut tiles: Vec<Rect> = self.parts.iter().map(|part| part.tile).collect();
        tiles.sort();
        tiles.dedup();
        tiles
    }

    pub fn bounds(&self) -> Rect {
        let boxes = self.parts.iter().map(|part| bounds_of(&part.runs));
        let none = Rect::new(0, 0, 0, 0);
        boxes.reduce(|a, b| a.hull(&b)).unwrap_or(none)
    }

    /// Whether all its pixels are in memory.
    pub fn is_held(&self) -> bool {
        let held = |part: &Fragment| matches!(part.pixels, Pixels::Held(_));
        self.parts.iter().all(held)
    }

    /// The part above row `line`, by (row, column) of the cells of the cut's grid, and the rest.
    pub fn split(self, grid_px: i32, line: i32) -> (BTreeMap<(i32, i32), Blob>, Vec<Fragment>) {
        let mut cells: BTreeMap<(i32, i32), Blob> = BTreeMap::new();
        let mut rest = Vec::new();
        for mut part in self.parts {
            let below = part.runs.partition_point(|run| run.y < line);
            let below = part.runs.split_off(below);
            for (place, runs) in cut_runs_along_grid(&part.runs, grid_px) {
                let cell = cells.entry(place).or_insert_with(|| Blob {
                    parts: Vec::new(),
                    cut: true,
                });
                cell.parts.push(part.part(runs, true));
            }
            if !below.is_empty() {
                rest.push(part.part(below, true));
            }
        }
        (cells, rest)
    }

    /// All its runs in raster order; runs that touch across a seam become one.
    pub fn join_runs(&self) -> Vec<Run> {
        let parts = self.parts.iter();
        let mut runs: Vec<Run> = parts.flat_map(|part| part.runs.iter().copied()).collect();
        // The stable sort uses stretches that are sorted already.
        runs.sort();
        runs.dedup_by(|next, run| {
            let touch = next.y == run.y && next.x0 <= run.x1;
            if touch {
                run.x1 = run.x1.max(next.x1);
            }
            touch
        });
        runs
    }
}

/// Joins fragments that touch.
pub(super) fn assemble_blobs(fragments: Vec<Fragment>) -> Vec<Blob> {
    let runs: Vec<&[Run]> = fragments.iter().map(|part| &part.runs[..]).collect();
    let groups = group_fragments(&runs);
    let mut fragments: Vec<Option<Fragment>> = fragments.into_iter().map(Some).collect();
    groups
        .into_iter()
        .map(|group| {
            // Every fragment is in exactly one group.
            let parts: Vec<Fragment> = group.iter().filter_map(|&i| fragments[i].take()).collect();
            Blob {
                cut: parts.iter().any(|part| part.cut),
                parts,
            }
        })
        .collect()
}
