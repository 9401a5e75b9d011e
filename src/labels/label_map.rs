//! Instance maps from files: each pixel holds the id of its nucleus, 0 is the background.
//!
//! In: a PNG, TIFF or .npy, known by its content. Out: a [`LabelMap`] with the stored numbers. A
//! palette's index is the id, and transparency is ignored. Never turns a mask into one nucleus.

use std::io::Cursor;
use std::path::Path;

use ::tiff::decoder::{Decoder, DecodingResult, Limits};
use png::{BitDepth, ColorType, Transformations};

use super::LabelError;
use super::check::count_components;
use super::formats::npy::{self, Npy};
use crate::slide::is_tiff;

/// Most bytes of a decoded label picture.
const MAX_DECODED_BYTES: usize = 2 << 30;
/// Values that masks use for "nucleus".
const MASK_VALUES: [u32; 3] = [1, 255, 65_535];
/// One nucleus has at most this many pieces: two where something crosses it.
const MAX_PIECES: usize = 2;

const SAVE_AS_GREY: &str = "save the ids as a grey PNG of 8 or 16 bits, as a grey TIFF or as .npy";

/// An instance map of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelMap {
    /// Id of each pixel, row by row.
    pub ids: Vec<u32>,
    /// Length of a row, px.
    pub width: usize,
}

impl LabelMap {
    /// Width and height, px.
    pub fn size_px(&self) -> (u32, u32) {
        let height = self.ids.len() / self.width.max(1);
        (self.width as u32, height as u32)
    }
}

/// Reads the map at `path`.
///
/// # Errors
/// The file is damaged, is no map of numbers, or holds a mask: a single value for all nuclei.
pub fn read(path: &Path) -> Result<LabelMap, LabelError> {
    let failed = |reason: String| LabelError::new(path, reason);
    if npy::is_npy(path) {
        return read_npy(path);
    }
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let map = if bytes.starts_with(b"\x89PNG") {
        read_png(&bytes)
    } else if is_tiff(&bytes) {
        read_tiff(&bytes)
    } else {
        Err(format!("is neither PNG, TIFF nor .npy: {SAVE_AS_GREY}"))
    };
    let map = map.map_err(failed)?;
    refuse_mask(&map).map_err(failed)?;
    Ok(map)
}

fn read_npy(path: &Path) -> Result<LabelMap, LabelError> {
    let mut npy = Npy::open(path)?;
    let ([_, width] | [_, width, 1]) = npy.shape[..] else {
        let reason = format!("shape {:?}: [H, W] is wanted", npy.shape);
        return Err(LabelError::new(path, reason));
    };
    let map = LabelMap {
        ids: npy.take_ids()?,
        width: width as usize,
    };
    refuse_mask(&map).map_err(|reason| LabelError::new(path, reason))?;
    Ok(map)
}

/// Refuses a map in which one value of a mask stands for several separate pieces.
fn refuse_mask(map: &LabelMap) -> Result<(), String> {
    let Some(&value) = map.ids.iter().find(|id| **id > 0) else {
        return Ok(());
    };
    if !MASK_VALUES.contains(&value) || map.ids.iter().any(|&id| id != 0 && id != value) {
        return Ok(());
    }
    let pieces = count_components(&map.ids, map.width)
        .get(&value)
        .copied()
        .unwrap_or(0);
    if pieces <= MAX_PIECES {
        return Ok(());
    }
    Err(format!(
        "is a mask, not instances: all its {pieces} pieces have the value {value}: give each nucleus an id of its \
         own (skimage.measure.label)"
    ))
}

