//! `cohort plan --split-slides`: tasks share the tiles of one slide, and whoever finishes last joins them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use wsi_nuclei::internals::record::{self, State};
use wsi_nuclei::internals::{Layout, Work};

use crate::crowd::crowd;
use crate::harness::{Dir, signal};

const SETTINGS: &str =
    "--device cpu --mpp 0.5 --mask none --tile-size 256 --format json,csv,parquet";
const PLAN: &str = "cohort plan slides -o out --model analytic:200 --heartbeat 0.2 --stale-after 2";
const FILES: [&str; 4] = [
    "nuclei.json",
    "nuclei.csv",
    "nuclei.parquet",
    "summary.json",
];

/// A large slide in about four parts, and a small one that is not shared.
fn planned() -> Dir {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("slides")).unwrap();
    for (name, side, seed) in [("large", 1400, 2), ("small", 300, 1)] {
        let image = crowd(side, side, seed);
        image.save(dir.path(&format!("slides/{name}.png"))).unwrap();
    }
    dir.ok(&format!("{PLAN} {SETTINGS} --threads 1"));
    let seconds = dir.json("out/cohort.json")["rows"][0]["expected"]["seconds"].clone();
    let minutes = seconds.as_f64().unwrap() / 3.5 / 60.0;
    std::fs::remove_dir_all(dir.path("out")).unwrap();
    let split = format!("{PLAN} {SETTINGS} --threads 1 --split-slides {minutes}");
    dir.ok(&split);
    dir
}

fn parts(dir: &Dir) -> u64 {
    let rows = &dir.json("out/cohort.json")["rows"];
    assert_eq!(rows[0]["stem"], "large");
    assert!(rows[1]["parts"].is_null(), "the small one is not shared");
    rows[0]["parts"].as_u64().unwrap()
}

/// States of the parts of row 0 that have ended.
fn ended(dir: &Dir) -> Vec<State> {
    let folder = Layout::new(&dir.path("out")).records();
    let all = record::generations(&folder).unwrap().into_iter();
    let parts = all.filter(|(work, _)| work.row == 0);
    let records =
        parts.filter_map(|(work, generation)| record::read(&folder, work, generation).unwrap());
    records.map(|record| record.state).collect()
}

/// The parts of row 0 that are claimed now, and by which process.
fn claimed(dir: &Dir) -> BTreeSet<(Work, u64)> {
    let entries = std::fs::read_dir(dir.path("out/.cohort/claims"))
        .unwrap()
        .flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let work = Work::parse(name.split_once('.')?.0)?;
            let text = std::fs::read(entry.path()).ok()?;
            let claim: serde_json::Value = serde_json::from_slice(&text).ok()?;
            let is_at_work = claim["progress"]["mm2_planned"].as_f64()? > 0.0;
            (work.row == 0 && is_at_work).then_some((work, claim["owner"]["pid"].as_u64()?))
        })
        .collect()
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn status(dir: &Dir) -> serde_json::Value {
    serde_json::from_str(&dir.ok("cohort status out --json").stdout).unwrap()
}

