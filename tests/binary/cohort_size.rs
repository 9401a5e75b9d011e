//! Ten thousand slides, five billion nuclei: what `cohort status` and `cohort merge` take of a made-up cohort.

use std::process::Stdio;
use std::time::Duration;

use wsi_nuclei::internals::record::{self, Record, State};
use wsi_nuclei::internals::{Cohort, Desk, Layout, Owner, Row, Taken};

use crate::crowd::crowd;
use crate::harness::Dir;

const ROWS: usize = 10_000;
const NUCLEI: usize = 500_000;

/// A plan of so many rows in `out`; `models` are the SHA-256 of weights by name.
fn made_up(dir: &Dir, rows: usize, models: &serde_json::Value) -> Layout {
    let rows: Vec<Row> = (0..rows)
        .map(|row| Row {
            row,
            stem: format!("slide-{row}"),
            path: format!("/data/slide-{row}.svs").into(),
            model: "analytic".into(),
            ..Row::default()
        })
        .collect();
    let cohort: Cohort = serde_json::from_value(serde_json::json!({
        "version": 1, "program": "test", "settings_sha256": "s", "settings": {}, "models": models, "trial": null,
        "heartbeat_s": 5.0, "stale_s": 120.0, "rows": rows,
    }))
    .unwrap();
    let layout = Layout::new(&dir.path("out"));
    cohort.write(&layout).unwrap();
    std::fs::create_dir_all(layout.records()).unwrap();
    layout
}

fn record(layout: &Layout, row: usize, state: State) {
    let record = Record {
        work: row.into(),
        stem: format!("slide-{row}"),
        state,
        reason: format!("/data/slide-{row}.svs: cannot be opened"),
        nuclei: NUCLEI,
        generation: 2,
        settings_sha256: "s".into(),
        ..Record::default()
    };
    let text = serde_json::to_vec(&record).unwrap();
    let path = layout.records().join(record::file_name(row, 2));
    std::fs::write(path, text).unwrap();
}

/// Every state, and a running row with its claim.
#[test]
fn the_status_of_ten_thousand_rows_takes_about_a_second() {
    let dir = Dir::new();
    let layout = made_up(&dir, ROWS, &serde_json::json!({}));
    for row in 0..9_000 {
        let state = match row {
            40..=44 | 3 | 7 => State::Failed,
            50 => State::Incomplete,
            60 => State::Stopped,
            _ => State::Done,
        };
        record(&layout, row, state);
    }
    let here = Owner::here(|_| None);
    let beat = Duration::from_secs(5);
    let desk = Desk::open(&layout, here, beat, 24 * beat).unwrap();
    let seen = desk.snapshot().unwrap();
    let taken = desk.take(9_500, &seen, |_| false).unwrap();
    assert!(matches!(taken, Taken::Mine(_)));
    let mut least_s = f64::INFINITY;
    for _ in 0..3 {
        let shown = dir.ok("cohort status out --json");
        least_s = least_s.min(usage(&dir, "cohort status out --json").0);
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(shown["done"], 9_000 - 9);
        assert_eq!(shown["failed_rows"], "3,7,40-44");
        assert_eq!(
            shown["failed_by_reason"],
            serde_json::json!({"cannot be opened": "3,7,40-44"})
        );
        assert_eq!(shown["missing_rows"], "60,9000-9499,9501-9999");
        assert_eq!(
            (
                shown["running"].as_u64(),
                shown["working"][0]["row"].as_u64()
            ),
            (Some(1), Some(9_500))
        );
        assert_eq!(shown["nuclei"], 9_000 * NUCLEI);
    }
    eprintln!("status of 10,000 rows: {least_s:.2} s of processor time");
    assert!(least_s < 2.0, "{least_s} s");
}

/// Merges the first `rows` rows, each with the files of one real result: processor time and peak memory.
fn merge(dir: &Dir, rows: usize) -> (f64, f64) {
    let summary = dir.json("real/a/summary.json");
    let weights = &summary["provenance"]["settings"]["weights_sha256"];
    let layout = made_up(dir, rows, &serde_json::json!({"analytic": weights}));
    let text = summary.to_string();
    let table = dir.path("real/a/nuclei.parquet");
    for row in 0..rows {
        let folder = layout.out.join(format!("slide-{row}"));
        if folder.is_dir() {
            continue;
        }
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("summary.json"), &text).unwrap();
        std::fs::hard_link(&table, folder.join("nuclei.parquet")).unwrap();
        record(&layout, row, State::Done);
    }
    usage(dir, "cohort merge out")
}

#[test]
fn a_merge_of_ten_thousand_slides_grows_by_their_summaries_alone() {
    let dir = Dir::new();
    crowd(300, 300, 1).save(dir.path("a.png")).unwrap();
    dir.ok(
        "run a.png -o real --model analytic --device cpu --mpp 0.5 --mask none --format parquet --quiet",
    );
    let (_, small_mb) = merge(&dir, ROWS / 10);
    let (seconds, large_mb) = merge(&dir, ROWS);
    let merged = dir.ok("cohort merge out").stdout;
    let nuclei = ROWS * NUCLEI;
    assert!(
        merged.contains(&format!("{ROWS} slides, {nuclei} nuclei (0 partitions new")),
        "{merged}"
    );
    let partitions = std::fs::read_dir(dir.path("out/merged/nuclei")).unwrap();
    assert_eq!(partitions.count(), ROWS);
    let lines = |name: &str| {
        let bytes = dir.read(&format!("out/merged/{name}"));
        bytes.iter().filter(|&&byte| byte == b'\n').count()
    };
    assert_eq!((lines("slides.csv"), lines("failures.csv")), (ROWS + 1, 1));
    let per_slide_kb = (large_mb - small_mb) * 1000.0 / (ROWS - ROWS / 10) as f64;
    let bytes = |name: &str| dir.read(name).len();
    eprintln!(
        "merge of {ROWS} slides: {seconds:.1} s of processor time; {large_mb:.0} MB of memory, \
         {per_slide_kb:.0} kB per slide; index.html {} kB, slides.parquet {} kB, a summary {} kB",
        bytes("out/merged/index.html") / 1000,
        bytes("out/merged/slides.parquet") / 1000,
        bytes("real/a/summary.json") / 1000
    );
    // A table of nuclei that were read would be far more: 500,000 rows have tens of MB.
    assert!(per_slide_kb < 100.0, "{per_slide_kb} kB per slide");
}

/// Processor time that a command takes, s (unlike the time that passes it does not depend on what else runs), and its
/// most memory, MB.
fn usage(dir: &Dir, line: &str) -> (f64, f64) {
    // wait4 below waits for it.
    #[allow(clippy::zombie_processes)]
    let child = dir.command(line).stdout(Stdio::null()).spawn().unwrap();
    let mut status = 0;
    // SAFETY: rusage is a struct of plain numbers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live longer than the call; nobody else waits for this child.
    let waited = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    assert_eq!((waited, status), (child.id() as i32, 0));
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let memory_kb = match cfg!(target_os = "macos") {
        true => usage.ru_maxrss / 1024,
        false => usage.ru_maxrss,
    };
    let time_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    (time_s, memory_kb as f64 / 1024.0)
}
