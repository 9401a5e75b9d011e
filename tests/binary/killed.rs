//! Killed at any moment, the next run goes on and gives the bytes of a run that nobody disturbed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wsi_nuclei::internals::{Store, TileState};

use crate::crowd::crowd;
use crate::harness::{Dir, signal};
use crate::invariance::rounds;

/// All that is a result; run.json has a clock.
const FILES: [&str; 6] = [
    "nuclei.json",
    "nuclei.csv",
    "summary.json",
    "overlay.jpg",
    "thumb.png",
    "mask.png",
];
const RUN: &str = "run a.png --mpp 0.5 --mask none --threads 2 --tile-size 256";
/// Where a kill may fall, in the order of a run.
const STAGES: [&str; 7] = [
    "before the store",
    "making the store",
    "between tiles",
    "within a chunk's write",
    "stitching",
    "rings",
    "within an output's write",
];

pub fn start(dir: &Dir, line: &str) -> (Child, Arc<Mutex<String>>) {
    let mut child = dir.command(line).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let last = Arc::new(Mutex::new(String::new()));
    let seen = last.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let name = event["stage"]
                .as_str()
                .or(event["event"].as_str())
                .unwrap_or("");
            *seen.lock().unwrap() = name.to_owned();
        }
    });
    (child, last)
}

/// Files of a folder that were being written.
fn partial(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with(".partial")
            || (entry.path().is_dir() && name != "store.zarr" && partial(&entry.path()))
    })
}

/// Waits until a run comes to `stage` and a random moment longer, or ends. Seconds it may take: `patience`.
fn wait_for(
    stage: &str,
    child: &mut Child,
    last: &Mutex<String>,
    slide: &Path,
    random: &mut fastrand::Rng,
) {
    let begun = Instant::now();
    let store = slide.join("store.zarr");
    let at = |name: &str| *last.lock().unwrap() == name;
    let is_there = || match stage {
        "before the store" => true,
        "making the store" => store.exists(),
        "between tiles" => at("planned") || at("progress"),
        "within a chunk's write" => partial(&store.join("tiles")),
        "stitching" => at("stitching"),
        "rings" => at("rings"),
        _ => partial(slide),
    };
    while !is_there() {
        if child.try_wait().unwrap().is_some() {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "never came to: {stage}"
        );
        std::thread::yield_now();
    }
    let more_ms = match stage {
        "before the store" => random.u64(0..250),
        "making the store" => random.u64(0..30),
        "between tiles" => random.u64(0..400),
        _ => return,
    };
    std::thread::sleep(Duration::from_millis(more_ms));
}

/// Where the kill fell, by what it left behind.
fn fell(last: &str, slide: &Path) -> &'static str {
    let store = slide.join("store.zarr");
    if partial(slide) {
        STAGES[6]
    } else if !store.join("zarr.json").exists() {
        if store.exists() { STAGES[1] } else { STAGES[0] }
    } else if partial(&store.join("tiles")) {
        STAGES[3]
    } else {
        match last {
            "stitching" => STAGES[4],
            "rings" => STAGES[5],
            "writing" => STAGES[6],
            "" => STAGES[0],
            _ => STAGES[2],
        }
    }
}

fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            sweep(&entry.path());
        } else if entry.file_name().to_string_lossy().ends_with(".partial") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn chunks(slide: &Path) -> Vec<PathBuf> {
    let rows = std::fs::read_dir(slide.join("store.zarr/tiles/c"))
        .into_iter()
        .flatten()
        .flatten();
    let mut chunks: Vec<PathBuf> = rows
        .flat_map(|row| std::fs::read_dir(row.path()).unwrap().flatten())
        .map(|chunk| chunk.path())
        .filter(|path| !path.to_string_lossy().ends_with(".partial"))
        .collect();
    chunks.sort();
    chunks
}

fn same_as_undisturbed(dir: &Dir, how: &str) {
    for file in FILES {
        let bytes = |out: &str| dir.read(&format!("{out}/a/{file}"));
        assert!(bytes("whole") == bytes("out"), "{file} differs: {how}");
    }
}

