//! Devices beside the CPU, as the fake ones of the analytic model stand for them: a set rate, a set latency.

use crate::crowd::crowd;
use crate::harness::Dir;

const SIDE_PX: u32 = 2700;
/// Slow enough for a debug build on a busy machine: what is tested is that nothing but the device is waited for.
const DEVICE_MPX_PER_S: f64 = 1.6;

/// `run` of a crowd on `model`; run.json.
fn run(dir: &Dir, out: &str, model: &str, more: &str) -> serde_json::Value {
    if !dir.path("a.png").exists() {
        crowd(SIDE_PX, SIDE_PX, 3).save(dir.path("a.png")).unwrap();
    }
    dir.ok(&format!(
        "run a.png -o {out} --model {model} --mpp 0.5 --mask none --tile-size 512 --quiet --format json,csv {more}"
    ));
    dir.json(&format!("{out}/a/run.json"))
}

fn stage<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let stages = report["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["name"] == name).unwrap()
}

#[test]
fn a_device_is_kept_busy_and_gives_the_same_bytes() {
    let dir = Dir::new();
    run(&dir, "cpu", "analytic", "");
    let one = format!("analytic:{DEVICE_MPX_PER_S}Mpx/s,30ms");
    let report = run(&dir, "one", &one, "--threads 4");
    let device = stage(&report, "device");
    let busy_s = device["busy_s"].as_f64().unwrap();
    let idle_s = device["waiting_for_input_s"].as_f64().unwrap();
    // 11 x 11 patches of 272 px.
    let wanted_s = 121.0 * 272.0 * 272.0 / 1e6 / DEVICE_MPX_PER_S;
    assert!((busy_s - wanted_s).abs() < 1e-3, "{busy_s} {wanted_s}");
    assert!(busy_s >= 0.9 * (busy_s + idle_s), "{report}");
    // Two batches in flight; readers and post-processing have the cores.
    let workers = |name| stage(&report, name)["workers"].as_u64().unwrap();
    let all = ["infer", "read", "post-process"].map(workers);
    assert_eq!(all, [2, 4, 2]);
    for file in ["nuclei.json", "nuclei.csv"] {
        let bytes = |out: &str| dir.read(&format!("{out}/a/{file}"));
        assert!(bytes("one") == bytes("cpu"), "{file}");
    }
}

#[test]
fn two_devices_share_one_queue() {
    let dir = Dir::new();
    let two =
        format!("analytic:{},30ms,2devices", DEVICE_MPX_PER_S / 2.0).replace(",30ms", "Mpx/s,30ms");
    let report = run(&dir, "two", &two, "--threads 4 --batch-size 5");
    let device = stage(&report, "device");
    assert_eq!(device["workers"], 2);
    assert_eq!(stage(&report, "infer")["workers"], 4);
    // Each has half of the rate: one alone would take all of `busy_s`, and the run longer than that.
    let busy_s = device["busy_s"].as_f64().unwrap();
    assert!(
        report["seconds"].as_f64().unwrap() < 0.75 * busy_s,
        "{report}"
    );
    run(&dir, "cpu", "analytic", "");
    for file in ["nuclei.json", "nuclei.csv"] {
        let bytes = |out: &str| dir.read(&format!("{out}/a/{file}"));
        assert!(bytes("two") == bytes("cpu"), "{file}");
    }
}

#[test]
fn precision_is_part_of_a_runs_identity() {
    let dir = Dir::new();
    dir.field("field.png", 400, 300);
    let line = |out: &str, precision: &str| {
        format!(
            "run field.png -o {out} --mpp 0.25 --mask none --device cpu --format csv --precision {precision}"
        )
    };
    dir.ok(&line("wide", "auto"));
    assert_eq!(
        dir.json("wide/field/run.json")["engine"]["precision"],
        "f32"
    );
    dir.ok(&line("half", "bf16"));
    assert_eq!(
        dir.json("half/field/run.json")["engine"]["precision"],
        "bf16"
    );
    dir.fails(&line("wide", "bf16"), 2, &["precision", "f32", "bf16"]);
    // f32 is what auto came to: the same store.
    dir.ok(&line("wide", "f32"));
    for precision in ["tf32", "f16"] {
        dir.fails(
            &line("other", precision),
            2,
            &["--precision", "f32 or bf16"],
        );
    }
}

#[test]
fn a_fake_device_needs_a_rate() {
    let dir = Dir::new();
    dir.field("field.png", 300, 200);
    let line = |model: &str| format!("run field.png -o out --mpp 0.5 --model {model} --format csv");
    dir.fails(&line("analytic:2devices"), 2, &["analytic:50Mpx/s,10ms"]);
    dir.ok(&line("analytic:1000Mpx/s,fine"));
}
