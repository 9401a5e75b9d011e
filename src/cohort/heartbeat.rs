//! The claim of the slide in work, whose heart beats in a thread of its own.
//!
//! In: a claim, and what the slide is doing. Out: heartbeats, and whether another task has taken the claim over. Never
//! ends the claim: the task does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::claim::{Claim, Lost, Progress};

/// How often it looks whether it is time.
const LOOK: Duration = Duration::from_millis(50);

/// A claim whose heart beats while its slide is in work.
pub(super) struct Beating {
    claim: Mutex<(Claim, Progress)>,
    heartbeat: Duration,
    lost: AtomicBool,
    ended: AtomicBool,
    deaths: u32,
}

impl Beating {
    pub fn new(claim: Claim) -> Self {
        Self {
            heartbeat: claim.heartbeat(),
            deaths: claim.deaths(),
            claim: Mutex::new((claim, Progress::default())),
            lost: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    fn claim(&self) -> MutexGuard<'_, (Claim, Progress)> {
        self.claim
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Beats until [`Beating::end`].
    pub fn beat(&self) {
        let mut last: Option<Instant> = None;
        while !self.ended.load(Ordering::Relaxed) && !self.is_lost() {
            if last.is_none_or(|last| last.elapsed() >= self.heartbeat) {
                let mut claim = self.claim();
                let (claim, progress) = &mut *claim;
                self.note(claim.beat(progress));
                last = Some(Instant::now());
            }
            std::thread::sleep(LOOK.min(self.heartbeat));
        }
    }

    fn note(&self, outcome: Result<(), Lost>) {
        if outcome.is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    pub fn renew(&self) -> Result<(), Lost> {
        let outcome = self.claim().0.renew();
        self.note(outcome);
        outcome
    }

    pub fn show(&self, progress: Progress) {
        self.claim().1 = progress;
    }

    pub fn progress(&self) -> Progress {
        self.claim().1.clone()
    }

    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub fn into_parts(self) -> (Claim, Progress) {
        self.claim
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