#[test]
fn tasks_share_a_slide_and_one_that_dies_is_replaced() {
    let dir = planned();
    let parts = parts(&dir);
    assert!((3..=6).contains(&parts), "{parts} parts");
    let array = String::from_utf8(dir.read("out/array.sbatch")).unwrap();
    // An element a part, and one for the small slide.
    assert!(array.contains(&format!("--array=0-{parts}%20")), "{array}");

    // One part is done, and its task goes: the row is half done wherever it is shown.
    let mut task = dir.command("cohort run out --row 0").spawn().unwrap();
    wait_until("no part is done", || !ended(&dir).is_empty());
    signal(&task, libc::SIGTERM);
    assert_eq!(task.wait().unwrap().code(), Some(75));
    assert!(ended(&dir).contains(&State::Share), "{:?}", ended(&dir));
    let half = format!("1 of {parts} parts are done");
    let shown = status(&dir);
    let said = shown["half_done"]["0"].as_str().unwrap_or_default();
    assert!(said.starts_with(&half), "{shown}");
    assert_eq!(
        (shown["done"].as_u64(), &shown["missing_rows"]),
        (Some(0), &"0,1".into())
    );
    assert!(
        dir.ok("cohort status out")
            .stdout
            .contains(&format!("incomplete 0: {half}"))
    );
    assert_eq!(dir.run("cohort merge out").code, Some(3));
    let failures = String::from_utf8(dir.read("out/merged/failures.csv")).unwrap();
    assert!(
        failures.contains(&format!("0,large,incomplete,{half}")),
        "{failures}"
    );

    // Two go on together, and one is killed: the other takes its part over and joins all.
    let start = || dir.command("cohort run out").spawn().unwrap();
    let (mut first, mut second) = (start(), start());
    let is_at_work = |pid: u32| claimed(&dir).iter().any(|(_, by)| *by == u64::from(pid));
    wait_until("they do not share the slide", || {
        is_at_work(first.id()) && is_at_work(second.id())
    });
    let theirs: BTreeSet<Work> = claimed(&dir).iter().map(|(work, _)| *work).collect();
    assert!(theirs.len() >= 2, "two tasks on one part: {theirs:?}");
    second.kill().unwrap();
    second.wait().unwrap();
    let shown = status(&dir);
    let part = shown["stale_claims"][0]["part"]
        .as_str()
        .unwrap_or_default();
    assert!(part.ends_with(&format!("/{parts}")), "{shown}");
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(claimed(&dir), BTreeSet::new());
    let states = ended(&dir);
    assert_eq!(states.len() as u64, parts);
    let joined = states.iter().filter(|state| **state == State::Done).count();
    assert!(
        joined >= 1 && !states.contains(&State::Failed),
        "{states:?}"
    );
    let shown = status(&dir);
    assert_eq!(
        (shown["done"].as_u64(), &shown["missing_rows"]),
        (Some(2), &"".into())
    );
    dir.ok("cohort merge out");

    // As if nobody had shared anything.
    dir.ok(&format!(
        "run slides -o whole --model analytic {SETTINGS} --quiet"
    ));
    for stem in ["large", "small"] {
        for file in FILES {
            let whole = dir.read(&format!("whole/{stem}/{file}"));
            let same = whole == dir.read(&format!("out/{stem}/{file}"));
            assert!(same, "{stem}/{file} differs from that of a plain run");
        }
    }
    // The array has an element a part, and one for the small slide: no more.
    let element = |index: u64| {
        let mut task = dir.command("cohort run out");
        task.env("SLURM_ARRAY_TASK_ID", index.to_string());
        task.output().unwrap().status.code()
    };
    assert_eq!((element(parts), element(parts + 1)), (Some(0), Some(2)));
    // Nothing is left to do, also not of the parts.
    let again = dir.run("cohort run out");
    assert_eq!(
        (again.code, again.stderr.contains("row 0")),
        (Some(0), false)
    );
}

/// A file server that hides new files may leave both of two tasks with tiles of the other missing: then nobody joins.
#[test]
fn parts_that_nobody_joined_are_joined_by_the_next_task() {
    let dir = planned();
    dir.ok("cohort run out");
    let folder = Layout::new(&dir.path("out")).records();
    for (work, generation) in record::generations(&folder).unwrap() {
        let record = record::read(&folder, work, generation).unwrap().unwrap();
        if work.row == 0 {
            let record = record::Record {
                state: State::Share,
                ..record
            };
            record::write(&folder, &record).unwrap();
        }
    }
    std::fs::remove_file(dir.path("out/large/nuclei.csv")).unwrap();
    let parts = parts(&dir);
    let said = status(&dir)["half_done"]["0"].to_string();
    assert!(
        said.contains(&format!("{parts} of {parts} parts")),
        "{said}"
    );
    dir.ok("cohort run out");
    assert!(dir.path("out/large/nuclei.csv").is_file());
    assert_eq!(status(&dir)["done"], 2);
}
