//! How long a million nuclei take, format by format: on demand, for docs/performance.md.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::Instant;

use image::{Rgb, RgbImage};

use super::table::{self, Measurements};
use super::{
    Choice, Pictures, labels_ome_zarr, nuclei_json, report_html, summary_json, write_all,
    write_nuclei,
};
use crate::geometry::Rect;
use crate::machine::peak_memory_bytes;
use crate::nuclei::Nucleus;
use crate::output::{Format, GeojsonFrame, Units};
use crate::pipeline;
use crate::result::{SlideResult, fixture};
use crate::store::{Store, TileResult};
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
            nucleus.mask = vec![0; (side as usize).pow(2).div_ceil(8)];
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
    result.rings = Some(vec![result.ring(1); result.nuclei.len()]);
    result
}

/// Patches of a tile's side in [`in_store`], and a patch's output, px: no nucleus lies over a border.
const TILE_PATCHES: i32 = 5;
const PATCH_PX: i32 = 400;

/// The nuclei in `folder/store.zarr`, as a run would leave them.
pub(crate) fn in_store(folder: &Path) {
    let result = result();
    let side = TILE_PATCHES * PATCH_PX;
    let tiles = SIDE * SPACING_PX / side;
    let planned = (0..tiles * tiles).map(|i| [i % tiles, i / tiles]).collect();
    let mut meta = crate::store::tests::meta(planned, [tiles; 2]);
    (meta.layout.tile_patches, meta.layout.patch_out_px) = (TILE_PATCHES, PATCH_PX);
    meta.frames = result.meta.frames;
    let meta = &meta;
    let thumb = look();
    let mask = TissueMask::all(meta.frames.level0_size_px, [0.25; 2]);
    let store = Store::create(&folder.join("store.zarr"), meta, &thumb, &mask).unwrap();
    let mut tiled: BTreeMap<(i32, i32), Vec<Nucleus>> = BTreeMap::new();
    for nucleus in result.nuclei {
        let at = (nucleus.bbox.y / side, nucleus.bbox.x / side);
        tiled.entry(at).or_default().push(nucleus);
    }
    for ((row, col), nuclei) in tiled {
        let tile = TileResult {
            col,
            row,
            rect: Rect::new(col * side, row * side, side, side),
            done_px: (side * side) as u64,
            unreadable_px: 0,
            outside_px: 0,
            read_errors: Vec::new(),
            nuclei,
            fragments: Vec::new(),
        };
        store.write_tile(&tile, "by hand").unwrap();
    }
}

/// nuclei.csv of [`in_store`]'s nuclei.
pub(crate) fn csv_beside(folder: &Path) {
    let store = Store::open(&folder.join("store.zarr")).unwrap();
    let result = pipeline::load(&store).unwrap().slide;
    write_table(&result, Format::Csv, folder);
}

/// Seconds, seconds of all cores and peak memory of what has been begun, one line.
struct Measure {
    what: &'static str,
    clock: Instant,
    cpu_s: f64,
}

impl Measure {
    /// Forgets the peak so far: Linux's own way, from version 4.0.
    fn begin(what: &'static str) -> Self {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        Self {
            what,
            clock: Instant::now(),
            cpu_s: cpu_s(),
        }
    }

    /// `path`: what was written.
    fn end(self, path: &Path) {
        let seconds = self.clock.elapsed().as_secs_f64();
        let cpu_s = cpu_s() - self.cpu_s;
        let peak = peak_memory_bytes().unwrap() as f64 / 1e9;
        let size = bytes_under(path) as f64 / 1e6;
        println!(
            "{}: {seconds:.1} s, cores' {cpu_s:.1} s, peak {peak:.2} GB, {size:.0} MB",
            self.what
        );
    }
}

/// What this process has used of all cores.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which may hold anything: user and system time are the 12th and 13th, in hundredths.
    let (_, after) = stat.rsplit_once(')').unwrap();
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.map(|n| n.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn bytes_under(path: &Path) -> u64 {
    if path.is_file() {
        return path.metadata().unwrap().len();
    }
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|e| bytes_under(&e.unwrap().path())).sum()
}

fn write_table(result: &SlideResult, format: Format, folder: &Path) {
    let choice = Choice {
        formats: &[format],
        units: Units::Um,
        geojson_frame: GeojsonFrame::Qupath,
    };
    write_nuclei(result, choice, folder).unwrap();
}

fn report(result: &SlideResult, measured: Measurements, path: &Path) {
    let results = report_html::Results {
        summary: summary_json::summary(result, &measured.medians),
        measured,
        thumb: look(),
        mask: TissueMask::all(result.frames().level0_size_px, [0.25; 2]),
        crops: Vec::new(),
    };
    report_html::write(results, path).unwrap();
}

fn look() -> RgbImage {
    RgbImage::from_pixel(2000, 2000, Rgb([200, 150, 180]))
}

/// What `run` does with all formats but pictures: nuclei are measured once.
fn write_everything(result: &SlideResult, folder: &Path) {
    let pictures = Pictures {
        thumb: look(),
        mask: TissueMask::all(result.frames().level0_size_px, [0.25; 2]),
        overlay: None,
        crops: Vec::new(),
        legend: false,
        captions: Vec::new(),
    };
    let choice = Choice {
        formats: &[
            Format::Csv,
            Format::Parquet,
            Format::Geojson,
            Format::GeojsonGz,
            Format::Json,
            Format::OmeZarr,
            Format::Report,
        ],
        units: Units::Um,
        geojson_frame: GeojsonFrame::Qupath,
    };
    write_all(result, pictures, choice, folder).unwrap();
}

#[test]
#[ignore = "minutes; cargo test --release --lib a_million_nuclei_are_written -- --ignored --nocapture"]
fn a_million_nuclei_are_written() {
    let begun = Measure::begin("(the nuclei themselves)");
    let result = result();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    begun.end(folder.path());

    let begun = Measure::begin("(measuring alone)");
    let Ok(measured) = table::for_each_chunk(&result, Units::Um, |_| Ok::<(), Infallible>(()));
    begun.end(folder.path());
    let begun = Measure::begin("report.html");
    report(&result, measured, &place("report.html"));
    begun.end(&place("report.html"));
    assert!(bytes_under(&place("report.html")) < 5_000_000);

    for (format, name) in [
        (Format::Csv, "nuclei.csv"),
        (Format::Parquet, "nuclei.parquet"),
        (Format::Geojson, "nuclei.geojson"),
        (Format::GeojsonGz, "nuclei.geojson.gz"),
    ] {
        let begun = Measure::begin(name);
        write_table(&result, format, folder.path());
        begun.end(&place(name));
    }
    let begun = Measure::begin("nuclei.json");
    nuclei_json::write(&result, &place("nuclei.json")).unwrap();
    begun.end(&place("nuclei.json"));
    let begun = Measure::begin("labels.ome.zarr");
    labels_ome_zarr::write(&result, folder.path()).unwrap();
    begun.end(&place("labels.ome.zarr"));

    let all = tempfile::tempdir().unwrap();
    let begun = Measure::begin("(everything in one go)");
    write_everything(&result, all.path());
    begun.end(all.path());
}
