//! Plain TIFF images, read as their tags say (TIFF 6.0, <https://www.itu.int/itudoc/itu-t/com16/tiff-fx/>).
//!
//! In: the bytes of a file. Out: its largest page as a [`Picture`]. A channel is transparency only
//! where ExtraSamples says so. Never shows a strip or tile that is missing or cut short.

use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use ::tiff::decoder::{Decoder, DecodingResult, Limits};
use ::tiff::tags::Tag;
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer};

use super::picture::{
    MAX_DECODED_BYTES, Picture, check_limits, decode_with_image, orientation_note,
};
use super::{jpeg, ome};

/// PhotometricInterpretation: white is 0, black is 0, RGB, YCbCr.
const GREY: std::ops::RangeInclusive<u16> = 0..=1;
const RGB: u16 = 2;
const YCBCR: u16 = 6;
/// Compression: JPEG (TIFF technical note 2).
pub(super) const JPEG: u16 = 7;
/// ExtraSamples: colours are multiplied by alpha, or not.
const ASSOCIATED_ALPHA: u16 = 1;
const UNASSOCIATED_ALPHA: u16 = 2;
/// Pages that are looked at.
const MAX_PAGES: usize = 10_000;

const SAVE_AS_RGB: &str = "save it as 8-bit RGB PNG, JPEG or TIFF";

/// Whether the bytes start as a TIFF or BigTIFF.
pub fn is_tiff(bytes: &[u8]) -> bool {
    matches!(
        bytes.get(..4),
        Some(b"II*\0" | b"MM\0*" | b"II+\0" | b"MM\0+")
    )
}

/// Decodes the largest page, or the page of number `chosen`, counted from 1.
///
/// # Errors
/// What is wrong, and the cure.
pub fn decode(bytes: &[u8], chosen: Option<usize>) -> Result<Picture, String> {
    let Ok(decoder) = Decoder::new(Cursor::new(bytes)) else {
        // It names what is wrong.
        return decode_with_image(bytes);
    };
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_DECODED_BYTES as usize;
    limits.intermediate_buffer_size = MAX_DECODED_BYTES as usize;
    limits.ifd_value_size = bytes.len().max(1 << 20);
    let mut decoder = decoder.with_limits(limits);
    let description = decoder
        .get_tag_ascii_string(Tag::ImageDescription)
        .unwrap_or_default();
    let pages = list_pages(&mut decoder)?;
    if let Some(number) = chosen {
        let page = pages.iter().find(|page| page.index + 1 == number);
        let page = page.ok_or_else(|| format!("has {} pages, no page {number}", pages.len()))?;
        let mut picture = read_page(bytes, &mut decoder, page)?;
        picture.physical_mpp = ome::physical_mpp(&description);
        return Ok(picture);
    }
    let largest = pages.iter().map(Page::area).max().unwrap_or(0);
    let shown: Vec<&Page> = pages.iter().filter(|page| page.area() == largest).collect();
    let mut picture = match shown[..] {
        [red, green, blue]
            if shown
                .iter()
                .all(|page| page.is_grey && page.size == red.size) =>
        {
            if !ome::is_three_channels(&description) {
                return Err(format!(
                    "it holds three grey pages of {} x {} px, and nothing says that they are red, green and blue: {SAVE_AS_RGB}",
                    red.size[0], red.size[1]
                ));
            }
            let planes = [red, green, blue].map(|page| read_page(bytes, &mut decoder, page));
            compose(planes)?
        }
        [first, ..] => read_page(bytes, &mut decoder, first)?,
        [] => return Err(format!("it has no page: {SAVE_AS_RGB}")),
    };
    picture.physical_mpp = ome::physical_mpp(&description);
    if let ([first, ..], true) = (&shown[..], pages.len() > 1 && picture.notes.is_empty()) {
        let which = if shown.len() > 1 {
            "the first of the largest"
        } else {
            "the largest"
        };
        let [w, h] = first.size;
        picture.notes.push(format!(
            "the file has {} pages: page {}, {which}, is used ({w} x {h} px); --page chooses another",
            pages.len(),
            first.index + 1
        ));
    }
    Ok(picture)
}

