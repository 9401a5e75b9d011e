//! The one reader of plain images: PNG, JPEG and TIFF, known by their content.
//!
//! In: a file. Out: a [`Picture`], or why it is refused and the cure. Pixels stay in the file's
//! order: an EXIF orientation is told, never applied, so that coordinates are those of the stored
//! image. Never fills in what is missing.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::{jpeg, tiff_image};

/// Longest side of a plain image, px.
const MAX_SIDE_PX: u32 = 100_000;
/// Memory for decoding a plain image, bytes: about 700 Mpx of RGB. Larger pictures belong in a
/// tiled, pyramidal file.
pub(super) const MAX_DECODED_BYTES: u64 = 2 << 30;
/// Largest 16-bit value of a camera of 12 bits.
const MAX_12_BIT: u16 = 4095;

/// A decoded file.
pub struct Picture {
    /// The pixels as the file holds them.
    pub pixels: DynamicImage,
    /// Whether the colours were multiplied by their alpha (TIFF's associated alpha).
    pub premultiplied: bool,
    /// µm/px in x and y that OME-XML states.
    pub physical_mpp: Option<[f64; 2]>,
    /// What the user should know about how the file was read.
    pub notes: Vec<String>,
}

impl Picture {
    /// A picture about which there is nothing to tell.
    pub(super) fn new(pixels: DynamicImage) -> Self {
        Self {
            pixels,
            premultiplied: false,
            physical_mpp: None,
            notes: Vec::new(),
        }
    }

    /// 8-bit RGB; transparency is laid over white in the picture's own bit depth and rounded once.
    /// 16-bit channels that hold no more than 255 are 8 bits wide; wider ones are scaled.
    pub fn into_rgb(mut self) -> (RgbImage, Vec<String>) {
        if let Some(largest) = largest_of_16_bit(&self.pixels).filter(|&v| v > 0) {
            if largest <= 255 {
                self.pixels = narrow(self.pixels);
                self.notes.push(
                    "its 16-bit channels hold no value above 255 and are read as 8-bit".to_owned(),
                );
            } else if largest <= MAX_12_BIT {
                self.notes.push(format!(
                    "its 16-bit channels hold no value above {largest} and look dark: if it is a 12-bit image, scale it to 8 \
                     bits first"
                ));
            }
        }
        (over_white(self.pixels, self.premultiplied), self.notes)
    }
}

/// Reads and decodes the image at `path`.
///
/// # Errors
/// What is wrong, and the cure; never the file's name.
pub fn read(path: &Path) -> Result<Picture, String> {
    decode(&read_file(path)?, None)
}

/// The file's bytes, refused above the limit before they are read.
///
/// # Errors
/// As [`read`].
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let check = |e: std::io::Error| format!("{e}: check the file");
    let bytes = std::fs::metadata(path).map_err(check)?.len();
    if bytes > MAX_DECODED_BYTES {
        return Err(format!(
            "{bytes} bytes are more than a plain image may have ({MAX_DECODED_BYTES}): check the file"
        ));
    }
    std::fs::read(path).map_err(check)
}

/// Decodes the bytes of an image file; of a TIFF the page of number `page`, counted from 1.
///
/// # Errors
/// As [`read`], and a page of a file that has none.
pub(super) fn decode(bytes: &[u8], page: Option<usize>) -> Result<Picture, String> {
    if tiff_image::is_tiff(bytes) {
        return tiff_image::decode(bytes, page);
    }
    if page.is_some_and(|number| number != 1) {
        return Err("is no TIFF: other images have no pages: leave --page out".to_owned());
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::check_complete(bytes).map_err(|reason| {
            format!("{reason}: the file is damaged or cut short: copy it again")
        })?,
        Ok(ImageFormat::Png) => {}
        _ => {
            return Err(
                "neither OpenSlide nor the image reader knows its format: give a slide that OpenSlide \
                 reads (svs, ndpi, mrxs, scn, bif, tiled tiff, DICOM, …) or a PNG, JPEG or TIFF"
                    .to_owned(),
            );
        }
    }
    decode_with_image(bytes)
}

/// Decodes what the `image` crate understands by itself.
pub(super) fn decode_with_image(bytes: &[u8]) -> Result<Picture, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|e| decode_reason(&e))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut limits = limits();
    limits
        .reserve(decoder.total_bytes())
        .and_then(|()| decoder.set_limits(limits))
        .map_err(|e| decode_reason(&e))?;
    let pixels = DynamicImage::from_decoder(decoder).map_err(|e| decode_reason(&e))?;
    let mut picture = Picture::new(pixels);
    picture.notes.extend(orientation_note(orientation));
    Ok(picture)
}

