//! A million nuclei through every writer: seconds, peak memory and sizes, for docs/performance.md.
//!
//! `cargo bench --bench million`. With WSI_NUCLEI_MILLION=FOLDER, nuclei.json and nuclei.csv stay in FOLDER for
//! tests/outputs/million.sh, which looks at them in a browser.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::Instant;

use image::{Rgb, RgbImage};
use wsi_nuclei::internals::{
    Pictures, StainSums, TissueMask, for_each_chunk, labels_ome_zarr, nuclei_json,
    peak_memory_bytes, report_html, summary_json, write_all,
};
use wsi_nuclei::{
    Choice, Coverage, Format, Frames, GeojsonFrame, Measurements, ModelCard, Nucleus, Rect, Ring,
    SlideMeta, SlideResult, SlideSource, TissueSource, TypeInfo, Units, write_nuclei,
};

const SIDE: i32 = 1000;
/// 10 µm apart: 10,000 per mm².
const SPACING_PX: i32 = 40;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("WSI_NUCLEI_MILLION");
    let folder = kept.as_deref().map_or(folder.path(), Path::new);
    std::fs::create_dir_all(folder).unwrap();
    let place = |name: &str| folder.join(name);

    let begun = Measure::begin("(the nuclei themselves)");
    let result = result();
    begun.end(folder);
    let begun = Measure::begin("(measuring alone)");
    let Ok(measured) = for_each_chunk(&result, Units::Um, |_| Ok::<(), Infallible>(()));
    begun.end(folder);
    let begun = Measure::begin("report.html");
    report(&result, measured, &place("report.html"));
    begun.end(&place("report.html"));
    for (format, name) in [
        (Format::Csv, "nuclei.csv"),
        (Format::Parquet, "nuclei.parquet"),
        (Format::Geojson, "nuclei.geojson"),
        (Format::GeojsonGz, "nuclei.geojson.gz"),
    ] {
        let begun = Measure::begin(name);
        write_table(&result, format, folder);
        begun.end(&place(name));
    }
    let begun = Measure::begin("nuclei.json");
    nuclei_json::write(&result, &place("nuclei.json")).unwrap();
    begun.end(&place("nuclei.json"));
    let begun = Measure::begin("labels.ome.zarr");
    labels_ome_zarr::write(&result, folder).unwrap();
    begun.end(&place("labels.ome.zarr"));

    let all = tempfile::tempdir().unwrap();
    let begun = Measure::begin("(everything in one go)");
    write_everything(&result, all.path());
    begun.end(all.path());
}

/// Discs of 13 to 30 px, two types in no order.
fn result() -> SlideResult {
    let px = SIDE * SPACING_PX;
    let mut result = empty_result(px);
    let template = result_template();
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
    let ring = Ring {
        area_px: 40,
        hematoxylin: 2000 * 40,
        hematoxylin_sq: 5_000_000 * 40,
        eosin: 5000 * 40,
        eosin_sq: 25_000_000 * 40,
    };
    result.rings = Some(vec![ring; result.nuclei.len()]);
    result
}

/// A slide of `px` a side at 0.25 µm/px without nuclei.
fn empty_result(px: i32) -> SlideResult {
    let kind = |name: &str, color| TypeInfo {
        name: name.into(),
        color,
    };
    SlideResult {
        meta: SlideMeta {
            identity: BTreeMap::new(),
            stem: "million".into(),
            slide: SlideSource::default(),
            manifest: Vec::new(),
            mpp_from: "file".into(),
            frames: Frames {
                level0_size_px: [px as u64; 2],
                level0_mpp: [0.25; 2],
                proc_size_px: [px; 2],
                proc_per_level0: [1.0; 2],
            },
            model: ModelCard {
                name: "synthetic".into(),
                mpp: 0.25,
                types: vec![
                    kind("background", [0, 0, 0]),
                    kind("tumour", [255, 0, 0]),
                    kind("lymphocyte", [0, 0, 255]),
                ],
                ..ModelCard::default()
            },
            tissue_mm2: 1.0,
            tissue_from: TissueSource::Image,
            region: None,
            warnings: Vec::new(),
        },
        coverage: Coverage::whole((px as u64).pow(2)),
        nuclei: Vec::new(),
        rings: None,
        read_errors: Vec::new(),
        imported: None,
        examined: None,
    }
}

/// A nucleus of one pixel, to be shaped.
fn result_template() -> Nucleus {
    Nucleus {
        bbox: Rect::new(0, 0, 1, 1),
        mask: vec![1],
        area_px: 1,
        prob_sums: vec![25, 200, 30],
        type_counts: vec![0, 1, 0],
        np_sum: 230,
        stain: StainSums {
            rgb: [100, 60, 140],
            hematoxylin: 8000,
            hematoxylin_sq: 8000 * 8000,
            eosin: 2000,
            eosin_sq: 2000 * 2000,
        },
        cut: false,
    }
}

/// One line about a piece of work: seconds, CPU seconds, peak memory, size of what was written.
struct Measure {
    what: &'static str,
    clock: Instant,
    cpu_s: f64,
}

impl Measure {
    /// Forgets the peak memory so far (Linux 4.0 and later).
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
        region: None,
        crops: Vec::new(),
    };
    report_html::write(results, path).unwrap();
}

fn look() -> RgbImage {
    RgbImage::from_pixel(2000, 2000, Rgb([200, 150, 180]))
}

/// What `run` does with all formats but pictures: nuclei are measured once.
fn write_everything(result: &SlideResult, folder: &Path) {
    let mask = TissueMask::all(result.frames().level0_size_px, [0.25; 2]);
    let pictures = Pictures::new(look(), mask);
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