fn undisturbed() -> Dir {
    let dir = Dir::new();
    crowd(1000, 700, 7).save(dir.path("a.png")).unwrap();
    dir.ok(&format!("{RUN} -o whole --model analytic --quiet"));
    dir
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_bytes() {
    let dir = undisturbed();
    let slide = dir.path("out/a");
    let mut random = fastrand::Rng::with_seed(11);
    let mut histogram: BTreeMap<&str, usize> = STAGES.map(|stage| (stage, 0)).into();
    let (wanted, at_least) = (rounds(24, 200), 3);
    let (mut kills, mut finished) = (0, 0);
    while kills < wanted || histogram.values().any(|&n| n < at_least) {
        assert!(
            kills < 4 * wanted,
            "some stages are hardly ever met: {histogram:?}"
        );
        let rarest = STAGES
            .into_iter()
            .min_by_key(|stage| histogram[stage])
            .unwrap();
        let stage = if random.bool() {
            rarest
        } else {
            STAGES[random.usize(..STAGES.len())]
        };
        let delay = if stage == "between tiles" { ":60" } else { "" };
        let line = format!("{RUN} -o out --model analytic{delay} --progress json");
        let (mut child, last) = start(&dir, &line);
        wait_for(stage, &mut child, &last, &slide, &mut random);
        child.kill().unwrap();
        let killed = child.wait().unwrap().code().is_none();
        if killed {
            kills += 1;
            *histogram
                .get_mut(fell(&last.lock().unwrap(), &slide))
                .unwrap() += 1;
        }
        // What a kill leaves of a file being written stays until the next kill is counted.
        sweep(&slide);
        if !killed || random.u8(..) < 60 {
            let done = chunks(&slide).len();
            dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
            same_as_undisturbed(&dir, &format!("after {kills} kills"));
            assert_eq!(
                dir.json("out/a/run.json")["tiles_reused"],
                done,
                "tiles are done twice"
            );
            std::fs::remove_dir_all(dir.path("out")).unwrap();
            finished += 1;
        }
    }
    dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
    same_as_undisturbed(&dir, "at the end");
    eprintln!(
        "killed {kills} times, finished {} times with equal bytes: {histogram:?}",
        finished + 1
    );
}

/// What a power cut may make of a file that was there.
fn damage(path: &Path, random: &mut fastrand::Rng) -> &'static str {
    let mut bytes = std::fs::read(path).unwrap();
    let how = match random.u8(..5) {
        0 => {
            bytes.truncate(random.usize(..bytes.len()));
            "truncated"
        }
        1 => {
            bytes.fill(0);
            "zero-filled"
        }
        2 => {
            let from = random.usize(..bytes.len());
            bytes[from..].fill(0);
            "its end zero-filled"
        }
        3 => {
            bytes.clear();
            "emptied"
        }
        _ => {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(..8);
            "a bit flipped"
        }
    };
    std::fs::write(path, bytes).unwrap();
    how
}

#[test]
fn damaged_chunks_are_done_again_and_damaged_metadata_is_refused() {
    let dir = undisturbed();
    let slide = dir.path("out/a");
    let mut random = fastrand::Rng::with_seed(12);
    let mut tried = 0;
    for _ in 0..rounds(5, 40) {
        dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
        let mut files = chunks(&slide);
        random.shuffle(&mut files);
        let hit = 1 + random.usize(..files.len() / 2);
        let how: Vec<_> = files[..hit]
            .iter()
            .map(|file| damage(file, &mut random))
            .collect();
        dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
        same_as_undisturbed(&dir, &format!("{how:?}"));
        assert_eq!(
            dir.json("out/a/run.json")["tiles_reused"],
            files.len() - hit,
            "{how:?}"
        );
        tried += hit;
    }
    for _ in 0..rounds(1, 5) {
        for name in [
            "zarr.json",
            "tiles/zarr.json",
            "thumb/c/0/0/0",
            "mask/c/0/0",
        ] {
            let how = damage(&slide.join("store.zarr").join(name), &mut random);
            let run = dir.run(&format!("{RUN} -o out --model analytic"));
            // A flipped bit may stand where nobody reads, as in a blank; else it is noticed.
            if run.code != Some(0) {
                assert_eq!(run.code, Some(3), "{name} {how}\n{}", run.stderr);
                assert!(
                    run.stderr.contains("--restart"),
                    "{name} {how}\n{}",
                    run.stderr
                );
            }
            dir.ok(&format!("{RUN} -o out --model analytic --quiet --restart"));
            same_as_undisturbed(&dir, &format!("{name} {how}"));
            tried += 1;
        }
    }
    eprintln!("power cut: {tried} damaged files survived");
}

