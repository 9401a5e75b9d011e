//! What rows take: time, memory, disk.
//!
//! In: what slides' headers say, and the trial of one of them. Out: a [`Cost`] for each row, and a [`Bill`] for all.
//! Never runs a slide.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::plan::{Cohort, Row};
use super::worker::Trial;

/// What a slide is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub seconds: f64,
    pub memory_bytes: u64,
    pub scratch_bytes: u64,
}

/// What each row takes, in proportion to the slide that was tried.
pub(super) fn price(rows: &mut [Row], trial: Option<&Trial>) {
    let Some(trial) = trial else { return };
    let per_patch = trial.seconds / trial.patches.max(1) as f64;
    let per_mm2 = trial.scratch_bytes as f64 / trial.planned_mm2.max(1e-9);
    for row in rows {
        if let Some(facts) = &row.facts {
            row.expected = Cost {
                seconds: facts.patches as f64 * per_patch,
                memory_bytes: facts.memory_bytes.max(trial.memory_bytes),
                scratch_bytes: (facts.planned_mm2 * per_mm2) as u64,
            };
        }
    }
}

/// A slide is shared in no more parts than this: each opens the slide, and looks for tissue, for itself.
const MOST_PARTS: u32 = 64;

/// The parts that a slide is shared in, so that none takes longer than `split_s`; `None`: it does not as a whole.
pub(super) fn parts(row: &Row, split_s: f64) -> Option<NonZeroU32> {
    let parts = (row.expected.seconds / split_s).ceil() as u32;
    let patches = row.facts.as_ref().map_or(0, |facts| facts.patches);
    let most = u32::try_from(patches).map_or(MOST_PARTS, |patches| patches.min(MOST_PARTS));
    NonZeroU32::new(parts.min(most)).filter(|parts| parts.get() > 1)
}

/// What a site would bill for all rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Bill {
    pub slides: usize,
    pub unreadable: usize,
    pub duplicates: usize,
    pub tissue_mm2: f64,
    pub hours: f64,
    /// The longest that a task has a slide, or its part of one.
    pub longest_s: f64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// Bytes of the default outputs a byte of store (docs/performance.md).
const OUTPUTS_PER_STORE: f64 = 2.0;

/// The sum of the rows.
pub fn bill(cohort: &Cohort) -> Bill {
    let mut bill = Bill {
        slides: cohort.rows.len(),
        ..Bill::default()
    };
    for row in &cohort.rows {
        if row.duplicate_of.is_some() {
            bill.duplicates += 1;
            continue;
        }
        bill.unreadable += usize::from(row.problem.is_some());
        bill.tissue_mm2 += row.facts.as_ref().map_or(0.0, |facts| facts.tissue_mm2);
        bill.hours += row.expected.seconds / 3600.0;
        let parts = row.works().count() as f64;
        bill.longest_s = bill.longest_s.max(row.expected.seconds / parts);
        bill.memory_bytes = bill.memory_bytes.max(row.expected.memory_bytes);
        bill.disk_bytes += (row.expected.scratch_bytes as f64 * (1.0 + OUTPUTS_PER_STORE)) as u64;
    }
    bill
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cohort::worker::Facts;

    fn row(stem: &str, patches: usize) -> Row {
        Row {
            stem: stem.into(),
            facts: Some(Facts {
                patches,
                planned_mm2: patches as f64,
                ..Facts::default()
            }),
            ..Row::default()
        }
    }

    #[test]
    fn costs_follow_the_trial_in_proportion() {
        let trial = Trial {
            patches: 10,
            planned_mm2: 5.0,
            seconds: 20.0,
            memory_bytes: 7,
            scratch_bytes: 50,
            ..Trial::default()
        };
        let mut rows = [row("a", 30), row("b", 5)];
        price(&mut rows, Some(&trial));
        let seconds: Vec<f64> = rows.iter().map(|row| row.expected.seconds).collect();
        assert_eq!(seconds, [60.0, 10.0]);
        assert_eq!(rows[0].expected.scratch_bytes, 300);
    }
    #[test]
    fn a_slide_that_takes_too_long_is_shared() {
        let of = |seconds: f64, patches: usize, split_s: f64| {
            let row = Row {
                expected: Cost {
                    seconds,
                    ..Cost::default()
                },
                ..row("a", patches)
            };
            parts(&row, split_s).map(NonZeroU32::get)
        };
        assert_eq!(of(60.0, 1000, 60.0), None);
        assert_eq!(of(61.0, 1000, 60.0), Some(2));
        assert_eq!(of(1e9, 100_000, 60.0), Some(MOST_PARTS));
        // No part is empty.
        assert_eq!((of(1e9, 3, 60.0), of(1e9, 1, 60.0)), (Some(3), None));
    }
}
