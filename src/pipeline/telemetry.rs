//! Where the time of each stage goes: working, waiting for input, waiting for output.
//!
//! In: moments from the stages' threads. Out: [`StageReport`]s. Measures, never steers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

/// Seconds of one stage, summed over its workers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    pub name: String,
    pub workers: usize,
    pub busy_s: f64,
    pub waiting_for_input_s: f64,
    pub waiting_for_output_s: f64,
}

/// Nanoseconds of one stage, summed over its workers.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    workers: usize,
    busy_ns: AtomicU64,
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
            input_ns: zero(),
            output_ns: zero(),
        }
    }

    /// Runs `work` and counts it as busy time.
    pub fn busy<T>(&self, work: impl FnOnce() -> T) -> T {
        timed(&self.busy_ns, work)
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
            waiting_for_input_s: seconds(&self.input_ns),
            waiting_for_output_s: seconds(&self.output_ns),
        }
    }
}

fn timed<T>(ns: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = work();
    ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    out
}
