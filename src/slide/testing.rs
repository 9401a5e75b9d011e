//! A slide whose pixels are a function, for tests of what reads slides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

use super::{Level, SlideError, SlideInfo, SlideReader};
use crate::geometry::Rect;

type Pixel = Box<dyn Fn(usize, u64, u64) -> [u8; 3] + Send + Sync>;

pub struct TestSlide {
    info: SlideInfo,
    pixel: Pixel,
    /// Level-0 px that no read may touch.
    pub broken_level0: Option<Rect>,
    /// A level that no read may touch.
    pub broken_level: Option<usize>,
}

pub fn slide_info(sizes: &[[u64; 2]]) -> SlideInfo {
    let zero = sizes[0];
    SlideInfo {
        path: PathBuf::from("test.svs"),
        vendor: "test".to_owned(),
        levels: sizes
            .iter()
            .map(|&[w, h]| Level {
                width_px: w,
                height_px: h,
                downsample: (zero[0] as f64 / w as f64 + zero[1] as f64 / h as f64) / 2.0,
            })
            .collect(),
        mpp: Some([0.25, 0.25]),
        physical_mpp: None,
        notes: Vec::new(),
        objective_power: None,
        bounds_px: None,
        background: [255; 3],
        associated: Vec::new(),
        properties: BTreeMap::new(),
        file_bytes: 0,
        quickhash: "test".to_owned(),
    }
}

impl TestSlide {
    pub fn new(
        sizes: &[[u64; 2]],
        pixel: impl Fn(usize, u64, u64) -> [u8; 3] + Send + Sync + 'static,
    ) -> Self {
        Self {
            info: slide_info(sizes),
            pixel: Box::new(pixel),
            broken_level0: None,
            broken_level: None,
        }
    }

    /// A whole level.
    pub fn level(&self, level: usize) -> RgbImage {
        let l = self.info.levels[level];
        self.read_level(level, 0, 0, l.width_px as u32, l.height_px as u32)
            .unwrap()
    }
}

impl SlideReader for TestSlide {
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
        let l = self.info.levels[level];
        assert!(x_px + u64::from(w) <= l.width_px && y_px + u64::from(h) <= l.height_px);
        let at = |v: u64| (v as f64 * l.downsample) as i32;
        let level0 = Rect::new(at(x_px), at(y_px), at(w.into()), at(h.into()));
        if self
            .broken_level0
            .is_some_and(|broken| broken.meets(&level0))
            || self.broken_level == Some(level)
        {
            let at = [x_px, y_px];
            return Err(SlideError::read(&self.info, level, at, [w, h], "broken"));
        }
        Ok(RgbImage::from_fn(w, h, |x, y| {
            Rgb((self.pixel)(
                level,
                x_px + u64::from(x),
                y_px + u64::from(y),
            ))
        }))
    }
}

/// Edges, gradients and noise, different on every level.
pub fn busy(level: usize, x: u64, y: u64) -> [u8; 3] {
    let mut hash = x
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(y.wrapping_mul(0xC2B2_AE3D_27D4_EB4F))
        .wrapping_add(level as u64);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let noise = (hash >> 58) as u8;
    let edge = if (x / 13 + y / 7).is_multiple_of(2) {
        180
    } else {
        20
    };
    [
        edge + noise,
        ((x * 3 + y) % 192) as u8 + noise,
        (x ^ y) as u8,
    ]
}

/// A file of the `shared` folder beside the repository; `None`, and a line on stderr, without it.
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("WSI_NUCLEI_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    None
}
