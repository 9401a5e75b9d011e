//! Files that were made to fill the memory or to take hours: each is refused within seconds, without a panic.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Dir, shared};

/// Far above what a refusal takes on a busy machine, far below what these files asked for.
const MOST_TIME: Duration = Duration::from_secs(60);
/// Most resident memory, KiB: the program with libtorch takes 200 MiB.
const MOST_KIB: i64 = 700 << 10;

/// The file of shared/cases/hostile, unpacked into `dir`.
fn unpack(dir: &Dir, name: &str) -> bool {
    let Some(folder) = shared("cases/hostile") else {
        return false;
    };
    let packed = folder.join(format!("{name}.gz"));
    let is_packed = packed.is_file();
    let path = if is_packed { packed } else { folder.join(name) };
    let mut bytes = std::fs::read(path).unwrap();
    if is_packed {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        bytes = plain;
    }
    dir.write(name, bytes);
    true
}

/// Runs a command; returns its exit code and what it said. It must keep to time and memory.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it")]
fn run(dir: &Dir, line: &str) -> (Option<i32>, String) {
    let log = dir.path("said.txt");
    let mut command = dir.command(line);
    command
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap());
    let started = Instant::now();
    let child = command.spawn().unwrap();
    let id = child.id() as libc::pid_t;
    // SAFETY: rusage is plain numbers; zero is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    loop {
        // SAFETY: wait4(2) writes into the two places given, and the child is waited for here alone.
        match unsafe { libc::wait4(id, &mut status, libc::WNOHANG, &mut usage) } {
            0 if started.elapsed() > MOST_TIME => {
                // SAFETY: kill(2) takes plain numbers; the child has not been waited for.
                unsafe { libc::kill(id, libc::SIGKILL) };
                panic!("{line}: more than {MOST_TIME:?}");
            }
            0 => std::thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(
        usage.ru_maxrss < MOST_KIB,
        "{line}: {} KiB",
        usage.ru_maxrss
    );
    assert!(!said.contains("panicked"), "{line}\n{said}");
    (ExitStatus::from_raw(status).code(), said)
}

#[test]
fn hostile_files_are_refused_in_time_and_memory() {
    let dir = Dir::new();
    for (name, lines, words) in [
        (
            "p_dag_stream.pth",
            &["model convert FILE -o m", "model verify FILE"][..],
            "p_dag_stream.pth",
        ),
        (
            "t_dims_hang.tar",
            &["model convert FILE -o m", "model verify FILE"],
            "axes",
        ),
        (
            "t_share.tar",
            &["model convert FILE -o m"],
            "shares its storage",
        ),
        (
            "t_share_memo.tar",
            &["model convert FILE -o m"],
            "shares its storage",
        ),
        (
            "t_emptyshape.tar",
            &["model convert FILE -o m"],
            "t_emptyshape.tar",
        ),
        (
            "t_scalarbias.tar",
            &["model convert FILE -o m"],
            "decoder.tp.u0.conv.bias",
        ),
        (
            "deep.npy",
            &[
                "postproc FILE -o o --mpp 0.25",
                "postproc FILE -o o --mpp 0.25 --postproc reference",
            ],
            "nested",
        ),
        (
            "zero2.npy",
            &[
                "postproc FILE -o o --mpp 0.25",
                "postproc FILE -o o --mpp 0.25 --postproc reference",
            ],
            "zero2.npy",
        ),
    ] {
        if !unpack(&dir, name) {
            return;
        }
        for line in lines {
            let line = line.replace("FILE", name);
            let (code, said) = run(&dir, &line);
            assert!(matches!(code, Some(1..=3)), "{line}: {code:?}\n{said}");
            assert!(
                said.contains("error: ") && said.contains(words),
                "{line}\n{said}"
            );
        }
    }
}

#[test]
fn absurd_outlines_are_left_out_and_told() {
    let dir = Dir::new();
    for name in ["bigbox.json", "tall.json"] {
        if !unpack(&dir, name) {
            return;
        }
        for line in [
            "features FILE -o tables",
            "export FILE -o other --format geojson",
        ] {
            let line = line.replace("FILE", name);
            let (_, said) = run(&dir, &line);
            assert!(said.contains("no nucleus"), "{line}\n{said}");
        }
    }
}

#[test]
fn a_lone_slide_on_which_a_c_library_dies_ends_with_a_message() {
    let dir = Dir::new();
    for name in ["tiff_tile60k.tif", "tiff_tile1M.tif"] {
        if !unpack(&dir, name) {
            return;
        }
        let (code, said) = run(
            &dir,
            &format!("run {name} -o out --model analytic --mpp 0.25"),
        );
        assert_eq!(code, Some(3), "{name}\n{said}");
        assert!(
            said.contains("error: ") && said.contains(name),
            "{name}\n{said}"
        );
    }
}
