//! What the pipeline costs without a network, in one table for docs/performance.md: `cargo bench --bench pipeline`.
//!
//! Fake devices of a set rate stand in for a GPU. The slide is the demo's tissue, enlarged to 0.25 µm/px and repeated
//! over a pyramid of `WSI_NUCLEI_BENCH_PX` (8192) px, once so pale that the analytic rule finds single nuclei, and once as
//! it is, where the rule joins most of it into one blob. scikit-image and hover-net are compared with where
//! `WSI_NUCLEI_PYTHON` (python3) has them. With `WSI_NUCLEI_BENCH_SLIDE=FILE` only the slide is written, for
//! scripts/gpu_check.sh. With `WSI_NUCLEI_BENCH_MM2=100` the table is of slides of 1, 10 and 100 mm². Seconds of a shared machine are noisy: CPU seconds and ratios are what to look at.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use image::RgbImage;
use image::imageops::{self, FilterType};
use serde_json::Value;
use wsi_nuclei::internals::raw_map;
use wsi_nuclei::{Nucleus, PostprocParams, PredictionMap, measure_nucleus, segment_map};

mod maps;
#[path = "../tests/binary/pyramid.rs"]
mod pyramid;

use maps::discs;

const MPP: f64 = 0.25;
/// Rates (Mpx/s of input) and latencies (ms) of the devices.
const DEVICES: [(f64, u32); 4] = [(4.0, 0), (4.0, 100), (10.0, 20), (1000.0, 0)];

fn main() {
    // What a device would need is measured with one thread per kernel.
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .unwrap();
    if let Some(kept) = std::env::var_os("WSI_NUCLEI_BENCH_SLIDE") {
        write_slide(Path::new(&kept), &field());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    println!("| what | measured | against | ratio |\n| --- | --- | --- | --- |");
    if let Some(most_mm2) = std::env::var_os("WSI_NUCLEI_BENCH_MM2") {
        let most_mm2 = most_mm2.to_str().unwrap().parse().unwrap();
        scaling_rows(folder.path(), most_mm2);
        return;
    }
    let [slide, blob] = ["bench.tiff", "blob.tiff"].map(|name| folder.path().join(name));
    write_slide(&slide, &paled(&field()));
    write_slide(&blob, &field());
    let mut last = None;
    for (mpx_per_s, latency_ms) in DEVICES {
        let report = run(folder.path(), &slide, mpx_per_s, latency_ms);
        device_row(&report, mpx_per_s, latency_ms);
        last = Some(report);
    }
    let report = last.unwrap();
    reading_row(&report);
    cost_rows("", &report);
    let (mpx_per_s, latency_ms) = DEVICES[DEVICES.len() - 1];
    cost_rows(
        "one blob: ",
        &run(folder.path(), &blob, mpx_per_s, latency_ms),
    );
    post_processing_rows();
    reference_row(folder.path());
    features_row(folder.path());
}

fn row(what: &str, measured: String, against: String, ratio: String) {
    println!("| {what} | {measured} | {against} | {ratio} |");
}

/// A square of the demo's tissue at 0.25 µm/px.
fn field() -> RgbImage {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("slides/CMU-1-Small-Region.svs");
    let reader = wsi_nuclei::open_slide(&demo).expect("make demo fetches the slide");
    let part = reader.read_level(0, 600, 900, 1024, 1024).unwrap();
    imageops::resize(&part, 2048, 2048, FilterType::CatmullRom)
}

/// The same with its optical densities times 0.4: then 20 % of the pixels are what the analytic rule calls nucleus.
fn paled(field: &RgbImage) -> RgbImage {
    let pale = |value: u8| (255.0 * (f64::from(value) / 255.0).powf(0.4)).round() as u8;
    let pixels = field.as_raw().iter().map(|&value| pale(value)).collect();
    RgbImage::from_raw(field.width(), field.height(), pixels).unwrap()
}

/// A pyramid that repeats `field`.
fn write_slide(path: &Path, field: &RgbImage) {
    let side_px = std::env::var("WSI_NUCLEI_BENCH_PX").map_or(8192, |px| px.parse().unwrap());
    write_slide_of(path, field, side_px);
}

/// A pyramid of `side_px` that repeats `field`.
fn write_slide_of(path: &Path, field: &RgbImage, side_px: u32) {
    pyramid::Pyramid {
        side_px,
        mpp: MPP,
        field,
        is_tissue: &|_, _| true,
    }
    .write(path);
}

/// A run of the release binary with run.json, what the run took of the cores in all, and mm² done.
struct Report {
    run: Value,
    cpu_s: f64,
    mm2: f64,
}

impl Report {
    fn stage(&self, name: &str) -> &Value {
        let stages = self.run["stages"].as_array().unwrap();
        stages.iter().find(|stage| stage["name"] == name).unwrap()
    }

    fn number(&self, stage: &str, what: &str) -> f64 {
        self.stage(stage)[what].as_f64().unwrap()
    }

    /// Seconds from the start of the stages to the last tile's commit.
    fn wall_s(&self) -> f64 {
        let parts = ["busy_s", "waiting_for_input_s", "waiting_for_output_s"];
        let all: f64 = parts.iter().map(|part| self.number("commit", part)).sum();
        all / self.number("commit", "workers")
    }
}

fn run(folder: &Path, slide: &Path, mpx_per_s: f64, latency_ms: u32) -> Report {
    let slide_name = slide.file_stem().unwrap();
    let out: PathBuf = folder.join(format!("out-{mpx_per_s}-{latency_ms}"));
    let before = children_cpu_s();
    let done = Command::new(env!("CARGO_BIN_EXE_wsi-nuclei"))
        .args(["run", "--quiet", "--mask", "none", "--format", "parquet"])
        .args([
            "--model",
            &format!("analytic:fine,{mpx_per_s}Mpx/s,{latency_ms}ms"),
        ])
        .arg(slide)
        .arg("-o")
        .arg(&out)
        .status()
        .unwrap();
    assert!(done.success());
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(out.join(slide_name).join(name)).unwrap()).unwrap()
    };
    Report {
        run: read("run.json"),
        cpu_s: children_cpu_s() - before,
        mm2: read("summary.json")["area_mm2"]["done"].as_f64().unwrap(),
    }
}

