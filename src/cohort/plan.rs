//! The rows of a cohort, numbered once and for all, with the settings that they share.
//!
//! In: slides, settings, a process that looks at slides. Out: `cohort.json`. A slide that cannot be read is a row with
//! its reason, a second copy is a row that names the first. Planning again with more slides appends rows; numbers that
//! exist never change. Never runs a slide, and reads no whole file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::cost::{self, Cost};
use super::look::Lookers;
use super::settings::{self, Said};
use super::work::Work;
use super::worker::{Facts, Trial};
use super::{CohortError, Layout, RESERVED_STEMS};
use crate::plan::Shard;
use crate::run::{RunConfig, SlideConfig};
use crate::store::atomic;
use crate::tissue::MaskChoice;

/// Raised when an older program could not read the file any more.
const VERSION: u32 = 1;

/// One slide of a cohort.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its number, counted from 0.
    pub row: usize,
    /// The slide.
    pub path: PathBuf,
    /// Name of its folder of results.
    pub stem: String,
    /// Name or folder of its model.
    pub model: String,
    /// µm per level-0 px, over what the slide says.
    pub mpp: Option<f64>,
    /// Where `mpp` came from: `manifest` or `flag`.
    pub mpp_from: Option<String>,
    /// `otsu`, `none` or a PNG.
    pub mask: String,
    /// GeoJSON of the regions to look at.
    pub roi: Option<PathBuf>,
    /// The manifest's other columns, carried through to the tables.
    #[serde(default)]
    pub manifest: Vec<(String, String)>,
    /// What its header says; none where it cannot be read.
    pub facts: Option<Facts>,
    /// Why it cannot be read.
    pub problem: Option<String>,
    /// The row of the same slide that is done in its place.
    pub duplicate_of: Option<usize>,
    /// What it is expected to take.
    pub expected: Cost,
    /// Number of parts that its tiles are shared in, each of them claimed by itself; `None`: it is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<NonZeroU32>,
}

/// The content of cohort.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cohort {
    /// Version of this file's format.
    pub version: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// Hash of what results depend on: settings, weights, algorithm.
    pub settings_sha256: String,
    /// All settings by their public name.
    pub settings: BTreeMap<String, Said>,
    /// SHA-256 of the weights by the model's name in the rows.
    pub models: BTreeMap<String, String>,
    /// What the costs follow from.
    pub trial: Option<Trial>,
    /// Seconds between the heartbeats of a claim.
    pub heartbeat_s: f64,
    /// Seconds without a heartbeat after which a claim is dead.
    pub stale_s: f64,
    /// By number.
    pub rows: Vec<Row>,
}

impl Row {
    fn new(slide: &SlideConfig) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mask = match &slide.mask {
            MaskChoice::File(path) => absolute(path).display().to_string(),
            MaskChoice::Otsu => "otsu".into(),
            MaskChoice::None => "none".into(),
        };
        let folder = Path::new(&slide.model);
        let model = match folder.join("model.toml").is_file() {
            true => absolute(folder).display().to_string(),
            false => slide.model.clone(),
        };
        Self {
            path: absolute(&slide.path),
            stem: slide.stem.clone(),
            model,
            mpp: slide.mpp,
            mpp_from: slide.mpp_from.map(str::to_owned),
            mask,
            roi: slide.roi.as_deref().map(absolute),
            manifest: slide.manifest.clone(),
            ..Self::default()
        }
    }

    /// What tasks claim of it.
    pub fn works(&self) -> impl Iterator<Item = Work> + use<> {
        let row = self.row;
        let parts = self.parts.map_or(1, NonZeroU32::get);
        (0..parts).map(move |part| Work { row, part })
    }

    /// The share of the tiles that a part has; `None`: all, because the slide is not shared.
    pub fn shard(&self, work: Work) -> Option<Shard> {
        let of = self.parts?.get();
        let index = work.part;
        Some(Shard { index, of })
    }

    /// The slide as a run takes it.
    ///
    /// # Errors
    /// A mask that is not there.
    pub fn slide(&self, config: &RunConfig) -> Result<SlideConfig, String> {
        Ok(SlideConfig {
            path: self.path.clone(),
            read_from: None,
            stem: self.stem.clone(),
            folder: config.output.join(&self.stem),
            model: self.model.clone(),
            mpp: self.mpp,
            mpp_from: self.mpp_from.as_deref().map(|from| match from {
                "manifest" => "manifest",
                _ => "flag",
            }),
            mask: self.mask.parse()?,
            roi: self.roi.clone(),
            results: None,
            manifest: self.manifest.clone(),
        })
    }
}