/// Whether OpenSlide would fail at the file's first page or show it otherwise than its tags say:
/// samples that are no unsigned integers of 8 or 16 bits, extra channels as transparency, or one of
/// several channels as the picture.
#[cfg_attr(not(feature = "openslide"), expect(dead_code))]
pub fn is_not_for_openslide(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else {
        return false;
    };
    let Ok(mut decoder) = Decoder::new(BufReader::new(file)) else {
        return false;
    };
    let samples = tag(&mut decoder, Tag::SamplesPerPixel, 1);
    let has_alpha = alpha_kind(&mut decoder).is_some();
    let is_grey = GREY.contains(&tag(&mut decoder, Tag::PhotometricInterpretation, 1));
    let colours = if is_grey { 1 } else { 3 };
    let has_wide_samples = tag(&mut decoder, Tag::SampleFormat, 1) != 1
        || tag(&mut decoder, Tag::BitsPerSample, 1) > 16;
    if has_wide_samples || samples > colours + u16::from(has_alpha) {
        return true;
    }
    let size = decoder.dimensions().ok();
    is_grey && {
        let pages = list_pages(&mut decoder).unwrap_or_default();
        let same = |page: &&Page| page.is_grey && Some((page.size[0], page.size[1])) == size;
        pages.iter().filter(same).count() == 3
    }
}

/// One image of the file.
struct Page {
    index: usize,
    size: [u32; 2],
    is_grey: bool,
}

impl Page {
    fn area(&self) -> u64 {
        u64::from(self.size[0]) * u64::from(self.size[1])
    }
}

/// The pages whose size can be read.
///
/// # Errors
/// A directory that cannot be followed: the file is cut off, or its directories go in a circle.
fn list_pages<R: Read + Seek>(decoder: &mut Decoder<R>) -> Result<Vec<Page>, String> {
    let mut pages = Vec::new();
    for index in 0..MAX_PAGES {
        if let Ok((w, h)) = decoder.dimensions() {
            let samples = tag(decoder, Tag::SamplesPerPixel, 1);
            let photometric = tag(decoder, Tag::PhotometricInterpretation, 1);
            pages.push(Page {
                index,
                size: [w, h],
                is_grey: samples == 1 && GREY.contains(&photometric),
            });
        }
        if !decoder.more_images() {
            break;
        }
        decoder
            .next_image()
            .map_err(|error| format!("its directory {}: {}", index + 2, reason(error)))?;
    }
    Ok(pages)
}

fn tag<R: Read + Seek>(decoder: &mut Decoder<R>, tag: Tag, missing: u16) -> u16 {
    let found = decoder.find_tag_unsigned_vec(tag).ok().flatten();
    found
        .and_then(|values| values.first().copied())
        .unwrap_or(missing)
}

/// What the first extra channel is, where it is alpha.
fn alpha_kind<R: Read + Seek>(decoder: &mut Decoder<R>) -> Option<u16> {
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples);
    let first = extra.ok()??.first().copied()?;
    matches!(first, ASSOCIATED_ALPHA | UNASSOCIATED_ALPHA).then_some(first)
}

fn read_page(
    bytes: &[u8],
    decoder: &mut Decoder<Cursor<&[u8]>>,
    page: &Page,
) -> Result<Picture, String> {
    decoder.seek_to_image(page.index).map_err(reason)?;
    let photometric = tag(decoder, Tag::PhotometricInterpretation, 1);
    let bits = decoder.find_tag_unsigned_vec::<u16>(Tag::BitsPerSample);
    let bits = bits
        .ok()
        .flatten()
        .and_then(|b| b.first().copied())
        .unwrap_or(1);
    let alpha = alpha_kind(decoder);
    let colours = match photometric {
        photometric if GREY.contains(&photometric) => 1,
        RGB | YCBCR => 3,
        _ => 0,
    };
    check_chunks(bytes, decoder)?;
    if bits < 8 || colours == 0 {
        return match page.index {
            0 => decode_with_image(bytes),
            _ => Err(format!(
                "its largest page has a colour model that is not read: {SAVE_AS_RGB}"
            )),
        };
    }
    let [w, h] = page.size;
    let samples = tag(decoder, Tag::SamplesPerPixel, 1);
    check_limits(w, h, u64::from(bits / 8) * u64::from(samples.max(3)))?;
    if samples < colours || (colours == 1 && samples > 1 && alpha.is_none()) {
        return Err(format!(
            "its {samples} channels are not marked as red, green and blue: {SAVE_AS_RGB}"
        ));
    }
    let mut buffer = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut buffer).map_err(reason)?;
    let (samples, mut notes) = Samples::from_buffer(buffer)?;
    let channels = Channels {
        planes: layout.planes,
        size: page.size,
        colours: colours.into(),
        alpha: alpha.is_some(),
    };
    let pixels = samples.into_image(&channels, photometric == YCBCR)?;
    let orientation = tag(decoder, Tag::Orientation, 1);
    let orientation = u8::try_from(orientation)
        .ok()
        .and_then(Orientation::from_exif);
    notes.extend(orientation.and_then(orientation_note));
    Ok(Picture {
        premultiplied: alpha == Some(ASSOCIATED_ALPHA),
        notes,
        ..Picture::new(pixels)
    })
}

