//! Joins the tiles of a slide.
//!
//! In: [`TileResult`]s in any order. Out: all nuclei of the slide, sorted by first pixel in raster
//! order. Fragments that touch across tiles are joined to the blob that the tile borders cut, and
//! the whole blob is segmented once: the result is that of a single tile as large as the slide. A
//! blob so large that [`CutRule`] cuts it is segmented row by row of the cut's grid, and only its
//! last rows are held. Never moves, merges or drops a finished nucleus.

mod join;
mod overlap;

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

pub use overlap::{Overlap, check_disjoint};

use self::join::group_fragments;
use crate::geometry::Rect;
use crate::nuclei::{CUT, CutRule, Extent, Foreground, Nucleus, cut_along_grid};
use crate::plan::PatchIndex;
use crate::result::{Coverage, SlideResult};
use crate::store::{Store, StoreError, TileResult, TileState};

/// How many blobs and nuclei the borders of tiles cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seams {
    /// Open fragments in all tiles.
    pub fragments: usize,
    /// Blobs that the fragments were joined to. A blob that [`CutRule`] cuts counts once per
    /// connected part of its last rows.
    pub blobs: usize,
    /// Blobs with fragments of two or more tiles.
    pub blobs_over_2_tiles: usize,
    /// Nuclei with pixels in two or more tiles.
    pub nuclei_over_2_tiles: usize,
    /// Nuclei with pixels in four or more tiles.
    pub nuclei_over_4_tiles: usize,
}

/// All nuclei of a slide, and the sums over its tiles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stitched {
    /// Sorted by [`Nucleus::first_pixel`].
    nuclei: Vec<Nucleus>,
    seams: Seams,
    done_px: u64,
    unreadable_px: u64,
    outside_px: u64,
    unreadable: Vec<PatchIndex>,
    /// Sorted, without duplicates.
    read_errors: Vec<String>,
}

/// Joins tiles as they come; holds only the blobs that may still grow.
struct Stitcher<M, S> {
    cut: CutRule,
    merge: M,
    segment: S,
    done: Stitched,
    /// Fragments of blobs that may still grow.
    open: Vec<Fragment>,
}

/// The part of a blob in one tile, less the rows that are segmented already.
struct Fragment {
    part: Foreground,
    tile: Rect,
    /// Its blob is one that [`CutRule`] cuts, and cells above are segmented already.
    cut: bool,
}

/// The nuclei of one blob, and how many of them lie over several tiles.
struct Segmented {
    nuclei: Vec<Nucleus>,
    over_2_tiles: usize,
    over_4_tiles: usize,
}

impl Stitched {
    fn add(&mut self, blob: Segmented) {
        self.nuclei.extend(blob.nuclei);
        self.seams.nuclei_over_2_tiles += blob.over_2_tiles;
        self.seams.nuclei_over_4_tiles += blob.over_4_tiles;
    }
}

