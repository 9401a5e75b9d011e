//! The rings of a slide's nuclei: with each tile, while its pixels are in memory, and the rest when all nuclei are known.
//!
//! In: a tile's nuclei and fragments, or the joined nuclei; the slide. Out: one [`Ring`] each, the same either way. Of the
//! surroundings that cannot be measured with their tile the pixels are kept, so that the slide is read again only where
//! they were too many, or for tiles of an earlier run. Never writes a file.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use image::RgbImage;

use crate::features::ring::{self, Around, Reach, Ring};
use crate::geometry::Rect;
use crate::nuclei::{Foreground, Nucleus, Run, push_runs};
use crate::slide::blocks::{HeldBlocks, ProcImage};

/// Bytes of blocks that are kept for each thread that goes through a row of blocks.
const CACHE_BYTES_PER_THREAD: usize = 16 << 20;
/// Rows of a tile from which pixels are kept at a time.
const STRIP_ROWS: i32 = 64;

/// Bytes of blocks to keep. Where a device runs the network (`on_device`) every thread of rayon gets its share; a CPU
/// that runs the network is small, and its memory is planned for two threads.
pub fn cache_bytes(on_device: bool) -> usize {
    match on_device {
        false => 2 * CACHE_BYTES_PER_THREAD,
        true => rayon::current_num_threads().max(2) * CACHE_BYTES_PER_THREAD,
    }
}

/// What the user should know where rings are empty for want of pixels.
pub fn unread_warning(unread: usize) -> Option<String> {
    (unread > 0).then(|| {
        format!("the tissue around {unread} nuclei could not be read: their ring columns are empty")
    })
}

/// The rings that a tile alone decides, and the pixels for the others.
pub struct TileRings {
    /// By [`Nucleus::first_pixel`].
    measured: Vec<((i32, i32), Ring)>,
    kept: Option<KeptPixels>,
}

/// Measures what of a tile's rings no other tile can change: those of nuclei inside whose surroundings reach neither
/// another tile nor a fragment. Keeps the pixels that the others may need, if there is `room` for so many bytes. `None`
/// where the tile's pixels are not in memory any more.
pub fn of_tile(
    tile: Rect,
    nuclei: &[Nucleus],
    fragments: &[Foreground],
    image: &ProcImage,
    room: &AtomicU64,
) -> Option<TileRings> {
    let (slide, mpp) = (image.frames().proc_rect(), image.frames().proc_mpp());
    let reach = Reach::new(mpp);
    let field = reach.around(tile).intersect(&slide);
    let blocks = image.in_memory(field)?;
    let boxes: Vec<Rect> = fragments.iter().map(Foreground::bounds).collect();
    let is_decided = |nucleus: &Nucleus| {
        let field = reach.around(nucleus.bbox).intersect(&slide);
        let mut near = boxes.iter().zip(fragments);
        field.intersect(&tile) == field
            && !near.any(|(bounds, part)| bounds.meets(&field) && has_pixel_in(&part.runs, field))
    };
    let (decided, open): (Vec<usize>, Vec<usize>) =
        (0..nuclei.len()).partition(|&place| is_decided(&nuclei[place]));
    let around = Around {
        slide,
        mpp,
        pixels: |field: Rect, _: &[bool]| Some(blocks.region(field)),
    };
    let measured = ring::rings_of_tile(nuclei, &decided, &around)
        .into_iter()
        .map(|(place, ring)| (nuclei[place].first_pixel(), ring))
        .collect();
    let open = open.iter().map(|&place| &nuclei[place]);
    let kept = (room.load(Ordering::Relaxed) > 0)
        .then(|| Surroundings::of(open, fragments, nuclei, field, &reach).keep(&blocks, room))
        .flatten();
    Some(TileRings { measured, kept })
}

/// Whether a run, of runs in raster order, has a pixel in `field`.
fn has_pixel_in(runs: &[Run], field: Rect) -> bool {
    let from = runs.partition_point(|run| run.y < field.y);
    let to = runs.partition_point(|run| run.y < field.bottom());
    let in_columns = |run: &Run| run.x0 < field.right() && run.x1 > field.x;
    runs[from..to].iter().any(in_columns)
}

/// The pixels of a box that may lie in a ring.
struct Surroundings {
    field: Rect,
    /// Row by row: 1 for a pixel that may.
    is_near: Vec<u8>,
}

