//! What `plan` says and `--memory` promises, held against what a run really takes, on pyramids of real pixels.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use image::RgbImage;
use image::imageops;

use crate::harness::{Dir, Run, shared};
use crate::invariance::net;
use crate::pyramid::Pyramid;

/// A 40x scan's.
const MPP: f64 = 0.25;
const MIB: u64 = 1 << 20;
const FIELD_PX: u32 = 2048;
/// The promise: bytes of the store a mm² of tissue.
const SCRATCH_BYTES_PER_MM2: f64 = 5e6;

/// 2048 px of tissue, scanned at 0.25 µm/px: parts of sixteen CoNSeP images.
fn field() -> Option<RgbImage> {
    const PART_PX: u32 = 512;
    let folder = shared("data/consep/Train/Images")?;
    let mut field = RgbImage::new(FIELD_PX, FIELD_PX);
    let columns = FIELD_PX / PART_PX;
    for i in 0..columns * columns {
        let image = image::open(folder.join(format!("train_{}.png", i + 1))).unwrap();
        let part = imageops::crop_imm(&image.to_rgb8(), 200, 200, PART_PX, PART_PX).to_image();
        let (x, y) = (i % columns * PART_PX, i / columns * PART_PX);
        imageops::replace(&mut field, &part, x.into(), y.into());
    }
    Some(field)
}

/// Runs a command to its end; how it ended, and the most memory that it held at once (VmHWM: what the process had
/// before it became this program does not count).
fn watched(dir: &Dir, line: &str) -> (Run, u64) {
    let mut command = dir.command(line);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let held = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = held.and_then(|text| {
            text.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        });
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(3));
    }
    (Run::of(line, child.wait_with_output().unwrap()), peak)
}

fn bytes_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => bytes_of(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}

/// Plans and runs a pyramid of `side_px` by `model` with each of `budgets_mib`; repeats of `field` where tissue is.
fn hold(
    model: &str,
    side_px: u32,
    field: Option<RgbImage>,
    is_tissue: &dyn Fn(u32, u32) -> bool,
    budgets_mib: &[u64],
) {
    let Some(field) = field else {
        return;
    };
    let dir = Dir::new();
    let slide = dir.path("large.tiff");
    Pyramid {
        side_px,
        mpp: MPP,
        field: &field,
        is_tissue,
    }
    .write(&slide);
    drop(field);
    let slide_mb = slide.metadata().unwrap().len() as f64 / 1e6;
    let slide_mm2 = (f64::from(side_px) * MPP / 1000.0).powi(2);
    for &budget in budgets_mib {
        let what = format!("large.tiff --model {model} --memory {budget}MiB");
        let (plan, plan_peak) = watched(&dir, &format!("plan {what} --json"));
        assert_eq!(plan.code, Some(0), "{}", plan.stderr);
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        let planned = |name: &str| plan[name].as_f64().unwrap();

        let begun = Instant::now();
        let out = format!("out{budget}");
        let (run, peak) = watched(&dir, &format!("run {what} -o {out} --progress none"));
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let report = dir.json(&format!("{out}/large/run.json"));
        let peak = peak.max(report["peak_memory_bytes"].as_u64().unwrap());
        let scratch = bytes_of(&dir.path(&format!("{out}/large/store.zarr"))) as f64;
        let tissue = planned("tissue_mm2");
        eprintln!(
            "budget: {model}, {side_px} px ({slide_mb:.1} MB on disk), {tissue:.1} mm² of tissue ({:.0} %), {} nuclei, \
             --memory {budget}MiB: peak {} MiB (planned {:.0}; plan itself {}), scratch {:.1} MB = {:.2} a mm² \
             (planned {:.1}), {seconds:.0} s (planned {:.0})",
            100.0 * tissue / slide_mm2,
            report["nuclei"],
            peak / MIB,
            planned("memory_bytes") / MIB as f64,
            plan_peak / MIB,
            scratch / 1e6,
            scratch / 1e6 / tissue,
            planned("scratch_bytes") / 1e6,
            planned("seconds"),
        );
        assert!(tissue >= 0.2 * slide_mm2, "{tissue} of {slide_mm2} mm²");
        assert!(
            report["nuclei"].as_f64().unwrap() > 500.0 * tissue,
            "{report}"
        );
        assert!(
            peak.max(plan_peak) <= budget * MIB,
            "{peak} and {plan_peak} bytes"
        );
        assert!(scratch <= SCRATCH_BYTES_PER_MM2 * tissue, "{scratch} bytes");
        for (name, truth) in [("memory_bytes", peak as f64), ("scratch_bytes", scratch)] {
            let ratio = planned(name) / truth;
            assert!(
                (0.8..=1.2).contains(&ratio),
                "{name}: {ratio:.2} of the truth planned"
            );
        }
    }
}

#[test]
fn a_slide_stays_within_its_budget() {
    hold("analytic", 12_000, field(), &chequers, &[600, 1024]);
}

fn chequers(column: u32, row: u32) -> bool {
    (column + row).is_multiple_of(3)
}

/// Three pieces of tissue, together a quarter of a slide of `fields` x `fields`.
fn pieces(fields: f64, column: u32, row: u32) -> bool {
    let near = |x: f64, y: f64, reach: f64| {
        let at = [column, row].map(|place| (f64::from(place) + 0.5) / fields);
        (at[0] - x).hypot(at[1] - y) <= reach
    };
    near(0.25, 0.29, 0.165) || near(0.68, 0.33, 0.185) || near(0.45, 0.74, 0.145)
}

/// 100,000 px a side, or WSI_NUCLEI_BUDGET_PX.
#[test]
#[ignore = "many minutes: make budget"]
fn a_huge_slide_stays_within_its_budget() {
    let side_px = std::env::var("WSI_NUCLEI_BUDGET_PX").map_or(100_000, |px| px.parse().unwrap());
    let fields = f64::from(side_px) / f64::from(FIELD_PX);
    hold(
        "analytic",
        side_px,
        field(),
        &|column, row| pieces(fields, column, row),
        &[1024, 4096],
    );
}

#[test]
#[ignore = "minutes: make budget"]
fn a_huge_slide_by_the_default_model() {
    hold("default", 16_000, field(), &chequers, &[1024, 4096]);
}

/// Bars join all discs of the tissue to one blob over many rows of tiles.
#[test]
#[ignore = "minutes: make budget"]
fn a_huge_blob_stays_within_its_budget() {
    let field = Some(net(FIELD_PX, FIELD_PX));
    hold("analytic", 24_000, field, &|_, _| true, &[2048]);
}