/// Refuses a page whose strips or tiles are missing, beyond the end of the file, or JPEG cut short.
fn check_chunks(bytes: &[u8], decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<(), String> {
    let mut list = |strips, tiles| {
        let list = decoder.get_tag_u64_vec(strips);
        list.or_else(|_| decoder.get_tag_u64_vec(tiles))
            .map_err(reason)
    };
    let offsets = list(Tag::StripOffsets, Tag::TileOffsets)?;
    let lengths = list(Tag::StripByteCounts, Tag::TileByteCounts)?;
    let is_jpeg = tag(decoder, Tag::Compression, 1) == JPEG;
    let tables = decoder.get_tag_u8_vec(Tag::JPEGTables).unwrap_or_default();
    for (k, (&offset, &length)) in offsets.iter().zip(&lengths).enumerate() {
        let damaged = |what: &str| {
            let n = offsets.len();
            format!(
                "strip or tile {} of {n} {what}: the file is damaged or cut short: copy it again",
                k + 1
            )
        };
        if length == 0 {
            return Err(damaged("is missing"));
        }
        let range = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(offset.saturating_add(length)).ok());
        let chunk = range.and_then(|(from, to)| bytes.get(from..to));
        let chunk = chunk.ok_or_else(|| damaged("lies beyond the end of the file"))?;
        if is_jpeg {
            jpeg::check_complete(&jpeg::with_tables(&tables, chunk))
                .map_err(|reason| damaged(&format!("is damaged: {reason}")))?;
        }
    }
    Ok(())
}

fn reason(error: ::tiff::TiffError) -> String {
    match error {
        ::tiff::TiffError::UnsupportedError(_) => format!("{error}: {SAVE_AS_RGB}"),
        _ => format!("{error}: the file is damaged or cut short: copy it again"),
    }
}

/// Decoded samples that are understood.
enum Samples {
    Eight(Vec<u8>),
    Sixteen(Vec<u16>),
    /// From 0 to 1.
    Unit(Vec<f32>),
}

/// How samples lie in the buffer, and what they are.
struct Channels {
    planes: usize,
    size: [u32; 2],
    colours: usize,
    alpha: bool,
}

impl Samples {
    /// Understands samples of any type, or refuses those whose white is not known.
    fn from_buffer(buffer: DecodingResult) -> Result<(Self, Vec<String>), String> {
        let integers = |all: &mut dyn Iterator<Item = i128>| {
            let eight: Result<Vec<u8>, i128> =
                all.map(|v| u8::try_from(v).map_err(|_| v)).collect();
            let note = "its wide integers hold 0 to 255 and are read as 8-bit".to_owned();
            match eight {
                Ok(eight) => Ok((Self::Eight(eight), vec![note])),
                Err(v) => Err(format!(
                    "its integers of 32 bits or with a sign hold {v}, beyond 0 to 255: {SAVE_AS_RGB}"
                )),
            }
        };
        match buffer {
            DecodingResult::U8(v) => Ok((Self::Eight(v), Vec::new())),
            DecodingResult::U16(v) => Ok((Self::Sixteen(v), Vec::new())),
            DecodingResult::U32(v) => integers(&mut v.into_iter().map(i128::from)),
            DecodingResult::U64(v) => integers(&mut v.into_iter().map(i128::from)),
            DecodingResult::I8(v) => integers(&mut v.into_iter().map(i128::from)),
            DecodingResult::I16(v) => integers(&mut v.into_iter().map(i128::from)),
            DecodingResult::I32(v) => integers(&mut v.into_iter().map(i128::from)),
            DecodingResult::I64(v) => integers(&mut v.into_iter().map(i128::from)),
            DecodingResult::F16(v) => {
                Self::from_floats(v.into_iter().map(|v| v.to_f32()).collect())
            }
            DecodingResult::F32(v) => Self::from_floats(v),
            DecodingResult::F64(v) => Self::from_floats(v.into_iter().map(|v| v as f32).collect()),
        }
    }