fn read_png(bytes: &[u8]) -> Result<LabelMap, String> {
    let damaged = |e: png::DecodingError| format!("{e}: the file is damaged or cut short");
    let limits = png::Limits {
        bytes: MAX_DECODED_BYTES,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size = reader
        .output_buffer_size()
        .filter(|size| *size <= MAX_DECODED_BYTES)
        .ok_or("is too large for a label picture")?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(damaged)?;
    let (width, height) = (frame.width as usize, frame.height as usize);
    let samples = frame.color_type.samples();
    let mut values = Vec::with_capacity(width * height * samples);
    for row in raw.chunks_exact(frame.line_size).take(height) {
        values.extend(unpack_row(row, frame.bit_depth).take(width * samples));
    }
    let ids = match frame.color_type {
        ColorType::Grayscale | ColorType::Indexed => values,
        ColorType::GrayscaleAlpha => values.into_iter().step_by(2).collect(),
        ColorType::Rgb | ColorType::Rgba => one_of_equal_channels(&values, samples)?,
    };
    Ok(LabelMap { ids, width })
}

/// The numbers of a PNG row; below 8 bits several share a byte, the first in the highest bits.
fn unpack_row(row: &[u8], depth: BitDepth) -> Box<dyn Iterator<Item = u32> + '_> {
    let bits = match depth {
        BitDepth::Sixteen => {
            let pairs = row.chunks_exact(2);
            return Box::new(pairs.map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))));
        }
        BitDepth::One => 1,
        BitDepth::Two => 2,
        BitDepth::Four => 4,
        BitDepth::Eight => 8,
    };
    let mask = ((1u32 << bits) - 1) as u8;
    Box::new(row.iter().flat_map(move |byte| {
        (1..=8 / bits).map(move |k| u32::from((byte >> (8 - bits * k)) & mask))
    }))
}

/// The ids of a grey map that was saved with three channels.
fn one_of_equal_channels(values: &[u32], samples: usize) -> Result<Vec<u32>, String> {
    let pixels = values.chunks_exact(samples);
    if pixels.clone().any(|p| p[0] != p[1] || p[0] != p[2]) {
        return Err(format!(
            "is a colour picture, not a label map: {SAVE_AS_GREY}"
        ));
    }
    Ok(pixels.map(|p| p[0]).collect())
}

fn read_tiff(bytes: &[u8]) -> Result<LabelMap, String> {
    let damaged = |e: ::tiff::TiffError| format!("{e}: {SAVE_AS_GREY}");
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_DECODED_BYTES;
    limits.intermediate_buffer_size = MAX_DECODED_BYTES;
    let mut decoder = Decoder::new(Cursor::new(bytes))
        .map_err(damaged)?
        .with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(damaged)?;
    let (width, pixels) = (width as usize, width as usize * height as usize);
    let values: Vec<u32> = match decoder.read_image().map_err(damaged)? {
        DecodingResult::U8(v) => v.into_iter().map(u32::from).collect(),
        DecodingResult::U16(v) => v.into_iter().map(u32::from).collect(),
        DecodingResult::U32(v) => v,
        DecodingResult::U64(v) => ids_from(v, |v| v as f64)?,
        DecodingResult::I8(v) => ids_from(v, f64::from)?,
        DecodingResult::I16(v) => ids_from(v, f64::from)?,
        DecodingResult::I32(v) => ids_from(v, f64::from)?,
        DecodingResult::I64(v) => ids_from(v, |v| v as f64)?,
        DecodingResult::F16(v) => ids_from(v, |v| v.to_f64())?,
        DecodingResult::F32(v) => ids_from(v, f64::from)?,
        DecodingResult::F64(v) => ids_from(v, |v| v)?,
    };
    let samples = values.len() / pixels.max(1);
    let ids = match samples {
        1 if values.len() == pixels => values,
        3 | 4 if values.len() == samples * pixels => one_of_equal_channels(&values, samples)?,
        _ => return Err(format!("is no grey picture: {SAVE_AS_GREY}")),
    };
    Ok(LabelMap { ids, width })
}

fn ids_from<T>(values: Vec<T>, number: impl Fn(T) -> f64) -> Result<Vec<u32>, String> {
    let ids = values
        .into_iter()
        .map(|value| id_from(number(value), "TIFF"));
    ids.collect()
}

