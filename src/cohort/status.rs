//! Who is where: the state of every row, from files alone.
//!
//! In: a cohort's folder. Out: a [`Status`]. Reads the plan, one small file a row that has ended and one a row in work;
//! asks no scheduler, and writes nothing but the file whose time tells the file server's clock. Takes about a second
//! for 10,000 rows.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::Serialize;

use super::claim::{self, ClaimText, Seen};
use super::owner::Owner;
use super::plan::{Cohort, Row};
use super::record::{self, Record, State};
use super::work::Work;
use super::{CohortError, Layout, ranges, shared};

/// Of a reason, so many letters tell what kind it is.
const REASON_LETTERS: usize = 160;

/// Where a row, or a part of one, is.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// It has a record. A row whose tasks have done some of its parts and not the others counts as given back.
    Ended(Box<Record>),
    /// A task works on it.
    Running(Seen),
    /// A task worked on it, and has not been heard of for too long.
    Stale(Seen),
    /// A copy of another row, which is done in its place.
    Copy(usize),
    NeverStarted,
}

/// The state of a cohort.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// By row.
    pub places: Vec<Place>,
    /// Claims of the parts of rows that several tasks share, running or stale: of each such row some.
    pub parts: Vec<(Work, Place)>,
}

/// A row in work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Running {
    pub row: usize,
    /// Which of the parts that tasks share it in: `2/8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    pub slide: String,
    pub by: String,
    pub stage: String,
    pub mm2_done: f64,
    pub mm2_planned: f64,
    pub mm2_per_s: f64,
    /// `None`: not known yet.
    pub left_s: Option<f64>,
    /// Seconds since it was last heard of.
    pub silent_s: f64,
}

/// The counts, as `cohort status` shows them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    pub rows: usize,
    pub done: usize,
    pub incomplete: usize,
    pub failed: usize,
    pub stopped: usize,
    pub running: usize,
    pub stale: usize,
    pub copies: usize,
    pub never_started: usize,
    pub nuclei: usize,
    /// Rows that failed, as an array string.
    pub failed_rows: String,
    pub incomplete_rows: String,
    /// Shared rows of which some parts are done and others are not, and how many.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub half_done: BTreeMap<usize, String>,
    /// Rows that nobody has ended: never started, given back, or of a dead task.
    pub missing_rows: String,
    pub failed_by_reason: BTreeMap<String, String>,
    pub working: Vec<Running>,
    pub stale_claims: Vec<Running>,
    /// Seconds until all is done, with the tasks that run now; `None`: nothing runs, or nothing is known.
    pub forecast_s: Option<f64>,
}

/// Reads the state of every row.
///
/// # Errors
/// A folder or record that cannot be read.
pub fn read(layout: &Layout, cohort: &Cohort) -> Result<Status, CohortError> {
    let claims = claim::generations(&layout.claims())?;
    let records = record::generations(&layout.records())?;
    // A file server whose folder may only be read by this user has no clock for us: take our own.
    let now = match claims.is_empty() {
        true => SystemTime::now(),
        false => claim::server_now(&layout.claims()).unwrap_or_else(|_| SystemTime::now()),
    };
    let here = Owner::here(|_| None);
    let stale = Duration::try_from_secs_f64(cohort.stale_s).unwrap_or(Duration::from_secs(120));
    let place = |work: Work| -> Result<Place, CohortError> {
        let recorded = records.get(&work).copied();
        if let Some(&claimed) = claims.get(&work)
            && recorded.is_none_or(|recorded| recorded < claimed)
            && let Some(seen) = claim::see(&layout.claims(), work, claimed, now)
        {
            let owner = seen.text.as_ref().map(|text| &text.owner);
            let is_dead = owner.is_some_and(|owner| owner.is_dead(&here));
            return Ok(match is_dead || seen.age > stale {
                true => Place::Stale(seen),
                false => Place::Running(seen),
            });
        }
        let record = match recorded {
            Some(generation) => latest_record(&layout.records(), work, generation)?,
            None => None,
        };
        Ok(record.map_or(Place::NeverStarted, |record| Place::Ended(Box::new(record))))
    };
    let of_row = |row: &Row| -> Result<(Place, Vec<(Work, Place)>), CohortError> {
        if let Some(first) = row.duplicate_of {
            return Ok((Place::Copy(first), Vec::new()));
        }
        if row.parts.is_none() {
            return Ok((place(row.row.into())?, Vec::new()));
        }
        let parts: Result<Vec<_>, _> = row.works().map(|work| Ok((work, place(work)?))).collect();
        let mut parts = parts?;
        let joined = shared::joined(parts.iter().map(|(_, place)| place));
        parts.retain(|(_, place)| matches!(place, Place::Running(_) | Place::Stale(_)));
        Ok((joined, parts))
    };
    let rows = cohort.rows.par_iter().map(of_row);
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let (places, parts): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    Ok(Status {
        places,
        parts: parts.into_iter().flatten().collect(),
    })
}

