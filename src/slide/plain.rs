//! Plain images: PNG, JPEG and TIFF through the `image` crate, wholly in memory, one level.
//!
//! Out: 8-bit RGB. 16-bit channels are scaled to 8 bits, grey is repeated, transparency is laid
//! over white. Pixels stay in the file's order (no EXIF rotation), so that coordinates are those of
//! the stored image.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageReader, Limits, RgbImage};

use super::{Level, SlideError, SlideInfo, SlideReader};
use crate::digest::sha256_hex;

/// [`SlideInfo::vendor`] of a plain image.
pub const VENDOR: &str = "image";
/// Longest side of a plain image, px.
const MAX_SIDE_PX: u32 = 100_000;
/// Memory for decoding a plain image, bytes: about 700 Mpx of RGB. Larger pictures belong in a
/// tiled, pyramidal file.
const MAX_DECODED_BYTES: u64 = 2 << 30;

/// One image in memory.
pub struct PlainReader {
    info: SlideInfo,
    pixels: RgbImage,
}

impl PlainReader {
    /// Reads and decodes the image at `path`.
    ///
    /// # Errors
    /// [`SlideError::Unsupported`] for a format that is not known, damage, or too many pixels.
    pub fn open(path: &Path) -> Result<Self, SlideError> {
        let unsupported = |reason: String| SlideError::unsupported(path, reason);
        let bytes =
            read_image_file(path).map_err(|e| unsupported(format!("{e}: check the file")))?;
        let mut reader = ImageReader::new(Cursor::new(&bytes))
            .with_guessed_format()
            .map_err(|e| unsupported(e.to_string()))?;
        if reader.format().is_none() {
            return Err(unsupported(
                "neither OpenSlide nor the image reader knows its format: give a slide that OpenSlide \
                 reads (svs, ndpi, mrxs, scn, bif, tiled tiff, DICOM, …) or a PNG, JPEG or TIFF"
                    .to_owned(),
            ));
        }
        reader.limits(limits());
        let pixels = reader
            .decode()
            .map_err(|e| unsupported(decode_reason(&e)))?;
        let pixels = to_rgb_over_white(pixels);
        if pixels.width() == 0 || pixels.height() == 0 {
            return Err(unsupported("it has no pixels".to_owned()));
        }
        Ok(Self::from_parts(path, pixels, &bytes))
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
            objective_power: None,
            bounds_px: None,
            background: [255; 3],
            associated: Vec::new(),
            properties: BTreeMap::new(),
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

/// The file's bytes, refused above the limit before they are read.
fn read_image_file(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if bytes > MAX_DECODED_BYTES {
        return Err(format!(
            "{bytes} bytes are more than a plain image may have ({MAX_DECODED_BYTES})"
        ));
    }
    std::fs::read(path).map_err(|e| e.to_string())
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

/// Why decoding failed, with the cure.
fn decode_reason(error: &image::ImageError) -> String {
    match error {
        image::ImageError::Limits(_) => format!(
            "{error}: a plain image may have {MAX_SIDE_PX} px a side and {} GiB decoded: convert it to \
             a tiled, pyramidal TIFF",
            MAX_DECODED_BYTES >> 30
        ),
        image::ImageError::Unsupported(_) => {
            format!("{error}: save it as 8-bit RGB PNG, JPEG or TIFF")
        }
        _ => format!("{error}: the file is damaged or cut short: copy it again"),
    }
}

/// 8-bit RGB; an image with alpha is laid over white in its own bit depth and rounded once.
fn to_rgb_over_white(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageLumaA8(_) | DynamicImage::ImageRgba8(_) => {
            let rgba = image.into_rgba8();
            map_rgba(rgba.width(), rgba.height(), rgba.as_raw(), 255)
        }
        DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgba16(_)
        | DynamicImage::ImageRgba32F(_) => {
            let rgba = image.into_rgba16();
            map_rgba(rgba.width(), rgba.height(), rgba.as_raw(), 65_535)
        }
        // Without alpha `image` scales 16 bit by round(c / 257).
        opaque => opaque.into_rgb8(),
    }
}

/// Straight (not premultiplied) RGBA with channels 0..=`full` over white, as 8 bit:
/// round(255 (c a + full (full - a)) / full²).
fn map_rgba<T: Copy + Into<u64>>(width: u32, height: u32, rgba: &[T], full: u64) -> RgbImage {
    let over_white = |c: T, a: u64| {
        let scaled = 255 * (c.into() * a + full * (full - a));
        ((scaled + full * full / 2) / (full * full)) as u8
    };
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for px in rgba.chunks_exact(4) {
        if let &[r, g, b, a] = px {
            let a = a.into();
            rgb.extend([over_white(r, a), over_white(g, a), over_white(b, a)]);
        }
    }
    RgbImage::from_raw(width, height, rgb).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, Rgb, Rgba};

    fn open_saved(image: &DynamicImage, name: &str) -> PlainReader {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        image.save(&path).unwrap();
        PlainReader::open(&path).unwrap()
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
        let message = PlainReader::open(&path).err().unwrap().to_string();
        assert!(message.contains("huge.png"), "{message}");
        assert!(message.contains("pyramidal"), "{message}");
    }
}