/// Seconds that ended children had of the cores.
fn children_cpu_s() -> f64 {
    // SAFETY: rusage is plain numbers, and getrusage fills the one that it is given.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used);
        used
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

/// Wall clock against the slower of the device and the cores, each as if it never waited.
fn device_row(report: &Report, mpx_per_s: f64, latency_ms: u32) {
    let device_s = report.number("device", "busy_s");
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let stages = ["read", "infer", "post-process", "commit"];
    let cores_s: f64 = stages
        .iter()
        .map(|s| report.number(s, "cpu_s"))
        .sum::<f64>()
        / cores;
    let idle_s = report.number("device", "waiting_for_input_s");
    let (wall_s, least_s) = (report.wall_s(), device_s.max(cores_s));
    row(
        &format!("pipeline, device of {mpx_per_s} Mpx/s and {latency_ms} ms"),
        format!(
            "{wall_s:.2} s, device busy {:.0} %",
            100.0 * device_s / (device_s + idle_s)
        ),
        format!("device {device_s:.2} s, {cores} cores {cores_s:.2} s"),
        format!("{:.2}", wall_s / least_s),
    );
}

/// What a mm² costs on slides of 1, 10, 100 mm² and so on, up to `most_mm2`: time must be linear and
/// memory flat.
fn scaling_rows(folder: &Path, most_mm2: f64) {
    let field = paled(&field());
    let mut mm2 = 1.0;
    let mut first_ms = None;
    while mm2 <= most_mm2 {
        let side_px = (f64::sqrt(mm2) * 1000.0 / MPP / 512.0).round() as u32 * 512;
        let slide = folder.join(format!("{mm2}.tiff"));
        write_slide_of(&slide, &field, side_px);
        let report = run(folder, &slide, 1000.0, 0);
        let start_s = report.number("start", "busy_s");
        let ms = 1e3 * (report.cpu_s - report.number("start", "cpu_s")) / report.mm2;
        let peak = report.run["peak_memory_bytes"].as_f64().unwrap() / f64::from(1 << 20);
        row(
            &format!("{:.1} mm², after the start, CPU ms per mm²", report.mm2),
            format!("{ms:.0}, peak {peak:.0} MiB, start {start_s:.2} s"),
            format!("1 mm²: {:.0}; start wanted 1.5 s", first_ms.unwrap_or(ms)),
            format!("{:.2}", ms / *first_ms.get_or_insert(ms)),
        );
        std::fs::remove_file(&slide).unwrap();
        mm2 *= 10.0;
    }
}

fn reading_row(report: &Report) {
    let px = |what: &str| report.run["read_px"][what].as_f64().unwrap();
    row(
        "reading: px read",
        format!("{:.1} Mpx", px("read") / 1e6),
        format!("{:.1} Mpx of blocks that patches meet", px("needed") / 1e6),
        format!("{:.2}", px("read") / px("needed")),
    );
}

/// CPU seconds per mm² of everything but the network.
fn cost_rows(slide: &str, report: &Report) {
    let mm2 = report.mm2;
    let cpu_row = |what: &str, cpu_s: f64, wanted: f64| {
        let per_mm2 = cpu_s / mm2;
        row(
            &format!("{slide}{what}, CPU s per mm²"),
            format!("{per_mm2:.3}"),
            format!("wanted {wanted}"),
            format!("{:.2}", per_mm2 / wanted),
        );
    };
    let of = |stage: &str| report.number(stage, "cpu_s");
    cpu_row("read", of("read"), 0.45);
    cpu_row("post-process", of("post-process"), 0.15);
    let known = ["tile rings", "commit", "stitch", "rings", "write"].map(of);
    let parts = known.map(|cpu_s| format!("{:.3}", cpu_s / mm2)).join(" + ");
    cpu_row(
        &format!("rings, commit, stitch, late rings, features and files ({parts})"),
        known.iter().sum(),
        0.12,
    );
    let network_s = of("infer");
    let start_s =
        report.cpu_s - network_s - of("read") - of("post-process") - known.iter().sum::<f64>();
    row(
        &format!("{slide}start of a slide, whatever its size, CPU s"),
        format!("{start_s:.2}"),
        format!("of it in the slide's own process {:.2}", of("start")),
        "-".into(),
    );
    let nuclei_per_mm2 = report.run["nuclei"].as_f64().unwrap() / mm2;
    cpu_row(
        &format!("all but network and start ({nuclei_per_mm2:.0} nuclei per mm²)"),
        report.cpu_s - network_s - start_s,
        0.8,
    );
}

fn nuclei_of(map: &PredictionMap) -> (Vec<Nucleus>, f64) {
    let rgb = RgbImage::new(map.width as u32, map.height as u32);
    let begun = Instant::now();
    let nuclei = segment_map(map, &rgb, &PostprocParams::default(), [MPP; 2]);
    (nuclei, begun.elapsed().as_secs_f64())
}

/// Milliseconds per Mpx of one thread, which must not grow with the image.
fn post_processing_rows() {
    let per_mpx = |side: usize| {
        let map = discs(side);
        let least = (0..3).map(|_| nuclei_of(&map).1).fold(f64::MAX, f64::min);
        1e3 * least / (side * side) as f64 * 1e6
    };
    let small = per_mpx(512);
    for side in [2048, 4096] {
        let ms = per_mpx(side);
        row(
            &format!("post-processing alone, {side} px, one thread"),
            format!("{ms:.1} ms per Mpx"),
            format!("512 px: {small:.1} ms per Mpx"),
            format!("{:.2}", ms / small),
        );
    }
}

/// hover_net's own post-processing (the package hover-net 0.0.10) on a map [np, h, v].
const REFERENCE: &str = "
import sys, time, numpy as np
sys.path.insert(0, sys.argv[2])
import oracle
process, raw = oracle.process(), np.load(sys.argv[1])
times = []
for _ in range(3):
    begun = time.perf_counter()
    process(raw.copy(), nr_types=None, return_centroids=True)
    times.append(time.perf_counter() - begun)
print(min(times))
";

/// What a Python program prints: seconds; `None` where it cannot run.
fn python_s(program: &str, arguments: &[&Path]) -> Option<f64> {
    let python = std::env::var("WSI_NUCLEI_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(python);
    command.args(["-c", program]).args(arguments);
    for threads in [
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
    ] {
        command.env(threads, "1");
    }
    let text = command.output().ok()?.stdout;
    String::from_utf8_lossy(&text).trim().parse().ok()
}

fn reference_row(folder: &Path) {
    let map = discs(1024);
    let raw = folder.join("raw.npy");
    raw_map::write(&map, &raw).unwrap();
    let ours_s = (0..3).map(|_| nuclei_of(&map).1).fold(f64::MAX, f64::min);
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    let what = "post-processing, 1024 px, one thread, against hover_net's Python";
    let ours = format!("{ours_s:.4} s");
    match python_s(REFERENCE, &[&raw, &oracle]) {
        Some(theirs_s) => row(
            what,
            ours,
            format!("{theirs_s:.3} s"),
            format!("{:.0} x", theirs_s / ours_s),
        ),
        None => row(
            what,
            ours,
            "no hover-net: set WSI_NUCLEI_PYTHON".into(),
            "-".into(),
        ),
    }
}

/// scikit-image's regionprops_table with the same properties, on the same nuclei.
const REGIONPROPS: &str = "
import sys, time, numpy as np
from skimage.measure import regionprops_table
labels = np.load(sys.argv[1])
names = ['area', 'area_bbox', 'area_convex', 'eccentricity', 'equivalent_diameter_area', 'euler_number', 'extent',
         'area_filled', 'inertia_tensor_eigvals', 'axis_major_length', 'axis_minor_length', 'orientation', 'perimeter',
         'solidity', 'centroid', 'feret_diameter_max']
begun = time.perf_counter()
regionprops_table(labels, properties=names)
print(time.perf_counter() - begun)
";

fn features_row(folder: &Path) {
    let map = discs(2048);
    let nuclei = nuclei_of(&map).0;
    let begun = Instant::now();
    let rounds = 5;
    for _ in 0..rounds {
        for nucleus in &nuclei {
            std::hint::black_box(measure_nucleus(nucleus));
        }
    }
    let ours_s = begun.elapsed().as_secs_f64() / f64::from(rounds);
    let per_s = |seconds: f64| format!("{:.0} nuclei per s", nuclei.len() as f64 / seconds);
    let labels = folder.join("labels.npy");
    write_labels(&nuclei, map.width, &labels);
    match python_s(REGIONPROPS, &[&labels]) {
        Some(theirs_s) => row(
            "features, one thread, against scikit-image's regionprops_table",
            per_s(ours_s),
            per_s(theirs_s),
            format!("{:.0} x", theirs_s / ours_s),
        ),
        None => row(
            "features, one thread",
            per_s(ours_s),
            "no scikit-image: set WSI_NUCLEI_PYTHON".into(),
            "-".into(),
        ),
    }
}

fn write_labels(nuclei: &[Nucleus], width: usize, path: &Path) {
    use npyz::WriterBuilder;
    let mut labels = vec![0i32; width * width];
    for (id, nucleus) in (1..).zip(nuclei) {
        for run in nucleus.runs() {
            let at = run.y as usize * width + run.x0 as usize;
            labels[at..at + run.len()].fill(id);
        }
    }
    let file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[width as u64; 2])
        .writer(file)
        .begin_nd()
        .unwrap();
    writer.extend(labels).unwrap();
    writer.finish().unwrap();
}