/// The record of a row or part, though a later one may be taking its place right now.
fn latest_record(
    folder: &Path,
    work: Work,
    generation: u64,
) -> Result<Option<Record>, CohortError> {
    match record::read(folder, work, generation)? {
        Some(record) => Ok(Some(record)),
        None => match record::generations(folder)?.get(&work) {
            Some(&later) => record::read(folder, work, later),
            None => Ok(None),
        },
    }
}

impl Status {
    /// The rows whose place is such.
    pub fn rows(&self, is: impl Fn(&Place) -> bool) -> Vec<usize> {
        let rows = self.places.iter().enumerate();
        rows.filter(|(_, place)| is(place))
            .map(|(row, _)| row)
            .collect()
    }

    /// Rows that have ended in a state.
    pub fn ended(&self, state: State) -> Vec<usize> {
        self.rows(|place| matches!(place, Place::Ended(record) if record.state == state))
    }

    /// Rows that nobody has ended and nobody works on.
    pub fn missing(&self) -> Vec<usize> {
        self.rows(|place| match place {
            Place::NeverStarted | Place::Stale(_) => true,
            Place::Ended(record) => record.state == State::Stopped,
            Place::Running(_) | Place::Copy(_) => false,
        })
    }

    /// The counts.
    pub fn summary(&self, cohort: &Cohort) -> Summary {
        let failed = self.ended(State::Failed);
        let incomplete = self.ended(State::Incomplete);
        let mut reasons: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut nuclei = 0;
        let mut half_done = BTreeMap::new();
        for (row, place) in self.places.iter().enumerate() {
            let Place::Ended(record) = place else {
                continue;
            };
            nuclei += record.nuclei;
            match record.state {
                State::Failed => reasons
                    .entry(kind_of(record, cohort))
                    .or_default()
                    .push(row),
                State::Stopped if !record.reason.is_empty() => {
                    half_done.insert(row, record.reason.clone());
                }
                _ => {}
            }
        }
        let (mut working, mut stale_claims) = (Vec::new(), Vec::new());
        for (work, place) in self.claims(cohort) {
            match place {
                Place::Running(seen) => working.push(running(cohort, work, seen)),
                Place::Stale(seen) => stale_claims.push(running(cohort, work, seen)),
                Place::Ended(_) | Place::Copy(_) | Place::NeverStarted => {}
            }
        }
        let reasons = reasons.into_iter();
        Summary {
            rows: self.places.len(),
            done: self.ended(State::Done).len(),
            incomplete: incomplete.len(),
            failed: failed.len(),
            stopped: self.ended(State::Stopped).len(),
            running: working.len(),
            stale: stale_claims.len(),
            half_done,
            copies: self.rows(|place| matches!(place, Place::Copy(_))).len(),
            never_started: self.rows(|place| *place == Place::NeverStarted).len(),
            nuclei,
            failed_rows: ranges::to_text(&failed),
            incomplete_rows: ranges::to_text(&incomplete),
            missing_rows: ranges::to_text(&self.missing()),
            failed_by_reason: reasons
                .map(|(reason, rows)| (reason, ranges::to_text(&rows)))
                .collect(),
            forecast_s: self.forecast_s(cohort, &working),
            working,
            stale_claims,
        }
    }