impl Cohort {
    /// Reads the plan of a cohort.
    ///
    /// # Errors
    /// No plan there, or one of a later program.
    pub fn read(layout: &Layout) -> Result<Self, CohortError> {
        let path = layout.plan();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CohortError::Usage(format!(
                    "{}: is no cohort (no cohort.json in it): make one with cohort plan SLIDE… -o {}",
                    layout.out.display(),
                    layout.out.display()
                )));
            }
            bytes => bytes.map_err(|error| CohortError::read(&path, error))?,
        };
        let cohort: Self = serde_json::from_slice(&bytes).map_err(|error| {
            CohortError::content(
                &path,
                format!("is no plan of a cohort: {error}: plan again"),
            )
        })?;
        if cohort.version > VERSION {
            return Err(CohortError::content(
                &path,
                format!(
                    "was written by a later version ({}): use that",
                    cohort.program
                ),
            ));
        }
        Ok(cohort)
    }

    /// Writes the plan, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<(), CohortError> {
        let path = layout.plan();
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| CohortError::content(&path, error))?;
        atomic::write_bytes(&path, &text).map_err(|error| CohortError::write(&path, error))
    }

    /// The rows that are done, the costliest first.
    pub fn by_cost(&self) -> Vec<usize> {
        let mut rows: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| row.duplicate_of.is_none())
            .collect();
        rows.sort_by(|a, b| {
            let costs = b.expected.seconds.total_cmp(&a.expected.seconds);
            costs.then(a.row.cmp(&b.row))
        });
        rows.iter().map(|row| row.row).collect()
    }

    /// Takes the weights of the rows' models; those of a name stay the same once and for all.
    fn take_models(&mut self, rows: &[Row]) -> Result<(), CohortError> {
        for row in rows {
            let Some(facts) = &row.facts else { continue };
            let known = self
                .models
                .entry(row.model.clone())
                .or_insert_with(|| facts.weights_sha256.clone());
            if *known != facts.weights_sha256 {
                return Err(CohortError::Usage(format!(
                    "{}: the model has other weights than when this cohort was planned: plan into another folder",
                    row.model
                )));
            }
        }
        Ok(())
    }

    /// Takes the settings; a plan with rows keeps what results depend on.
    fn take_settings(&mut self, asked: &Asked<'_>) -> Result<(), CohortError> {
        let wanted = settings::settings_of(asked.config);
        let hash = settings::settings_hash(&wanted, &self.models);
        let before = settings::settings_hash(&self.settings, &self.models);
        if !self.rows.is_empty() && hash != before {
            return Err(CohortError::Usage(format!(
                "{}: was planned with other settings ({}): use those, or another folder",
                asked.layout.plan().display(),
                settings::differences(&self.settings, &wanted).join("; ")
            )));
        }
        self.settings = wanted;
        self.settings_sha256 = hash;
        Ok(())
    }

    /// Tasks that can work at one time: one a row, and one a part of those that are shared.
    pub fn most_tasks(&self) -> usize {
        self.rows.iter().map(|row| row.works().count()).sum()
    }

    /// The settings that somebody chose, as flags of a command line; those that rows say are left out.
    pub fn flags(&self) -> Vec<String> {
        let chosen = self.settings.iter().filter(|(name, said)| {
            said.from != "default" && !settings::ROWS_SETTINGS.contains(&name.as_str())
        });
        chosen
            .filter_map(|(name, said)| {
                Some(format!("--{name}={}", settings::flag_text(&said.value)?))
            })
            .collect()
    }
}

/// What `cohort plan` was asked.
pub struct Asked<'a> {
    pub layout: &'a Layout,
    pub slides: &'a [SlideConfig],
    pub config: &'a RunConfig,
    pub heartbeat_s: f64,
    pub stale_s: f64,
    /// Slides that are expected to take longer than this are shared by several tasks; `None`: none are.
    pub split_s: Option<f64>,
}

