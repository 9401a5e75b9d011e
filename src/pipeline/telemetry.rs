//! Where the time of each stage goes: working, waiting for input, waiting for output.
//!
//! In: moments from the stages' threads. Out: [`StageReport`]s. Measures, never steers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::model::fake_device::DeviceUse;

/// Seconds of one stage, summed over its workers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    pub name: String,
    pub workers: usize,
    pub busy_s: f64,
    /// What the stage's work had of the cores, on whatever threads.
    pub cpu_s: f64,
    pub waiting_for_input_s: f64,
    pub waiting_for_output_s: f64,
}

/// The devices of a capacity test as a stage: busy, and waiting for patches.
pub fn fake_devices(used: &[DeviceUse]) -> Option<StageReport> {
    (!used.is_empty()).then(|| StageReport {
        name: "device".into(),
        workers: used.len(),
        busy_s: used.iter().map(|device| device.busy_s).sum(),
        cpu_s: 0.0,
        waiting_for_input_s: used.iter().map(|device| device.idle_s).sum(),
        waiting_for_output_s: 0.0,
    })
}

/// Runs `work`, which has the process to itself, and reports it as a stage: `cpu_s` is what all threads had.
pub fn alone<T>(name: &str, work: impl FnOnce() -> T) -> (T, StageReport) {
    let (begun, before) = (Instant::now(), cpu_ns(libc::CLOCK_PROCESS_CPUTIME_ID));
    let out = work();
    let used = cpu_ns(libc::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(before);
    let report = StageReport {
        name: name.into(),
        workers: 1,
        busy_s: begun.elapsed().as_secs_f64(),
        cpu_s: used as f64 / 1e9,
        waiting_for_input_s: 0.0,
        waiting_for_output_s: 0.0,
    };
    (out, report)
}

/// Nanoseconds of one stage, summed over its workers.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    workers: usize,
    busy_ns: AtomicU64,
    cpu_ns: AtomicU64,
    input_ns: AtomicU64,
    output_ns: AtomicU64,
}

impl Stage {
    pub fn new(name: &'static str, workers: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            name,
            workers,
            busy_ns: zero(),
            cpu_ns: zero(),
            input_ns: zero(),
            output_ns: zero(),
        }
    }

    /// Workers that share this stage's work.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Runs `work` and counts it as busy time.
    pub fn busy<T>(&self, work: impl FnOnce() -> T) -> T {
        timed(&self.busy_ns, || self.on_cpu(work))
    }

    /// Counts what `work` has of a core: for the parts of busy work that run on other threads.
    pub fn on_cpu<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        let out = work();
        let used = cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID).saturating_sub(before);
        self.cpu_ns.fetch_add(used, Ordering::Relaxed);
        out
    }

    /// Runs `take` and counts it as waiting for input.
    pub fn input<T>(&self, take: impl FnOnce() -> T) -> T {
        timed(&self.input_ns, take)
    }

    /// Runs `give` and counts it as waiting for output.
    pub fn output<T>(&self, give: impl FnOnce() -> T) -> T {
        timed(&self.output_ns, give)
    }

    pub fn report(&self) -> StageReport {
        let seconds = |ns: &AtomicU64| ns.load(Ordering::Relaxed) as f64 / 1e9;
        StageReport {
            name: self.name.to_string(),
            workers: self.workers,
            busy_s: seconds(&self.busy_ns),
            cpu_s: seconds(&self.cpu_ns),
            waiting_for_input_s: seconds(&self.input_ns),
            waiting_for_output_s: seconds(&self.output_ns),
        }
    }
}

/// Time that the calling thread, or the process, has had of the cores; 0 where the system does not say.
fn cpu_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec into a local variable of that type.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
        _ => 0,
    }
}

fn timed<T>(ns: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = work();
    ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    out
}
