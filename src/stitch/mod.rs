//! Joins the tiles of a slide.
//!
//! In: [`TileResult`]s in any order. Out: all nuclei of the slide, sorted by first pixel in raster
//! order. Fragments that touch across tiles are joined to the blob that the tile borders cut, and
//! the whole blob is segmented once: the result is that of a single tile as large as the slide. A
//! blob so large that [`CutRule`] cuts it is segmented cell by cell of the cut's grid. Never moves,
//! merges or drops a finished nucleus.
//!
//! [`CutRule`]: crate::nuclei::CutRule

mod fragment;
mod join;
mod overlap;
mod stitcher;

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

pub use overlap::{Overlap, check_disjoint};

use self::stitcher::{HELD_PX, Stitcher};
use crate::nuclei::{CUT, Extent, Foreground, Nucleus};
use crate::plan::PatchIndex;
use crate::result::{Coverage, SlideResult};
use crate::store::{Store, StoreError, TileState};

/// How many blobs and nuclei the borders of tiles cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seams {
    /// Open fragments in all tiles.
    pub fragments: usize,
    /// Blobs that the fragments were joined to. A blob that is cut counts once per connected
    /// part of its last rows.
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
/// `segment` makes nuclei of a blob, or of one cell of a blob that is cut
/// (`nuclei::segment_extent`). It must be pure. Blobs are segmented in parallel; neither threads nor
/// the order or size of tiles can change the result.
///
/// Holds one tile per thread, finished nuclei, and of the blobs that may still grow their runs and
/// at most `HELD_PX` pixels. Tiles with more of them are read again.
///
/// # Errors
/// A chunk that cannot be read. A chunk that fails its check is no error: see [`Loaded::damaged`].
pub fn load(
    store: &Store,
    segment: impl Fn(Foreground, Extent) -> Vec<Nucleus> + Sync,
) -> Result<Loaded, StoreError> {
    let mut planned = store.meta().layout.planned_tiles.clone();
    planned.sort_unstable_by_key(|&[col, row]| (row, col));
    let read_again = |place| read_fragments(store, place);
    let mut stitcher = Stitcher::new(CUT, HELD_PX, read_again, segment);
    let (mut tiles, mut damaged, mut kinds) = (HashSet::new(), Vec::new(), BTreeMap::new());
    // A blob that ends within a row of tiles is complete after that row.
    for row in planned.chunk_by(|a, b| a[1] == b[1]) {
        let mut bottom = None;
        // A tile takes much more memory until its small blobs are all that is left of its pixels.
        for some in row.chunks(rayon::current_num_threads()) {
            let states: Vec<TileState> = some
                .par_iter()
                .map(|&[col, row]| store.tile_state(col, row))
                .collect::<Result<_, _>>()?;
            for (&place, state) in some.iter().zip(states) {
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
        }
        if let Some(bottom) = bottom {
            stitcher.close_above(bottom)?;
        }
    }
    let missing_tiles = planned.len() - tiles.len();
    let meta = store.meta();
    let all = stitcher.finish()?;
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

/// The fragments of a tile that was whole a moment ago.
fn read_fragments(store: &Store, [col, row]: [i32; 2]) -> Result<Vec<Foreground>, StoreError> {
    match store.tile_state(col, row)? {
        TileState::Done { tile, .. } => Ok(tile.fragments),
        TileState::Damaged(reason) => Err(unreadable_again([col, row], &reason)),
        TileState::Absent => Err(unreadable_again([col, row], "it is gone")),
    }
}

/// A tile that was whole when it was read before.
fn unreadable_again([col, row]: [i32; 2], reason: &str) -> StoreError {
    StoreError::Read {
        path: format!("tiles/c/{row}/{col}").into(),
        reason: format!("{reason}, though it was whole a moment ago: run the same command again"),
    }
}

#[cfg(test)]
mod tests;
