//! `run --stage, --retries, --requeue-exit-code`: slides read from a copy, tried again, and stopped for a scheduler.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::crowd::crowd;
use crate::harness::{Dir, shared, signal};

const RUN: &str =
    "run --device cpu --mpp 0.5 --mask none --tile-size 256 --threads 1 --format json,csv,parquet";
/// What no clock is in.
const FILES: [&str; 4] = [
    "nuclei.json",
    "nuclei.csv",
    "nuclei.parquet",
    "summary.json",
];

fn same_results(dir: &Dir, stem: &str) {
    for file in FILES {
        let same =
            dir.read(&format!("whole/{stem}/{file}")) == dir.read(&format!("out/{stem}/{file}"));
        assert!(same, "{stem}/{file} differs from that of a plain run");
    }
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

#[test]
fn a_staged_slide_is_read_from_a_copy_that_goes_whatever_happens() {
    let dir = Dir::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        crowd(700, 700, seed)
            .save(dir.path(&format!("{name}.png")))
            .unwrap();
    }
    dir.ok(&format!("{RUN} --model analytic a.png b.png -o whole"));
    let line = "--stage local --requeue-exit-code 140 a.png b.png -o out";
    let mut run = dir
        .command(&format!("{RUN} --model analytic:300 {line}"))
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while files(&dir.path("out/a/store.zarr/tiles/c")) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no tile is done");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(files(&dir.path("local")), 1);
    signal(&run, libc::SIGTERM);
    assert_eq!(run.wait().unwrap().code(), Some(140));
    assert_eq!(files(&dir.path("local")), 0);
    dir.ok(&format!("{RUN} --model analytic {line}"));
    assert_eq!(std::fs::read_dir(dir.path("local")).unwrap().count(), 0);
    for stem in ["a", "b"] {
        same_results(&dir, stem);
        // Whoever looks for the slide later, as `view` does, finds it where it lies.
        let store = String::from_utf8(dir.read(&format!("out/{stem}/store.zarr/zarr.json")));
        let store = store.unwrap();
        assert!(store.contains(&format!("{stem}.png")) && !store.contains("local"));
        let report = dir.json(&format!("out/{stem}/run.json"));
        assert_eq!(report["slide"]["path"], format!("{stem}.png"));
    }
    dir.fails(
        &format!("{RUN} --model analytic --stage auto a.png -o out"),
        2,
        &["--stage auto", "SLURM_TMPDIR"],
    );
    let mut auto = dir.command(&format!(
        "{RUN} --model analytic --stage auto a.png -o auto"
    ));
    auto.env("TMPDIR", dir.path("job"));
    assert_eq!(auto.output().unwrap().status.code(), Some(0));
    assert!(dir.path("job").is_dir() && files(&dir.path("job")) == 0);
}

/// A series of two files: both are needed, and nothing else of the folder is copied.
#[test]
fn a_staged_dicom_series_is_read_as_a_whole() {
    let Some(first) = shared("slides/synthetic_boxes_0.dcm") else {
        return;
    };
    let dir = Dir::new();
    let second = first.with_file_name("synthetic_boxes_1.dcm");
    std::fs::create_dir(dir.path("slides")).unwrap();
    std::fs::copy(&first, dir.path("slides/boxes.dcm")).unwrap();
    std::fs::copy(second, dir.path("slides/other.dcm")).unwrap();
    dir.write("slides/large.svs", "no part of it");
    let run = format!("{RUN} --model analytic slides/boxes.dcm");
    dir.ok(&format!("{run} -o whole"));
    dir.ok(&format!("{run} --stage local -o out"));
    same_results(&dir, "boxes");
    assert_eq!(files(&dir.path("local")), 0);
}

#[test]
fn a_file_that_did_not_answer_is_tried_again_and_no_slide_is_not() {
    let dir = Dir::new();
    crowd(300, 300, 1).save(dir.path("a.png")).unwrap();
    dir.write("b.png", "no picture");
    // No folder of results can be made where a file lies.
    dir.write("out/a", "in the way");
    let line = format!("{RUN} --model analytic --retries 1 a.png b.png -o out");
    let mut run = dir.command(&line).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let again = lines.find(|line| line.as_ref().unwrap().contains("again in 5 s"));
    assert!(again.unwrap().unwrap().contains("a: again"));
    std::fs::remove_file(dir.path("out/a")).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(run.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("again")), "{rest:?}");
    assert!(dir.path("out/a/nuclei.json").is_file());
    assert!(!dir.path("out/b/nuclei.json").exists());
}
