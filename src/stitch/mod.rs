//! Joins what tile borders cut.
//!
//! In: [`TileResult`]s in any order. Out: all nuclei of the slide, sorted by first pixel in raster order. Fragments that
//! touch across tiles become the blob they were cut from, and the whole blob goes through post-processing once: so the
//! answer is that of one tile that holds the slide. A blob so large that post-processing cuts it goes there row by row of
//! the cut's grid, and only its last rows are held. Never moves, merges or drops a finished nucleus.

pub mod join;
pub mod overlap;

use std::collections::BTreeMap;

use rayon::prelude::*;

pub use join::join;
pub use overlap::{Overlap, check_disjoint, dedupe};

use crate::geometry::Rect;
use crate::nuclei::segment;
use crate::nuclei::{CUT, CutRule, Extent, Foreground, Nucleus};
use crate::result::{Coverage, SlideResult};
use crate::store::{Store, StoreError, TileResult, TileState};

/// How often tile borders cut something, and so how much stitching there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seams {
    /// Open fragments in all tiles.
    pub fragments: usize,
    /// Blobs that they were joined to; one that is cut counts for every leg that its last rows have.
    pub blobs: usize,
    /// Blobs with fragments of two or more tiles.
    pub blobs_over_2_tiles: usize,
    /// Nuclei with pixels in two or more tiles: a seam ran through them.
    pub nuclei_over_2_tiles: usize,
    /// Nuclei with pixels in four or more tiles: they lie on a crossing.
    pub nuclei_over_4_tiles: usize,
}

/// All nuclei of a slide and the sums of its tiles' accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stitched {
    /// Sorted by [`Nucleus::first_pixel`].
    pub nuclei: Vec<Nucleus>,
    pub seams: Seams,
    pub done_px: u64,
    pub unreadable_px: u64,
    pub outside_px: u64,
    /// Each once, sorted.
    pub read_errors: Vec<String>,
}

/// Joins the tiles of one slide.
///
/// `merge` makes one blob of its parts (`Foreground::merge`), `segment` makes nuclei of one blob, or of one cell of one
/// that is cut (`nuclei::segment_extent`); both must be pure. Blobs run in parallel; neither threads nor the tiles' order
/// or size can change the result.
pub fn stitch(
    tiles: impl IntoIterator<Item = TileResult>,
    merge: impl Fn(&[Foreground]) -> Foreground + Sync,
    segment: impl Fn(&Foreground, Extent) -> Vec<Nucleus> + Sync,
) -> Stitched {
    let mut stitcher = Stitcher::new(CUT, merge, segment);
    for tile in tiles {
        stitcher.add(tile);
    }
    stitcher.finish()
}

/// Joins tiles as they come, so that only blobs that may still grow are held.
struct Stitcher<M, S> {
    cut: CutRule,
    merge: M,
    segment: S,
    done: Stitched,
    /// Fragments of blobs that may still grow.
    open: Vec<Fragment>,
}

/// What a tile, or a row of the cut's grid, left of a blob.
struct Fragment {
    part: Foreground,
    tile: Rect,
    /// Its blob is known to be cut, and what lay above has gone.
    cut: bool,
}

