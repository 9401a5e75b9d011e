//! A disk that fills up or may not be written: told, nothing half-written, and the next run goes on to the same bytes.
//! The disk is a small tmpfs, which takes root: elsewhere these tests say that they are skipped.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::crowd::crowd;
use crate::harness::{Dir, Run, signal};
use crate::invariance::rounds;
use crate::killed::start;

/// Every writer there is.
const RUN: &str = "run a.png --mpp 0.5 --mask none --threads 2 --tile-size 256 \
                   --format json,csv,parquet,geojson,geojson.gz,overlay,crops,report,ome-zarr";
const PAGE: u64 = 4096;
/// More than a run takes.
const ROOM: u64 = 64 << 20;

/// A small file system of its own, gone with this value.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts `bytes` of room on a folder of `dir`; `None`, said aloud, where that is not allowed.
    fn mount(dir: &Dir, name: &str, bytes: u64) -> Option<Self> {
        let at = dir.path(name);
        std::fs::create_dir_all(&at).unwrap();
        match mount(&at, 0, bytes) {
            Ok(()) => Some(Self { at }),
            Err(error) => {
                eprintln!("skipped: a disk that fills up: no tmpfs may be mounted here ({error})");
                None
            }
        }
    }

    fn resize(&self, bytes: u64) {
        mount(&self.at, libc::MS_REMOUNT, bytes).unwrap();
    }

    /// Takes the right to write away, though files may be open for writing: by a read-only view that lies
    /// over the disk.
    fn forbid(&self) -> Forbidden<'_> {
        bind(&self.at, 0).unwrap();
        let view = Forbidden(self);
        let begun = Instant::now();
        while let Err(error) = bind(&self.at, libc::MS_REMOUNT | libc::MS_RDONLY) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
            std::thread::yield_now();
        }
        view
    }
}

/// No right to write until it is dropped.
struct Forbidden<'a>(&'a Disk);

impl Drop for Forbidden<'_> {
    fn drop(&mut self) {
        unmount(&self.0.at);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

/// Takes away what was mounted last.
fn unmount(at: &Path) {
    let at = text(at);
    // SAFETY: `at` is a string that ends with 0, and lives longer than the call.
    unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
}

fn text(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// A tmpfs of `bytes`.
fn mount(at: &Path, flags: u64, bytes: u64) -> io::Result<()> {
    let (at, options) = (text(at), CString::new(format!("size={bytes}")).unwrap());
    // SAFETY: all pointers are strings that end with 0, and live longer than the call.
    done(unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            at.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    })
}

/// A folder over itself.
fn bind(at: &Path, flags: u64) -> io::Result<()> {
    let at = text(at);
    // SAFETY: the folder's name ends with 0 and lives longer than the call; a bind needs no other string.
    done(unsafe {
        libc::mount(
            at.as_ptr(),
            at.as_ptr(),
            std::ptr::null(),
            flags | libc::MS_BIND,
            std::ptr::null(),
        )
    })
}

fn done(code: i32) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// All files below a folder by their names from there; run.json has a clock and the lock no bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if !name.ends_with("run.json") {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn undisturbed() -> (Dir, BTreeMap<String, Vec<u8>>) {
    let dir = Dir::new();
    crowd(1000, 700, 7).save(dir.path("a.png")).unwrap();
    dir.ok(&format!("{RUN} -o whole --model analytic --quiet"));
    let whole = files(&dir.path("whole"));
    for name in [
        "a/nuclei.json",
        "a/report.html",
        "a/nuclei.parquet",
        "a/store.zarr/zarr.json",
    ] {
        assert!(whole.contains_key(name), "{name}");
    }
    (dir, whole)
}

/// What a run that failed left behind: whole files alone.
fn nothing_is_half_written(
    left: &BTreeMap<String, Vec<u8>>,
    whole: &BTreeMap<String, Vec<u8>>,
    how: &str,
) {
    for (name, bytes) in left {
        assert!(
            whole.get(name).is_some_and(|file| file == bytes),
            "{how}: {name} is half-written"
        );
    }
}

fn told(run: &Run, words: &[&str], how: &str) {
    assert_eq!(run.code, Some(3), "{how}\n{}", run.stderr);
    for word in ["error: ", "/a", "cannot be written", "free space"]
        .iter()
        .chain(words)
    {
        assert!(
            run.stderr.contains(word),
            "{how}: no `{word}` in\n{}",
            run.stderr
        );
    }
    assert!(!run.stderr.contains("panicked"), "{how}\n{}", run.stderr);
}

fn tiles(files: &BTreeMap<String, Vec<u8>>) -> usize {
    files
        .keys()
        .filter(|name| name.contains("store.zarr/tiles/c/"))
        .count()
}

