//! The hottest kernels by themselves, each against its stored baseline: `make bench-kernels`.
//!
//! Counts CPU seconds of one thread, the least of several rounds, so that a busy machine matters
//! little. `benches/kernels.baseline` has the figures of the machine and date that it names;
//! `WSI_NUCLEI_KEEP_BASELINE=1` writes it anew.
#![allow(clippy::unwrap_used)]

mod maps;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use image::RgbImage;
use tch::{Device, Kind, Tensor};
use wsi_nuclei::internals::{
    Architecture, Convolve, Design, Folded, Foreground, Layer, Network, Precision, TileResult,
    chunk, components, parameters,
};
use wsi_nuclei::{PostprocParams, PredictionMap, Rect, measure_nucleus, segment_map};

const MPP: [f64; 2] = [0.25; 2];
const ROUNDS: usize = 7;

fn main() {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .unwrap();
    tch::set_num_threads(1);
    let mut table = Table::default();
    map_kernels(&mut table);
    chunk_kernels(&mut table);
    network_kernel(&mut table);
    table.print_and_keep();
}

/// Seconds of the cores that this process has had.
fn cpu_s() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime fills the one struct that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What each kernel takes, by name.
#[derive(Default)]
struct Table {
    rows: Vec<(String, f64)>,
}

impl Table {
    /// Measures the CPU milliseconds of `kernel` per `unit` of which it does `count`.
    fn add<T>(&mut self, name: &str, unit: &str, count: f64, mut kernel: impl FnMut() -> T) {
        let mut least_s = f64::MAX;
        for _ in 0..ROUNDS {
            let begun = cpu_s();
            black_box(kernel());
            least_s = least_s.min(cpu_s() - begun);
        }
        self.rows
            .push((format!("{name}, ms per {unit}"), 1e3 * least_s / count));
    }

    fn print_and_keep(&self) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/kernels.baseline");
        let baseline = read_baseline(&file);
        println!("| kernel | now | baseline | ratio |\n| --- | --- | --- | --- |");
        let mut text = String::from(
            "# CPU milliseconds, one thread; written by `make bench-kernels KEEP=1`.\n",
        );
        for line in [machine(), date()] {
            writeln!(text, "# {line}").unwrap();
        }
        for (name, ms) in &self.rows {
            let (before, ratio) = match baseline.get(name) {
                Some(before) => (format!("{before:.4}"), format!("{:.2}", ms / before)),
                None => ("-".into(), "-".into()),
            };
            println!("| {name} | {ms:.4} | {before} | {ratio} |");
            writeln!(text, "{name}\t{ms:.4}").unwrap();
        }
        if std::env::var("WSI_NUCLEI_KEEP_BASELINE").is_ok_and(|keep| keep == "1") {
            std::fs::write(&file, text).unwrap();
            println!("kept in {}", file.display());
        }
    }
}

fn read_baseline(file: &Path) -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let (name, ms) = line.split_once('\t')?;
        Some((name.to_owned(), ms.parse().ok()?))
    };
    lines.filter_map(entry).collect()
}

fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    model.map_or_else(|| std::env::consts::ARCH.into(), ToOwned::to_owned)
}

fn date() -> String {
    let done = std::process::Command::new("date").arg("-I").output();
    done.map_or_else(
        |_| String::new(),
        |done| String::from_utf8_lossy(&done.stdout).trim().into(),
    )
}

fn rgb_of(map: &PredictionMap) -> RgbImage {
    RgbImage::new(map.width as u32, map.height as u32)
}

fn foreground_of(map: &PredictionMap) -> Foreground {
    let clip = Rect::new(0, 0, map.width as i32, map.height as i32);
    Foreground::from_patch(&map.quantised(), &rgb_of(map), 0, (0, 0), clip, 0.5)
}

