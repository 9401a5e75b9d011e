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
use wsi_nuclei::internals::{ClaimProgress, Desk, Layout, Owner, Taken, Work};

use crate::harness::signal;
use crate::invariance::rounds;

const JOBS: usize = 200;
const WORKERS: usize = 16;
/// Groups of workers at one time, each with a folder of its own; a group does round after round.
const GROUPS: usize = 4;
/// Longer than a busy machine leaves a process without a turn, shorter than the sleeper sleeps.
const STALE: Duration = Duration::from_secs(4);
const SLEEP: Duration = Duration::from_secs(5);
/// Workers killed in each round.
const KILLS: usize = 3;
/// Where a worker finds its group's folder; none: this is the test itself.
const FOLDER: &str = "WSI_NUCLEI_RACE";

/// The worker's side: a test that does nothing unless it was started by [`workers_share_jobs`]. It goes from round to
/// round, because a process is slow to start.
#[test]
fn race_worker() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    for round in 0.. {
        let round = folder.join(round.to_string());
        while !round.join("log").exists() {
            if folder.join("over").exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        share(&round);
    }
}

/// Does jobs of a round until all have ended.
fn share(folder: &Path) {
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
            let has_ended = seen.records.get(&job.into()).is_some_and(|recorded| {
                let claimed = seen.claims.get(&job.into());
                claimed.is_none_or(|claimed| claimed <= recorded)
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
            std::thread::sleep(Duration::from_micros(random.u64(0..20_000)));
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

/// What happened to workers.
#[derive(Default)]
struct Counts {
    kills: usize,
    sleeps: usize,
    /// Jobs published again after their worker had died.
    repeated: usize,
}

#[test]
fn workers_share_jobs() {
    let each = rounds(20, 100) / GROUPS;
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..GROUPS)
            .map(|group| scope.spawn(move || do_rounds(group as u64, each)))
            .collect();
        running
            .into_iter()
            .map(|group| group.join().unwrap())
            .collect()
    });
    let sum = |count: fn(&Counts) -> usize| counts.iter().map(count).sum::<usize>();
    let (kills, sleeps) = (sum(|c| c.kills), sum(|c| c.sleeps));
    let all = GROUPS * each;
    eprintln!(
        "{all} rounds of {JOBS} jobs by {WORKERS} processes: {kills} killed, {sleeps} stopped with a job on and continued, \
         {} jobs published again after their worker died",
        sum(|c| c.repeated)
    );
    assert_eq!(kills, all * KILLS);
    assert!(sleeps >= all / 2, "too few sleepers to tell anything");
}

/// Round after round by one group of workers.
fn do_rounds(group: u64, rounds: usize) -> Counts {
    let dir = folder();
    let mut random = fastrand::Rng::with_seed(group);
    let mut workers: Vec<Child> = (0..WORKERS).map(|_| worker(dir.path())).collect();
    let sleeper = workers[0].id();
    let mut killed = BTreeSet::new();
    let mut counts = Counts::default();
    for round in 0..rounds {
        let round = dir.path().join(round.to_string());
        std::fs::create_dir(&round).unwrap();
        let log = round.join("log");
        File::create(&log).unwrap();
        let stopped = wait_for_job(&round, sleeper);
        if stopped {
            signal(&workers[0], libc::SIGSTOP);
            counts.sleeps += 1;
        }
        let begun = Instant::now();
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(random.u64(0..60)));
            let victim = &mut workers[random.usize(1..WORKERS)];
            assert!(victim.try_wait().unwrap().is_none(), "a worker ended");
            victim.kill().unwrap();
            victim.wait().unwrap();
            killed.insert(victim.id());
            counts.kills += 1;
            *victim = worker(dir.path());
        }
        if stopped {
            std::thread::sleep(SLEEP.saturating_sub(begun.elapsed()));
            signal(&workers[0], libc::SIGCONT);
        }
        wait_for_end(&round);
    }
    std::fs::write(dir.path().join("over"), "").unwrap();
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success(), "a worker failed");
    }
    for round in 0..rounds {
        let round = dir.path().join(round.to_string());
        let records = record::generations(&Layout::new(&round).records()).unwrap();
        counts.repeated += check(&round.join("log"), &killed, sleeper, &records);
    }
    counts
}

/// Waits until the worker is between the `begin` and the `end` of a job; false where all jobs end before that.
fn wait_for_job(round: &Path, pid: u32) -> bool {
    let layout = Layout::new(round);
    let patience = Instant::now();
    let pid = pid.to_string();
    while record::generations(&layout.records()).unwrap().len() < JOBS {
        assert!(
            patience.elapsed() < Duration::from_secs(120),
            "no worker begins"
        );
        let text = std::fs::read_to_string(round.join("log")).unwrap();
        let mut lines = text.lines().rev();
        let last = lines.find(|line| line.split(' ').nth(2) == Some(pid.as_str()));
        if last.is_some_and(|line| line.starts_with("begin")) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Waits until every job has its record and no claim is left.
fn wait_for_end(round: &Path) {
    let layout = Layout::new(round);
    let patience = Instant::now();
    loop {
        let records = record::generations(&layout.records()).unwrap().len();
        let entries = std::fs::read_dir(layout.claims()).unwrap().flatten();
        let claims: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            // A worker that is killed may leave the file by which it asked for the time.
            .filter(|name| !name.starts_with(".now"))
            .collect();
        if records == JOBS && claims.is_empty() {
            return;
        }
        assert!(
            patience.elapsed() < Duration::from_secs(60),
            "{records} of {JOBS} jobs have ended; claims are left: {claims:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// No job is in work twice at once, but for workers that were killed or asleep; each is published once, but for workers
/// that were killed, or fell asleep, between that and their record: never by an older claim after a younger one, unless
/// it fell asleep between its last look at the claim and publishing, which no lock can prevent (both publish the same
/// bytes); and its record is the youngest claim's.
fn check(log: &Path, killed: &BTreeSet<u32>, sleeper: u32, records: &BTreeMap<Work, u64>) -> usize {
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
        let youngest = by.iter().map(|(_, generation)| *generation).max().unwrap();
        repeated += by.len() - 1;
        let mut greatest = 0;
        for (pid, generation) in by {
            let asleep = *pid == sleeper;
            assert!(
                *generation == youngest || killed.contains(pid) || asleep,
                "job {job} was published twice: {by:?}, sleeper {sleeper}"
            );
            assert!(
                *generation > greatest || asleep,
                "job {job}: an older claim published last: {by:?}, sleeper {sleeper}"
            );
            greatest = greatest.max(*generation);
        }
        assert_eq!(
            records[&Work::from(*job)],
            youngest,
            "job {job}: the record is not the youngest claim's: {by:?}"
        );
    }
    repeated
}
