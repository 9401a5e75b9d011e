//! Claims under fire: 16 processes on 200 tiny jobs, round after round, some killed, one stopped and continued.
//!
//! The truth is a log that every worker appends to, one line a write: `begin` when it starts a job, `publish` when the
//! claim said that it may write its results, `end` when it has given up or finished. The log knows nothing of claims.

#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wsi_nuclei::internals::record::{self, Record, State};
use wsi_nuclei::internals::{ClaimProgress, Desk, Layout, Owner, Taken};

use crate::harness::signal;
use crate::invariance::rounds;

const JOBS: usize = 200;
const WORKERS: usize = 16;
/// Rounds at one time.
const AT_ONCE: usize = 4;
/// Longer than a busy machine leaves a process without a turn, shorter than the sleeper sleeps.
const STALE: Duration = Duration::from_secs(5);
const SLEEP: Duration = Duration::from_secs(6);
/// Where a worker finds its folder; none: this is the test itself.
const FOLDER: &str = "WSI_NUCLEI_RACE";

/// The worker's side: a test that does nothing unless it was started by [`workers_share_jobs`].
#[test]
fn race_worker() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let layout = Layout::new(folder);
    let here = Owner::here(|_| None);
    let pid = here.pid;
    let desk = Desk::open(&layout, here, Duration::from_millis(300), STALE).unwrap();
    let log = File::options()
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let note = |what: &str, job: usize, generation: u64| {
        let line = format!("{what} {job} {pid} {generation}\n");
        (&log).write_all(line.as_bytes()).unwrap();
    };
    let mut random = fastrand::Rng::with_seed(pid.into());
    loop {
        let seen = desk.snapshot().unwrap();
        let mut open = 0;
        let mut worked = false;
        let mut order: Vec<usize> = (0..JOBS).collect();
        random.shuffle(&mut order);
        for job in order {
            let has_ended = seen.records.get(&job).is_some_and(|recorded| {
                seen.claims
                    .get(&job)
                    .is_none_or(|claimed| claimed <= recorded)
            });
            if has_ended {
                continue;
            }
            open += 1;
            let Taken::Mine(mut claim) = desk.take(job, &seen, |_| false).unwrap() else {
                continue;
            };
            worked = true;
            note("begin", job, claim.generation);
            std::thread::sleep(Duration::from_micros(random.u64(0..3000)));
            let _ = claim.beat(&ClaimProgress::default());
            if claim.renew().is_ok() {
                note("publish", job, claim.generation);
                note("end", job, claim.generation);
                let done = Record {
                    state: State::Done,
                    ..Record::default()
                };
                claim.finish(done).unwrap();
            } else {
                note("end", job, claim.generation);
            }
        }
        if open == 0 {
            desk.tidy().unwrap();
            return;
        }
        if !worked {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn worker(folder: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    Command::new(program)
        .args([
            "--exact",
            "cohort_race::race_worker",
            "--test-threads=1",
            "-q",
        ])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A folder in memory where there is one: the race is about claims, not about how fast a disk is.
fn folder() -> tempfile::TempDir {
    match Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm").unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

#[test]
fn workers_share_jobs() {
    let wanted = rounds(20, 100);
    let mut kills = 0;
    let mut repeated = 0;
    for batch in 0..wanted.div_ceil(AT_ONCE) {
        let rounds = AT_ONCE.min(wanted - batch * AT_ONCE);
        let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..rounds)
                .map(|place| scope.spawn(move || round((batch * AT_ONCE + place) as u64)))
                .collect();
            running
                .into_iter()
                .map(|round| round.join().unwrap())
                .collect()
        });
        kills += counts.iter().map(|(kills, _)| kills).sum::<usize>();
        repeated += counts.iter().map(|(_, repeated)| repeated).sum::<usize>();
    }
    eprintln!(
        "{wanted} rounds of {JOBS} jobs by {WORKERS} processes: {kills} killed, {wanted} stopped and continued, \
         {repeated} jobs done again after their worker died"
    );
    assert!(kills >= wanted, "too few kills to tell anything");
}

/// One round. How many workers were killed, and how many jobs were published again after that.
fn round(seed: u64) -> (usize, usize) {
    let dir = folder();
    let log = dir.path().join("log");
    File::create(&log).unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut workers: Vec<Child> = (0..WORKERS).map(|_| worker(dir.path())).collect();
    let mut killed = BTreeSet::new();
    let sleeper = workers[0].id();
    let begun = Instant::now();
    // The sleeper sleeps from a moment at which it has a job on.
    let stopped = wait_for_job(&log, sleeper, &mut workers);
    if stopped {
        signal(&workers[0], libc::SIGSTOP);
    }
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(random.u64(0..60)));
        let victim = random.usize(1..WORKERS);
        if workers[victim].try_wait().unwrap().is_none() {
            workers[victim].kill().unwrap();
            // Reaped, or its number would still be there.
            if workers[victim].wait().unwrap().code().is_none() {
                killed.insert(workers[victim].id());
            }
        }
    }
    let slept = begun.elapsed();
    std::thread::sleep(SLEEP.saturating_sub(slept));
    if stopped {
        signal(&workers[0], libc::SIGCONT);
    }
    for worker in &mut workers {
        let patience = Instant::now();
        while worker.try_wait().unwrap().is_none() {
            assert!(
                patience.elapsed() < Duration::from_secs(90),
                "a worker never ends"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        if !killed.contains(&worker.id()) {
            assert!(worker.wait().unwrap().success(), "a worker failed");
        }
    }
    let layout = Layout::new(dir.path());
    let left = std::fs::read_dir(layout.claims()).unwrap().flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name().into_string().unwrap())
        // A worker that is killed may leave the file by which it asked for the time.
        .filter(|name| !name.starts_with(".now"))
        .collect();
    assert!(left.is_empty(), "claims are left: {left:?}");
    let records = record::generations(&layout.records()).unwrap();
    assert_eq!(records.len(), JOBS, "jobs are lost");
    let repeated = check(&log, &killed, sleeper, &records);
    (killed.len(), repeated)
}