/// From maps to nuclei to their shapes.
fn map_kernels(table: &mut Table) {
    let params = PostprocParams::default();
    let mpx = |map: &PredictionMap| (map.width * map.height) as f64 / 1e6;
    for side in [512, 2048, 4096] {
        let (map, name) = (maps::discs(side), format!("separate nuclei, {side} px"));
        let rgb = rgb_of(&map);
        table.add(&name, "Mpx", mpx(&map), || {
            segment_map(&map, &rgb, &params, MPP)
        });
    }
    for side in [1024, 4096] {
        let (map, name) = (maps::one_blob(side), format!("one blob, {side} px"));
        let rgb = rgb_of(&map);
        table.add(&name, "Mpx", mpx(&map), || {
            segment_map(&map, &rgb, &params, MPP)
        });
    }
    let map = maps::discs(2048);
    table.add("rounding of maps", "Mpx", mpx(&map), || map.quantised());
    let foreground = foreground_of(&map);
    table.add("components", "Mpx", mpx(&map), || components(&foreground));
    let nuclei = segment_map(&map, &rgb_of(&map), &params, MPP);
    table.add(
        "shape of a nucleus",
        "1,000 nuclei",
        nuclei.len() as f64 / 1e3,
        || nuclei.iter().map(measure_nucleus).count(),
    );
}

/// The bytes of a tile that is one open fragment, before compression.
fn chunk_kernels(table: &mut Table) {
    let side = 2048;
    let tile = TileResult {
        col: 0,
        row: 0,
        rect: Rect::new(0, 0, side, side),
        done_px: 0,
        unreadable_px: 0,
        outside_px: 0,
        unreadable: vec![],
        read_errors: vec![],
        nuclei: vec![],
        fragments: vec![foreground_of(&maps::one_blob(side as usize))],
    };
    let key = chunk::ChunkKey {
        identity: [0; 32],
        tile_patches: 3,
    };
    let mpx = f64::from(side * side) / 1e6;
    let bytes = chunk::encode(&tile, &key, "bench").unwrap();
    table.add("tile of one fragment to bytes", "Mpx", mpx, || {
        chunk::encode(&tile, &key, "bench").unwrap()
    });
    table.add("bytes to tile of one fragment", "Mpx", mpx, || {
        chunk::decode(&bytes, &key, [0, 0]).unwrap()
    });
}

/// Convolutions that are timed one by one.
struct Timed {
    inner: Folded,
    convolutions_s: Cell<f64>,
}

impl Convolve for Timed {
    fn conv(&self, layer: &Layer, x: &Tensor) -> Tensor {
        let begun = cpu_s();
        let y = self.inner.conv(layer, x);
        self.convolutions_s
            .set(self.convolutions_s.get() + cpu_s() - begun);
        y
    }
}

/// The default model's network, with weights of no meaning, against its convolutions alone.
fn network_kernel(table: &mut Table) {
    const SIDE: i64 = 768;
    let design = Design::of(Architecture::HovernetLite).unwrap();
    let layers = (design.layers)(5);
    tch::manual_seed(1);
    let tensor = |(name, shape): (String, Vec<i64>)| {
        (
            name,
            Tensor::randn(&shape, (Kind::Float, Device::Cpu)) * 0.05,
        )
    };
    let tensors = parameters(&layers).into_iter().map(tensor).collect();
    let timed = Timed {
        inner: Folded::from_tensors(design, 5, tensors, Precision::F32).unwrap(),
        convolutions_s: Cell::new(0.0),
    };
    let rgb = Tensor::rand([1, 3, SIDE, SIDE], (Kind::Float, Device::Cpu)) * 255.0;
    let mpx = (SIDE * SIDE) as f64 / 1e6;
    tch::no_grad(|| {
        let (mut shares, mut least_ms) = (Vec::new(), f64::MAX);
        for _ in 0..ROUNDS {
            timed.convolutions_s.set(0.0);
            let begun = cpu_s();
            black_box((design.forward)(&layers, &timed, &rgb));
            let all_s = cpu_s() - begun;
            shares.push(timed.convolutions_s.get() / all_s);
            least_ms = f64::min(least_ms, 1e3 * timed.convolutions_s.get() / mpx);
        }
        shares.sort_by(f64::total_cmp);
        println!(
            "the default model's network: {:.0} % of its time is libtorch's convolutions (wanted 85)\n",
            100.0 * shares[ROUNDS / 2]
        );
        table
            .rows
            .push(("its convolutions alone, ms per Mpx".into(), least_ms));
        table.add("hovernet-lite", "Mpx", mpx, || {
            timed.inner.forward(&rgb).unwrap()
        });
    });
}
