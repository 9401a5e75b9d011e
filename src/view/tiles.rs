//! The slide as square JPEG tiles of a pyramid, level by level half as large (Deep Zoom's scheme).
//!
//! In: a reader, or a small picture where there is no slide. Out: one tile at a time. What is coarser than the small
//! picture is cut from it, so that no tile reads a whole slide. Decoded source tiles are kept by OpenSlide's own cache.

use std::sync::Arc;

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::geometry::Rect;
use crate::slide::level::{coarsest_fine_enough, level0_per_level};
use crate::slide::plain::PlainReader;
use crate::slide::resample::{self, HAMMING};
use crate::slide::{SlideError, SlideReader};

/// Side of a tile, px.
pub const TILE_PX: u32 = 256;
/// Of tiles: no artefact shows at this quality, and a tile has some 20 kB.
const JPEG_QUALITY: u8 = 85;

/// A slide's pyramid of tiles.
pub struct Tiles {
    size_px: [u64; 2],
    slide: Option<Arc<dyn SlideReader>>,
    thumb: PlainReader,
    /// Level-0 px per px of the thumb.
    level0_per_thumb: [f64; 2],
}

impl Tiles {
    /// Tiles of a slide of `size_px` level-0 px; without a reader all are cut from `thumb`, enlarged.
    pub fn new(size_px: [u64; 2], slide: Option<Arc<dyn SlideReader>>, thumb: RgbImage) -> Self {
        let thumb_px = [thumb.width(), thumb.height()].map(|px| f64::from(px.max(1)));
        Self {
            size_px,
            slide,
            level0_per_thumb: [
                size_px[0] as f64 / thumb_px[0],
                size_px[1] as f64 / thumb_px[1],
            ],
            thumb: PlainReader::from_rgb("thumb.png", thumb),
        }
    }

    /// The slide, where tiles show its own pixels.
    pub fn slide(&self) -> Option<&Arc<dyn SlideReader>> {
        self.slide.as_ref()
    }

    /// The level of full size; level 0 is 1 px.
    pub fn max_level(&self) -> u32 {
        let longer = self.size_px[0].max(self.size_px[1]).max(1);
        longer.next_power_of_two().trailing_zeros()
    }

    /// A tile as JPEG; `None` for a place that the pyramid does not have.
    ///
    /// # Errors
    /// [`SlideError`] where the slide cannot be read.
    pub fn jpeg(&self, level: u32, column: u32, row: u32) -> Result<Option<Vec<u8>>, SlideError> {
        let Some((rect, level0_per_px)) = self.place(level, column, row) else {
            return Ok(None);
        };
        let pixels = self.pixels(rect, level0_per_px)?;
        let mut jpeg = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY);
        match pixels.write_with_encoder(encoder) {
            Ok(()) => Ok(Some(jpeg)),
            Err(error) => Err(SlideError::Invalid {
                path: "tile".into(),
                reason: format!("cannot be encoded: {error}"),
            }),
        }
    }

    /// A tile's box in px of its level, and level-0 px per px of it.
    fn place(&self, level: u32, column: u32, row: u32) -> Option<(Rect, f64)> {
        let scale = 1u64 << self.max_level().checked_sub(level)?;
        let [w, h] = self.size_px.map(|px| px.div_ceil(scale).max(1));
        let span = |at: u32, size: u64| {
            let start = u64::from(at) * u64::from(TILE_PX);
            let len = size.checked_sub(start)?.min(u64::from(TILE_PX));
            (len > 0).then_some((i32::try_from(start).ok()?, len as i32))
        };
        let (x, width) = span(column, w)?;
        let (y, height) = span(row, h)?;
        Some((Rect::new(x, y, width, height), scale as f64))
    }

    fn pixels(&self, rect: Rect, level0_per_px: f64) -> Result<RgbImage, SlideError> {
        let per = |source: [f64; 2]| source.map(|level0| level0_per_px / level0);
        // A slide's coarsest level may be finer than the thumb: then the thumb is much the cheaper source.
        let from_thumb = per(self.level0_per_thumb).iter().all(|&px| px >= 1.0);
        match &self.slide {
            Some(slide) if !from_thumb => {
                let levels = &slide.info().levels;
                let level = coarsest_fine_enough(levels, [level0_per_px; 2]);
                let source = per(level0_per_level(levels, level));
                resample::window(slide.as_ref(), level, rect, source, HAMMING)
            }
            _ => resample::window(&self.thumb, 0, rect, per(self.level0_per_thumb), HAMMING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slide::testing::{TestSlide, busy};

    fn tiles(with_slide: bool) -> Tiles {
        let slide = TestSlide::new(&[[1000, 700], [250, 175]], busy);
        let thumb = RgbImage::from_pixel(100, 70, image::Rgb([9, 99, 199]));
        let slide: Option<Arc<dyn SlideReader>> = match with_slide {
            true => Some(Arc::new(slide)),
            false => None,
        };
        Tiles::new([1000, 700], slide, thumb)
    }

    #[test]
    fn every_level_is_covered_and_nothing_beyond() {
        for tiles in [tiles(true), tiles(false)] {
            assert_eq!(tiles.max_level(), 10);
            for level in 0..=10 {
                let scale = 1u32 << (10 - level);
                let [w, h] = [1000u32, 700].map(|px| px.div_ceil(scale));
                let mut area = 0;
                for (column, row) in (0..5).flat_map(|c| (0..4).map(move |r| (c, r))) {
                    let Some(jpeg) = tiles.jpeg(level, column, row).unwrap() else {
                        continue;
                    };
                    let tile = image::load_from_memory(&jpeg).unwrap();
                    area += tile.width() * tile.height();
                }
                assert_eq!(area, w * h, "level {level}");
            }
            assert!(tiles.jpeg(11, 0, 0).unwrap().is_none());
            assert!(tiles.jpeg(10, 4, 0).unwrap().is_none());
            assert!(tiles.jpeg(0, u32::MAX, u32::MAX).unwrap().is_none());
        }
    }

    #[test]
    fn full_size_tiles_are_the_slides_pixels() {
        let tiles = tiles(true);
        let slide = TestSlide::new(&[[1000, 700], [250, 175]], busy).level(0);
        let (rect, scale) = tiles.place(10, 3, 2).unwrap();
        assert_eq!(rect, Rect::new(768, 512, 232, 188));
        let pixels = tiles.pixels(rect, scale).unwrap();
        let expected = image::imageops::crop_imm(&slide, 768, 512, 232, 188).to_image();
        assert!(pixels == expected);
    }
}