/// Looks at every slide, and says what the cohort would take. Rows of a plan that is there already stay.
///
/// # Errors
/// Settings that fit no slide or not the plan that is there; a process that cannot be started.
pub fn plan(
    asked: &Asked<'_>,
    start: &dyn Fn() -> std::io::Result<std::process::Command>,
    say: &dyn Fn(&str),
    stop: &AtomicBool,
) -> Result<Cohort, CohortError> {
    let mut cohort = match asked.layout.plan().is_file() {
        true => Cohort::read(asked.layout)?,
        false => empty(asked),
    };
    let mut fresh = fresh_rows(asked, &cohort)?;
    let mut lookers = Lookers::new(start);
    look_at_all(&mut fresh, &mut lookers, say, stop)?;
    cohort.take_models(&fresh)?;
    cohort.take_settings(asked)?;
    if cohort.trial.is_none() {
        cohort.trial = lookers.try_one(&fresh, say)?;
    }
    cost::price(&mut fresh, cohort.trial.as_ref());
    // The costliest first: the last task is not left with the largest slide.
    fresh.sort_by(|a, b| b.expected.seconds.total_cmp(&a.expected.seconds));
    for row in fresh {
        let row = Row {
            row: cohort.rows.len(),
            duplicate_of: first_of(&cohort.rows, &row),
            parts: asked.split_s.and_then(|split_s| cost::parts(&row, split_s)),
            ..row
        };
        cohort.rows.push(row);
    }
    Ok(cohort)
}

/// The slides that are no rows yet.
fn fresh_rows(asked: &Asked<'_>, before: &Cohort) -> Result<Vec<Row>, CohortError> {
    let known: BTreeMap<&str, &Path> = before
        .rows
        .iter()
        .map(|row| (row.stem.as_str(), row.path.as_path()))
        .collect();
    let mut fresh = Vec::new();
    for slide in asked.slides {
        let row = Row::new(slide);
        if RESERVED_STEMS.contains(&row.stem.as_str()) {
            return Err(CohortError::Usage(format!(
                "{}: its results would be written to {}, which is the cohort's own: give it another id in a manifest",
                row.path.display(),
                row.stem
            )));
        }
        match known.get(row.stem.as_str()) {
            None => fresh.push(row),
            Some(path) if *path == row.path => {}
            Some(path) => {
                return Err(CohortError::Usage(format!(
                    "{} would be written to the folder of {}, a row of this cohort: give it an id in a manifest",
                    row.path.display(),
                    path.display()
                )));
            }
        }
    }
    Ok(fresh)
}

/// Writes into each row what its slide says of itself, or why it cannot be used.
fn look_at_all(
    rows: &mut [Row],
    lookers: &mut Lookers<'_>,
    say: &dyn Fn(&str),
    stop: &AtomicBool,
) -> Result<(), CohortError> {
    let count = rows.len();
    for (i, row) in rows.iter_mut().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(CohortError::Machine("stopped; nothing was written".into()));
        }
        match lookers.look(row)? {
            Ok(facts) => row.facts = Some(facts),
            Err(why) => {
                say(&format!("{}: {why}", row.stem));
                row.problem = Some(why);
            }
        }
        if (i + 1) % 50 == 0 {
            say(&format!("{} of {count} slides looked at", i + 1));
        }
    }
    Ok(())
}

fn empty(asked: &Asked<'_>) -> Cohort {
    Cohort {
        version: VERSION,
        program: env!("CARGO_PKG_VERSION").into(),
        settings_sha256: String::new(),
        settings: BTreeMap::new(),
        models: BTreeMap::new(),
        trial: None,
        heartbeat_s: asked.heartbeat_s,
        stale_s: asked.stale_s,
        rows: Vec::new(),
    }
}

/// The row that has the same slide and is asked the same of it.
fn first_of(rows: &[Row], row: &Row) -> Option<usize> {
    let facts = row.facts.as_ref()?;
    let same = |other: &&Row| {
        let theirs = other.facts.as_ref();
        let same_slide = theirs
            .is_some_and(|theirs| theirs.identity == facts.identity && theirs.bytes == facts.bytes);
        same_slide
            && other.duplicate_of.is_none()
            && (other.model == row.model && other.mask == row.mask)
            && (other.mpp == row.mpp && other.roi == row.roi)
    };
    rows.iter().find(same).map(|row| row.row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stem: &str, identity: &str, patches: usize) -> Row {
        Row {
            stem: stem.into(),
            facts: Some(Facts {
                identity: identity.into(),
                patches,
                planned_mm2: patches as f64,
                ..Facts::default()
            }),
            ..Row::default()
        }
    }

    #[test]
    fn a_copy_is_the_same_slide_asked_the_same() {
        let mut rows = vec![row("a", "1", 1)];
        assert_eq!(first_of(&rows, &row("b", "1", 1)), Some(0));
        assert_eq!(first_of(&rows, &row("b", "2", 1)), None);
        let other_mask = Row {
            mask: "none".into(),
            ..row("b", "1", 1)
        };
        assert_eq!(first_of(&rows, &other_mask), None);
        rows[0].facts = None;
        assert_eq!(first_of(&rows, &row("b", "1", 1)), None);
    }
}