/// A stored number as an id.
///
/// # Errors
/// Negative numbers, fractions, and numbers beyond 32 bits.
pub fn id_from(value: f64, what: &str) -> Result<u32, String> {
    if value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value) {
        return Ok(value as u32);
    }
    Err(format!(
        "its {what} holds {value}, which is no id: ids are whole numbers from 0 to {}; save them as int32",
        u32::MAX
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: u32 = 8;

    /// A PNG of one row.
    fn png_row(kind: ColorType, depth: BitDepth, row: &[u8], trns: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, WIDTH, 1);
        encoder.set_color(kind);
        encoder.set_depth(depth);
        if kind == ColorType::Indexed {
            // All colours alike: the index alone tells the nuclei apart.
            encoder.set_palette([7; 48].as_slice());
        }
        if !trns.is_empty() {
            encoder.set_trns(trns.to_vec());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(row).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> Result<LabelMap, LabelError> {
        let folder = tempfile::tempdir().unwrap();
        // The name says nothing: the content counts.
        let path = folder.path().join("label.dat");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn every_png_keeps_its_ids() {
        let ids = [0u32, 1, 2, 3, 3, 0, 15, 9];
        let bytes: Vec<u8> = ids.iter().map(|v| *v as u8).collect();
        let nibbles: Vec<u8> = bytes.chunks(2).map(|p| p[0] << 4 | p[1]).collect();
        let with_alpha: Vec<u8> = bytes.iter().flat_map(|v| [*v, 0]).collect();
        let triple: Vec<u8> = bytes.iter().flat_map(|v| [*v; 3]).collect();
        for (kind, depth, row, trns) in [
            (ColorType::Grayscale, BitDepth::Eight, &bytes, &[][..]),
            (ColorType::Grayscale, BitDepth::Eight, &bytes, &[0, 0]),
            (ColorType::Grayscale, BitDepth::Four, &nibbles, &[]),
            (ColorType::Indexed, BitDepth::Eight, &bytes, &[]),
            (ColorType::Indexed, BitDepth::Four, &nibbles, &[0, 255]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, &with_alpha, &[]),
            (ColorType::Rgb, BitDepth::Eight, &triple, &[]),
        ] {
            let map = read_bytes(&png_row(kind, depth, row, trns)).unwrap();
            assert_eq!(map.ids, ids, "{kind:?} {depth:?}");
            assert_eq!(map.size_px(), (8, 1));
        }
        let wide: Vec<u8> = ids
            .iter()
            .flat_map(|v| (*v as u16 * 1000).to_be_bytes())
            .collect();
        let map = read_bytes(&png_row(
            ColorType::Grayscale,
            BitDepth::Sixteen,
            &wide,
            &[],
        ))
        .unwrap();
        assert_eq!(map.ids, ids.map(|v| v * 1000));
        let mut colours = triple;
        colours[4] += 1;
        let error = read_bytes(&png_row(ColorType::Rgb, BitDepth::Eight, &colours, &[]));
        assert!(error.unwrap_err().reason.contains("colour picture"));
    }

    #[test]
    fn tiff_of_any_number_keeps_its_ids() {
        use ::tiff::encoder::{TiffEncoder, colortype};
        let ids = [0u32, 1, 2, 3, 3, 0, 70_000, 9];
        let mut bytes = Cursor::new(Vec::new());
        TiffEncoder::new(&mut bytes)
            .and_then(|mut t| t.write_image::<colortype::Gray32>(4, 2, &ids))
            .unwrap();
        assert_eq!(read_bytes(bytes.get_ref()).unwrap().ids, ids);
        let mut bytes = Cursor::new(Vec::new());
        let floats = ids.map(|v| v as f32);
        TiffEncoder::new(&mut bytes)
            .and_then(|mut t| t.write_image::<colortype::Gray32Float>(4, 2, &floats))
            .unwrap();
        assert_eq!(read_bytes(bytes.get_ref()).unwrap().ids, ids);
        let mut bytes = Cursor::new(Vec::new());
        TiffEncoder::new(&mut bytes)
            .and_then(|mut t| t.write_image::<colortype::Gray32Float>(2, 1, &[0.0, 1.5]))
            .unwrap();
        let error = read_bytes(bytes.get_ref()).unwrap_err().reason;
        assert!(error.contains("holds 1.5, which is no id"), "{error}");
    }

    #[test]
    fn a_mask_is_no_instance_map_but_a_single_nucleus_is() {
        let row =
            |ids: [u8; 8]| read_bytes(&png_row(ColorType::Grayscale, BitDepth::Eight, &ids, &[]));
        for value in [1, 255] {
            let error = row([value, 0, value, 0, value, 0, 0, 0])
                .unwrap_err()
                .reason;
            assert!(
                error.contains("a mask, not instances: all its 3 pieces"),
                "{error}"
            );
            row([value, value, 0, 0, value, 0, 0, 0]).unwrap();
        }
        row([7, 0, 7, 0, 7, 0, 0, 0]).unwrap();
        let error = read_bytes(b"\xff\xd8\xff\xe0").unwrap_err().reason;
        assert!(error.contains("neither PNG, TIFF nor .npy"), "{error}");
    }
}
