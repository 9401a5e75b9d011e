//! `cohort plan / run / status / merge`, as a user and a scheduler call them.

use std::path::Path;
use std::time::{Duration, Instant};

use wsi_nuclei::internals::Work;
use wsi_nuclei::internals::record;

use crate::crowd::crowd;
use crate::harness::{Dir, signal};

const PLAN: &str = "cohort plan slides -o out --model analytic --device cpu --mpp 0.5 --mask none --tile-size 256 \
                    --heartbeat 0.2 --stale-after 2 --format json,csv,parquet,report";
const RUN: &str = "run --model analytic --device cpu --mpp 0.5 --mask none --tile-size 256 --quiet \
                   --format json,csv,parquet,report -o whole";
/// What no clock and no host is in.
const FILES: [&str; 4] = [
    "nuclei.json",
    "nuclei.csv",
    "nuclei.parquet",
    "summary.json",
];

/// Four slides of different size, one of them broken, and a copy of one.
fn slides() -> Dir {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("slides")).unwrap();
    for (name, side, seed) in [("a", 300, 1), ("b", 700, 2), ("c", 500, 3)] {
        let image = crowd(side, side, seed);
        image.save(dir.path(&format!("slides/{name}.png"))).unwrap();
    }
    std::fs::copy(dir.path("slides/b.png"), dir.path("slides/copy.png")).unwrap();
    dir.write("slides/broken.png", "no picture");
    dir
}

fn same_as_run(dir: &Dir, stems: &[&str]) {
    for stem in stems {
        dir.ok(&format!("{RUN} slides/{stem}.png"));
        for file in FILES {
            let same = dir.read(&format!("whole/{stem}/{file}"))
                == dir.read(&format!("out/{stem}/{file}"));
            assert!(same, "{stem}/{file} differs from that of a plain run");
        }
    }
}

fn row_of(dir: &Dir, stem: &str) -> serde_json::Value {
    let plan = dir.json("out/cohort.json");
    let rows = plan["rows"].as_array().unwrap();
    rows.iter().find(|row| row["stem"] == stem).unwrap().clone()
}

