//! Output pixels of any scale from one read and one resize.
//!
//! In: a reader, a level, a box of output px, and the level px per output px. Out: RGB. The source
//! window and the filter's phase depend on the box and the scale alone, so the same box always
//! gives the same bytes.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use super::{SlideError, SlideReader};
use crate::geometry::Rect;

/// The filter of proc px, widened by the scale when shrinking. Part of a result's identity.
pub const FILTER_NAME: &str = "catmull-rom";

/// A resampling filter and its half width in px of the coarser side.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    pub kind: FilterType,
    pub support_px: f64,
}

/// Sharp with little ringing: for what the network sees.
pub const CATMULL_ROM: Filter = Filter {
    kind: FilterType::CatmullRom,
    support_px: 2.0,
};
/// Narrow, so that little is read twice, and without ringing: for thumbnails and the tissue mask.
pub const HAMMING: Filter = Filter {
    kind: FilterType::Hamming,
    support_px: 1.0,
};

/// Along one axis: which level px are read, how often the last one is repeated beyond the level's
/// end, and which part of them the output covers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    first_px: u64,
    read_px: u32,
    repeat_px: u32,
    crop_start: f64,
    crop_len: f64,
}

impl Span {
    fn new(
        out_start: i32,
        out_len: i32,
        level_px: u64,
        level_per_out: f64,
        support_px: f64,
    ) -> Self {
        let start = f64::from(out_start) * level_per_out;
        let len = f64::from(out_len) * level_per_out;
        let margin = support_px * level_per_out.max(1.0) + 1.0;
        let last_px = level_px.saturating_sub(1);
        let first_px = ((start - margin).floor().max(0.0) as u64).min(last_px);
        let end_px = ((start + len + margin).ceil() as u64).clamp(first_px + 1, level_px.max(1));
        // The last output px may reach beyond the level by half of itself. 1e-6: float noise.
        let repeat_px = (start + len - end_px as f64 - 1e-6).ceil().max(0.0) as u32;
        let read_px = (end_px - first_px) as u32;
        let crop_start = start - first_px as f64;
        Self {
            first_px,
            read_px,
            repeat_px,
            crop_start,
            crop_len: len.min(f64::from(read_px + repeat_px) - crop_start),
        }
    }
}

/// RGB of the output box `out`, whose px (i, j) covers level px [i, i+1) x [j, j+1) times
/// `level_per_out`.
///
/// Beyond the level its last px are repeated. At scale 1 nothing is resized.
pub fn window(
    reader: &dyn SlideReader,
    level: usize,
    out: Rect,
    level_per_out: [f64; 2],
    filter: Filter,
) -> Result<RgbImage, SlideError> {
    if out.is_empty() {
        return Ok(RgbImage::new(0, 0));
    }
    let (out_w, out_h) = (out.w as u32, out.h as u32);
    if level_per_out == [1.0, 1.0] {
        return reader.read_level(level, out.x as u64, out.y as u64, out_w, out_h);
    }
    let size = reader.info().levels.get(level);
    let (width, height) = size.map_or((1, 1), |l| (l.width_px, l.height_px));
    let x = Span::new(out.x, out.w, width, level_per_out[0], filter.support_px);
    let y = Span::new(out.y, out.h, height, level_per_out[1], filter.support_px);
    let read = reader.read_level(level, x.first_px, y.first_px, x.read_px, y.read_px)?;
    let source = repeat_rim(read, x.repeat_px, y.repeat_px);
    resize(&source, x, y, out_w, out_h, filter).map_err(|reason| {
        let (at, size) = ([x.first_px, y.first_px], [x.read_px, y.read_px]);
        SlideError::read(reader.info(), level, at, size, reason)
    })
}

fn resize(
    source: &RgbImage,
    x: Span,
    y: Span,
    out_w: u32,
    out_h: u32,
    filter: Filter,
) -> Result<RgbImage, String> {
    let from = ImageRef::new(
        source.width(),
        source.height(),
        source.as_raw(),
        PixelType::U8x3,
    )
    .map_err(|e| e.to_string())?;
    let mut to = Image::new(out_w, out_h, PixelType::U8x3);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter.kind))
        .crop(x.crop_start, y.crop_start, x.crop_len, y.crop_len);
    Resizer::new()
        .resize(&from, &mut to, &options)
        .map_err(|e| e.to_string())?;
    RgbImage::from_raw(out_w, out_h, to.into_vec()).ok_or_else(|| "resize failed".to_owned())
}

/// `image` with its last column and row repeated `right` and `below` times.
fn repeat_rim(image: RgbImage, right: u32, below: u32) -> RgbImage {
    if right == 0 && below == 0 {
        return image;
    }
    let (width, height) = image.dimensions();
    RgbImage::from_fn(width + right, height + below, |x, y| {
        *image.get_pixel(x.min(width - 1), y.min(height - 1))
    })
}
