//! Slides that OpenSlide 4 knows (<https://openslide.org/formats/>).
//!
//! In: a path. Out: level pixels as RGB over the slide's background. An OpenSlide handle that met
//! one error refuses everything afterwards, so it is replaced and the read tried again: only what
//! is damaged stays unreadable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use image::RgbImage;
use openslide_rs::errors::OpenSlideError;
use openslide_rs::{Address, OpenSlide, Region, Size};

use super::tiff_tiles::JpegTiles;
use super::{Level, SlideError, SlideInfo, SlideReader, identity, ome};

/// OpenSlide's name for tiled TIFFs that no known scanner wrote.
pub(super) const GENERIC_TIFF: &str = "generic-tiff";
/// Decoded tiles that OpenSlide keeps per slide, bytes: a row of tiles of neighbouring blocks.
const TILE_CACHE_BYTES: usize = 64 << 20;

/// OpenSlide's name of the file's format, or `None` if it does not know it.
pub(super) fn detect(path: &Path) -> Option<String> {
    OpenSlide::detect_vendor(path).ok()
}

/// Opens a slide of `vendor`, as [`detect`] named it.
pub(super) fn open(path: &Path, vendor: &str) -> Result<Box<dyn SlideReader>, SlideError> {
    let slide = open_handle(path).map_err(|e| {
        let message = e.to_string();
        let cure = if message.contains("nsupported") {
            "convert it to a tiled TIFF with JPEG, LZW or deflate compression"
        } else {
            "the file is damaged, cut short, or a companion file is missing: copy it again"
        };
        let reason = format!("OpenSlide knows the format ({vendor}) but says: {message}; {cure}");
        SlideError::unsupported(path, reason)
    })?;
    let info = read_info(path, vendor, &slide).map_err(|e| SlideError::unsupported(path, e))?;
    let jpeg_tiles =
        JpegTiles::open(path, &info.levels).map_err(|e| SlideError::unsupported(path, e))?;
    Ok(Box::new(OpenSlideReader {
        jpeg_tiles,
        info,
        handle: RwLock::new(Arc::new(slide)),
    }))
}

/// One slide, read by any number of threads through one shared handle.
struct OpenSlideReader {
    info: SlideInfo,
    /// `None` for files that are no TIFFs of JPEG tiles.
    jpeg_tiles: Option<JpegTiles>,
    handle: RwLock<Arc<OpenSlide>>,
}

impl OpenSlideReader {
    fn handle(&self) -> Arc<OpenSlide> {
        let shared = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&shared)
    }

    /// Runs `read` on the shared handle. If that fails, this read or another thread's has spoiled
    /// the handle: runs it once more on a private handle, whose answer counts, and replaces the
    /// shared one.
    fn with_handle<T>(
        &self,
        read: impl Fn(&OpenSlide) -> Result<T, OpenSlideError>,
    ) -> Result<T, OpenSlideError> {
        let shared = self.handle();
        match read(&shared) {
            Err(OpenSlideError::LibraryError(_)) => {}
            done => return done,
        }
        let private = open_handle(&self.info.path)?;
        let again = read(&private);
        let good = match again {
            Err(_) => open_handle(&self.info.path)?,
            Ok(_) => private,
        };
        let mut place = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&place, &shared) {
            *place = Arc::new(good);
        }
        again
    }

    /// The level-0 address nearest to a level's own px. It depends on the px alone; OpenSlide
    /// shifts the level by the rest, less than half a level-0 px.
    fn address(&self, level: usize, x_px: u64, y_px: u64) -> Result<Address, String> {
        let downsample = match self.info.levels.get(level) {
            Some(l) => l.downsample,
            None => return Err(format!("the slide has {} levels", self.info.levels.len())),
        };
        let at = |px: u64| {
            let level0 = (px as f64 * downsample).round();
            if level0 <= f64::from(u32::MAX) {
                Ok(level0 as u32)
            } else {
                Err("the place is beyond 2^32 level-0 px".to_owned())
            }
        };
        Ok(Address {
            x: at(x_px)?,
            y: at(y_px)?,
        })
    }
}

impl SlideReader for OpenSlideReader {
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
        let region = Region {
            address: self.address(level, x_px, y_px).map_err(failed)?,
            level: level as u32,
            size: Size { w, h },
        };
        let bgra = self
            .with_handle(|slide| slide.read_region(&region))
            .map_err(|e| failed(e.to_string()))?;
        let tiles = self.jpeg_tiles.as_ref();
        if let Some(reason) = tiles.and_then(|t| t.find_cut(level, [x_px, y_px], [w, h])) {
            return Err(failed(reason));
        }
        RgbImage::from_raw(w, h, over_background(&bgra, self.info.background))
            .ok_or_else(|| failed("OpenSlide gave too few pixels".to_owned()))
    }
}

