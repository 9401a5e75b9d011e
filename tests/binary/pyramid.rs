//! Huge slides that are small files: BigTIFF pyramids whose directories point many tiles at few JPEGs.

use std::collections::HashMap;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

const TILE_PX: u32 = 512;
/// Level-0 px a px of each level.
const DOWNSAMPLES: [u32; 4] = [1, 4, 16, 64];
const GLASS: Rgb<u8> = Rgb([242, 241, 243]);

/// A slide that repeats one field of real pixels wherever `is_tissue` says so, by column and row in fields.
pub struct Pyramid<'a> {
    pub side_px: u32,
    pub mpp: f64,
    /// A square of a power of two px, at least one tile.
    pub field: &'a RgbImage,
    pub is_tissue: &'a dyn Fn(u32, u32) -> bool,
}

/// Where each different tile has been written, and how long it is.
type Written = HashMap<(u32, Vec<bool>, [u32; 2]), (u64, u64)>;

impl Pyramid<'_> {
    pub fn write(&self, path: &Path) {
        let mut out = b"II\x2b\0\x08\0\0\0".to_vec();
        out.extend([0; 8]);
        let mut link = 8;
        for downsample in DOWNSAMPLES {
            let size = self.side_px.div_ceil(downsample);
            let small = self.field.width() / downsample;
            let field = imageops::resize(self.field, small, small, FilterType::Triangle);
            let mut written = Written::new();
            let tiles = size.div_ceil(TILE_PX);
            let places: Vec<(u64, u64)> = (0..tiles * tiles)
                .map(|i| self.tile(&mut out, &mut written, &field, [i % tiles, i / tiles]))
                .collect();
            link = self.directory(&mut out, link, downsample, size, &places);
        }
        std::fs::write(path, out).unwrap();
    }

    /// The place of one tile; written if no other tile looks like it.
    fn tile(
        &self,
        out: &mut Vec<u8>,
        written: &mut Written,
        field: &RgbImage,
        [column, row]: [u32; 2],
    ) -> (u64, u64) {
        let side = field.width();
        let (left, top) = (column * TILE_PX, row * TILE_PX);
        let fields = TILE_PX.div_ceil(side);
        let tissue: Vec<bool> = (0..fields * fields)
            .map(|i| (self.is_tissue)(left / side + i % fields, top / side + i / fields))
            .collect();
        let within = match tissue.contains(&true) {
            true => [left % side, top % side],
            false => [0, 0],
        };
        let place = written.entry((fields, tissue.clone(), within));
        *place.or_insert_with(|| {
            let mut tile = RgbImage::from_pixel(TILE_PX, TILE_PX, GLASS);
            for (i, _) in (0..).zip(&tissue).filter(|(_, tissue)| **tissue) {
                let at = |i: u32, within: u32| i64::from(i * side) - i64::from(within);
                let (x, y) = (at(i % fields, within[0]), at(i / fields, within[1]));
                imageops::replace(&mut tile, field, x, y);
            }
            let mut jpeg = Vec::new();
            let encoder = JpegEncoder::new_with_quality(&mut jpeg, 85);
            tile.write_with_encoder(encoder).unwrap();
            let start = out.len() as u64;
            out.extend(&jpeg);
            (start, jpeg.len() as u64)
        })
    }

    /// Writes one directory, links it from `link`, and says where the next one is linked from.
    fn directory(
        &self,
        out: &mut Vec<u8>,
        link: usize,
        downsample: u32,
        size: u32,
        places: &[(u64, u64)],
    ) -> usize {
        let (short, long, ratio, long8) = (3u16, 4u16, 5u16, 16u16);
        let per_cm = (1e4 / self.mpp / f64::from(downsample) * 1000.0).round() as u64;
        let ratio_of = |upper: u64| upper | 1000 << 32;
        let mut entries: Vec<(u16, u16, u64, Vec<u8>)> = Vec::new();
        let mut one = |tag: u16, kind: u16, value: u64| {
            entries.push((tag, kind, 1, value.to_le_bytes().to_vec()));
        };
        one(254, long, u64::from(downsample > 1));
        one(256, long, size.into());
        one(257, long, size.into());
        one(258, short, 8);
        one(259, short, 7);
        one(262, short, 6);
        one(277, short, 3);
        one(282, ratio, ratio_of(per_cm));
        one(283, ratio, ratio_of(per_cm));
        one(284, short, 1);
        one(296, short, 3);
        one(322, long, TILE_PX.into());
        one(323, long, TILE_PX.into());
        let many =
            |values: &mut dyn Iterator<Item = u64>| values.flat_map(u64::to_le_bytes).collect();
        let n = places.len() as u64;
        entries.push((324, long8, n, many(&mut places.iter().map(|p| p.0))));
        entries.push((325, long8, n, many(&mut places.iter().map(|p| p.1))));
        entries.push((530, short, 2, vec![1, 0, 1, 0]));
        // Three samples of eight bits each.
        entries[3] = (258, short, 3, vec![8, 0, 8, 0, 8, 0]);

        let mut table = Vec::new();
        for (tag, kind, count, mut bytes) in entries {
            if bytes.len() > 8 {
                let place = out.len() as u64;
                out.extend(bytes);
                bytes = place.to_le_bytes().to_vec();
            }
            bytes.resize(8, 0);
            table.extend(tag.to_le_bytes());
            table.extend(kind.to_le_bytes());
            table.extend(count.to_le_bytes());
            table.extend(bytes);
        }
        let place = out.len() as u64;
        out[link..link + 8].copy_from_slice(&place.to_le_bytes());
        out.extend((table.len() as u64 / 20).to_le_bytes());
        out.extend(table);
        out.extend([0; 8]);
        out.len() - 8
    }
}
