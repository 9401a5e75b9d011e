//! One data set of all slides, and the list of what is not in it.
//!
//! In: a cohort's folder. Out: `merged/`: `nuclei/slide=<stem>/nuclei.parquet` (hard links, or copies where the file
//! system has none), slides.csv, slides.parquet, failures.csv, pages. Incremental: a partition that is the slide's file
//! already stays. Never mixes settings or models, never reads a nucleus, and never changes a slide's own folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::plan::{Cohort, Row};
use super::record::{Record, State};
use super::status::{Place, Status};
use super::table::{Failure, Slides, failures_csv};
use super::{CohortError, Layout, ranges, review, status};
use crate::report::cohort::{self, CohortSlide};
use crate::store::atomic::{self, Partial};

/// What a merge came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    pub slides: usize,
    pub nuclei: usize,
    /// Partitions that are new or were renewed, and those of rows that are no longer done.
    pub linked: usize,
    pub copied: usize,
    pub removed: usize,
    /// Rows without results, as an array string.
    pub failed: String,
    pub missing: String,
    pub running: String,
    pub incomplete: String,
    /// Rows whose folder has no nuclei.parquet: the table of slides has them, the data set has not.
    pub without_table: String,
    pub copies: usize,
}

/// A slide of the data set.
struct Part<'a> {
    row: &'a Row,
    record: &'a Record,
    summary: Arc<Value>,
}

/// Merges what is done.
///
/// # Errors
/// Rows of other settings or another model, naming them; files that cannot be read or written.
pub fn merge(layout: &Layout, cohort: &Cohort) -> Result<Merged, CohortError> {
    let status = status::read(layout, cohort)?;
    let parts = parts(layout, cohort, &status)?;
    let mut merged = Merged {
        slides: parts.len(),
        nuclei: parts.iter().map(|part| part.record.nuclei).sum(),
        failed: ranges::to_text(&status.ended(State::Failed)),
        incomplete: ranges::to_text(&status.ended(State::Incomplete)),
        missing: ranges::to_text(&status.missing()),
        running: ranges::to_text(&status.rows(|place| matches!(place, Place::Running(_)))),
        copies: status.rows(|place| matches!(place, Place::Copy(_))).len(),
        ..Merged::default()
    };
    let folder = layout.merged();
    partitions(layout, &parts, &mut merged)?;
    let listed: Vec<(&Row, &Record, &Value)> = parts
        .iter()
        .map(|part| (part.row, part.record, &*part.summary))
        .collect();
    let slides = Slides::new(&listed);
    let csv = slides.to_csv();
    write(&folder.join("slides.csv"), csv)?;
    let path = folder.join("slides.parquet");
    let failed = |error: io::Error| CohortError::write(&path, error);
    let mut partial = Partial::begin(&path).map_err(failed)?;
    slides
        .write_parquet(&mut partial)
        .map_err(|error| failed(io::Error::other(error)))?;
    partial.commit().map_err(failed)?;
    let failures = failures_csv(&failures(cohort, &status));
    write(&folder.join("failures.csv"), failures)?;
    pages(layout, &parts)?;
    Ok(merged)
}

fn write(path: &Path, bytes: io::Result<Vec<u8>>) -> Result<(), CohortError> {
    bytes
        .and_then(|bytes| atomic::write_bytes(path, &bytes))
        .map_err(|error| CohortError::write(path, error))
}

/// The rows with results, checked to be of this plan.
fn parts<'a>(
    layout: &Layout,
    cohort: &'a Cohort,
    status: &'a Status,
) -> Result<Vec<Part<'a>>, CohortError> {
    let mut parts = Vec::new();
    let (mut other_settings, mut other_model) = (Vec::new(), Vec::new());
    for (place, row) in status.places.iter().zip(&cohort.rows) {
        let Place::Ended(record) = place else {
            continue;
        };
        if !matches!(record.state, State::Done | State::Incomplete) {
            continue;
        }
        if record.settings_sha256 != cohort.settings_sha256 {
            other_settings.push(row.row);
            continue;
        }
        let path = layout.out.join(&row.stem).join("summary.json");
        let bytes = fs::read(&path).map_err(|error| CohortError::read(&path, error))?;
        let mut summary: Value = serde_json::from_slice(&bytes).map_err(|error| {
            CohortError::content(
                &path,
                format!("is damaged ({error}): do row {} again", row.row),
            )
        })?;
        let weights = summary["provenance"]["settings"]["weights_sha256"].as_str();
        if weights != cohort.models.get(&row.model).map(String::as_str) {
            other_model.push(row.row);
            continue;
        }
        forget_unused(&mut summary);
        parts.push(Part {
            row,
            record,
            summary: Arc::new(summary),
        });
    }
    for (what, rows) in [("settings", other_settings), ("model", other_model)] {
        if !rows.is_empty() {
            return Err(CohortError::Usage(format!(
                "{}: rows {} were done with another {what} than this plan's: one data set has one; remove their folders \
                 and records (.cohort/rows) and do them again",
                layout.out.display(),
                ranges::to_text(&rows)
            )));
        }
    }
    Ok(parts)
}

/// Takes out of a summary what no table and no page of a cohort shows: all summaries are in memory at once.
fn forget_unused(summary: &mut Value) {
    for (place, name) in [("", "provenance"), ("/feature_medians", "types")] {
        let object = summary.pointer_mut(place).and_then(Value::as_object_mut);
        object.and_then(|object| object.remove(name));
    }
}

