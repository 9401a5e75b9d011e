//! The floors of the house: a room uses only rooms on lower floors. The list below is the map;
//! docs/architecture.md says what each room is for.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Each is a folder or file of src/.
const FLOORS: [&str; 30] = [
    "machine",      // CPU, memory limit, libraries
    "digest",       // SHA-256 as text
    "npy",          // NumPy files
    "mat5",         // MATLAB files
    "lenient_json", // JSON as Python writes it
    "geojson_file", // GeoJSON as drawing programs write it
    "geometry",     // boxes of pixels
    "slide",        // readers, µm/px, proc blocks
    "prediction",   // the map that networks give and post-processing reads
    "nuclei",       // blob -> instances
    "tissue",       // mask, regions of interest
    "features",     // shape, stain, neighbourhood
    "model",        // model folders, architectures, devices
    "plan",         // patch grid, tiles
    "result",       // what a finished slide is
    "store",        // the checkpoint
    "stitch",       // tiles -> slide
    "report",       // HTML
    "output",       // one writer per format
    "import",       // results of other programs
    "pipeline",     // the stages and their channels
    "labels",       // labelled images and their formats
    "eval",         // metrics
    "train",        // learning
    "run",          // the front door: settings + slide -> results
    "cohort",       // many slides: plan, claim, run, status, merge
    "doctor",       // what this machine has
    "view",         // the viewer's server and page
    "cli",          // flags -> settings -> one call
    "main",         // exit code
];

#[test]
fn every_room_has_a_floor() {
    let mut rooms = BTreeSet::new();
    for entry in fs::read_dir(src()).unwrap() {
        let path = entry.unwrap().path();
        let room = path.file_stem().unwrap().to_str().unwrap().to_owned();
        rooms.insert(room);
    }
    rooms.remove("lib");
    let listed: BTreeSet<String> = FLOORS.iter().map(|room| (*room).to_owned()).collect();
    assert_eq!(listed, rooms);
}

#[test]
fn no_room_uses_a_room_above_it() {
    let mut upward = Vec::new();
    for file in rust_files(&src()) {
        let room = room_of(&file);
        let Some(floor) = FLOORS.iter().position(|name| *name == room) else {
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in program_lines(&text) {
            for used in rooms_used(line) {
                let below = FLOORS.iter().position(|name| *name == used);
                if below.is_some_and(|below| below > floor) {
                    let place = file.strip_prefix(src()).unwrap().display();
                    upward.push(format!("src/{place}:{number}: {room} uses {used}"));
                }
            }
        }
    }
    assert!(
        upward.is_empty(),
        "a room uses only rooms below it:\n{}",
        upward.join("\n")
    );
}

/// The check itself: what it sees of a line, and what it passes over.
#[test]
fn uses_are_found_wherever_they_stand() {
    assert_eq!(rooms_used("use crate::store::Store;"), ["store"]);
    let two = "let a = crate::plan::x(crate::run::y());";
    assert_eq!(rooms_used(two), ["plan", "run"]);
    assert_eq!(rooms_used("use crate::{cli, run::Ending};"), ["cli", "run"]);
    let text = "use crate::a;\n// crate::b\n/// [`crate::c`]\n#[cfg(test)]\nuse crate::d;\nfn x() {}\n\
                #[cfg(test)]\nmod tests {\nuse crate::e;\n";
    let lines: Vec<usize> = program_lines(text).map(|(number, _)| number).collect();
    assert_eq!(lines, [1, 6]);
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(src()).unwrap();
    let first = inside.components().next().unwrap();
    Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Tests may look anywhere.
        if path.ends_with("tests.rs") || path.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// The lines of a file that are in the program, with their numbers: no comments, no item behind `#[cfg(test)]`, nothing
/// from a file's module of tests on.
fn program_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let is_test = |at: usize| at > 0 && lines[at - 1] == "#[cfg(test)]";
    let module = |at: &usize| is_test(*at) && lines[*at].starts_with("mod tests");
    let end = (0..lines.len()).find(module).unwrap_or(lines.len());
    let kept: Vec<usize> = (0..end)
        .filter(|&at| !is_test(at) && !lines[at].starts_with("//") && !lines[at].starts_with("#["))
        .collect();
    kept.into_iter().map(move |at| (at + 1, lines[at]))
}

/// The rooms that a line names behind `crate::`.
fn rooms_used(line: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for behind in line.split("crate::").skip(1) {
        let list = match behind.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(list),
            None => behind.split([',', '(', ')']).next().unwrap_or(behind),
        };
        for item in list.split(',') {
            let name = item
                .trim()
                .split(|c: char| !c.is_alphanumeric() && c != '_');
            rooms.extend(name.into_iter().next().filter(|name| !name.is_empty()));
        }
    }
    rooms
}
