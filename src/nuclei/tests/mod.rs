//! Tests of the path from maps to nuclei, and the random maps that they share.

mod against_oracles;
mod confidence;
mod contours;
mod division;
mod plain;
mod properties;
mod whole_images;

use std::path::PathBuf;

use image::RgbImage;

use super::pieces::{LabelledPieces, drawn_runs};
use super::*;
use crate::prediction::PredictionMap;

/// A small random generator: a failing case can be run again by its seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    /// A number in -1..=1.
    pub fn unit(&mut self) -> f32 {
        self.below(2001) as f32 / 1000.0 - 1.0
    }
}

/// Touching discs with ramps in h and v, three classes, and noise on all maps.
pub fn discs(seed: u64, width: usize, height: usize) -> (PredictionMap, RgbImage) {
    let mut dice = Dice::new(seed);
    let n = width * height;
    let mut map = PredictionMap {
        width,
        height,
        np: vec![0.1; n],
        h: vec![0.0; n],
        v: vec![0.0; n],
        types: 3,
        tp: vec![0.0; 3 * n],
    };
    for _ in 0..n / 150 + 1 {
        let (cx, cy) = (
            dice.below(width as u32) as f32,
            dice.below(height as u32) as f32,
        );
        let r = 3.0 + dice.below(8) as f32;
        for y in 0..height {
            for x in 0..width {
                let (dx, dy) = ((x as f32 - cx) / r, (y as f32 - cy) / r);
                if dx * dx + dy * dy <= 1.0 {
                    let i = y * width + x;
                    (map.np[i], map.h[i], map.v[i]) = (0.9, dx, dy);
                }
            }
        }
    }
    for i in 0..n {
        map.np[i] = (map.np[i] + 0.45 * dice.unit().powi(5)).clamp(0.0, 1.0);
        map.h[i] += 0.1 * dice.unit();
        map.v[i] += 0.1 * dice.unit();
        for p in &mut map.tp[3 * i..3 * i + 3] {
            *p = dice.below(256) as f32 / 255.0;
        }
    }
    let rgb = RgbImage::from_fn(width as u32, height as u32, |_, _| {
        image::Rgb([0; 3].map(|_: i32| dice.below(256) as u8))
    });
    (map, rgb)
}

/// All foreground of [`discs`], placed at `origin`.
pub fn foreground(seed: u64, width: usize, height: usize, origin: (i32, i32)) -> Foreground {
    let (map, rgb) = discs(seed, width, height);
    let clip = Rect::new(origin.0, origin.1, width as i32, height as i32);
    Foreground::from_patch(&map.quantised(), &rgb, 0, origin, clip, 0.5)
}

/// Constants that separate the discs.
pub fn constants(energy: EnergyRule) -> PostprocParams {
    PostprocParams {
        energy,
        sobel_px: 5,
        min_area_um2: 0.5,
        open_px: 3,
        ..PostprocParams::default()
    }
}

pub const BOTH: [EnergyRule; 2] = [EnergyRule::Eigen, EnergyRule::Axes];
pub const MPP: [f64; 2] = [0.25, 0.25];

/// (y, x) of every pixel, in the order of the planes.
pub fn pixels(fg: &Foreground) -> Vec<(i32, i32)> {
    fg.runs
        .iter()
        .flat_map(|run| (run.x0..run.x1).map(|x| (run.y, x)))
        .collect()
}

/// (y, x) of every pixel of a nucleus in raster order.
pub fn nucleus_pixels(nucleus: &Nucleus) -> Vec<(i32, i32)> {
    let row = |run: Run| (run.x0..run.x1).map(move |x| (run.y, x));
    nucleus.runs().flat_map(row).collect()
}

/// A nucleus drawn with `#`.
pub fn drawn(rows: &[&str]) -> Nucleus {
    Nucleus::drawn(0, 0, rows)
}

/// A blob drawn with `#`.
pub fn drawn_blob(rows: &[&str]) -> Foreground {
    let runs = drawn_runs(0, 0, rows);
    let n = runs.len();
    Foreground {
        np: vec![255; n],
        h: vec![0; n],
        v: vec![0; n],
        rgb: vec![0; 3 * n],
        runs,
        ..Foreground::default()
    }
}

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/postproc")
        .join(name)
}