fn open_handle(path: &Path) -> Result<OpenSlide, OpenSlideError> {
    OpenSlide::new_with_cache(path, TILE_CACHE_BYTES)
}

fn read_info(path: &Path, vendor: &str, slide: &OpenSlide) -> Result<SlideInfo, String> {
    let properties: BTreeMap<String, String> = slide
        .property_names()
        .map_err(|e| e.to_string())?
        .into_iter()
        .filter_map(|name| slide.property_value(&name).ok().map(|value| (name, value)))
        .collect();
    let levels = slide
        .all_level_dimensions()
        .iter()
        .zip(slide.all_level_downsamples())
        .map(|(size, &downsample)| Level {
            width_px: size.w.into(),
            height_px: size.h.into(),
            downsample,
        })
        .collect::<Vec<_>>();
    if levels.is_empty() || levels.iter().any(|l| l.width_px == 0 || l.height_px == 0) {
        return Err("OpenSlide finds no pixels in it: the file is damaged".to_owned());
    }
    let number = |name: &str| {
        let value = properties.get(name)?.trim().parse::<f64>().ok()?;
        value.is_finite().then_some(value)
    };
    let pixels = |name: &str| properties.get(name)?.trim().parse::<u64>().ok();
    let bounds_px = || {
        Some([
            pixels("openslide.bounds-x")?,
            pixels("openslide.bounds-y")?,
            pixels("openslide.bounds-width")?,
            pixels("openslide.bounds-height")?,
        ])
    };
    let mpp = || Some([number("openslide.mpp-x")?, number("openslide.mpp-y")?]);
    let quickhash = match properties.get("openslide.quickhash-1") {
        Some(hash) => hash.clone(),
        None => identity::size_and_ends_sha256(path).map_err(|e| e.to_string())?,
    };
    Ok(SlideInfo {
        path: PathBuf::from(path),
        vendor: vendor.to_owned(),
        mpp: mpp(),
        physical_mpp: properties
            .get("tiff.ImageDescription")
            .and_then(|text| ome::physical_mpp(text)),
        notes: Vec::new(),
        objective_power: number("openslide.objective-power"),
        bounds_px: bounds_px(),
        background: properties
            .get("openslide.background-color")
            .and_then(|hex| parse_rgb(hex))
            .unwrap_or([255; 3]),
        associated: slide.associated_image_names().map_err(|e| e.to_string())?,
        file_bytes: std::fs::metadata(path).map_err(|e| e.to_string())?.len(),
        quickhash,
        levels,
        properties,
    })
}

/// `RRGGBB` in hex.
fn parse_rgb(hex: &str) -> Option<[u8; 3]> {
    if hex.len() != 6 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let value = u32::from_str_radix(hex, 16).ok()?;
    Some([(value >> 16) as u8, (value >> 8) as u8, value as u8])
}

/// RGB of premultiplied ARGB words (in memory B, G, R, A) over an opaque colour. Each channel is
/// `c + bg * (255 - a) / 255`, rounded to the nearest integer (255 is odd: there are no ties).
fn over_background(bgra: &[u8], background: [u8; 3]) -> Vec<u8> {
    let [r0, g0, b0] = background.map(u32::from);
    let over =
        |c: u8, bg: u32, a: u32| (u32::from(c) + (bg * (255 - a) + 127) / 255).min(255) as u8;
    let mut rgb = vec![0u8; bgra.len() / 4 * 3];
    for (to, from) in rgb.chunks_exact_mut(3).zip(bgra.chunks_exact(4)) {
        if let (&mut [ref mut r, ref mut g, ref mut b], &[fb, fg, fr, fa]) = (to, from) {
            if fa == 255 {
                (*r, *g, *b) = (fr, fg, fb);
            } else {
                let a = u32::from(fa);
                (*r, *g, *b) = (over(fr, r0, a), over(fg, g0, a), over(fb, b0, a));
            }
        }
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_over_background_is_rounded_exactly() {
        for a in 0..=255u8 {
            for bg in [0u8, 1, 17, 128, 243, 255] {
                let c = a / 2;
                let exact = f64::from(c) + f64::from(bg) * f64::from(255 - a) / 255.0;
                let got = over_background(&[c, 0, a, a], [bg, bg, bg]);
                assert_eq!(f64::from(got[2]), exact.round(), "a {a} bg {bg}");
            }
        }
    }

    #[test]
    fn channels_come_out_as_red_green_blue() {
        assert_eq!(over_background(&[1, 2, 3, 255], [9; 3]), vec![3, 2, 1]);
        assert_eq!(over_background(&[0, 0, 0, 0], [7, 8, 9]), vec![7, 8, 9]);
    }

    #[test]
    fn background_colours() {
        assert_eq!(parse_rgb("1a2B3c"), Some([0x1a, 0x2b, 0x3c]));
        assert_eq!(parse_rgb("FFF"), None);
        assert_eq!(parse_rgb("+12345"), None);
    }
}
