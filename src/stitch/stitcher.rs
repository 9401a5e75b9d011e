//! Tiles -> nuclei, as the tiles come.
//!
//! In: tiles row by row. Out: all nuclei. Holds the runs of the blobs that may still grow and at
//! most [`HELD_PX`] of their pixels; the pixels of the largest are read from the store again when
//! they are wanted, so that memory does not grow with a blob. Blobs in memory are segmented in
//! parallel, blobs from the store one after the other. Neither changes a nucleus.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::fragment::{Blob, Fragment, Pixels, StoredAt, assemble_blobs};
use super::{Seams, Stitched, unreadable_again};
use crate::geometry::Rect;
use crate::nuclei::{CutRule, Extent, Foreground, Nucleus};
use crate::store::{StoreError, TileResult};

/// Pixels of open fragments that are held: 80 MB and the type probabilities.
pub(super) const HELD_PX: usize = 8 << 20;

/// Joins tiles as they come; holds only the blobs that may still grow.
pub(super) struct Stitcher<R, S> {
    pub cut: CutRule,
    pub held_px: usize,
    /// Reads the fragments of the tile at (column, row) again.
    pub read: R,
    pub segment: S,
    pub done: Stitched,
    /// Fragments of blobs that may still grow.
    pub open: Vec<Fragment>,
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

impl<R, S> Stitcher<R, S>
where
    R: Fn([i32; 2]) -> Result<Vec<Foreground>, StoreError>,
    S: Fn(Foreground, Extent) -> Vec<Nucleus> + Sync,
{
    pub fn new(cut: CutRule, held_px: usize, read: R, segment: S) -> Self {
        Self {
            cut,
            held_px,
            read,
            segment,
            done: Stitched::default(),
            open: Vec::new(),
        }
    }

    pub fn add(&mut self, tile: TileResult) {
        let done = &mut self.done;
        done.done_px += tile.done_px;
        done.unreadable_px += tile.unreadable_px;
        done.outside_px += tile.outside_px;
        done.unreadable.extend(tile.unreadable);
        done.read_errors.extend(tile.read_errors);
        done.nuclei.extend(tile.nuclei);
        done.seams.fragments += tile.fragments.len();
        for (index, part) in tile.fragments.into_iter().enumerate() {
            let stored_at = StoredAt {
                tile: [tile.col, tile.row],
                index,
            };
            self.open.push(Fragment::new(part, stored_at, tile.rect));
        }
        release_largest(&mut self.open, self.held_px);
    }

    /// Segments the blobs that end above proc row `y`, and of blobs that are cut the cells that end
    /// above it. Every tile above row `y` must have been added.
    ///
    /// # Errors
    /// A tile that cannot be read again.
    pub fn close_above(&mut self, y: i32) -> Result<(), StoreError> {
        let (mut held, mut stored) = (Vec::new(), Vec::new());
        // By (row, column), so that neighbours share the tiles that are read for them.
        let mut cells: Vec<((i32, i32), Blob)> = Vec::new();
        for blob in assemble_blobs(std::mem::take(&mut self.open)) {
            let bounds = blob.bounds();
            let grows = bounds.bottom() >= y;
            if !grows {
                self.done.seams.count(&blob);
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
                self.open.extend(blob.parts);
            } else if blob.is_held() {
                held.push(blob);
            } else {
                stored.push(blob);
            }
        }
        let segmented: Vec<Segmented> = held
            .into_par_iter()
            .map(|blob| segment_blob(blob, &HashMap::new(), &self.segment))
            .collect();
        segmented.into_iter().for_each(|blob| self.done.add(blob));
        cells.sort_by_key(|(place, _)| *place);
        stored.extend(cells.into_iter().map(|(_, cell)| cell));
        self.segment_stored(stored)
    }

    /// Segments one blob after the other, because each takes memory for its whole box.
    fn segment_stored(&mut self, blobs: Vec<Blob>) -> Result<(), StoreError> {
        let mut fetched = Fetched::new();
        let mut blobs = blobs.into_iter().peekable();
        while let Some(blob) = blobs.next() {
            let wanted = stored_parts(&blob);
            for stored_at in &wanted {
                if !fetched.contains_key(stored_at) {
                    let next = blobs.peek().map(stored_parts).unwrap_or_default();
                    self.fetch(stored_at.tile, &[&wanted[..], &next].concat(), &mut fetched)?;
                }
            }
            self.done.add(segment_blob(blob, &fetched, &self.segment));
            // What the next blob wants too is not read twice.
            let next = blobs.peek().map(stored_parts).unwrap_or_default();
            fetched.retain(|stored_at, _| next.contains(stored_at));
        }
        Ok(())
    }

    /// Reads those of a tile's fragments that are `wanted`.
    fn fetch(
        &self,
        tile: [i32; 2],
        wanted: &[StoredAt],
        to: &mut Fetched,
    ) -> Result<(), StoreError> {
        let fragments = (self.read)(tile)?.into_iter().enumerate();
        let places = fragments.map(|(index, part)| (StoredAt { tile, index }, part));
        to.extend(places.filter(|(stored_at, _)| wanted.contains(stored_at)));
        let is_there = |place: &StoredAt| place.tile != tile || to.contains_key(place);
        match wanted.iter().all(is_there) {
            true => Ok(()),
            false => Err(unreadable_again(tile, "it has other fragments")),
        }
    }

    pub fn finish(mut self) -> Result<Stitched, StoreError> {
        self.close_above(i32::MAX)?;
        let mut done = self.done;
        done.read_errors.sort();
        done.read_errors.dedup();
        done.nuclei.par_sort_by_cached_key(Nucleus::first_pixel);
        Ok(done)
    }
}

impl Seams {
    /// Counts a blob that does not grow any more.
    fn count(&mut self, blob: &Blob) {
        self.blobs += 1;
        // A blob whose upper cells are segmented already was in two rows of tiles.
        let over_2 = blob.cut || blob.different_tiles().len() >= 2;
        self.blobs_over_2_tiles += usize::from(over_2);
    }
}

/// Fragments that were read again.
type Fetched = HashMap<StoredAt, Foreground>;

/// Leaves pixels to the store, of the largest fragments first, until at most `held_px` are held.
fn release_largest(open: &mut [Fragment], held_px: usize) {
    let mut held: usize = open.iter().map(Fragment::held_px).sum();
    if held <= held_px {
        return;
    }
    let mut order: Vec<usize> = (0..open.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(open[i].held_px()));
    for i in order {
        if held <= held_px {
            return;
        }
        held -= open[i].held_px();
        open[i].release_pixels();
    }
}

fn stored_parts(blob: &Blob) -> Vec<StoredAt> {
    let place = |part: &Fragment| match part.pixels {
        Pixels::Held(_) => None,
        Pixels::Stored(stored_at) => Some(stored_at),
    };
    let mut places: Vec<StoredAt> = blob.parts.iter().filter_map(place).collect();
    places.sort();
    places.dedup();
    places
}

fn segment_blob(
    blob: Blob,
    fetched: &Fetched,
    segment: impl Fn(Foreground, Extent) -> Vec<Nucleus>,
) -> Segmented {
    let extent = match blob.cut {
        true => Extent::CutCell,
        false => Extent::Whole,
    };
    let tiles = blob.different_tiles();
    let nuclei = segment(gather_pixels(blob, fetched), extent);
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

/// The blob with its pixels, which are held or `fetched`.
fn gather_pixels(mut blob: Blob, fetched: &Fetched) -> Foreground {
    let is_whole = |part: &Fragment| match &part.pixels {
        Pixels::Held(whole) => whole.runs.len() == part.runs.len() && !part.cut,
        Pixels::Stored(_) => false,
    };
    if let [only] = &blob.parts[..]
        && is_whole(only)
        && let Some(Fragment {
            pixels: Pixels::Held(whole),
            ..
        }) = blob.parts.pop()
    {
        return Arc::unwrap_or_clone(whole);
    }
    let types = blob.parts.first().map_or(0, |part| part.types);
    let mut gathered = Foreground::blank(blob.join_runs(), types);
    for part in blob.parts {
        match part.pixels {
            Pixels::Held(whole) => gathered.copy_values(&whole),
            Pixels::Stored(stored_at) => {
                if let Some(whole) = fetched.get(&stored_at) {
                    gathered.copy_values(whole);
                }
            }
        }
    }
    gathered
}

/// The number of `tiles` in which the nucleus has a pixel.
fn count_tiles(nucleus: &Nucleus, tiles: &[Rect]) -> usize {
    let has_pixel = |tile: &&Rect| {
        let part = nucleus.bbox.intersect(tile);
        (part.y..part.bottom()).any(|y| (part.x..part.right()).any(|x| nucleus.contains(x, y)))
    };
    tiles.iter().filter(has_pixel).count()
}