fn claims_left(dir: &Dir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path("out/.cohort/claims")).unwrap();
    let names = entries.flatten().map(|entry| entry.file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn a_cohort_from_plan_to_merge() {
    let dir = slides();
    let dry = dir.ok(&format!("{PLAN} --dry-run"));
    assert!(
        dry.stdout
            .contains("slides   5 (1 cannot be read, 1 are copies"),
        "{}",
        dry.stdout
    );
    assert!(
        dry.stdout.contains("CPU hours") && dry.stdout.contains("GB"),
        "{}",
        dry.stdout
    );
    assert!(!dir.path("out").exists());
    dir.ok(PLAN);
    // The costliest first; what cannot be read costs nothing.
    let largest = row_of(&dir, "b")["row"]
        .as_u64()
        .unwrap()
        .min(row_of(&dir, "copy")["row"].as_u64().unwrap());
    assert_eq!(largest, 0);
    assert_eq!(
        row_of(&dir, "copy")["duplicate_of"]
            .as_u64()
            .or(row_of(&dir, "b")["duplicate_of"].as_u64()),
        Some(0)
    );
    assert!(
        row_of(&dir, "broken")["problem"]
            .as_str()
            .unwrap()
            .contains("broken.png")
    );
    let array = String::from_utf8(dir.read("out/array.sbatch")).unwrap();
    assert!(
        array.contains("--array=0-4%20") && array.contains("USR1@120"),
        "{array}"
    );
    assert_eq!(dir.run("cohort merge out").code, Some(3));

    let run = dir.run("cohort run out --stage local");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(std::fs::read_dir(dir.path("local")).unwrap().count(), 0);
    assert!(!run.stderr.contains("local/"), "{}", run.stderr);
    assert!(run.stderr.contains("broken.png"), "{}", run.stderr);
    assert_eq!(claims_left(&dir), Vec::<String>::new());
    let broken = row_of(&dir, "broken")["row"].as_u64().unwrap();
    let shown = dir.ok("cohort status out");
    assert!(
        shown
            .stdout
            .starts_with("5 rows: 3 done, 0 incomplete, 1 failed, 0 running"),
        "{}",
        shown.stdout
    );
    assert!(
        shown.stdout.contains(&format!("--row {broken}\n")),
        "{}",
        shown.stdout
    );
    let first = match row_of(&dir, "b")["row"].as_u64() {
        Some(0) => "b",
        _ => "copy",
    };
    same_as_run(&dir, &["a", "c", first]);
    let again = dir.run("cohort run out");
    assert_eq!(
        again.code,
        Some(0),
        "nothing is left to do: {}",
        again.stderr
    );

    let merged = dir.run("cohort merge out");
    assert_eq!(merged.code, Some(1), "{}", merged.stderr);
    assert!(
        merged.stdout.contains("3 slides") && merged.stdout.contains("3 partitions new"),
        "{}",
        merged.stdout
    );
    let parquet = dir.read("out/merged/nuclei/slide=a/nuclei.parquet");
    assert_eq!(parquet, dir.read("out/a/nuclei.parquet"));
    let failures = String::from_utf8(dir.read("out/merged/failures.csv")).unwrap();
    assert!(
        failures.contains("broken,failed,") && failures.contains(",copy,the same slide as row 0,"),
        "{failures}"
    );
    let slides = String::from_utf8(dir.read("out/merged/slides.csv")).unwrap();
    assert_eq!(slides.lines().count(), 4);
    for line in csv::Reader::from_reader(slides.as_bytes()).deserialize() {
        let row: std::collections::BTreeMap<String, String> = line.unwrap();
        let summary = dir.json(&format!("out/{}/summary.json", row["slide"]));
        assert_eq!(row["nuclei"], summary["nuclei"]["count"].to_string());
        assert_eq!(row["state"], "done");
    }
    let again = dir.run("cohort merge out");
    assert!(
        again.stdout.contains("0 partitions new"),
        "{}",
        again.stdout
    );

    // What was done with other settings is refused by name.
    let folder = dir.path("out/.cohort/rows");
    let (row, generation) = record::generations(&folder).unwrap().pop_first().unwrap();
    let mut record = record::read(&folder, row, generation).unwrap().unwrap();
    record.settings_sha256 = "another".into();
    record::write(&folder, &record).unwrap();
    dir.fails("cohort merge out", 2, &["rows 0", "another settings"]);
}

#[test]
fn rows_keep_their_numbers_when_slides_are_added_and_settings_may_not_change() {
    let dir = slides();
    dir.ok("cohort plan slides/a.png -o out --model analytic --device cpu --mpp 0.5 --mask none");
    let first = row_of(&dir, "a");
    dir.ok("cohort plan slides/a.png slides/b.png 'slides/c*' -o out --model analytic --device cpu --mpp 0.5 --mask none"
        .replace('\'', "").as_str());
    assert_eq!(row_of(&dir, "a"), first);
    assert_eq!(
        (
            row_of(&dir, "b")["row"].as_u64(),
            row_of(&dir, "copy")["duplicate_of"].as_u64()
        ),
        (Some(1), Some(1))
    );
    dir.fails(
        "cohort plan slides/a.png -o out --model analytic --device cpu --mpp 0.25 --mask none",
        2,
        &["mpp: 0.5 then, 0.25 now"],
    );
    dir.fails(
        "cohort run out --row 9",
        2,
        &["there is no row 9", "rows 0 to"],
    );
    dir.fails("cohort run elsewhere", 2, &["cohort plan"]);
}

#[test]
fn a_scheduler_names_the_row_and_a_rerun_does_the_failed_one() {
    let dir = slides();
    dir.ok(PLAN);
    let broken = row_of(&dir, "broken")["row"].as_u64().unwrap();
    let done = || record::generations(&dir.path("out/.cohort/rows")).unwrap();
    let task = |line: &str, name: &str, value: u64| {
        let mut command = dir.command(line);
        command.env(name, value.to_string()).output().unwrap()
    };
    let first = task("cohort run out --own-only", "SLURM_ARRAY_TASK_ID", broken);
    assert_eq!(first.status.code(), Some(3), "{first:?}");
    assert_eq!(
        done().into_keys().collect::<Vec<_>>(),
        [Work::from(broken as usize)]
    );
    // SGE counts from 1.
    let second = task("cohort run out --own-only", "SGE_TASK_ID", 1);
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    assert!(done().contains_key(&0.into()) && done().len() == 2);
    // The file has come: its own task does it again, another would not.
    crowd(300, 300, 9)
        .save(dir.path("slides/broken.png"))
        .unwrap();
    let others = task("cohort run out --own-only", "LSB_JOBINDEX", 1);
    assert_eq!(others.status.code(), Some(0));
    let rerun = task("cohort run out --own-only", "SLURM_ARRAY_TASK_ID", broken);
    assert_eq!(rerun.status.code(), Some(0), "{rerun:?}");
    same_as_run(&dir, &["broken"]);
    let beyond = task("cohort run out", "JOB_COMPLETION_INDEX", 5);
    assert_eq!(beyond.status.code(), Some(2), "{beyond:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_task_that_dies_is_taken_over_and_its_checkpoint_used() {
    let dir = slides();
    dir.ok(&PLAN.replace("--model analytic", "--model analytic:300"));
    // -9: no word of its end; its process for slides must go, too.
    let mut task = dir.command("cohort run out --threads 1").spawn().unwrap();
    wait_for_tiles(&dir, 2);
    task.kill().unwrap();
    task.wait().unwrap();
    assert_eq!(claims_left(&dir).len(), 1);
    let shown = dir.ok("cohort status out --json");
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(
        (shown["stale"].as_u64(), shown["running"].as_u64()),
        (Some(1), Some(0)),
        "{shown}"
    );
    // TERM: given back with 75, within ten seconds.
    let mut task = dir.command("cohort run out --threads 1").spawn().unwrap();
    wait_for_tiles(&dir, 4);
    let asked = Instant::now();
    signal(&task, libc::SIGTERM);
    assert_eq!(task.wait().unwrap().code(), Some(75));
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(claims_left(&dir), Vec::<String>::new());
    let mut task = dir
        .command("cohort run out --threads 1 --requeue-exit-code 140")
        .spawn()
        .unwrap();
    wait_for_tiles(&dir, 5);
    signal(&task, libc::SIGUSR1);
    assert_eq!(task.wait().unwrap().code(), Some(140));
    // The process for slides dies: one slide, not the task; the same row again goes on.
    let task = dir
        .command("cohort run out --row 0 --threads 1")
        .spawn()
        .unwrap();
    let before = chunks(&dir.path("out"));
    let child = wait_for_child(&task);
    // SAFETY: kill(2) takes plain numbers; the process is a child of ours.
    assert_eq!(unsafe { libc::kill(child, libc::SIGABRT) }, 0);
    let ended = task.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    let failed = dir.ok("cohort status out");
    assert!(failed.stdout.contains("signal 6"), "{}", failed.stdout);
    assert!(before >= 5);
    let last = dir.run("cohort run out --row 0,1,2,3");
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    let first = row_of(&dir, "b")["duplicate_of"].is_null();
    let first = if first { "b" } else { "copy" };
    assert!(
        dir.json(&format!("out/{first}/run.json"))["tiles_reused"]
            .as_u64()
            .unwrap()
            >= 5
    );
    same_as_run(&dir, &["a", "c", first]);
    assert_eq!(claims_left(&dir), Vec::<String>::new());
}

/// Finished tiles of all slides.
fn chunks(out: &Path) -> usize {
    let slides = std::fs::read_dir(out).into_iter().flatten().flatten();
    let rows = slides
        .flat_map(|slide| std::fs::read_dir(slide.path().join("store.zarr/tiles/c")))
        .flatten()
        .flatten();
    let tiles = rows
        .flat_map(|row| std::fs::read_dir(row.path()))
        .flatten()
        .flatten();
    tiles
        .filter(|tile| !tile.file_name().to_string_lossy().ends_with(".partial"))
        .count()
}

fn wait_for_tiles(dir: &Dir, count: usize) {
    let begun = Instant::now();
    while chunks(&dir.path("out")) < count {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no tile is finished"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The task's process for slides, as soon as there is one.
#[cfg(target_os = "linux")]
fn wait_for_child(task: &std::process::Child) -> i32 {
    let begun = Instant::now();
    loop {
        let id = task.id();
        let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let first = list
            .ok()
            .and_then(|list| list.split_whitespace().next()?.parse().ok());
        if let Some(child) = first {
            return child;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no process for slides"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
