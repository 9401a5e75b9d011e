//! A whole slide at low magnification, without ever holding a whole level.
//!
//! In: a reader and the scale wanted. Out: RGB and the boxes that could not be read. Each chunk is
//! one read of a bounded window and one anti-aliased resize. Chunks run in parallel, and none
//! depends on another.

use image::RgbImage;
use rayon::prelude::*;

use super::level::{coarsest_fine_enough, level0_per_level};
use super::resample::{self, HAMMING};
use super::{SlideError, SlideReader};
use crate::geometry::Rect;

/// Side of a chunk's source window, level px (without the filter's margin).
const CHUNK_SOURCE_PX: f64 = 2048.0;
/// A chunk that cannot be read is quartered down to this side, level px, and then read from the
/// next finer level, so that little is lost beside the damage.
const SMALLEST_SOURCE_PX: f64 = 256.0;
/// Px of the chunks that are read before they are put into the image.
const PX_AT_ONCE: u64 = 16 << 20;

/// A slide at low magnification.
pub struct Overview {
    pub image: RgbImage,
    /// Boxes of `image` whose source cannot be read: their px have the slide's background colour.
    pub unreadable: Vec<Rect>,
}

/// The slide as `size_px` px of `level0_per_px` level-0 px each, from the best level.
///
/// # Errors
/// [`SlideError::Read`] if no part of it can be read on any level.
pub fn overview(
    reader: &dyn SlideReader,
    size_px: [u32; 2],
    level0_per_px: [f64; 2],
) -> Result<Overview, SlideError> {
    let levels = &reader.info().levels;
    let level = coarsest_fine_enough(levels, level0_per_px);
    let [rx, ry] = level0_per_level(levels, level);
    let level_per_px = [level0_per_px[0] / rx, level0_per_px[1] / ry];
    let whole = Rect::new(0, 0, size_px[0] as i32, size_px[1] as i32);
    let background = image::Rgb(reader.info().background);
    let mut image = RgbImage::from_pixel(size_px[0], size_px[1], background);
    let mut unreadable = Vec::new();
    let mut first_error = None;
    // Some at a time: all parts at once would take as much memory as the image.
    let chunks = chunks(whole, level_per_px);
    let largest_px = chunks.iter().map(Rect::area).max().unwrap_or(0).max(1);
    for batch in chunks.chunks((PX_AT_ONCE / largest_px).max(1) as usize) {
        let parts: Vec<Part> = batch
            .par_iter()
            .flat_map_iter(|&rect| read_chunk(reader, level, rect, level0_per_px))
            .collect();
        for (rect, pixels) in parts {
            match pixels {
                Ok(pixels) => {
                    image::imageops::replace(&mut image, &pixels, rect.x.into(), rect.y.into());
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                    unreadable.push(rect);
                }
            }
        }
    }
    let lost: u64 = unreadable.iter().map(Rect::area).sum();
    match first_error {
        Some(error) if lost == whole.area() => Err(error),
        _ => Ok(Overview { image, unreadable }),
    }
}

type Part = (Rect, Result<RgbImage, SlideError>);

/// Reads a chunk: in quarters where it is damaged, and from finer levels where `level` is.
fn read_chunk(
    reader: &dyn SlideReader,
    level: usize,
    rect: Rect,
    level0_per_px: [f64; 2],
) -> Vec<Part> {
    let [rx, ry] = level0_per_level(&reader.info().levels, level);
    let level_per_px = [level0_per_px[0] / rx, level0_per_px[1] / ry];
    let source_px = f64::from(rect.w.max(rect.h)) * level_per_px[0].max(level_per_px[1]);
    let parts = |rect| {
        let quarters = quarters(rect).into_iter();
        quarters.flat_map(|quarter| read_chunk(reader, level, quarter, level0_per_px))
    };
    let splits = rect.w > 1 && rect.h > 1;
    // On a finer level the same chunk may be far larger.
    if source_px > 2.0 * CHUNK_SOURCE_PX && splits {
        return parts(rect).collect();
    }
    match resample::window(reader, level, rect, level_per_px, HAMMING) {
        Ok(pixels) => vec![(rect, Ok(pixels))],
        Err(_) if source_px > SMALLEST_SOURCE_PX && splits => parts(rect).collect(),
        Err(error) => match next_finer(reader, level) {
            None => vec![(rect, Err(error))],
            Some(finer) => {
                let found = read_chunk(reader, finer, rect, level0_per_px);
                match found.iter().any(|(_, pixels)| pixels.is_ok()) {
                    true => found,
                    false => vec![(rect, Err(error))],
                }
            }
        },
    }
}

/// The coarsest of the levels that are finer than `level`.
fn next_finer(reader: &dyn SlideReader, level: usize) -> Option<usize> {
    let levels = &reader.info().levels;
    let width = |level: usize| levels.get(level).map_or(0, |l| l.width_px);
    let finer = (0..levels.len()).filter(|&other| width(other) > width(level));
    finer.min_by_key(|&other| width(other))
}

fn quarters(rect: Rect) -> [Rect; 4] {
    let (w, h) = (rect.w / 2, rect.h / 2);
    [
        Rect::new(rect.x, rect.y, w, h),
        Rect::new(rect.x + w, rect.y, rect.w - w, h),
        Rect::new(rect.x, rect.y + h, w, rect.h - h),
        Rect::new(rect.x + w, rect.y + h, rect.w - w, rect.h - h),
    ]
}

/// The boxes in which `whole` is read.
fn chunks(whole: Rect, level_per_px: [f64; 2]) -> Vec<Rect> {
    let side =
        level_per_px.map(|s| (CHUNK_SOURCE_PX / s).floor().clamp(1.0, CHUNK_SOURCE_PX) as i32);
    let mut chunks = Vec::new();
    for y in (0..whole.h).step_by(side[1] as usize) {
        for x in (0..whole.w).step_by(side[0] as usize) {
            chunks.push(Rect::new(x, y, side[0], side[1]).intersect(&whole));
        }
    }
    chunks
}
