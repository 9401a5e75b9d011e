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
    /// Sorted by [`first_pixel`].
    pub nuclei: Vec<Nucleus>,
    pub seams: Seams,
    pub done_px: u64,
    pub unreadable_px: u64,
    pub outside_px: u64,
    /// Each once, sorted.
    pub read_errors: Vec<String>,
}

/// (y, x) of a nucleus's first pixel in raster order: the upper one, then the left one. No two nuclei share it.
pub fn first_pixel(nucleus: &Nucleus) -> (i32, i32) {
    let bbox = nucleus.bbox;
    let first = (0..bbox.w.max(0)).find(|&x| overlap::bit(nucleus, bbox.x + x, bbox.y));
    (bbox.y, bbox.x + first.unwrap_or(0))
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
    let mut all = Stitched::default();
    let mut fragments = Vec::new();
    let mut from_tile = Vec::new();
    for tile in tiles {
        all.done_px += tile.done_px;
        all.unreadable_px += tile.unreadable_px;
        all.outside_px += tile.outside_px;
        all.read_errors.extend(tile.read_errors);
        all.nuclei.extend(tile.nuclei);
        from_tile.extend(std::iter::repeat_n(tile.rect, tile.fragments.len()));
        fragments.extend(tile.fragments);
    }
    all.read_errors.sort();
    all.read_errors.dedup();
    all.seams.fragments = fragments.len();

    let blobs = gather(fragments, &from_tile);
    all.seams.blobs = blobs.len();
    all.seams.blobs_over_2_tiles = blobs.iter().filter(|blob| blob.tiles.len() >= 2).count();
    let joined: Vec<(Vec<Nucleus>, [usize; 2])> = blobs
        .into_par_iter()
        .map(|blob| {
            let nuclei = match &blob.parts[..] {
                [whole] => segment(whole),
                parts => segment(&merge(parts)),
            };
            let over = [2, 4].map(|n| {
                nuclei
                    .iter()
                    .filter(|nucleus| lies_over(nucleus, &blob.tiles) >= n)
                    .count()
            });
            (nuclei, over)
        })
        .collect();
    for (nuclei, [over_2, over_4]) in joined {
        all.nuclei.extend(nuclei);
        all.seams.nuclei_over_2_tiles += over_2;
        all.seams.nuclei_over_4_tiles += over_4;
    }
    all.nuclei.par_sort_by_cached_key(first_pixel);
    all
}

/// The fragments of one blob.
struct Blob {
    parts: Vec<Foreground>,
    /// The different tiles that they lie in.
    tiles: Vec<Rect>,
}

fn gather(fragments: Vec<Foreground>, from_tile: &[Rect]) -> Vec<Blob> {
    let groups = join(&fragments);
    let mut fragments: Vec<Option<Foreground>> = fragments.into_iter().map(Some).collect();
    groups
        .into_iter()
        .map(|group| {
            let mut tiles: Vec<Rect> = group.iter().map(|&i| from_tile[i]).collect();
            tiles.sort();
            tiles.dedup();
            // Every fragment is in exactly one group.
            let parts = group.iter().filter_map(|&i| fragments[i].take()).collect();
            Blob { parts, tiles }
        })
        .collect()
}

/// In how many of `tiles` the nucleus has a pixel.
fn lies_over(nucleus: &Nucleus, tiles: &[Rect]) -> usize {
    let has_pixel = |tile: &&Rect| {
        let part = nucleus.bbox.intersect(tile);
        (part.y..part.bottom()).any(|y| (part.x..part.right()).any(|x| overlap::bit(nucleus, x, y)))
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

/// Reads every planned tile of a store and joins them: all that the outputs need.
pub fn load(
    store: &Store,
    merge: impl Fn(&[Foreground]) -> Foreground + Sync,
    segment: impl Fn(&Foreground) -> Vec<Nucleus> + Sync,
) -> Result<Loaded, StoreError> {
    let planned = &store.meta().planned_tiles;
    let states: Vec<TileState> = planned
        .par_iter()
        .map(|&[col, row]| store.tile_state(col, row))
        .collect::<Result<_, _>>()?;
    let mut tiles = Vec::with_capacity(states.len());
    let mut damaged = Vec::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (&place, state) in planned.iter().zip(states) {
        match state {
            TileState::Done { tile, numerics } => {
                tiles.push(*tile);
                *kinds.entry(numerics).or_default() += 1;
            }
            TileState::Damaged(reason) => damaged.push((place, reason)),
            TileState::Absent => {}
        }
    }
    let missing_tiles = planned.len() - tiles.len();
    let all = stitch(tiles, merge, segment);
    Ok(Loaded {
        slide: SlideResult {
            meta: store.meta().clone(),
            nuclei: all.nuclei,
            done_px: all.done_px,
            unreadable_px: all.unreadable_px,
            outside_px: all.outside_px,
            missing_tiles,
            read_errors: all.read_errors,
            imported: None,
        },
        seams: all.seams,
        damaged,
        numerics: kinds,
    })
}

#[cfg(test)]
mod tests;