impl<M, S> Stitcher<M, S>
where
    M: Fn(&[Foreground]) -> Foreground + Sync,
    S: Fn(&Foreground, Extent) -> Vec<Nucleus> + Sync,
{
    fn new(cut: CutRule, merge: M, segment: S) -> Self {
        Self {
            cut,
            merge,
            segment,
            done: Stitched::default(),
            open: Vec::new(),
        }
    }

    fn add(&mut self, tile: TileResult) {
        let done = &mut self.done;
        done.done_px += tile.done_px;
        done.unreadable_px += tile.unreadable_px;
        done.outside_px += tile.outside_px;
        done.unreadable.extend(tile.unreadable);
        done.read_errors.extend(tile.read_errors);
        done.nuclei.extend(tile.nuclei);
        done.seams.fragments += tile.fragments.len();
        let fragments = tile.fragments.into_iter().map(|part| Fragment {
            part,
            tile: tile.rect,
            cut: false,
        });
        self.open.extend(fragments);
    }

    /// Segments the blobs that end above proc row `y`, and of blobs that are cut the cells that end
    /// above it. Every tile above row `y` must have been added.
    fn close_above(&mut self, y: i32) {
        let (mut ready, mut cells) = (Vec::new(), Vec::new());
        for blob in assemble_blobs(std::mem::take(&mut self.open)) {
            let bounds = blob.bounds();
            let grows = bounds.bottom() >= y;
            if !grows {
                self.done.seams.blobs += 1;
                // A blob whose upper cells are segmented already was in two rows of tiles.
                let over_2 = blob.cut || blob.different_tiles().len() >= 2;
                self.done.seams.blobs_over_2_tiles += usize::from(over_2);
            }
            if blob.cut || bounds.area() > self.cut.over_px {
                let line = match grows {
                    // The cells that touch row `y` must stay: tiles below are joined to them.
                    true => (y - 1).div_euclid(self.cut.grid_px) * self.cut.grid_px,
                    false => i32::MAX,
                };
                let (above, rest) = blob.split(self.cut.grid_px, line);
                cells.extend(above);
                self.open.extend(rest);
            } else if grows {
                self.open.extend(blob.fragments());
            } else {
                ready.push(blob);
            }
        }
        let segmented: Vec<Segmented> = ready.par_iter().map(|b| self.segment_blob(b)).collect();
        segmented.into_iter().for_each(|blob| self.done.add(blob));
        // One after the other, because each takes memory for its whole box.
        for cell in cells {
            let segmented = self.segment_blob(&cell);
            self.done.add(segmented);
        }
    }

    fn segment_blob(&self, blob: &Blob) -> Segmented {
        let extent = match blob.cut {
            true => Extent::CutCell,
            false => Extent::Whole,
        };
        let nuclei = match &blob.parts[..] {
            [whole] => (self.segment)(whole, extent),
            parts => (self.segment)(&(self.merge)(parts), extent),
        };
        let tiles = blob.different_tiles();
        let count_over = |n| {
            let lies_over = |nucleus: &&Nucleus| count_tiles(nucleus, &tiles) >= n;
            nuclei.iter().filter(lies_over).count()
        };
        Segmented {
            over_2_tiles: count_over(2),
            over_4_tiles: count_over(4),
            nuclei,
        }
    }

    fn finish(mut self) -> Stitched {
        self.close_above(i32::MAX);
        let mut done = self.done;
        done.read_errors.sort();
        done.read_errors.dedup();
        done.nuclei.par_sort_by_cached_key(Nucleus::first_pixel);
        done
    }
}

/// The fragments of one blob.
struct Blob {
    parts: Vec<Foreground>,
    /// The tile of each part.
    tiles: Vec<Rect>,
    cut: bool,
}

impl Blob {
    fn different_tiles(&self) -> Vec<Rect> {
        let mut tiles = self.tiles.clone();
        tiles.sort();
        tiles.dedup();
        tiles
    }

    fn bounds(&self) -> Rect {
        let boxes = self.parts.iter().map(Foreground::bounds);
        let none = Rect::new(0, 0, 0, 0);
        boxes.reduce(|a, b| a.hull(&b)).unwrap_or(none)
    }

    /// The part above row `line`, by cells of the cut's grid, and the rest.
    fn split(self, grid_px: i32, line: i32) -> (Vec<Blob>, Vec<Fragment>) {
        let mut cells: BTreeMap<(i32, i32), Blob> = BTreeMap::new();
        let mut rest = Vec::new();
        for (part, tile) in self.parts.into_iter().zip(self.tiles) {
            let (above, below) = part.split_at_row(line);
            for (place, part) in cut_along_grid(&above, grid_px) {
                let cell = cells.entry(place).or_insert_with(|| Blob {
                    parts: Vec::new(),
                    tiles: Vec::new(),
                    cut: true,
                });
                cell.parts.push(part);
                cell.tiles.push(tile);
            }
            if !below.is_empty() {
                rest.push(Fragment {
                    part: below,
                    tile,
                    cut: true,
                });
            }
        }
        (cells.into_values().collect(), rest)
    }

    fn fragments(self) -> impl Iterator<Item = Fragment> {
        let cut = self.cut;
        let parts = self.parts.into_iter().zip(self.tiles);
        parts.map(move |(part, tile)| Fragment { part, tile, cut })
    }
}

