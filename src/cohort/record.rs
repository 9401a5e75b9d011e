//! How a row ended: one small file a row, or a part of one.
//!
//! In: a [`Record`]. Out: `rows/<row>.<generation>.json` (`<row>-<part>.…` of a part), there whole or not at all. A
//! record of a later generation counts, so that a task that slept cannot write over its successor. Never removed but by
//! a record that follows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CohortError;
use super::work::Work;
use crate::run::Ending;
use crate::store::atomic;

/// How a row ended, and what it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The row, and the part of it.
    #[serde(flatten)]
    pub work: Work,
    /// Name of the slide's folder.
    pub stem: String,
    /// How it ended.
    pub state: State,
    /// Why it is not done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The stage that it had come to: `inferring`, `writing`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// The last lines that its process wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Nuclei found.
    pub nuclei: usize,
    /// mm² predicted.
    pub mm2_done: f64,
    /// mm² to be predicted.
    pub mm2_planned: f64,
    /// Time of this attempt.
    pub seconds: f64,
    /// Number of attempts of this task.
    pub attempts: u32,
    /// Who did it.
    pub by: String,
    /// The claim under which it was done.
    pub generation: u64,
    /// Hash of the plan's settings and models.
    pub settings_sha256: String,
    /// Seconds since 1970-01-01 UTC.
    pub ended_unix_s: u64,
}

/// The ways in which a row ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All is there.
    Done,
    /// Results are there, but parts could not be read.
    Incomplete,
    /// There are no results.
    Failed,
    /// The tiles of this part are done, and others of the slide were not yet.
    Share,
    /// Given back before the end; the checkpoint is kept, and anyone may go on.
    #[default]
    Stopped,
}

impl State {
    /// The state that an ending of the slide comes to.
    pub fn of(ending: &Ending) -> Self {
        match ending {
            Ending::Done { .. } => Self::Done,
            Ending::Incomplete { .. } => Self::Incomplete,
            Ending::Failed(_) | Ending::Refused(_) => Self::Failed,
            Ending::Share { .. } => Self::Share,
            Ending::Stopped => Self::Stopped,
        }
    }

    /// Whether nobody needs to do the row again unasked.
    pub fn is_final(self) -> bool {
        self != Self::Stopped
    }
}

/// The name of a record's file.
pub fn file_name(work: impl Into<Work>, generation: u64) -> String {
    format!("{}.{generation}.json", work.into())
}

/// Work and generation of a file's name; `None`: a file of another kind.
fn parse_name(name: &str) -> Option<(Work, u64)> {
    let (work, generation) = name.strip_suffix(".json")?.split_once('.')?;
    Some((Work::parse(work)?, generation.parse().ok()?))
}

/// The latest generation of each row and part that has a record.
///
/// # Errors
/// A folder that cannot be read.
pub fn generations(folder: &Path) -> Result<BTreeMap<Work, u64>, CohortError> {
    latest(folder, parse_name)
}

/// The latest generation of each row and part that has a file in `folder`, by `parse` of its name.
pub(super) fn latest(
    folder: &Path,
    parse: impl Fn(&str) -> Option<(Work, u64)>,
) -> Result<BTreeMap<Work, u64>, CohortError> {
    let mut latest = BTreeMap::new();
    let failed = |error| CohortError::read(folder, error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(latest),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if let Some((work, generation)) = name.to_str().and_then(&parse) {
            let known = latest.entry(work).or_insert(generation);
            *known = generation.max(*known);
        }
    }
    Ok(latest)
}

/// The record of a row; `None` where a later one has just taken its place.
///
/// # Errors
/// A file that cannot be read, or is no record.
pub fn read(
    folder: &Path,
    work: impl Into<Work>,
    generation: u64,
) -> Result<Option<Record>, CohortError> {
    let path = folder.join(file_name(work, generation));
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| CohortError::read(&path, error))?,
    };
    let record = serde_json::from_slice(&bytes).map_err(|error| {
        CohortError::content(
            &path,
            format!("is no record of a row ({error}): remove it, and the row is done again"),
        )
    })?;
    Ok(Some(record))
}

/// Writes the record of its row and generation, and removes those before it.
///
/// # Errors
/// A file that cannot be written.
pub fn write(folder: &Path, record: &Record) -> Result<PathBuf, CohortError> {
    let path = folder.join(file_name(record.work, record.generation));
    let text = serde_json::to_vec(record).map_err(|error| CohortError::content(&path, error))?;
    atomic::write_bytes(&path, &text).map_err(|error| CohortError::write(&path, error))?;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let parsed = name.to_str().and_then(parse_name);
        if parsed.is_some_and(|(work, old)| work == record.work && old < record.generation) {
            // Somebody else may have removed it; and a later generation counts anyway.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(path)
}
