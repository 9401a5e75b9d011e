//! How long a million nuclei take, format by format: on demand, for docs/performance.md.

use std::time::Instant;

use image::{Rgb, RgbImage};

use super::{
    Choice, SlideResult, fixture, labels_ome_zarr, report_html, summary_json, write_tables,
};
use crate::config::{Format, GeojsonFrame, Units};
use crate::geometry::Rect;
use crate::output::run_json::peak_memory_bytes;
use crate::tissue::TissueMask;

const SIDE: i32 = 1000;
/// 10 µm apart: 10,000 a mm².
const SPACING_PX: i32 = 40;

/// Discs of 13 to 30 px, two types in no order.
pub(crate) fn result() -> SlideResult {
    let mut result = fixture::result(1.0);
    let px = SIDE * SPACING_PX;
    result.meta.frames.level0_size_px = [px as u64; 2];
    result.meta.frames.proc_size_px = [px; 2];
    let template = result.nuclei[0].clone();
    let mut rng = fastrand::Rng::with_seed(1);
    result.nuclei = (0..SIDE * SIDE)
        .map(|i| {
            let side = rng.i32(13..=30);
            let mut nucleus = template.clone();
            nucleus.bbox = Rect::new(i % SIDE * SPACING_PX, i / SIDE * SPACING_PX, side, side);
            nucleus.mask = vec![0; (side * side) as usize / 8 + 1];
            nucleus.area_px = 0;
            for bit in 0..side * side {
                let [x, y] = [bit % side, bit / side].map(|v| 2 * v + 1 - side);
                if x * x + y * y <= side * side {
                    nucleus.mask[bit as usize / 8] |= 1 << (bit % 8);
                    nucleus.area_px += 1;
                }
            }
            let n = nucleus.area_px;
            let tumour = rng.u32(20..=200);
            nucleus.prob_sums = vec![25 * n, tumour * n, (230 - tumour) * n];
            nucleus.type_counts = vec![0, n / 2, n - n / 2];
            nucleus
        })
        .collect();
    result
}

fn choice(formats: &[Format]) -> Choice<'_> {
    Choice {
        formats,
        units: Units::Um,
        geojson_frame: GeojsonFrame::Qupath,
    }
}

#[test]
#[ignore = "minutes; cargo test --release --lib million -- --ignored --nocapture"]
fn a_million_nuclei() {
    let result = result();
    let folder = tempfile::tempdir().unwrap();
    let said = |what: &str, since: Instant| {
        let peak = peak_memory_bytes().unwrap_or(0) as f64 / 1e9;
        println!(
            "{what}: {:.1} s, peak {peak:.2} GB",
            since.elapsed().as_secs_f64()
        );
    };
    said("nuclei made", Instant::now());
    let clock = Instant::now();
    labels_ome_zarr::write(&result, folder.path()).unwrap();
    said("labels.ome.zarr", clock);
    let clock = Instant::now();
    let measured = write_tables(&result, choice(&[Format::Csv]), folder.path()).unwrap();
    said("nuclei.csv", clock);
    for formats in [[Format::Parquet], [Format::Geojson]] {
        let clock = Instant::now();
        write_tables(&result, choice(&formats), folder.path()).unwrap();
        said(&format!("nuclei.{}", formats[0].name()), clock);
    }
    let clock = Instant::now();
    let path = folder.path().join("report.html");
    let results = report_html::Results {
        summary: summary_json::summary(&result, &measured.medians),
        measured,
        thumb: RgbImage::from_pixel(2000, 2000, Rgb([200, 150, 180])),
        mask: TissueMask::all(result.frames().level0_size_px, [0.25; 2]),
        crops: Vec::new(),
    };
    report_html::write(results, &path).unwrap();
    said("report.html", clock);
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("report.html: {bytes} bytes");
    assert!(bytes < 5_000_000);
}
