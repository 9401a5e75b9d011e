//! Tiles of a TIFF slide on which OpenSlide would fail or say nothing: absurdly large ones, and cut JPEG data.
//!
//! In: a tiled TIFF, and the windows that are to be read from its levels. Out: a refusal, or whether a window holds a
//! tile that ends before its picture does. libtiff asks for the memory of a whole tile. OpenSlide shows the rest of such a tile in grey and says nothing. Each tile is looked at
//! once, by its last bytes; one without an end-of-image marker is decoded. Never refuses a file that it does not
//! understand.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use ::tiff::decoder::{Decoder, Limits};
use ::tiff::tags::Tag;

use super::tiff_image::JPEG;
use super::{Level, jpeg};

/// Directories that are looked at.
const MAX_DIRECTORIES: usize = 1000;
/// Largest list of tiles that is read, bytes: 16 million tiles.
const MAX_LIST_BYTES: usize = 128 << 20;
/// Largest tile of a slide, px: usual ones have 256 to 2048 a side.
const MAX_TILE_PX: u64 = 1 << 26;
/// Largest tile that is decoded, bytes.
const MAX_TILE_BYTES: u64 = 64 << 20;
/// Bytes at the end of a tile in which the marker may lie: writers pad.
const TAIL_BYTES: usize = 16;
const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// What is known of a tile.
const UNKNOWN: u8 = 0;
const WHOLE: u8 = 1;
const CUT: u8 = 2;

/// The JPEG tiles of a slide's levels.
pub struct JpegTiles {
    file: File,
    /// By level; `None` for a level that is not a directory of JPEG tiles.
    levels: Vec<Option<LevelTiles>>,
}

struct LevelTiles {
    tile_px: [u64; 2],
    across: u64,
    /// Place and length of each tile, bytes.
    places: Vec<(u64, u64)>,
    tables: Vec<u8>,
    known: Vec<AtomicU8>,
}

impl JpegTiles {
    /// Finds the levels among the directories of the file at `path`, by their sizes. `None` where none is found.
    ///
    /// # Errors
    /// A directory with tiles larger than any slide has.
    pub fn open(path: &Path, levels: &[Level]) -> Result<Option<Self>, String> {
        let Some((file, mut decoder)) = open_tiff(path) else {
            return Ok(None);
        };
        let mut found: Vec<Option<LevelTiles>> = levels.iter().map(|_| None).collect();
        for _ in 0..MAX_DIRECTORIES {
            check_tile_size(&mut decoder)?;
            if let Ok((w, h)) = decoder.dimensions() {
                let same = |l: &Level| (l.width_px, l.height_px) == (w.into(), h.into());
                let place = levels.iter().position(same);
                if let Some(level) = place.filter(|level| found[*level].is_none()) {
                    found[level] = read_directory(&mut decoder, u64::from(w));
                }
            }
            if !decoder.more_images() || decoder.next_image().is_err() {
                break;
            }
        }
        let any = found.iter().any(Option::is_some);
        Ok(any.then_some(Self {
            file,
            levels: found,
        }))
    }

    /// Why the window of `level` cannot be shown, if one of its tiles is cut short.
    pub fn find_cut(
        &self,
        level: usize,
        [x_px, y_px]: [u64; 2],
        [w, h]: [u32; 2],
    ) -> Option<String> {
        let tiles = self.levels.get(level)?.as_ref()?;
        let [tile_w, tile_h] = tiles.tile_px;
        let last = |from: u64, length: u32, tile: u64| (from + u64::from(length.max(1)) - 1) / tile;
        for row in y_px / tile_h..=last(y_px, h, tile_h) {
            for column in x_px / tile_w..=last(x_px, w, tile_w).min(tiles.across - 1) {
                let index = (row * tiles.across + column) as usize;
                if self.state(tiles, index) == CUT {
                    return Some(format!(
                        "the JPEG data of tile {index} of level {level} end before its picture does"
                    ));
                }
            }
        }
        None
    }

    fn state(&self, tiles: &LevelTiles, index: usize) -> u8 {
        let Some(known) = tiles.known.get(index) else {
            return WHOLE;
        };
        let mut state = known.load(Ordering::Relaxed);
        if state == UNKNOWN {
            state = match self.is_cut(tiles, index) {
                true => CUT,
                false => WHOLE,
            };
            known.store(state, Ordering::Relaxed);
        }
        state
    }

    /// Whether a tile ends early. What cannot be read at all is OpenSlide's to report.
    fn is_cut(&self, tiles: &LevelTiles, index: usize) -> bool {
        let (place, length) = tiles.places[index];
        if !(4..MAX_TILE_BYTES).contains(&length) {
            return false;
        }
        let mut tail = vec![0; TAIL_BYTES.min(length as usize)];
        let start = place.saturating_add(length - tail.len() as u64);
        if self.file.read_exact_at(&mut tail, start).is_err() {
            return false;
        }
        if tail.windows(2).any(|pair| pair == END_OF_IMAGE) {
            return false;
        }
        let mut tile = vec![0; length as usize];
        if self.file.read_exact_at(&mut tile, place).is_err() {
            return false;
        }
        let whole = jpeg::with_tables(&tiles.tables, &tile);
        // The picture may be whole without its last marker.
        jpeg::check_complete(&[&whole[..], &END_OF_IMAGE].concat()).is_err()
    }
}

fn open_tiff(path: &Path) -> Option<(File, Decoder<BufReader<File>>)> {
    let file = File::open(path).ok()?;
    let mut limits = Limits::default();
    limits.ifd_value_size = MAX_LIST_BYTES;
    let reader = BufReader::new(file.try_clone().ok()?);
    let decoder = Decoder::new(reader).ok()?.with_limits(limits);
    Some((file, decoder))
}

fn check_tile_size(decoder: &mut Decoder<BufReader<File>>) -> Result<(), String> {
    let mut number = |tag: Tag| decoder.find_tag_unsigned::<u32>(tag).ok().flatten();
    let (Some(w), Some(h)) = (number(Tag::TileWidth), number(Tag::TileLength)) else {
        return Ok(());
    };
    if u64::from(w) * u64::from(h) <= MAX_TILE_PX {
        return Ok(());
    }
    Err(format!(
        "its tiles have {w} x {h} px: each would have to be decoded whole: convert it to tiles of 256 to 1024 px"
    ))
}

fn read_directory(decoder: &mut Decoder<BufReader<File>>, width_px: u64) -> Option<LevelTiles> {
    let mut number = |tag: Tag| decoder.find_tag_unsigned::<u32>(tag).ok().flatten();
    if number(Tag::Compression)? != u32::from(JPEG) {
        return None;
    }
    let tile_px = [number(Tag::TileWidth)?, number(Tag::TileLength)?].map(u64::from);
    if tile_px.contains(&0) {
        return None;
    }
    let offsets = decoder.get_tag_u64_vec(Tag::TileOffsets).ok()?;
    let lengths = decoder.get_tag_u64_vec(Tag::TileByteCounts).ok()?;
    let places: Vec<(u64, u64)> = offsets.into_iter().zip(lengths).collect();
    Some(LevelTiles {
        tile_px,
        across: width_px.div_ceil(tile_px[0]).max(1),
        known: places.iter().map(|_| AtomicU8::new(UNKNOWN)).collect(),
        places,
        tables: decoder.get_tag_u8_vec(Tag::JPEGTables).unwrap_or_default(),
    })
}
