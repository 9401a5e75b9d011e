//! Small tiled TIFFs, and ways to damage a TIFF (TIFF 6.0, little-endian, 32-bit offsets: what Aperio writes, too).

use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};

const IMAGE_DESCRIPTION: u16 = 270;
pub const TILE_OFFSETS: u16 = 324;
pub const TILE_BYTE_COUNTS: u16 = 325;

/// A TIFF to be written.
pub struct Options<'a> {
    pub tile_px: u32,
    pub jpeg: bool,
    pub description: Option<&'a str>,
    /// µm a pixel, told by the resolution tags.
    pub mpp: Option<f64>,
}

/// A tiled TIFF with `levels` as its directories.
pub fn tiled(levels: &[RgbImage], options: &Options) -> Vec<u8> {
    let mut out = b"II*\0\0\0\0\0".to_vec();
    let mut link = 4;
    for (index, level) in levels.iter().enumerate() {
        let tiles = tiles(level, options);
        let mut places = Vec::new();
        for tile in &tiles {
            even(&mut out);
            places.push(out.len() as u32);
            out.extend(tile);
        }
        let counts: Vec<u32> = tiles.iter().map(|tile| tile.len() as u32).collect();
        link = directory(&mut out, link, index, level, options, (&places, &counts));
    }
    out
}

fn tiles(level: &RgbImage, options: &Options) -> Vec<Vec<u8>> {
    let side = options.tile_px;
    let (columns, rows) = (level.width().div_ceil(side), level.height().div_ceil(side));
    let tile = |index: u32| {
        let (left, top) = (index % columns * side, index / columns * side);
        let mut tile = RgbImage::from_pixel(side, side, image::Rgb([255; 3]));
        let (w, h) = (
            side.min(level.width() - left),
            side.min(level.height() - top),
        );
        imageops::replace(
            &mut tile,
            &*imageops::crop_imm(level, left, top, w, h),
            0,
            0,
        );
        if !options.jpeg {
            return tile.into_raw();
        }
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 95)
            .encode_image(&tile)
            .unwrap();
        bytes
    };
    (0..columns * rows).map(tile).collect()
}

