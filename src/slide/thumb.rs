//! A small picture of the slide. In: a reader and the longest side. Out: RGB. Never enlarges.

use image::RgbImage;

use super::overview::overview;
use super::{SlideError, SlideReader};

/// The whole slide, anti-aliased, `max_side_px` px along its longer side (or level 0's size, if
/// that is smaller). Unreadable parts have the background colour.
///
/// # Errors
/// [`SlideError::Read`] if nothing can be read.
pub fn thumb(reader: &dyn SlideReader, max_side_px: u32) -> Result<RgbImage, SlideError> {
    let (width, height) = reader
        .info()
        .levels
        .first()
        .map_or((1, 1), |l| (l.width_px.max(1), l.height_px.max(1)));
    let longer = width.max(height) as f64;
    let shrink = (longer / f64::from(max_side_px.max(1))).max(1.0);
    let side = |px: u64| (px as f64 / shrink).round().max(1.0);
    let (w, h) = (side(width), side(height));
    // Each axis is fitted to its rounded length, so that the picture shows the whole slide.
    let level0_per_px = [width as f64 / w, height as f64 / h];
    Ok(overview(reader, [w as u32, h as u32], level0_per_px)?.image)
}