/// What is said about an orientation tag.
pub(super) fn orientation_note(orientation: Orientation) -> Option<String> {
    (orientation != Orientation::NoTransforms).then(|| {
        format!(
            "its orientation tag ({}) is not applied: the pixels and all coordinates are those of the stored image",
            orientation.to_exif()
        )
    })
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

/// Refuses sizes above the limits.
pub(super) fn check_limits(width: u32, height: u32, bytes_per_px: u64) -> Result<(), String> {
    let bytes = u64::from(width) * u64::from(height) * bytes_per_px;
    if width > MAX_SIDE_PX || height > MAX_SIDE_PX || bytes > MAX_DECODED_BYTES {
        return Err(too_large(&format!("{width} x {height} px are too many")));
    }
    Ok(())
}

fn too_large(error: &str) -> String {
    format!(
        "{error}: a plain image may have {MAX_SIDE_PX} px a side and {} GiB decoded: convert it to \
         a tiled, pyramidal TIFF",
        MAX_DECODED_BYTES >> 30
    )
}

/// Why decoding failed, with the cure.
fn decode_reason(error: &image::ImageError) -> String {
    match error {
        image::ImageError::Limits(_) => too_large(&error.to_string()),
        image::ImageError::Unsupported(_) => {
            format!("{error}: save it as 8-bit RGB PNG, JPEG or TIFF")
        }
        _ => format!("{error}: the file is damaged or cut short: copy it again"),
    }
}

/// The largest colour of an image of 16 bits, without its alpha.
fn largest_of_16_bit(image: &DynamicImage) -> Option<u16> {
    let colours = |raw: &[u16], channels: usize| {
        let pixels = raw.chunks_exact(channels);
        pixels.flat_map(|px| &px[..channels - 1]).copied().max()
    };
    match image {
        DynamicImage::ImageLuma16(grey) => grey.as_raw().iter().copied().max(),
        DynamicImage::ImageRgb16(rgb) => rgb.as_raw().iter().copied().max(),
        DynamicImage::ImageLumaA16(grey) => colours(grey.as_raw(), 2),
        DynamicImage::ImageRgba16(rgba) => colours(rgba.as_raw(), 4),
        _ => None,
    }
}

/// An opaque image of 16 bits whose colours are at most 255, as 8 bits; any other unchanged.
fn narrow(image: DynamicImage) -> DynamicImage {
    let cut = |raw: &[u16]| raw.iter().map(|&v| v as u8).collect::<Vec<u8>>();
    match image {
        DynamicImage::ImageLuma16(grey) => {
            let (w, h) = grey.dimensions();
            image::GrayImage::from_raw(w, h, cut(grey.as_raw())).map(DynamicImage::ImageLuma8)
        }
        DynamicImage::ImageRgb16(rgb) => {
            let (w, h) = rgb.dimensions();
            RgbImage::from_raw(w, h, cut(rgb.as_raw())).map(DynamicImage::ImageRgb8)
        }
        other => Some(other),
    }
    .unwrap_or_default()
}

/// 8-bit RGB; an image with alpha is laid over white in its own bit depth and rounded once.
fn over_white(image: DynamicImage, premultiplied: bool) -> RgbImage {
    match image {
        DynamicImage::ImageLumaA8(_) | DynamicImage::ImageRgba8(_) => {
            let rgba = image.into_rgba8();
            map_rgba(rgba.dimensions(), rgba.as_raw(), 255, premultiplied)
        }
        DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgba16(_)
        | DynamicImage::ImageRgba32F(_) => {
            let rgba = image.into_rgba16();
            map_rgba(rgba.dimensions(), rgba.as_raw(), 65_535, premultiplied)
        }
        // Without alpha `image` scales 16 bit by round(c / 257).
        opaque => opaque.into_rgb8(),
    }
}

/// RGBA with channels 0..=`full` over white, as 8 bit: round(255 (c a + full (full - a)) / full²),
/// and for premultiplied colours, which are c a / full already, round(255 (c + full - a) / full).
fn map_rgba<T: Copy + Into<u64>>(
    (width, height): (u32, u32),
    rgba: &[T],
    full: u64,
    premultiplied: bool,
) -> RgbImage {
    let over_white = |c: T, a: u64| {
        let weight = if premultiplied { full } else { a };
        let colour = (c.into() * weight).min(a * full);
        let scaled = 255 * (colour + full * (full - a));
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
