//! Plain images as slides: PNG, JPEG and TIFF, wholly in memory, one level.
//!
//! Out: 8-bit RGB, as [`super::picture`] reads it.

use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;

use super::{Level, SlideError, SlideInfo, SlideReader, picture};
use crate::digest::sha256_hex;

/// [`SlideInfo::vendor`] of a plain image.
pub const VENDOR: &str = "image";
/// One image in memory.
pub struct PlainReader {
    info: SlideInfo,
    pixels: RgbImage,
}

impl PlainReader {
    /// Reads and decodes the image at `path`; of a TIFF of several pages the largest, or the page of
    /// number `page`, counted from 1.
    ///
    /// # Errors
    /// [`SlideError::Unsupported`] for a format that is not known, damage, or too many pixels.
    pub fn open(path: &Path, page: Option<usize>) -> Result<Self, SlideError> {
        let unsupported = |reason: String| SlideError::unsupported(path, reason);
        let bytes = picture::read_file(path).map_err(unsupported)?;
        let picture = picture::decode(&bytes, page).map_err(unsupported)?;
        let physical_mpp = picture.physical_mpp;
        let (pixels, notes) = picture.into_rgb();
        if pixels.width() == 0 || pixels.height() == 0 {
            return Err(unsupported("it has no pixels".to_owned()));
        }
        let mut reader = Self::from_parts(path, pixels, &bytes);
        reader.info.physical_mpp = physical_mpp;
        reader.info.notes = notes;
        if let Some(number) = page {
            // Two pages of a file are two images.
            reader.info.quickhash += &format!("-page{number}");
        }
        Ok(reader)
    }

    /// An image that is in memory already; `name` stands for its path in messages.
    pub fn from_rgb(name: &str, pixels: RgbImage) -> Self {
        let bytes = pixels.as_raw().clone();
        Self::from_parts(Path::new(name), pixels, &bytes)
    }

    fn from_parts(path: &Path, pixels: RgbImage, bytes: &[u8]) -> Self {
        let info = SlideInfo {
            path: path.to_path_buf(),
            vendor: VENDOR.to_owned(),
            levels: vec![Level {
                width_px: pixels.width().into(),
                height_px: pixels.height().into(),
                downsample: 1.0,
            }],
            mpp: None,
            physical_mpp: None,
            objective_power: None,
            bounds_px: None,
            background: [255; 3],
            associated: Vec::new(),
            properties: BTreeMap::new(),
            notes: Vec::new(),
            file_bytes: bytes.len() as u64,
            quickhash: sha256_hex(bytes),
        };
        Self { info, pixels }
    }
}

impl SlideReader for PlainReader {
    fn info(&self) -> &SlideInfo {
        &self.info
    }

    fn read_level(
        &self,
        level: usize,
        x_px: u64,
        y_px: u64,
        w: u32,
        h: u32,
    ) -> Result<RgbImage, SlideError> {
        let failed = |reason| SlideError::read(&self.info, level, [x_px, y_px], [w, h], reason);
        if level != 0 {
            return Err(failed("a plain image has one level"));
        }
        copy_window(&self.pixels, x_px, y_px, w, h)
            .ok_or_else(|| failed("the window is not inside the image"))
    }
}

/// The `w` x `h` px of `image` at (`x_px`, `y_px`); `None` if they are not all inside.
fn copy_window(image: &RgbImage, x_px: u64, y_px: u64, w: u32, h: u32) -> Option<RgbImage> {
    let stride = image.width() as usize * 3;
    let (left, bytes) = (usize::try_from(x_px).ok()? * 3, w as usize * 3);
    if left + bytes > stride {
        return None;
    }
    let mut out = Vec::with_capacity(bytes * h as usize);
    for row in 0..h as usize {
        let start = (usize::try_from(y_px).ok()? + row) * stride + left;
        out.extend_from_slice(image.as_raw().get(start..start + bytes)?);
    }
    RgbImage::from_raw(w, h, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageBuffer, Luma, Rgb, Rgba};

    fn open_saved(image: &DynamicImage, name: &str) -> PlainReader {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        image.save(&path).unwrap();
        PlainReader::open(&path, None).unwrap()
    }

    #[test]
    fn sixteen_bit_is_scaled_not_cut() {
        let values = [0u16, 128, 129, 257, 32_768, 65_406, 65_535];
        let image = ImageBuffer::from_fn(7, 1, |x, _| Rgb([values[x as usize]; 3]));
        for name in ["a.png", "a.tif"] {
            let reader = open_saved(&DynamicImage::ImageRgb16(image.clone()), name);
            let got = reader.read_level(0, 0, 0, 7, 1).unwrap();
            for (x, &v) in values.iter().enumerate() {
                let want = (f64::from(v) / 257.0).round() as u8;
                assert_eq!(got.get_pixel(x as u32, 0).0, [want; 3], "{name} {v}");
            }
        }
    }

    #[test]
    fn transparency_is_laid_over_white() {
        let image = ImageBuffer::from_fn(256, 1, |x, _| Rgba([200u8, 100, 0, x as u8]));
        let got = open_saved(&DynamicImage::ImageRgba8(image), "a.png");
        let deep =
            ImageBuffer::from_fn(256, 1, |x, _| Rgba([51_400u16, 25_700, 0, x as u16 * 257]));
        let got16 = open_saved(&DynamicImage::ImageRgba16(deep), "a.png");
        for a in 0..256u32 {
            let over =
                |c: f64| (c * f64::from(a) / 255.0 + 255.0 * f64::from(255 - a) / 255.0).round();
            let want = [over(200.0) as u8, over(100.0) as u8, over(0.0) as u8];
            assert_eq!(got.pixels.get_pixel(a, 0).0, want);
            assert_eq!(got16.pixels.get_pixel(a, 0).0, want);
        }
    }

    #[test]
    fn grey_becomes_rgb_and_windows_are_exact() {
        let image = ImageBuffer::from_fn(9, 5, |x, y| Luma([(x * 10 + y) as u8]));
        let reader = open_saved(&DynamicImage::ImageLuma8(image), "a.png");
        let got = reader.read_level(0, 3, 1, 4, 2).unwrap();
        assert_eq!(got.get_pixel(0, 0).0, [31; 3]);
        assert_eq!(got.get_pixel(3, 1).0, [62; 3]);
        assert!(reader.read_level(0, 6, 0, 4, 2).is_err());
        assert!(reader.read_level(0, 0, 4, 4, 2).is_err());
        assert!(reader.read_level(1, 0, 0, 4, 2).is_err());
    }

    #[test]
    fn absurd_sizes_are_refused_before_memory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge.png");
        // A PNG header that claims 90,000 x 90,000 px.
        let mut png = vec![0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13];
        let mut header = b"IHDR".to_vec();
        header.extend(90_000u32.to_be_bytes());
        header.extend(90_000u32.to_be_bytes());
        header.extend([8, 2, 0, 0, 0]);
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        png.extend(&header);
        png.extend(crc.sum().to_be_bytes());
        png.extend([0, 0, 0, 0]);
        png.extend(b"IDAT");
        png.extend([0x35, 0xaf, 0x06, 0x1e]);
        std::fs::write(&path, png).unwrap();
        let message = PlainReader::open(&path, None).err().unwrap().to_string();
        assert!(message.contains("huge.png"), "{message}");
        assert!(message.contains("pyramidal"), "{message}");
    }
}