    /// The claims of rows, and those of the parts of rows that are shared.
    fn claims<'a>(&'a self, cohort: &'a Cohort) -> impl Iterator<Item = (Work, &'a Place)> + 'a {
        let rows = self.places.iter().zip(&cohort.rows);
        let whole = rows.filter(|(_, row)| row.parts.is_none());
        let whole = whole.map(|(place, row)| (Work::from(row.row), place));
        whole.chain(self.parts.iter().map(|(work, place)| (*work, place)))
    }

    /// What is left by the plan's costs, as fast as the rows that are done went, over the tasks that run.
    fn forecast_s(&self, cohort: &Cohort, working: &[Running]) -> Option<f64> {
        if working.is_empty() {
            return None;
        }
        let (mut took, mut expected, mut left) = (0.0, 0.0, 0.0);
        for (place, row) in self.places.iter().zip(&cohort.rows) {
            match place {
                Place::Ended(record) if record.state == State::Done => {
                    took += record.seconds;
                    expected += row.expected.seconds;
                }
                Place::Ended(record) if record.state == State::Stopped => {
                    let share = record.mm2_done / record.mm2_planned.max(1e-9);
                    left += row.expected.seconds * (1.0 - share.clamp(0.0, 1.0));
                }
                Place::Stale(_) | Place::NeverStarted => left += row.expected.seconds,
                Place::Running(seen) => {
                    let progress = seen.text.as_ref().map(|text| &text.progress);
                    let share = progress.map_or(0.0, |progress| {
                        progress.mm2_done / progress.mm2_planned.max(1e-9)
                    });
                    left += row.expected.seconds * (1.0 - share.clamp(0.0, 1.0));
                }
                Place::Ended(_) | Place::Copy(_) => {}
            }
        }
        let slower = match expected > 0.0 {
            true => took / expected,
            false => 1.0,
        };
        Some(left * slower / working.len() as f64)
    }
}

/// A reason without what only this slide has: its path and name.
fn kind_of(record: &Record, cohort: &Cohort) -> String {
    let row = &cohort.rows[record.work.row];
    let path = row.path.display().to_string();
    let line = record.reason.lines().next().unwrap_or("");
    let general = line.replace(&format!("{path}: "), "").replace(&path, "…");
    general.chars().take(REASON_LETTERS).collect()
}

fn running(cohort: &Cohort, work: Work, seen: &Seen) -> Running {
    let row = &cohort.rows[work.row];
    let unknown = ClaimText::default();
    let text = seen.text.as_ref().unwrap_or(&unknown);
    let progress = &text.progress;
    let mm2_per_s = (progress.mm2_done - progress.mm2_before) / progress.seconds.max(1e-9);
    let left = progress.mm2_planned - progress.mm2_done;
    Running {
        row: row.row,
        part: row.shard(work).map(|shard| shard.to_string()),
        slide: row.stem.clone(),
        by: text.owner.name(),
        stage: progress.stage.clone(),
        mm2_done: progress.mm2_done,
        mm2_planned: progress.mm2_planned,
        mm2_per_s,
        left_s: (mm2_per_s > 0.0).then(|| left.max(0.0) / mm2_per_s),
        silent_s: seen.age.as_secs_f64(),
    }
}

/// `3 h 05 min`, `5 min`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{whole} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    }
}

/// The table.
pub fn table(summary: &Summary, out: &str) -> String {
    let mut text = format!(
        "{} rows: {} done, {} incomplete, {} failed, {} running, {} stale, {} given back, {} never started",
        summary.rows,
        summary.done,
        summary.incomplete,
        summary.failed,
        summary.running,
        summary.stale,
        summary.stopped,
        summary.never_started
    );
    if summary.copies > 0 {
        let _ = write!(text, ", {} copies", summary.copies);
    }
    let _ = writeln!(text, "; {} nuclei", summary.nuclei);
    for (title, rows) in [
        ("running", &summary.working),
        ("stale", &summary.stale_claims),
    ] {
        for row in rows {
            let left = row
                .left_s
                .map_or(String::new(), |left| format!(", {} left", duration(left)));
            let part = row.part.as_ref();
            let part = part.map_or(String::new(), |part| format!(" part {part}"));
            let _ = writeln!(
                text,
                "{title:<10} row {}{part} {} on {}: {} {:.2} of {:.2} mm², {:.3} mm²/s{left}; heard of {} ago",
                row.row,
                row.slide,
                row.by,
                row.stage,
                row.mm2_done,
                row.mm2_planned,
                row.mm2_per_s,
                duration(row.silent_s)
            );
        }
    }
    for (reason, rows) in &summary.failed_by_reason {
        let _ = writeln!(text, "failed     {rows}: {reason}");
    }
    if !summary.incomplete_rows.is_empty() {
        let _ = writeln!(
            text,
            "incomplete {}: parts could not be read (see summary.json)",
            summary.incomplete_rows
        );
    }
    for (row, parts) in &summary.half_done {
        let _ = writeln!(text, "incomplete {row}: {parts}");
    }
    if let Some(seconds) = summary.forecast_s {
        let _ = writeln!(
            text,
            "forecast   {} with the tasks that run now",
            duration(seconds)
        );
    }
    for (why, rows) in [
        ("failed", &summary.failed_rows),
        ("missing", &summary.missing_rows),
    ] {
        if !rows.is_empty() {
            let _ = writeln!(text, "{why:<10} again: cohort run {out} --row {rows}");
        }
    }
    text
}