    /// Floats of 0 to 1, or of 0 to 255.
    fn from_floats(floats: Vec<f32>) -> Result<(Self, Vec<String>), String> {
        if let Some(odd) = floats.iter().find(|v| !(0.0..=255.0).contains(*v)) {
            return Err(format!(
                "its floats hold {odd}, beyond 0 to 1 and 0 to 255: {SAVE_AS_RGB}"
            ));
        }
        if floats.iter().all(|&v| v <= 1.0) {
            return Ok((Self::Unit(floats), Vec::new()));
        }
        let note = "its floats go beyond 1 and are read as 0 to 255".to_owned();
        let eight = floats.iter().map(|v| v.round() as u8).collect();
        Ok((Self::Eight(eight), vec![note]))
    }

    fn into_image(self, channels: &Channels, ycbcr: bool) -> Result<DynamicImage, String> {
        let [w, h] = channels.size;
        let colours = (channels.colours, channels.alpha);
        let image = match self {
            Self::Eight(v) => {
                let mut v = channels.pick(v);
                if ycbcr {
                    v.chunks_exact_mut(if channels.alpha { 4 } else { 3 })
                        .for_each(ycbcr_to_rgb);
                }
                match colours {
                    (1, false) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageLuma8),
                    (1, true) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageLumaA8),
                    (_, false) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgb8),
                    (_, true) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgba8),
                }
            }
            _ if ycbcr => {
                return Err(format!(
                    "its YCbCr colours are not of 8 bits: {SAVE_AS_RGB}"
                ));
            }
            Self::Sixteen(v) => {
                let v = channels.pick(v);
                match colours {
                    (1, false) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageLuma16),
                    (1, true) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageLumaA16),
                    (_, false) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgb16),
                    (_, true) => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgba16),
                }
            }
            Self::Unit(v) => {
                let mut v = channels.pick(v);
                if channels.colours == 1 {
                    let px = v.chunks_exact(if channels.alpha { 2 } else { 1 });
                    v = px
                        .flat_map(|px| [&[px[0]; 3][..], &px[1..]].concat())
                        .collect();
                }
                match channels.alpha {
                    false => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgb32F),
                    true => ImageBuffer::from_raw(w, h, v).map(DynamicImage::ImageRgba32F),
                }
            }
        };
        image.ok_or_else(|| {
            format!("its strips do not fill {w} x {h} px: the file is damaged: copy it again")
        })
    }
}

impl Channels {
    /// The samples pixel by pixel: the colours, then the alpha; other channels are left out.
    fn pick<T: Copy>(&self, samples: Vec<T>) -> Vec<T> {
        let px = self.size[0] as usize * self.size[1] as usize;
        let wanted = self.colours + usize::from(self.alpha);
        let held = samples.len().checked_div(px).unwrap_or(0);
        if held < wanted || (self.planes <= 1 && held == wanted) {
            return samples;
        }
        let mut out = Vec::with_capacity(px * wanted);
        match self.planes {
            0 | 1 => samples
                .chunks_exact(held)
                .for_each(|s| out.extend_from_slice(&s[..wanted])),
            _ => {
                for at in 0..px {
                    out.extend((0..wanted).map(|plane| samples[plane * px + at]));
                }
            }
        }
        out
    }
}

/// Three grey planes as one picture of 8 bits.
fn compose(planes: [Result<Picture, String>; 3]) -> Result<Picture, String> {
    let [red, green, blue] = planes;
    let grey = [red?, green?, blue?].map(|plane| plane.into_rgb().0);
    let [w, h] = grey[0].dimensions().into();
    let mut rgb = image::RgbImage::new(w, h);
    for (x, y, px) in rgb.enumerate_pixels_mut() {
        px.0 = [0, 1, 2].map(|c| grey[c].get_pixel(x, y).0[0]);
    }
    let note = "its three grey planes are read as red, green and blue, as its OME-XML says";
    Ok(Picture {
        notes: vec![note.to_owned()],
        ..Picture::new(DynamicImage::ImageRgb8(rgb))
    })
}

/// Full-range YCbCr of ITU-R BT.601 (JFIF 1.02) to RGB, in place.
fn ycbcr_to_rgb(px: &mut [u8]) {
    if let [a, b, c, ..] = px {
        let (y, cb, cr) = (f32::from(*a), f32::from(*b) - 128.0, f32::from(*c) - 128.0);
        *a = (y + 1.402 * cr).round() as u8;
        *b = (y - 0.344_136 * cb - 0.714_136 * cr).round() as u8;
        *c = (y + 1.772 * cb).round() as u8;
    }
}

#[cfg(test)]
mod tests;
