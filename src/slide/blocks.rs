//! The slide at the model's µm/px.
//!
//! In: a reader, its [`Frames`] and level. Out: proc pixels of any box, also beyond the slide's rim
//! (mirrored). Proc pixels exist only as fixed 512 px blocks of one grid anchored at the slide's
//! origin. Each block is one read and one resize, so a pixel never depends on who asked for it. A
//! block that cannot be read whole is read in parts, so that damage costs little beside itself;
//! which parts depends on the file alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use image::{Rgb, RgbImage};

use super::cache::BlockCache;
use super::frames::Frames;
use super::resample::{self, CATMULL_ROM};
use super::{SlideError, SlideReader};
use crate::geometry::Rect;

/// Side of a block, proc px.
pub const BLOCK_PX: i32 = 512;
/// Sides of the parts in which a damaged block is read, proc px. A source tile has about 256.
const PARTS_PX: [i32; 3] = [256, 128, SMALLEST_PART_PX];
const SMALLEST_PART_PX: i32 = 64;

/// A slide as proc pixels, shared by threads.
pub struct ProcImage {
    reader: Arc<dyn SlideReader>,
    frames: Frames,
    level: usize,
    level_per_proc: [f64; 2],
    cache: BlockCache,
    px_read: AtomicU64,
    /// Damaged blocks: finding out what can still be read of one takes many failing reads.
    damage: Mutex<HashMap<(i32, i32), Arc<Damage>>>,
}

/// The parts of a block that cannot be read, and why.
struct Damage {
    holes: Vec<Rect>,
    error: SlideError,
}

impl ProcImage {
    /// `level` comes from [`Frames::new`]. At most `cache_bytes` of blocks are kept.
    pub fn new(
        reader: Arc<dyn SlideReader>,
        frames: Frames,
        level: usize,
        cache_bytes: usize,
    ) -> Self {
        let level_per_proc = frames.level_per_proc(&reader.info().levels, level);
        Self {
            reader,
            frames,
            level,
            level_per_proc,
            cache: BlockCache::new(cache_bytes),
            px_read: AtomicU64::new(0),
            damage: Mutex::default(),
        }
    }

    /// The same slide with no block read yet, and a cache of its own.
    pub fn with_cache(&self, cache_bytes: usize) -> Self {
        Self::new(self.reader.clone(), self.frames, self.level, cache_bytes)
    }

    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    pub fn reader(&self) -> &Arc<dyn SlideReader> {
        &self.reader
    }

    /// Proc px that have been read from the slide so far, those of a block that was dropped and read again included.
    pub fn px_read(&self) -> u64 {
        self.px_read.load(Ordering::Relaxed)
    }

    /// Proc px of block (`bx`, `by`), clipped to the slide.
    fn block_rect(&self, bx: i32, by: i32) -> Rect {
        let at = |b: i32| b.saturating_mul(BLOCK_PX);
        Rect::new(at(bx), at(by), BLOCK_PX, BLOCK_PX).intersect(&self.frames.proc_rect())
    }

    /// Block (`bx`, `by`), whose px within `needed` could all be read; the others may be white.
    ///
    /// # Errors
    /// [`SlideError::Read`] if a px of `needed` cannot be read.
    fn block(&self, bx: i32, by: i32, needed: Rect) -> Result<Arc<RgbImage>, SlideError> {
        let spoiled = |damage: &Damage| {
            let hit = damage.holes.iter().any(|hole| hole.meets(&needed));
            hit.then(|| damage.error.clone())
        };
        if let Some(error) = self.damage_of(bx, by).and_then(|damage| spoiled(&damage)) {
            return Err(error);
        }
        let block = self.cache.get_or_load((bx, by), || {
            let whole = self.read(self.block_rect(bx, by));
            Ok::<_, SlideError>(whole.unwrap_or_else(|error| self.read_parts(bx, by, error)))
        })?;
        match self.damage_of(bx, by).and_then(|damage| spoiled(&damage)) {
            Some(error) => Err(error),
            None => Ok(block),
        }
    }

