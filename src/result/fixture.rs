//! A slide made by hand for the writers' tests: 60 x 40 proc px, four nuclei, two of them on the rim.

use std::collections::BTreeMap;

use crate::features::Ring;
use crate::geometry::Rect;
use crate::model::TypeInfo;
use crate::nuclei::{Nucleus, StainSums};
use crate::result::SlideResult;
use crate::result::{Coverage, ModelCard, SlideMeta, SlideSource};
use crate::slide::frames::Frames;
use crate::tissue::TissueSource;

/// The slide at `ratio` proc px a level-0 px; the nuclei stay where they are in proc px.
pub fn result(ratio: f64) -> SlideResult {
    let level0 = [60.0, 40.0].map(|side: f64| (side / ratio).round() as u64);
    let level0_mpp = 0.25 * ratio;
    SlideResult {
        meta: SlideMeta {
            identity: BTreeMap::new(),
            stem: "hand-made".into(),
            slide: slide(),
            manifest: Vec::new(),
            mpp_from: "file".into(),
            frames: Frames {
                level0_size_px: level0,
                level0_mpp: [level0_mpp; 2],
                proc_size_px: [60, 40],
                proc_per_level0: [ratio; 2],
            },
            model: model(),
            tissue_mm2: 1.5e-4,
            tissue_from: TissueSource::Found,
            region: None,
            warnings: vec!["made by hand".into()],
        },
        nuclei: vec![
            // In raster order of the first pixel.
            nucleus(Rect::new(0, 0, 5, 6), |_, _| true, [25, 200, 30]),
            nucleus(Rect::new(20, 10, 12, 8), |_, _| true, [51, 51, 153]),
            nucleus(Rect::new(40, 20, 9, 9), disc, [0, 255, 0]),
            nucleus(Rect::new(55, 34, 5, 6), |_, _| true, [100, 100, 55]),
        ],
        coverage: Coverage {
            planned_tiles: 2,
            tiles_px: 2400,
            done_px: 1600,
            unreadable_px: 400,
            outside_px: 400,
            missing_tiles: 0,
        },
        read_errors: vec!["hand-made: level 0: no pixels".into()],
        // Nothing but other nuclei around the first.
        rings: Some([0, 40, 50, 60].map(ring).to_vec()),
        imported: None,
        examined: None,
    }
}

/// A ring of so many pixels, half of them of hematoxylin 0.1, half of 0.3, all of eosin 0.5.
fn ring(area_px: u32) -> Ring {
    let n = i64::from(area_px);
    Ring {
        area_px,
        hematoxylin: 2000 * n,
        hematoxylin_sq: ((1000 * 1000 + 3000 * 3000) / 2 * n) as u64,
        eosin: 5000 * n,
        eosin_sq: (5000 * 5000 * n) as u64,
    }
}

fn disc(x: i32, y: i32) -> bool {
    (x - 4).pow(2) + (y - 4).pow(2) <= 18
}

/// A nucleus whose every pixel has the class probabilities `probs` / 255, half of its pixels voting for each class
/// above background's.
fn nucleus(bbox: Rect, inside: fn(i32, i32) -> bool, probs: [u32; 3]) -> Nucleus {
    let mut mask = vec![0u8; (bbox.area() as usize).div_ceil(8)];
    let mut area_px = 0;
    for y in 0..bbox.h {
        for x in 0..bbox.w {
            if inside(x, y) {
                let bit = (y * bbox.w + x) as usize;
                mask[bit / 8] |= 1 << (bit % 8);
                area_px += 1;
            }
        }
    }
    Nucleus {
        bbox,
        mask,
        area_px,
        prob_sums: probs.map(|p| p * area_px).to_vec(),
        type_counts: vec![0, area_px / 2, area_px - area_px / 2],
        np_sum: 230 * area_px,
        stain: StainSums {
            rgb: [100, 60, 140].map(|c| c * u64::from(area_px)),
            hematoxylin: 8000 * i64::from(area_px),
            hematoxylin_sq: 8000 * 8000 * u64::from(area_px),
            eosin: 2000 * i64::from(area_px),
            eosin_sq: 2000 * 2000 * u64::from(area_px),
        },
        cut: false,
    }
}

fn slide() -> SlideSource {
    SlideSource {
        path: "hand-made.svs".into(),
        objective_power: Some(20.0),
        bounds_px: None,
        quickhash: "00ff".into(),
    }
}

fn model() -> ModelCard {
    let kind = |name: &str, color| TypeInfo {
        name: name.into(),
        color,
    };
    ModelCard {
        name: "hand-made".into(),
        mpp: 0.25,
        types: vec![
            kind("background", [0, 0, 0]),
            kind("tumour", [255, 0, 0]),
            kind("lymphocyte", [0, 0, 255]),
        ],
        licence: "MIT".into(),
        ..ModelCard::default()
    }
}