/// What one blob gave.
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

    /// Every tile above proc row `y` has been added: blobs that end before it become nuclei, and so do those cells of a
    /// blob that is cut which end before it.
    fn close_above(&mut self, y: i32) {
        let (mut ready, mut cells) = (Vec::new(), Vec::new());
        for blob in gather(std::mem::take(&mut self.open)) {
            let bounds = blob.bounds();
            let grows = bounds.bottom() >= y;
            if !grows {
                self.done.seams.blobs += 1;
                // A blob whose upper cells have gone has been in two rows of tiles.
                let over_2 = blob.cut || blob.different_tiles().len() >= 2;
                self.done.seams.blobs_over_2_tiles += usize::from(over_2);
            }
            if blob.cut || bounds.area() > self.cut.over_px {
                let line = match grows {
                    // What touches row `y` must stay: what comes below finds its blob by it.
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
        let segmented: Vec<Segmented> = ready.par_iter().map(|b| self.segmented(b)).collect();
        segmented.into_iter().for_each(|blob| self.done.add(blob));
        // One after the other: each takes memory for its whole box.
        for cell in cells {
            let segmented = self.segmented(&cell);
            self.done.add(segmented);
        }
    }

    fn segmented(&self, blob: &Blob) -> Segmented {
        let extent = match blob.cut {
            true => Extent::Cell,
            false => Extent::Whole,
        };
        let nuclei = match &blob.parts[..] {
            [whole] => (self.segment)(whole, extent),
            parts => (self.segment)(&(self.merge)(parts), extent),
        };
        let tiles = blob.different_tiles();
        let over = |n| {
            let many = |nucleus: &&Nucleus| lies_over(nucleus, &tiles) >= n;
            nuclei.iter().filter(many).count()
        };
        Segmented {
            over_2_tiles: over(2),
            over_4_tiles: over(4),
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

    /// What it has above row `line` of the grid by cells, and the rest, which is known to be cut.
    fn split(self, grid_px: i32, line: i32) -> (Vec<Blob>, Vec<Fragment>) {
        let mut cells: BTreeMap<(i32, i32), Blob> = BTreeMap::new();
        let mut rest = Vec::new();
        for (part, tile) in self.parts.into_iter().zip(self.tiles) {
            let (above, below) = part.split_at_row(line);
            for (place, part) in segment::cells(&above, grid_px) {
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

fn gather(fragments: Vec<Fragment>) -> Vec<Blob> {
    let (parts, from): (Vec<_>, Vec<_>) = fragments
        .into_iter()
        .map(|f| (f.part, (f.tile, f.cut)))
        .unzip();
    let groups = join(&parts);
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

/// In how many of `tiles` the nucleus has a pixel.
fn lies_over(nucleus: &Nucleus, tiles: &[Rect]) -> usize {
    let has_pixel = |tile: &&Rect| {
        let part = nucleus.bbox.intersect(tile);
        (part.y..part.bottom()).any(|y| (part.x..part.right()).any(|x| nucleus.contains(x, y)))
    };
    tiles.iter().filter(has_pixel).count()
}

/// A store's tiles as one slide, and what was noticed on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub slide: SlideResult,
    pub seams: Seams,
    /// Tiles whose chunk is there but fails its check, with the reason; they count as missing.
    pub damaged: Vec<([i32; 2], String)>,
    /// Every kind of hardware and libraries that made a tile, with its number of tiles.
    pub numerics: BTreeMap<String, usize>,
}

/// Reads every planned tile of a store and joins them: all that the outputs need. Holds one row of tiles at a time,
/// beside finished nuclei and blobs that cross the row's lower border: whole, or their last cells if they are cut.
pub fn load(
    store: &Store,
    merge: impl Fn(&[Foreground]) -> Foreground + Sync,
    segment: impl Fn(&Foreground, Extent) -> Vec<Nucleus> + Sync,
) -> Result<Loaded, StoreError> {
    let mut planned = store.meta().layout.planned_tiles.clone();
    planned.sort_unstable_by_key(|&[col, row]| (row, col));
    let mut stitcher = Stitcher::new(CUT, merge, segment);
    let (mut tiles, mut damaged, mut kinds) = (0, Vec::new(), BTreeMap::new());
    // After each row of tiles, what ends within it is whole.
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
                    tiles += 1;
                }
                TileState::Damaged(reason) => damaged.push((place, reason)),
                TileState::Absent => {}
            }
        }
        if let Some(bottom) = bottom {
            stitcher.close_above(bottom);
        }
    }
    let missing_tiles = planned.len() - tiles;
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
        },
        seams: all.seams,
        damaged,
        numerics: kinds,
    })
}

#[cfg(test)]
mod tests;