/// Joins fragments that touch.
fn assemble_blobs(fragments: Vec<Fragment>) -> Vec<Blob> {
    let (parts, from): (Vec<_>, Vec<_>) = fragments
        .into_iter()
        .map(|f| (f.part, (f.tile, f.cut)))
        .unzip();
    let groups = group_fragments(&parts);
    let mut parts: Vec<Option<Foreground>> = parts.into_iter().map(Some).collect();
    groups
        .into_iter()
        .map(|group| Blob {
            tiles: group.iter().map(|&i| from[i].0).collect(),
            cut: group.iter().any(|&i| from[i].1),
            // Every fragment is in exactly one group.
            parts: group.iter().filter_map(|&i| parts[i].take()).collect(),
        })
        .collect()
}

/// The number of `tiles` in which the nucleus has a pixel.
fn count_tiles(nucleus: &Nucleus, tiles: &[Rect]) -> usize {
    let has_pixel = |tile: &&Rect| {
        let part = nucleus.bbox.intersect(tile);
        (part.y..part.bottom()).any(|y| (part.x..part.right()).any(|x| nucleus.contains(x, y)))
    };
    tiles.iter().filter(has_pixel).count()
}

/// The tiles of a store as one slide, and what their chunks say about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub slide: SlideResult,
    pub seams: Seams,
    /// Tiles whose chunk exists but fails its check, with the reason; they count as missing.
    pub damaged: Vec<([i32; 2], String)>,
    /// Columns and rows of the planned tiles that have a result.
    pub tiles: HashSet<[i32; 2]>,
    /// The patches of these tiles that could not be read.
    pub unreadable: Vec<PatchIndex>,
    /// The number of tiles by the hardware and libraries that made them.
    pub numerics: BTreeMap<String, usize>,
}

/// Reads every planned tile of a store and joins them.
///
/// `merge` makes one blob of its parts (`Foreground::merge`). `segment` makes nuclei of a blob, or
/// of one cell of a blob that is cut (`nuclei::segment_extent`). Both must be pure. Blobs are
/// segmented in parallel; neither threads nor the order or size of tiles can change the result.
///
/// Holds one row of tiles at a time, finished nuclei, and the blobs that cross the row's lower
/// border (of a blob that is cut, its last cells only).
///
/// # Errors
/// A chunk that cannot be read. A chunk that fails its check is no error: see [`Loaded::damaged`].
pub fn load(
    store: &Store,
    merge: impl Fn(&[Foreground]) -> Foreground + Sync,
    segment: impl Fn(&Foreground, Extent) -> Vec<Nucleus> + Sync,
) -> Result<Loaded, StoreError> {
    let mut planned = store.meta().layout.planned_tiles.clone();
    planned.sort_unstable_by_key(|&[col, row]| (row, col));
    let mut stitcher = Stitcher::new(CUT, merge, segment);
    let (mut tiles, mut damaged, mut kinds) = (HashSet::new(), Vec::new(), BTreeMap::new());
    // A blob that ends within a row of tiles is complete after that row.
    for row in planned.chunk_by(|a, b| a[1] == b[1]) {
        let states: Vec<TileState> = row
            .par_iter()
            .map(|&[col, row]| store.tile_state(col, row))
            .collect::<Result<_, _>>()?;
        let mut bottom = None;
        for (&place, state) in row.iter().zip(states) {
            match state {
                TileState::Done { tile, numerics } => {
                    bottom = bottom.max(Some(tile.rect.bottom()));
                    stitcher.add(*tile);
                    *kinds.entry(numerics).or_default() += 1;
                    tiles.insert(place);
                }
                TileState::Damaged(reason) => damaged.push((place, reason)),
                TileState::Absent => {}
            }
        }
        if let Some(bottom) = bottom {
            stitcher.close_above(bottom);
        }
    }
    let missing_tiles = planned.len() - tiles.len();
    let meta = store.meta();
    let all = stitcher.finish();
    Ok(Loaded {
        slide: SlideResult {
            meta: meta.slide_meta(),
            nuclei: all.nuclei,
            coverage: Coverage {
                planned_tiles: planned.len(),
                tiles_px: meta.layout.planned_tiles_px(meta.frames.proc_size_px),
                done_px: all.done_px,
                unreadable_px: all.unreadable_px,
                outside_px: all.outside_px,
                missing_tiles,
            },
            read_errors: all.read_errors,
            rings: None,
            imported: None,
            examined: None,
        },
        seams: all.seams,
        damaged,
        tiles,
        unreadable: all.unreadable,
        numerics: kinds,
    })
}

#[cfg(test)]
mod tests;
