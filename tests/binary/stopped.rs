//! A stop request at any moment ends a command with 75 (or, too late, with its usual code): never a crash,
//! never a panic. With the default model, whose workers are inside libtorch when the request comes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::crowd::crowd;
use crate::harness::{Dir, signal};
use crate::invariance::rounds;
use crate::learning::{TRAIN, four_images};

const SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1];

/// Starts a command, asks it to stop after `delay_ms` and waits for its end.
fn stop_after(mut command: Command, number: i32, delay_ms: u64) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(delay_ms));
    // SAFETY: kill(2) takes plain numbers; the child has not been waited for, so its id is its own.
    unsafe { libc::kill(child.id() as i32, number) };
    child.wait_with_output().unwrap()
}

/// Whether the process ended as it promises: stopped, or done before the request came.
fn check(output: &Output, allowed: &[i32], how: &str) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| allowed.contains(&code)),
        "{how}: {:?}\n{said}",
        output.status
    );
    assert!(!said.contains("panicked"), "{how}\n{said}");
    code == Some(75)
}

/// Before the program catches signals they end it as they end any program.
fn early(output: &Output) -> bool {
    use std::os::unix::process::ExitStatusExt;
    output.status.signal().is_some_and(|s| SIGNALS.contains(&s))
}

#[test]
fn the_default_model_stops_at_any_moment_without_a_crash() {
    let dir = Dir::new();
    for name in ["a.png", "b.png"] {
        crowd(2600, 2000, 3).save(dir.path(name)).unwrap();
    }
    let commands = [
        "run a.png -o one --mpp 0.25 --mask none --restart",
        "run a.png b.png -o many --mpp 0.25 --mask none --restart",
        "tile a.png -o image --mpp 0.25",
        "run a.png -o shard --mpp 0.25 --mask none --tile-size 512 --shard 0/2",
    ];
    let mut random = fastrand::Rng::with_seed(21);
    let mut stopped = 0;
    for round in 0..rounds(32, 300) {
        let line = commands[round % commands.len()];
        let (number, delay) = (SIGNALS[round % 3], random.u64(150..2600));
        let output = stop_after(dir.command(line), number, delay);
        let how = format!("{line}, signal {number} after {delay} ms");
        if !early(&output) {
            stopped += usize::from(check(&output, &[0, 75], &how));
        }
    }
    assert!(stopped >= 8, "only {stopped} requests came in time");
}

#[test]
fn training_and_scoring_stop_at_any_moment_without_a_crash() {
    let dir = Dir::new();
    four_images(&dir);
    let config = String::from_utf8(dir.read("config.toml")).unwrap();
    let held_out = "share = 1.0\nhold_out = [\"t0\", \"t1\", \"t2\"]";
    dir.write("held.toml", config.replace("share = 1.0", held_out));
    let commands = [
        format!("{TRAIN} -o model --restart"),
        "eval --model default --data . --config held.toml -o scores".to_owned(),
    ];
    let mut random = fastrand::Rng::with_seed(22);
    let mut stopped = 0;
    for round in 0..rounds(8, 100) {
        let line = &commands[round % commands.len()];
        let (number, delay) = (SIGNALS[round % 3], random.u64(400..3000));
        let output = stop_after(dir.command(line), number, delay);
        let how = format!("{line}, signal {number} after {delay} ms");
        // A command that keeps no checkpoint ends by the signal itself.
        if !early(&output) {
            stopped += usize::from(check(&output, &[0, 75], &how));
        }
    }
    assert!(stopped >= 2, "only {stopped} requests came in time");
}

/// While it opens the results, and while a page asks. A viewer has nothing to lose: it ends with 0.
#[test]
fn a_viewer_stops_at_any_moment_without_a_crash() {
    let dir = Dir::new();
    crowd(1300, 1000, 5).save(dir.path("a.png")).unwrap();
    dir.ok("run a.png -o out --mpp 0.25 --model analytic --mask none --format csv");
    let mut random = fastrand::Rng::with_seed(23);
    for round in 0..rounds(8, 80) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (number, delay_ms) = (SIGNALS[round % 3], random.u64(20..400));
        let mut command = dir.command(&format!("view out --no-browser --port {port}"));
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let is_open = round % 2 == 1;
        while is_open && TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(delay_ms) {
            if let Ok(mut page) = TcpStream::connect(("127.0.0.1", port)) {
                let tile = b"GET /tile/11/1_1.jpg HTTP/1.0\r\nHost: localhost\r\n\r\n";
                let _ = page.write_all(tile);
                let _ = page.read(&mut [0; 64]);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        signal(&child, number);
        let output = child.wait_with_output().unwrap();
        let how = format!("view, open: {is_open}, signal {number} after {delay_ms} ms");
        if is_open || !early(&output) {
            check(&output, &[0], &how);
        }
    }
}

#[test]
fn a_second_interrupt_ends_at_once_with_130() {
    let dir = Dir::new();
    crowd(2600, 2000, 4).save(dir.path("a.png")).unwrap();
    for delay in [1200, 1700] {
        let mut command = dir.command("run a.png -o out --mpp 0.25 --mask none --restart");
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        signal(&child, libc::SIGINT);
        signal(&child, libc::SIGINT);
        let output = child.wait_with_output().unwrap();
        check(&output, &[0, 75, 130], "two interrupts");
    }
}