#[test]
fn a_full_disk_is_told_and_with_room_the_run_goes_on() {
    let (dir, whole) = undisturbed();
    let pages = |of: &dyn Fn(&str) -> bool| -> u64 {
        let files = whole.iter().filter(|(name, _)| of(name));
        files
            .map(|(_, file)| (file.len() as u64).div_ceil(PAGE))
            .sum()
    };
    let is_tile = |name: &str| name.contains("store.zarr/tiles/c/");
    // Room for a part of the store's beginning, of its tiles, of the outputs.
    let store = pages(&|name| name.contains("store.zarr/") && !is_tile(name));
    let with_tiles = store + pages(&is_tile);
    let parts = [1..store, store..with_tiles, with_tiles..pages(&|_| true)];
    let mut random = fastrand::Rng::with_seed(21);
    let mut fell: BTreeMap<&str, usize> = BTreeMap::new();
    let wanted = rounds(12, 60);
    for round in 0..wanted {
        let limit = PAGE * random.u64(parts[round % parts.len()].clone());
        let Some(disk) = Disk::mount(&dir, "out", limit) else {
            return;
        };
        let how = format!("{limit} bytes");
        let run = dir.run(&format!("{RUN} -o out --model analytic --progress none"));
        told(&run, &["No space left"], &how);
        let left = files(&dir.path("out"));
        nothing_is_half_written(&left, &whole, &how);
        let done = tiles(&left);
        // What comes of it (run.json cannot be written either) must not hide what came first.
        if done < tiles(&whole) {
            assert!(run.stderr.contains("store.zarr"), "{how}\n{}", run.stderr);
        }
        *fell
            .entry(match done {
                0 => "making the store",
                _ if done < tiles(&whole) => "between tiles",
                _ => "writing outputs",
            })
            .or_default() += 1;
        disk.resize(ROOM);
        dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
        assert!(files(&dir.path("out")) == whole, "other bytes: {how}");
        assert_eq!(dir.json("out/a/run.json")["tiles_reused"], done, "{how}");
    }
    eprintln!("full disk: {wanted} sizes, equal bytes with room: {fell:?}");
    assert_eq!(fell.len(), 3, "{fell:?}");
}

#[test]
fn a_folder_without_permission_is_refused_before_the_start() {
    let (dir, whole) = undisturbed();
    let Some(disk) = Disk::mount(&dir, "out", ROOM) else {
        return;
    };
    let forbidden = disk.forbid();
    let line = format!("{RUN} -o out --model analytic");
    dir.fails(&line, 2, &["out: results cannot be written there", "-o"]);
    dir.fails(
        &format!("{RUN} -o out/deeper --model analytic"),
        2,
        &["cannot be written there"],
    );
    assert!(files(&dir.path("out")).is_empty());
    drop(forbidden);
    dir.ok(&format!("{line} --quiet"));
    assert!(files(&dir.path("out")) == whole);
}

#[test]
fn permission_lost_in_the_middle_is_told_and_the_run_goes_on() {
    let (dir, whole) = undisturbed();
    for round in 0..rounds(2, 10) {
        let Some(disk) = Disk::mount(&dir, "out", ROOM) else {
            return;
        };
        let line = format!("{RUN} -o out --model analytic:80 --progress json --log log.txt");
        let (mut child, _) = start(&dir, &line);
        let begun = Instant::now();
        while tiles(&files(&dir.path("out"))) <= round % 5 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no tile is done");
            std::thread::sleep(Duration::from_millis(2));
        }
        let forbidden = disk.forbid();
        let code = child.wait().unwrap().code();
        let log = String::from_utf8(dir.read("log.txt")).unwrap();
        std::fs::remove_file(dir.path("log.txt")).unwrap();
        let run = Run {
            code,
            stdout: String::new(),
            stderr: log,
        };
        told(&run, &["Read-only file system", "permissions"], "read-only");
        drop(forbidden);
        // What was being written can no longer be removed either; it stays under a name of its own.
        let finished = || {
            let mut files = files(&dir.path("out"));
            files.retain(|name, _| !name.ends_with(".partial"));
            files
        };
        let left = finished();
        nothing_is_half_written(&left, &whole, "read-only");
        dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
        assert!(finished() == whole, "other bytes");
        assert_eq!(dir.json("out/a/run.json")["tiles_reused"], tiles(&left));
    }
}

/// tests/fixtures/slow_disk.c as a library to preload.
fn slow_disk(dir: &Dir) -> PathBuf {
    let (source, library) = (
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/slow_disk.c"),
        dir.path("slow_disk.so"),
    );
    let mut compile = std::process::Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]);
    let done = compile.arg(&library).arg(source).arg("-ldl").status();
    assert!(done.unwrap().success(), "cc");
    library
}

#[test]
fn a_slow_disk_costs_time_alone() {
    let (dir, whole) = undisturbed();
    let mut run = dir.command(&format!("{RUN} -o out --model analytic --progress none"));
    run.env("LD_PRELOAD", slow_disk(&dir))
        .env("SLOW_DISK_MS", "10");
    let run = Run::of("slow disk", run.output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let waits = run.stderr.split("slow disk: ").nth(1);
    let waits = waits.and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(waits.is_some_and(|n| n > 100), "{}", run.stderr);
    assert!(files(&dir.path("out")) == whole, "other bytes");
    eprintln!("slow disk: equal bytes after {} waits", waits.unwrap());
}

#[test]
fn a_stop_on_a_slow_disk_is_heard_in_time() {
    let (dir, whole) = undisturbed();
    let library = slow_disk(&dir);
    for enough in [1, tiles(&whole)] {
        let _ = std::fs::remove_dir_all(dir.path("out"));
        let mut run = dir.command(&format!("{RUN} -o out --model analytic --progress none"));
        run.env("LD_PRELOAD", &library).env("SLOW_DISK_MS", "100");
        let mut child = run.stderr(std::process::Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while tiles(&files(&dir.path("out"))) < enough {
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "no tile is done"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let asked = Instant::now();
        signal(&child, libc::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(75), "{enough} tiles");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(10), "{enough} tiles: {took:?}");
        let left = files(&dir.path("out"));
        nothing_is_half_written(&left, &whole, "stopped on a slow disk");
        dir.ok(&format!("{RUN} -o out --model analytic --quiet"));
        assert!(files(&dir.path("out")) == whole, "other bytes");
        assert_eq!(dir.json("out/a/run.json")["tiles_reused"], tiles(&left));
        eprintln!("slow disk: stopped with {} tiles in {took:?}", tiles(&left));
    }
}
