//! The pictures that go with a slide's results, read from the slide.

use image::RgbImage;
use image::imageops::FilterType;

use crate::output::pictures::OVERLAY_SIDE_PX;
use crate::output::{Format, crops};
use crate::result::SlideResult;
use crate::slide::{SlideError, SlideReader, thumb};
use crate::tissue::TissueMask;

/// µm per px of overlay.jpg, where the slide is small enough.
const OVERLAY_MPP: f64 = 0.25;

/// The slide as overlay.jpg shows it: at 0.25 µm/px (outlines of 2 px stay thin) or level 0, whichever is finer, but
/// no side longer than [`OVERLAY_SIDE_PX`].
///
/// # Errors
/// A slide that cannot be read.
pub fn read_overlay(
    reader: &dyn SlideReader,
    result: &SlideResult,
) -> Result<RgbImage, SlideError> {
    let picture = thumb::thumb(reader, OVERLAY_SIDE_PX)?;
    let frames = result.frames();
    let longest_px = frames.level0_size_px[0]
        .max(frames.level0_size_px[1])
        .max(1) as f64;
    let finest = (frames.level0_mpp[0] / OVERLAY_MPP).max(1.0);
    let scale = finest.min(f64::from(OVERLAY_SIDE_PX) / longest_px);
    if scale <= 1.0 {
        return Ok(picture);
    }
    let side = |px: u32| (f64::from(px) * scale).round() as u32;
    let (width, height) = (side(picture.width()), side(picture.height()));
    Ok(image::imageops::resize(
        &picture,
        width,
        height,
        FilterType::Triangle,
    ))
}

/// The fields of crops/ with their level-0 pixels, if asked for; those that cannot be read are left out.
pub fn read_crops(
    result: &SlideResult,
    reader: &dyn SlideReader,
    mask: &TissueMask,
    formats: &[Format],
) -> Vec<(crops::Field, RgbImage)> {
    if !formats.contains(&Format::Crops) {
        return Vec::new();
    }
    crops::choose(result, mask)
        .into_iter()
        .filter_map(|field| {
            let [x, y, w, h] = field.level0_px;
            let pixels = reader.read_level(0, x, y, w as u32, h as u32).ok()?;
            Some((field, pixels))
        })
        .collect()
}
