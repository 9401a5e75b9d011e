//! Joins what tile borders cut.
//!
//! In: [`TileResult`]s in any order. Out: all nuclei of the slide, sorted by first pixel in raster order. Fragments that
//! touch across tiles become the blob they were cut from, and the whole blob goes through post-processing once: so the
//! answer is that of one tile that holds the slide. Never moves, merges or drops a finished nucleus.

pub mod join;
pub mod overlap;

use std::collections::BTreeMap;

use rayon::prelude::*;

pub use join::join;
pub use overlap::{Overlap, check_disjoint, dedupe};

use crate::geometry::Rect;
use crate::nuclei::{Foreground, Nucleus};
use crate::output::SlideResult;
use crate::store::{Store, StoreError, TileResult, TileState};

/// How often tile borders cut something, and so how much stitching there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seams {
    /// Open fragments in all tiles.
    pub fragments: usize,
    /// Blobs that they were joined to.
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
/// `merge` makes one blob of its parts (`Foreground::merge`), `segment` makes nuclei of one blob (`nuclei::segment`);
/// both must be pure. Blobs run in parallel; neither threads nor the tiles' order or size can change the result.
pub fn stitch(
    tiles: impl IntoIterator<Item = TileResult>,
    merge: impl Fn(&[Foreground]) -> Foreground + Sync,
    segment: impl Fn(&Foreground) -> Vec<Nucleus> + Sync,
) -> Stitched {
    let mut stitcher = Stitcher::new(merge, segment);
    for tile in tiles {
        stitcher.add(tile);
    }
    stitcher.finish()
}

/// Joins tiles as they come, so that only blobs that may still grow are held.
struct Stitcher<M, S> {
    merge: M,
    segment: S,
    done: Stitched,
    /// Fragments of blobs that may still grow, and the tile of each.
    open: Vec<(Foreground, Rect)>,
}

impl<M, S> Stitcher<M, S>
where
    M: Fn(&[Foreground]) -> Foreground + Sync,
    S: Fn(&Foreground) -> Vec<Nucleus> + Sync,
{
    fn new(merge: M, segment: S) -> Self {
        Self {
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
        let fragments = tile.fragments.into_iter();
        self.open.extend(fragments.map(|f| (f, tile.rect)));
    }

    /// Every tile above proc row `y` has been added: blobs that end before it become nuclei.
    fn close_above(&mut self, y: i32) {
        let (fragments, from_tile): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().unzip();
        let (grow, whole): (Vec<Blob>, Vec<Blob>) = gather(fragments, &from_tile)
            .into_iter()
            .partition(|blob| blob.parts.iter().any(|part| part.bounds().bottom() >= y));
        for blob in grow {
            self.open.extend(blob.parts.into_iter().zip(blob.tiles));
        }
        let (merge, segment) = (&self.merge, &self.segment);
        let joined: Vec<(Vec<Nucleus>, usize, [usize; 2])> = whole
            .par_iter()
            .map(|blob| {
                let nuclei = match &blob.parts[..] {
                    [whole] => segment(whole),
                    parts => segment(&merge(parts)),
                };
                let tiles = blob.different_tiles();
                let over = [2, 4].map(|n| {
                    nuclei
                        .iter()
                        .filter(|nucleus| lies_over(nucleus, &tiles) >= n)
                        .count()
                });
                (nuclei, tiles.len(), over)
            })
            .collect();
        let seams = &mut self.done.seams;
        seams.blobs += whole.len();
        for (nuclei, tiles, [over_2, over_4]) in joined {
            self.done.nuclei.extend(nuclei);
            seams.blobs_over_2_tiles += usize::from(tiles >= 2);
            seams.nuclei_over_2_tiles += over_2;
            seams.nuclei_over_4_tiles += over_4;
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
}

impl Blob {
    fn different_tiles(&self) -> Vec<Rect> {
        let mut tiles = self.tiles.clone();
        tiles.sort();
        tiles.dedup();
        tiles
    }
}

fn gather(fragments: Vec<Foreground>, from_tile: &[Rect]) -> Vec<Blob> {
    let groups = join(&fragments);
    let mut fragments: Vec<Option<Foreground>> = fragments.into_iter().map(Some).collect();
    groups
        .into_iter()
        .map(|group| Blob {
            tiles: group.iter().map(|&i| from_tile[i]).collect(),
            // Every fragment is in exactly one group.
            parts: group.iter().filter_map(|&i| fragments[i].take()).collect(),
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
/// beside finished nuclei and what crosses the row's lower border.
pub fn load(
    store: &Store,
    merge: impl Fn(&[Foreground]) -> Foreground + Sync,
    segment: impl Fn(&Foreground) -> Vec<Nucleus> + Sync,
) -> Result<Loaded, StoreError> {
    let mut planned = store.meta().planned_tiles.clone();
    planned.sort_unstable_by_key(|&[col, row]| (row, col));
    let mut stitcher = Stitcher::new(merge, segment);
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
    let all = stitcher.finish();
    Ok(Loaded {
        slide: SlideResult {
            meta: store.meta().clone(),
            nuclei: all.nuclei,
            done_px: all.done_px,
            unreadable_px: all.unreadable_px,
            outside_px: all.outside_px,
            missing_tiles,
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
