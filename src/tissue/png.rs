//! Masks as pictures.
//!
//! In: a PNG of any size, or a mask. Out: a mask, or a PNG of 0 and 255 with one px per cell. Never
//! writes a file.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat};

use super::{TissueError, TissueMask};
use crate::slide::picture;

/// Relative difference in the ratio of sides that rounding and cropping of a mask may cause.
const SHAPE_TOLERANCE: f64 = 0.02;

impl TissueMask {
    /// Reads a mask picture of any size, which covers the whole slide. A px is tissue if a colour
    /// channel is above 0 and it is not transparent.
    ///
    /// # Errors
    /// [`TissueError::Mask`] naming the file: it is no picture, or not of the slide's shape.
    pub fn from_png(path: &Path, level0_size_px: [u64; 2]) -> Result<Self, TissueError> {
        let failed = |reason: String| TissueError::Mask {
            path: path.to_path_buf(),
            reason: format!(
                "cannot be read as a mask: {reason}: give a PNG in which tissue is above 0"
            ),
        };
        let image = picture::read(path).map_err(failed)?.pixels;
        let (width, height) = (image.width(), image.height());
        if width == 0 || height == 0 {
            return Err(failed("it has no pixels".to_owned()));
        }
        let [w, h] = level0_size_px.map(|side| side as f64);
        let fitting = f64::from(width) * h / w.max(1.0);
        let tolerance = (SHAPE_TOLERANCE * fitting).max(1.0);
        if (f64::from(height) - fitting).abs() > tolerance {
            return Err(TissueError::Mask {
                path: path.to_path_buf(),
                reason: format!(
                    "is {width} x {height} px, but the slide is {w} x {h} px: a mask covers the whole slide, so its \
                     sides have the same ratio ({width} x {fitting:.0} px, say)"
                ),
            });
        }
        Ok(Self {
            width,
            height,
            cell_level0_px: [
                level0_size_px[0] as f64 / f64::from(width),
                level0_size_px[1] as f64 / f64::from(height),
            ],
            tissue: tissue_of(image),
        })
    }

    /// The mask as the bytes of an 8-bit grey PNG, 255 = tissue.
    ///
    /// # Errors
    /// A mask whose cells do not match its size, or the encoder's error.
    pub fn png_bytes(&self) -> Result<Vec<u8>, String> {
        let pixels = self
            .tissue
            .iter()
            .map(|&t| if t { 255 } else { 0 })
            .collect();
        let image = GrayImage::from_raw(self.width, self.height, pixels)
            .ok_or("the mask's size does not fit its cells")?;
        let mut bytes = Cursor::new(Vec::new());
        image
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(|e| e.to_string())?;
        Ok(bytes.into_inner())
    }
}

/// Which px of a mask picture are tissue.
fn tissue_of(image: DynamicImage) -> Vec<bool> {
    match image {
        DynamicImage::ImageLuma8(grey) => grey.as_raw().iter().map(|&v| v > 0).collect(),
        other => other
            .into_rgba16()
            .pixels()
            .map(|px| {
                let [r, g, b, a] = px.0;
                a > 0 && (r > 0 || g > 0 || b > 0)
            })
            .collect(),
    }
}