/// Brings `merged/nuclei/` to what is done.
fn partitions(layout: &Layout, parts: &[Part<'_>], merged: &mut Merged) -> Result<(), CohortError> {
    let folder = layout.merged().join("nuclei");
    fs::create_dir_all(&folder).map_err(|error| CohortError::write(&folder, error))?;
    let mut wanted = BTreeSet::new();
    let mut without = Vec::new();
    for part in parts {
        let from = layout.out.join(&part.row.stem).join("nuclei.parquet");
        if !from.is_file() {
            without.push(part.row.row);
            continue;
        }
        let name = format!("slide={}", part.row.stem);
        let to = folder.join(&name).join("nuclei.parquet");
        match place(&from, &to).map_err(|error| CohortError::write(&to, error))? {
            Placed::There => {}
            Placed::Linked => merged.linked += 1,
            Placed::Copied => merged.copied += 1,
        }
        wanted.insert(name);
    }
    merged.without_table = ranges::to_text(&without);
    let entries = fs::read_dir(&folder).map_err(|error| CohortError::read(&folder, error))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("slide=") && !wanted.contains(&name) {
            fs::remove_dir_all(entry.path())
                .map_err(|error| CohortError::write(&entry.path(), error))?;
            merged.removed += 1;
        }
    }
    Ok(())
}

enum Placed {
    There,
    Linked,
    Copied,
}

/// Puts `from` at `to`: the same file where hard links are possible, else a copy of the same size and time.
fn place(from: &Path, to: &Path) -> io::Result<Placed> {
    let source = fs::metadata(from)?;
    if let Ok(old) = fs::metadata(to) {
        let same_file = (old.dev(), old.ino()) == (source.dev(), source.ino());
        let same_copy = old.len() == source.len() && old.modified()? == source.modified()?;
        if same_file || same_copy {
            return Ok(Placed::There);
        }
    }
    let folder = to.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let own = tempfile::Builder::new().prefix(".").tempdir_in(folder)?;
    let beside = own.path().join("nuclei.parquet");
    let placed = match fs::hard_link(from, &beside) {
        Ok(()) => Placed::Linked,
        Err(_) => {
            fs::copy(from, &beside)?;
            let copy = fs::File::options().write(true).open(&beside)?;
            copy.set_modified(source.modified()?)?;
            copy.sync_all()?;
            Placed::Copied
        }
    };
    fs::rename(&beside, to)?;
    Ok(placed)
}

/// The rows that have no results, or not all.
fn failures(cohort: &Cohort, status: &Status) -> Vec<Failure> {
    let rows = status.places.iter().zip(&cohort.rows);
    rows.filter_map(|(place, row)| {
        let (state, reason, record) = match place {
            Place::Ended(record) => match record.state {
                State::Done => return None,
                State::Incomplete => ("incomplete", record.reason.clone(), Some(record.as_ref())),
                State::Failed => ("failed", record.reason.clone(), Some(record.as_ref())),
                State::Stopped | State::Share => {
                    let reason = match record.reason.as_str() {
                        "" => "given back before the end; its checkpoint is kept",
                        parts => parts,
                    };
                    ("incomplete", reason.to_owned(), Some(record.as_ref()))
                }
            },
            Place::Running(_) => ("incomplete", "a task works on it".to_owned(), None),
            Place::Stale(seen) => {
                let owner = seen.text.as_ref().map(|text| text.owner.name());
                let owner = owner.unwrap_or_default();
                let reason = format!(
                    "its task was last heard of {:.0} s ago: {owner}",
                    seen.age.as_secs_f64()
                );
                ("incomplete", reason, None)
            }
            Place::Copy(first) => ("copy", format!("the same slide as row {first}"), None),
            Place::NeverStarted => (
                "never started",
                row.problem.clone().unwrap_or_default(),
                None,
            ),
        };
        Some(Failure {
            row: row.row,
            slide: row.stem.clone(),
            state: state.into(),
            reason,
            stage: record.map_or(String::new(), |record| record.stage.clone()),
            attempts: record.map_or(0, |record| record.attempts),
            by: record.map_or(String::new(), |record| record.by.clone()),
            log: record.map_or(String::new(), |record| record.log.join("\n")),
            path: row.path.display().to_string(),
        })
    })
    .collect()
}

/// Pages show pictures of at most so many slides: more would be a page of gigabytes.
const MOST_PICTURES: usize = 1000;

/// index.html with tables, pictures and outliers; review.html with the slides to look at again.
fn pages(layout: &Layout, parts: &[Part<'_>]) -> Result<(), CohortError> {
    let folder = layout.merged();
    let pictures = parts.len() <= MOST_PICTURES;
    let slides: Vec<CohortSlide> = parts
        .iter()
        .map(|part| {
            let thumb = layout.out.join(&part.row.stem).join("thumb.png");
            let thumb = pictures
                .then(|| image::open(thumb).ok())
                .flatten()
                .map(|image| cohort::small(&image.to_rgb8()));
            CohortSlide {
                href: format!("../{}/report.html", crate::report::encoded(&part.row.stem)),
                summary: part.summary.clone(),
                thumb,
            }
        })
        .collect();
    let path = folder.join("index.html");
    let page = cohort::html(&slides).map_err(|error| CohortError::content(&path, error))?;
    write(&path, Ok(page.into_bytes()))?;
    let listed: Vec<(&Row, &Record, &Value)> = parts
        .iter()
        .map(|part| (part.row, part.record, &*part.summary))
        .collect();
    let page = review::html(&listed);
    write(&folder.join("review.html"), Ok(page.into_bytes()))
}