    /// Proc px of all blocks that the boxes meet: what must be read at least.
    pub fn blocks_px(&self, rects: impl Iterator<Item = Rect>) -> u64 {
        let slide = self.frames.proc_rect();
        let mut met = BTreeSet::new();
        for rect in rects.map(|rect| rect.intersect(&slide)) {
            if rect.is_empty() {
                continue;
            }
            met.extend(blocks_of(rect));
        }
        met.into_iter()
            .map(|(bx, by)| self.block_rect(bx, by).area())
            .sum()
    }

    /// Whether something could not be read so far.
    pub fn is_damaged(&self) -> bool {
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        !damage.is_empty()
    }

    fn damage_of(&self, bx: i32, by: i32) -> Option<Arc<Damage>> {
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        damage.get(&(bx, by)).cloned()
    }

    /// RGB of a box inside one block, from the slide.
    fn read(&self, rect: Rect) -> Result<RgbImage, SlideError> {
        self.px_read.fetch_add(rect.area(), Ordering::Relaxed);
        let (reader, level) = (self.reader.as_ref(), self.level);
        resample::window(reader, level, rect, self.level_per_proc, CATMULL_ROM)
    }

    /// A damaged block: the parts that cannot be read are white and remembered as holes.
    fn read_parts(&self, bx: i32, by: i32, error: SlideError) -> RgbImage {
        let whole = self.block_rect(bx, by);
        let mut pixels = RgbImage::from_pixel(whole.w as u32, whole.h as u32, Rgb([255; 3]));
        let mut holes = vec![whole];
        for side_px in PARTS_PX {
            // Where no larger part can be read, no smaller one can either.
            if side_px == SMALLEST_PART_PX
                && holes.iter().map(Rect::area).sum::<u64>() == whole.area()
            {
                break;
            }
            holes = holes.into_iter().flat_map(quarters).collect();
            holes.retain(|&rect| match self.read(rect) {
                Ok(part) => {
                    copy_common(&part, rect, &mut pixels, whole);
                    false
                }
                Err(_) => true,
            });
        }
        // Without holes only the read of the whole failed, as on a network drive for a moment.
        if !holes.is_empty() {
            let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
            damage.insert((bx, by), Arc::new(Damage { holes, error }));
        }
        pixels
    }

    /// RGB of any box of proc px. Beyond the slide's rim the image is mirrored without repeating
    /// the edge pixel (OpenCV's `BORDER_REFLECT_101`), again and again where the slide is smaller
    /// than the box.
    ///
    /// # Errors
    /// [`SlideError::Read`] if a px of the box cannot be read.
    pub fn region(&self, rect_proc: Rect) -> Result<RgbImage, SlideError> {
        if rect_proc.is_empty() {
            return Ok(RgbImage::new(0, 0));
        }
        let slide = self.frames.proc_rect();
        if rect_proc.intersect(&slide) == rect_proc {
            return self.assemble(rect_proc);
        }
        let columns = mirrored(rect_proc.x, rect_proc.w, slide.w);
        let rows = mirrored(rect_proc.y, rect_proc.h, slide.h);
        let (x, w) = extent(&columns);
        let (y, h) = extent(&rows);
        let needed = self.assemble(Rect::new(x, y, w, h))?;
        Ok(gather(&needed, &columns, &rows, x, y))
    }

    /// RGB of a box that lies inside the slide, put together from its blocks.
    fn assemble(&self, rect: Rect) -> Result<RgbImage, SlideError> {
        let mut out = RgbImage::new(rect.w as u32, rect.h as u32);
        for (bx, by) in blocks_of(rect) {
            let needed = self.block_rect(bx, by).intersect(&rect);
            let block = self.block(bx, by, needed)?;
            copy_common(&block, self.block_rect(bx, by), &mut out, rect);
        }
        Ok(out)
    }

    /// All blocks of a box, clipped to the slide, if they are in memory and whole: nothing is read.
    pub fn in_memory(&self, rect: Rect) -> Option<HeldBlocks> {
        let rect = rect.intersect(&self.frames.proc_rect());
        let blocks = blocks_of(rect).map(|(bx, by)| {
            let block = self.cache.get((bx, by))?;
            let is_whole = self.damage_of(bx, by).is_none();
            is_whole.then(|| (self.block_rect(bx, by), block))
        });
        Some(HeldBlocks(blocks.collect::<Option<_>>()?))
    }
}