/// Writes one directory, links it from `link`, and says where the next one is linked from.
fn directory(
    out: &mut Vec<u8>,
    link: usize,
    index: usize,
    level: &RgbImage,
    options: &Options,
    (places, counts): (&[u32], &[u32]),
) -> usize {
    let (ycbcr, rgb, jpeg, none) = (6, 2, 7, 1);
    let photometric = if options.jpeg { ycbcr } else { rgb };
    let compression = if options.jpeg { jpeg } else { none };
    let mut entries: Vec<(u16, u16, Vec<u32>, Vec<u8>)> = Vec::new();
    let short = |tag: u16, values: &[u32]| (tag, 3u16, values.to_vec(), Vec::new());
    let long = |tag: u16, values: &[u32]| (tag, 4u16, values.to_vec(), Vec::new());
    entries.push(long(254, &[u32::from(index > 0)]));
    entries.push(long(256, &[level.width()]));
    entries.push(long(257, &[level.height()]));
    entries.push(short(258, &[8, 8, 8]));
    entries.push(short(259, &[compression]));
    entries.push(short(262, &[photometric]));
    if let Some(text) = options.description {
        let mut text = text.as_bytes().to_vec();
        text.push(0);
        entries.push((IMAGE_DESCRIPTION, 2, vec![text.len() as u32], text));
    }
    entries.push(short(277, &[3]));
    if let Some(mpp) = options.mpp {
        let per_cm = (1e4 / mpp * 1000.0).round() as u32;
        entries.push((282, 5, vec![per_cm, 1000], Vec::new()));
        entries.push((283, 5, vec![per_cm, 1000], Vec::new()));
    }
    entries.push(short(284, &[1]));
    if options.mpp.is_some() {
        entries.push(short(296, &[3]));
    }
    entries.push(short(322, &[options.tile_px]));
    entries.push(short(323, &[options.tile_px]));
    entries.push(long(TILE_OFFSETS, places));
    entries.push(long(TILE_BYTE_COUNTS, counts));
    if options.jpeg {
        entries.push(short(530, &[1, 1]));
    }
    let mut table = Vec::new();
    for (tag, kind, values, text) in entries {
        let bytes: Vec<u8> = match kind {
            2 => text,
            3 => values
                .iter()
                .flat_map(|&v| (v as u16).to_le_bytes())
                .collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let count = match kind {
            2 => bytes.len(),
            5 => values.len() / 2,
            _ => values.len(),
        };
        table.extend(tag.to_le_bytes());
        table.extend(kind.to_le_bytes());
        table.extend((count as u32).to_le_bytes());
        if bytes.len() <= 4 {
            table.extend(bytes.iter().chain([0; 4].iter()).take(4));
        } else {
            even(out);
            table.extend((out.len() as u32).to_le_bytes());
            out.extend(bytes);
        }
    }
    even(out);
    let place = out.len() as u32;
    out[link..link + 4].copy_from_slice(&place.to_le_bytes());
    out.extend(((table.len() / 12) as u16).to_le_bytes());
    out.extend(table);
    out.extend([0; 4]);
    out.len() - 4
}

fn even(out: &mut Vec<u8>) {
    if !out.len().is_multiple_of(2) {
        out.push(0);
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where the entries of directory `index` are, and where the offset of the next directory is.
fn entries(bytes: &[u8], index: usize) -> (Vec<usize>, usize) {
    assert_eq!(&bytes[..4], b"II*\0", "not a little-endian TIFF");
    let mut link = 4;
    for passed in 0.. {
        let at = u32_at(bytes, link) as usize;
        assert!(at > 0, "no directory {index}");
        let count = usize::from(u16_at(bytes, at));
        link = at + 2 + 12 * count;
        if passed == index {
            return ((0..count).map(|i| at + 2 + 12 * i).collect(), link);
        }
    }
    unreachable!()
}

/// Where directory `index`'s entry of `tag` is.
pub fn entry(bytes: &[u8], index: usize, tag: u16) -> usize {
    let (entries, _) = entries(bytes, index);
    let found = entries.into_iter().find(|&at| u16_at(bytes, at) == tag);
    found.unwrap_or_else(|| panic!("no tag {tag} in directory {index}"))
}

/// Where value `place` of a tag is, and how many bytes it has.
fn value_at(bytes: &[u8], at: usize, place: usize) -> (usize, usize) {
    let size = match u16_at(bytes, at + 2) {
        3 => 2,
        5 => 8,
        4 => 4,
        kind => panic!("values of type {kind} are not edited"),
    };
    let count = u32_at(bytes, at + 4) as usize;
    assert!(place < count, "value {place} of {count}");
    let start = match size * count {
        0..=4 => at + 8,
        _ => u32_at(bytes, at + 8) as usize,
    };
    (start + place * size, size)
}

/// Value `place` of a tag.
pub fn value(bytes: &[u8], index: usize, tag: u16, place: usize) -> u32 {
    match value_at(bytes, entry(bytes, index, tag), place) {
        (at, 2) => u16_at(bytes, at).into(),
        (at, _) => u32_at(bytes, at),
    }
}

/// Overwrites value `place` of a tag (of a fraction: its upper number).
pub fn set_value(bytes: &mut [u8], index: usize, tag: u16, place: usize, value: u32) {
    match value_at(bytes, entry(bytes, index, tag), place) {
        (at, 2) => bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes()),
        (at, _) => put_u32(bytes, at, value),
    }
}

/// Overwrites a tag's number, type or count of values.
pub fn set_entry(
    bytes: &mut [u8],
    at: usize,
    tag: Option<u16>,
    kind: Option<u16>,
    count: Option<u32>,
) {
    if let Some(tag) = tag {
        bytes[at..at + 2].copy_from_slice(&tag.to_le_bytes());
    }
    if let Some(kind) = kind {
        bytes[at + 2..at + 4].copy_from_slice(&kind.to_le_bytes());
    }
    if let Some(count) = count {
        put_u32(bytes, at + 4, count);
    }
}

/// Says that `to` is where the directory after `index` is (0: there is none).
pub fn set_next(bytes: &mut [u8], index: usize, to: u32) {
    let (_, link) = entries(bytes, index);
    put_u32(bytes, link, to);
}

/// Where directory `index` is.
pub fn place_of(bytes: &[u8], index: usize) -> u32 {
    (entries(bytes, index).0[0] - 2) as u32
}

/// The bytes of a tile.
pub fn tile(bytes: &[u8], index: usize, place: usize) -> std::ops::Range<usize> {
    let start = value(bytes, index, TILE_OFFSETS, place) as usize;
    start..start + value(bytes, index, TILE_BYTE_COUNTS, place) as usize
}
