//! A device that takes a set time: stands in for a GPU where there is none.
//!
//! In: work with its number of pixels. Out: the work's result, not before a device of that rate and latency would have
//! given it. Sleeps instead of computing, so a pipeline can be measured against a fast device on a small machine. For
//! tests, benches and capacity planning.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A device that handles one batch after the other at a set rate.
#[derive(Debug)]
pub struct FakeDevice {
    mpx_per_s: f64,
    latency: Duration,
    timeline: Mutex<Timeline>,
}

/// What the device has been given so far.
#[derive(Debug, Default)]
struct Timeline {
    first: Option<Instant>,
    /// When the last batch leaves the device.
    free_at: Option<Instant>,
    busy: Duration,
    batches: usize,
    px: u64,
}

/// What a [`FakeDevice`] did, from its first batch to the end of its last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceUse {
    /// Time in which it had a batch.
    pub busy_s: f64,
    /// Time in which it had none.
    pub idle_s: f64,
    pub batches: usize,
    /// Pixels of all batches.
    pub px: u64,
}

impl FakeDevice {
    /// `mpx_per_s`: input pixels per second, above 0. `latency`: the way there and back, in which the device can
    /// handle another batch.
    pub fn new(mpx_per_s: f64, latency: Duration) -> Self {
        Self {
            mpx_per_s,
            latency,
            timeline: Mutex::default(),
        }
    }

    /// Runs `work` as one batch of `px` input pixels, and returns its result when the device would have.
    pub fn run<T>(&self, px: u64, work: impl FnOnce() -> T) -> T {
        let given_back = self.reserve(px) + self.latency;
        let result = work();
        std::thread::sleep(given_back.saturating_duration_since(Instant::now()));
        result
    }

    /// Puts a batch behind those that were given before; the moment at which it leaves the device.
    fn reserve(&self, px: u64) -> Instant {
        let mut timeline = self.lock();
        let takes = Duration::from_secs_f64(px as f64 / 1e6 / self.mpx_per_s);
        let now = Instant::now();
        let start = timeline.free_at.map_or(now, |free_at| free_at.max(now));
        let done = start + takes;
        timeline.first.get_or_insert(start);
        timeline.free_at = Some(done);
        timeline.busy += takes;
        timeline.batches += 1;
        timeline.px += px;
        done
    }

    /// What the device has done since it was made, or asked the last time.
    pub fn take_use(&self) -> DeviceUse {
        let timeline = std::mem::take(&mut *self.lock());
        let busy_s = timeline.busy.as_secs_f64();
        let span_s = match (timeline.first, timeline.free_at) {
            (Some(first), Some(end)) => (end - first).as_secs_f64(),
            _ => 0.0,
        };
        DeviceUse {
            busy_s,
            idle_s: (span_s - busy_s).max(0.0),
            batches: timeline.batches,
            px: timeline.px,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Timeline> {
        // Whoever panicked with the lock left plain numbers.
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_each_other_and_latency_overlaps() {
        // 1 Mpx at 20 Mpx/s takes 50 ms; two threads with one batch each wait for 100 ms in all, plus one latency.
        let device = FakeDevice::new(20.0, Duration::from_millis(30));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| device.run(1_000_000, || ()));
            }
        });
        assert!(begun.elapsed() >= Duration::from_millis(130));
        let used = device.take_use();
        assert_eq!((used.batches, used.px), (2, 2_000_000));
        assert!((used.busy_s - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_device_that_waits_is_not_busy() {
        let device = FakeDevice::new(100.0, Duration::ZERO);
        device.run(1_000_000, || ());
        std::thread::sleep(Duration::from_millis(60));
        device.run(1_000_000, || ());
        let used = device.take_use();
        assert!((used.busy_s - 0.02).abs() < 1e-9 && used.idle_s >= 0.05);
        assert_eq!(device.take_use().batches, 0);
    }
}