/// Waits until the worker is between the `begin` and the `end` of a job; false where it has ended before that.
fn wait_for_job(log: &Path, pid: u32, workers: &mut [Child]) -> bool {
    let patience = Instant::now();
    while workers[0].try_wait().unwrap().is_none() {
        assert!(
            patience.elapsed() < Duration::from_secs(60),
            "no worker begins"
        );
        let text = std::fs::read_to_string(log).unwrap();
        let last = text
            .lines()
            .rev()
            .find(|line| line.split(' ').nth(2) == Some(&pid.to_string()));
        if last.is_some_and(|line| line.starts_with("begin")) {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}

/// No job is in work twice at once, but for workers that were killed or asleep; each is published once, but for workers
/// that were killed between that and their record; and its record is the last that was published.
fn check(
    log: &Path,
    killed: &BTreeSet<u32>,
    sleeper: u32,
    records: &BTreeMap<usize, u64>,
) -> usize {
    let text = std::fs::read_to_string(log).unwrap();
    let mut working: BTreeMap<usize, u32> = BTreeMap::new();
    let mut published: BTreeMap<usize, Vec<(u32, u64)>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (job, pid) = (
            fields[1].parse().unwrap(),
            fields[2].parse::<u32>().unwrap(),
        );
        let generation: u64 = fields[3].parse().unwrap();
        match fields[0] {
            "begin" => {
                if let Some(other) = working.insert(job, pid) {
                    let excused = killed.contains(&other) || other == sleeper;
                    assert!(
                        excused,
                        "job {job} is done by {other} and {pid} at once:\n{text}"
                    );
                }
            }
            "publish" => published.entry(job).or_default().push((pid, generation)),
            _ => {
                if working.get(&job) == Some(&pid) {
                    working.remove(&job);
                }
            }
        }
    }
    assert_eq!(published.len(), JOBS, "jobs were never published");
    let mut repeated = 0;
    for (job, by) in &published {
        let (last, before) = by.split_last().unwrap();
        repeated += before.len();
        for (pid, generation) in before {
            assert!(
                killed.contains(pid),
                "job {job} was published twice: {by:?}"
            );
            assert!(
                *generation < last.1,
                "job {job}: an older claim published last: {by:?}"
            );
        }
        assert_eq!(
            records[job], last.1,
            "job {job}: the record is not the last one: {by:?}"
        );
    }
    repeated
}
