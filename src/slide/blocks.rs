//! The slide at the model's µm/px.
//!
//! In: a reader, its [`Frames`] and level. Out: proc pixels of any box, also beyond the rim (mirrored). Proc pixels
//! exist only as fixed 512 px blocks of one grid anchored at the slide's origin, each one read and one resize, so a
//! pixel never depends on who asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use image::RgbImage;

use super::cache::BlockCache;
use super::frames::Frames;
use super::resample::{self, CATMULL_ROM};
use super::{SlideError, SlideReader};
use crate::geometry::Rect;

/// Side of a block, proc px.
pub const BLOCK_PX: i32 = 512;

/// A slide as proc pixels, shared by threads.
pub struct ProcImage {
    reader: Arc<dyn SlideReader>,
    frames: Frames,
    level: usize,
    level_per_proc: [f64; 2],
    cache: BlockCache,
    reads: AtomicU64,
}

impl ProcImage {
    /// `level` comes from [`Frames::new`]. At most `cache_bytes` of blocks are kept (a block has 768 KiB).
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
            reads: AtomicU64::new(0),
        }
    }

    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    pub fn reader(&self) -> &dyn SlideReader {
        self.reader.as_ref()
    }

    /// Blocks read so far, repeated ones counted again.
    pub fn blocks_read(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes of blocks now kept.
    pub fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Proc px of block (`bx`, `by`), clipped to the slide.
    pub fn block_rect(&self, bx: i32, by: i32) -> Rect {
        let at = |b: i32| b.saturating_mul(BLOCK_PX);
        Rect::new(at(bx), at(by), BLOCK_PX, BLOCK_PX).intersect(&self.frames.proc_rect())
    }

    /// RGB of block (`bx`, `by`), 512 px a side, less at the slide's right and lower rim.
    ///
    /// # Errors
    /// [`SlideError::Read`] if its source cannot be read. Nothing is remembered: the next call tries again.
    pub fn block(&self, bx: i32, by: i32) -> Result<Arc<RgbImage>, SlideError> {
        self.cache.get_or_load((bx, by), || {
            self.reads.fetch_add(1, Ordering::Relaxed);
            resample::window(
                self.reader.as_ref(),
                self.level,
                self.block_rect(bx, by),
                self.level_per_proc,
                CATMULL_ROM,
            )
        })
    }

    /// RGB of any box of proc px. Beyond the slide's rim the image is mirrored without repeating the edge pixel
    /// (OpenCV's `BORDER_REFLECT_101`), again and again where the slide is smaller than the box.
    pub fn region(&self, rect_proc: Rect) -> Result<RgbImage, SlideError> {
        if rect_proc.is_empty() {
            return Ok(RgbImage::new(0, 0));
        }
        let slide = self.frames.proc_rect();
        if rect_proc.intersect(&slide) == rect_proc {
            return self.inside(rect_proc);
        }
        let columns = mirrored(rect_proc.x, rect_proc.w, slide.w);
        let rows = mirrored(rect_proc.y, rect_proc.h, slide.h);
        let (x, w) = extent(&columns);
        let (y, h) = extent(&rows);
        let needed = self.inside(Rect::new(x, y, w, h))?;
        Ok(gather(&needed, &columns, &rows, x, y))
    }

    /// A box that lies inside the slide, copied together from its blocks row by row.
    fn inside(&self, rect: Rect) -> Result<RgbImage, SlideError> {
        let mut out = RgbImage::new(rect.w as u32, rect.h as u32);
        for by in rect.y / BLOCK_PX..=(rect.bottom() - 1) / BLOCK_PX {
            for bx in rect.x / BLOCK_PX..=(rect.right() - 1) / BLOCK_PX {
                let block = self.block(bx, by)?;
                copy_common(&block, self.block_rect(bx, by), &mut out, rect);
            }
        }
        Ok(out)
    }
}

/// Copies what `from` (pixels of the box `from_rect`) and `to` have in common.
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

/// Where each of the `len` px from `start` on lies in `0..size` when the axis is mirrored at its first and last px.
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

/// The image whose px (i, j) is px (`columns[i] - x`, `rows[j] - y`) of `from`; runs of columns are copied whole.
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