impl Surroundings {
    /// Of nuclei that are `open` and of fragments, in `field`, less what is in `nuclei`.
    fn of<'a>(
        open: impl Iterator<Item = &'a Nucleus>,
        fragments: &[Foreground],
        nuclei: &[Nucleus],
        field: Rect,
        reach: &Reach,
    ) -> Self {
        let mut near = Self {
            field,
            is_near: vec![0; field.area() as usize],
        };
        open.flat_map(Nucleus::runs)
            .for_each(|run| near.add(run, reach));
        for run in fragments.iter().flat_map(|part| &part.runs) {
            near.add(*run, reach);
        }
        // What is in a nucleus is in no ring. A fragment's pixels may be in none in the end.
        nuclei
            .iter()
            .flat_map(Nucleus::runs)
            .for_each(|run| near.remove(run));
        near
    }

    /// Adds what is within reach of a run.
    fn add(&mut self, run: Run, reach: &Reach) {
        for (dy, dx) in reach.spans() {
            self.paint(run.y + dy, run.x0 - dx, run.x1 + dx, 1);
        }
    }

    fn remove(&mut self, run: Run) {
        self.paint(run.y, run.x0, run.x1, 0);
    }

    fn paint(&mut self, y: i32, left: i32, right: i32, value: u8) {
        let field = self.field;
        let (left, right) = (left.max(field.x), right.min(field.right()));
        if y >= field.y && y < field.bottom() && left < right {
            let row = (y - field.y) as usize * field.w as usize;
            let [left, right] = [left, right].map(|x| row + (x - field.x) as usize);
            self.is_near[left..right].fill(value);
        }
    }

    /// The pixels themselves, if there is room for their bytes.
    fn keep(&self, blocks: &HeldBlocks, room: &AtomicU64) -> Option<KeptPixels> {
        let field = self.field;
        let mut runs = Vec::new();
        for (row, y) in self.is_near.chunks_exact(field.w as usize).zip(field.y..) {
            push_runs(row, 1, y, field.x, &mut runs);
        }
        let bytes = 3 * runs.iter().map(Run::len).sum::<usize>();
        let less = |left: u64| left.checked_sub(bytes as u64);
        room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok()?;
        let mut kept = KeptPixels {
            field,
            runs: Vec::with_capacity(runs.len()),
            rgb: Vec::with_capacity(bytes),
        };
        for some in runs.chunk_by(|a, b| a.y / STRIP_ROWS == b.y / STRIP_ROWS) {
            let top = some[0].y;
            let rows = some[some.len() - 1].y + 1 - top;
            let strip = Rect::new(field.x, top, field.w, rows);
            kept.add(strip, some, &blocks.region(strip));
        }
        Some(kept)
    }
}

/// Pixels of the slide that lie near nuclei.
struct KeptPixels {
    /// A box around all of them.
    field: Rect,
    /// In raster order, each with the place of its first pixel.
    runs: Vec<(Run, usize)>,
    rgb: Vec<u8>,
}

impl KeptPixels {
    /// Adds the pixels of `runs`, which lie in the box `field`, of which `pixels` are.
    fn add(&mut self, field: Rect, runs: &[Run], pixels: &RgbImage) {
        for run in runs {
            let row = (run.y - field.y) as usize * field.w as usize;
            let from = row + (run.x0 - field.x) as usize;
            self.runs.push((*run, self.rgb.len() / 3));
            let pixels = &pixels.as_raw()[3 * from..3 * (from + run.len())];
            self.rgb.extend_from_slice(pixels);
        }
    }

    /// Copies the pixels of `field` that are here, and marks them as no longer missing.
    fn copy_to(&self, field: Rect, pixels: &mut RgbImage, missing: &mut [bool]) {
        let from = self.runs.partition_point(|(run, _)| run.y < field.y);
        let to = self.runs.partition_point(|(run, _)| run.y < field.bottom());
        for (run, at) in &self.runs[from..to] {
            let (x0, x1) = (run.x0.max(field.x), run.x1.min(field.right()));
            if x0 >= x1 {
                continue;
            }
            let len = (x1 - x0) as usize;
            let from = at + (x0 - run.x0) as usize;
            let to = (run.y - field.y) as usize * field.w as usize + (x0 - field.x) as usize;
            missing[to..to + len].fill(false);
            pixels.as_flat_samples_mut().samples[3 * to..3 * (to + len)]
                .copy_from_slice(&self.rgb[3 * from..3 * (from + len)]);
        }
    }
}

/// The `needed` pixels of a box, row by row, from what tiles kept; `None` if they did not keep all.
fn from_kept(kept: &[KeptPixels], field: Rect, needed: &[bool]) -> Option<RgbImage> {
    let mut pixels = RgbImage::new(field.w as u32, field.h as u32);
    let mut missing = needed.to_vec();
    for part in kept.iter().filter(|part| part.field.meets(&field)) {
        part.copy_to(field, &mut pixels, &mut missing);
    }
    (!missing.contains(&true)).then_some(pixels)
}

/// The rings of `nuclei`, and how many of them could not be read; `None` if `stop` was set meanwhile. What `tiles` say
/// is not measured again.
pub fn measure(
    nuclei: &[Nucleus],
    tiles: Vec<TileRings>,
    image: &ProcImage,
    stop: &AtomicBool,
) -> Option<(Vec<Ring>, usize)> {
    let (measured, kept): (Vec<_>, Vec<_>) =
        tiles.into_iter().map(|t| (t.measured, t.kept)).unzip();
    let measured: HashMap<(i32, i32), Ring> = measured.into_iter().flatten().collect();
    let kept: Vec<KeptPixels> = kept.into_iter().flatten().collect();
    let mut rings = vec![Ring::default(); nuclei.len()];
    let mut wanted = Vec::new();
    for (place, nucleus) in nuclei.iter().enumerate() {
        match measured.get(&nucleus.first_pixel()) {
            Some(ring) => rings[place] = *ring,
            None => wanted.push(place),
        }
    }
    drop(measured);
    let unread = AtomicUsize::new(0);
    let around = Around {
        slide: image.frames().proc_rect(),
        mpp: image.frames().proc_mpp(),
        pixels: |field: Rect, needed: &[bool]| {
            let pixels = from_kept(&kept, field, needed).or_else(|| image.region(field).ok());
            unread.fetch_add(usize::from(pixels.is_none()), Ordering::Relaxed);
            pixels
        },
    };
    for (place, ring) in ring::rings(nuclei, &wanted, &around, stop)? {
        rings[place] = ring;
    }
    Some((rings, unread.into_inner()))
}

#[cfg(test)]
mod tests;