#[test]
fn two_processes_on_one_slide_never_mix() {
    let dir = undisturbed();
    let line = format!("{RUN} -o out --model analytic:1200 --progress json");
    let (mut first, last) = start(&dir, &line);
    while !["planned", "progress"].contains(&last.lock().unwrap().as_str()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    dir.fails(
        &format!("{RUN} -o out --model analytic"),
        2,
        &["another process", "--output"],
    );
    dir.fails(
        &format!("{RUN} -o out --model analytic --restart"),
        2,
        &["another process"],
    );
    dir.fails(
        &format!("{RUN} -o out --model analytic --shard 0/2"),
        2,
        &["another process"],
    );
    assert_eq!(first.wait().unwrap().code(), Some(0));
    same_as_undisturbed(&dir, "another process tried");
}

#[test]
fn tiles_of_other_hardware_are_refused_or_reported() {
    let dir = undisturbed();
    dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
    let store = Store::open(&dir.path("out/a/store.zarr")).unwrap();
    let [col, row] = store.meta().layout.planned_tiles[0];
    let TileState::Done { tile, .. } = store.tile_state(col, row).unwrap() else {
        panic!("the run has not finished its first tile");
    };
    store.write_tile(&tile, "an abacus").unwrap();
    drop(store);

    let wanted = ["an abacus", "--mix-devices", "--restart"];
    dir.fails(&format!("{RUN} -o out --model analytic"), 2, &wanted);
    let plain = dir.path("whole/a/summary.json");
    assert!(!std::fs::read_to_string(plain).unwrap().contains("mixed"));
    dir.ok(&format!(
        "{RUN} -o out --model analytic --mix-devices --quiet"
    ));
    let summary = std::fs::read_to_string(dir.path("out/a/summary.json")).unwrap();
    assert!(
        summary.contains("mixed: ") && summary.contains("1 tiles by an abacus"),
        "{summary}"
    );
    dir.ok(&format!("{RUN} -o out --model analytic --restart --quiet"));
    same_as_undisturbed(&dir, "another machine's tile");
}

/// Slides that take a while, several of them in processes of their own.
fn slow(dir: &Dir, slides: &str) -> (Child, Arc<Mutex<String>>) {
    let line = format!(
        "run {slides} --mpp 0.5 --mask none --tile-size 256 --threads 1 -o out --model analytic:300 --progress json"
    );
    let (child, last) = start(dir, &line);
    while !["planned", "progress"].contains(&last.lock().unwrap().as_str()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    (child, last)
}

#[test]
fn every_stop_signal_ends_one_slide_or_many_with_75() {
    let dir = undisturbed();
    std::fs::copy(dir.path("a.png"), dir.path("b.png")).unwrap();
    for (name, number) in [
        ("SIGTERM", libc::SIGTERM),
        ("SIGINT", libc::SIGINT),
        ("SIGUSR1", libc::SIGUSR1),
    ] {
        for slides in ["a.png", "a.png b.png"] {
            let (mut child, _) = slow(&dir, slides);
            let asked = Instant::now();
            signal(&child, number);
            assert_eq!(child.wait().unwrap().code(), Some(75), "{name} {slides}");
            assert!(asked.elapsed() < Duration::from_secs(10), "{name} {slides}");
        }
    }
    assert!(!dir.path("out/b").exists());
    dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
    same_as_undisturbed(&dir, "stopped six times");
}

/// The process that `parent` runs a slide in.
#[cfg(target_os = "linux")]
pub fn child_of(parent: &Child) -> i32 {
    let id = parent.id();
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    list.split_whitespace()
        .next()
        .expect("no child")
        .parse()
        .unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_dies_costs_its_slide_alone() {
    let dir = undisturbed();
    std::fs::copy(dir.path("a.png"), dir.path("b.png")).unwrap();
    let line = "run a.png b.png --mpp 0.5 --mask none --tile-size 256 -o out --model analytic:80 --log log.txt \
        --progress json";
    let (mut child, last) = start(&dir, line);
    while !["planned", "progress"].contains(&last.lock().unwrap().as_str()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: kill(2) takes plain numbers; the process is a child of ours.
    assert_eq!(unsafe { libc::kill(child_of(&child), libc::SIGABRT) }, 0);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let log = String::from_utf8(dir.read("log.txt")).unwrap();
    assert!(
        log.contains("a.png: the process that worked on it died (signal 6"),
        "{log}"
    );
    assert!(!dir.path("out/a/nuclei.json").exists());
    // The last column is the slide's name.
    let table = |name: &str| String::from_utf8(dir.read(name)).unwrap();
    let renamed = table("out/b/nuclei.csv").replace(",b\n", ",a\n");
    assert_eq!(renamed, table("whole/a/nuclei.csv"));
    // Killed itself, the parent takes its child along: nobody is left to write.
    std::fs::remove_dir_all(dir.path("out/b")).unwrap();
    let (mut child, _) = slow(&dir, "a.png b.png");
    child.kill().unwrap();
    child.wait().unwrap();
    dir.ok("run a.png b.png --mpp 0.5 --mask none --tile-size 256 -o out --model analytic --quiet");
    same_as_undisturbed(&dir, "a died, then the parent");
}