/// Blocks that stay in memory as long as they are held.
pub struct HeldBlocks(Vec<(Rect, Arc<RgbImage>)>);

impl HeldBlocks {
    /// RGB of a box of proc px; black where no block is held.
    pub fn region(&self, rect: Rect) -> RgbImage {
        let mut out = RgbImage::new(rect.w.max(0) as u32, rect.h.max(0) as u32);
        for (place, block) in &self.0 {
            if place.meets(&rect) {
                copy_common(block, *place, &mut out, rect);
            }
        }
        out
    }
}

/// The blocks that a box inside the slide meets, row by row.
fn blocks_of(rect: Rect) -> impl Iterator<Item = (i32, i32)> {
    let along = |first: i32, end: i32| first / BLOCK_PX..(end - 1).div_euclid(BLOCK_PX) + 1;
    let columns = along(rect.x, rect.right());
    along(rect.y, rect.bottom()).flat_map(move |by| columns.clone().map(move |bx| (bx, by)))
}

/// The non-empty quarters of a box.
fn quarters(rect: Rect) -> Vec<Rect> {
    let (w, h) = ((rect.w + 1) / 2, (rect.h + 1) / 2);
    let parts = [(0, 0), (w, 0), (0, h), (w, h)];
    let parts = parts.map(|(x, y)| Rect::new(rect.x + x, rect.y + y, w, h).intersect(&rect));
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// Copies the px that `from` (the box `from_rect`) and `to` (the box `to_rect`) have in common.
fn copy_common(from: &RgbImage, from_rect: Rect, to: &mut RgbImage, to_rect: Rect) {
    let common = from_rect.intersect(&to_rect);
    let bytes = common.w as usize * 3;
    let offset = |rect: Rect, row: i32| {
        ((row - rect.y) as usize * rect.w as usize + (common.x - rect.x) as usize) * 3
    };
    for row in common.y..common.bottom() {
        let (source, target) = (offset(from_rect, row), offset(to_rect, row));
        let source = from.as_raw().get(source..source + bytes);
        if let (Some(target), Some(source)) = (to.get_mut(target..target + bytes), source) {
            target.copy_from_slice(source);
        }
    }
}

/// The place in `0..size` of each of the `len` px from `start` on, where the axis is mirrored at
/// its first and last px.
fn mirrored(start: i32, len: i32, size: i32) -> Vec<i32> {
    let period = (2 * (i64::from(size) - 1)).max(1);
    (0..i64::from(len))
        .map(|i| {
            let at = (i64::from(start) + i).rem_euclid(period);
            at.min(period - at).min(i64::from(size) - 1) as i32
        })
        .collect()
}

/// First px and number of px of the smallest span that holds all of `px`.
fn extent(px: &[i32]) -> (i32, i32) {
    let first = px.iter().copied().min().unwrap_or(0);
    let last = px.iter().copied().max().unwrap_or(0);
    (first, last - first + 1)
}

/// The image whose px (i, j) is px (`columns[i] - x`, `rows[j] - y`) of `from`.
fn gather(from: &RgbImage, columns: &[i32], rows: &[i32], x: i32, y: i32) -> RgbImage {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, &column) in columns.iter().enumerate() {
        let at = (column - x) as usize;
        match runs.last_mut() {
            Some((start, len)) if *start + *len == at && i > 0 => *len += 1,
            _ => runs.push((at, 1)),
        }
    }
    let stride = from.width() as usize * 3;
    let mut out = Vec::with_capacity(columns.len() * rows.len() * 3);
    for &row in rows {
        let start = (row - y) as usize * stride;
        let line = from.as_raw().get(start..start + stride).unwrap_or(&[]);
        for &(at, len) in &runs {
            out.extend_from_slice(line.get(at * 3..(at + len) * 3).unwrap_or(&[]));
        }
    }
    RgbImage::from_raw(columns.len() as u32, rows.len() as u32, out).unwrap_or_default()
}

#[cfg(test)]
mod tests;
