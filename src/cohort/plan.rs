//! The rows of a cohort, numbered once and for all, with the settings that they share.
//!
//! In: slides, settings, a process that looks at slides. Out: `cohort.json`. A slide that cannot be read is a row with
//! its reason, a second copy is a row that names the first. Planning again with more slides appends rows; numbers that
//! exist never change. Never runs a slide, and reads no whole file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::worker::{Facts, Heard, Reply, Request, Trial, Worker};
use super::{CohortError, Layout, RESERVED_STEMS};
use crate::digest::sha256_hex;
use crate::pipeline::prepare::ALGORITHM;
use crate::run::{RunConfig, SlideConfig};
use crate::store::atomic;
use crate::tissue::MaskChoice;

/// Raised when an older program could not read the file any more.
const VERSION: u32 = 1;
/// Longest time that one slide's header may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(600);
/// Settings that no result depends on: they may differ between tasks.
const FREE_SETTINGS: [&str; 13] = [
    "output",
    "device",
    "batch-size",
    "dedupe-names",
    "restart",
    "shard",
    "mix-devices",
    "tile-size",
    "threads",
    "memory",
    "progress",
    "quiet",
    "log",
];

/// Settings that each row says by itself, or that a task of a cohort never gets.
pub const ROWS_SETTINGS: [&str; 9] = [
    "output",
    "model",
    "mpp",
    "mask",
    "roi",
    "dedupe-names",
    "restart",
    "shard",
    "log",
];

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
}

/// What a slide is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub seconds: f64,
    pub memory_bytes: u64,
    pub scratch_bytes: u64,
}

/// A setting with what it is and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub value: Value,
    pub from: String,
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

    /// The slide as a run takes it.
    ///
    /// # Errors
    /// A mask that is not there.
    pub fn slide(&self, config: &RunConfig) -> Result<SlideConfig, String> {
        Ok(SlideConfig {
            path: self.path.clone(),
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

    /// The settings that somebody chose, as flags of a command line; those that rows say are left out.
    pub fn flags(&self) -> Vec<String> {
        let chosen = self.settings.iter().filter(|(name, said)| {
            said.from != "default" && !ROWS_SETTINGS.contains(&name.as_str())
        });
        chosen
            .filter_map(|(name, said)| Some(format!("--{name}={}", flag_text(&said.value)?)))
            .collect()
    }
}

/// A setting's value as its flag takes it.
pub fn flag_text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(flag_text).collect();
            items.map(|items| items.join(","))
        }
        other => Some(other.to_string()),
    }
}

/// What `cohort plan` was asked.
pub struct Asked<'a> {
    pub layout: &'a Layout,
    pub slides: &'a [SlideConfig],
    pub config: &'a RunConfig,
    pub heartbeat_s: f64,
    pub stale_s: f64,
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
    let before = match asked.layout.plan().is_file() {
        true => Some(Cohort::read(asked.layout)?),
        false => None,
    };
    let known: BTreeMap<String, PathBuf> = before
        .iter()
        .flat_map(|cohort| &cohort.rows)
        .map(|row| (row.stem.clone(), row.path.clone()))
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
        match known.get(&row.stem) {
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
    let mut lookers = Lookers::new(start);
    let count = fresh.len();
    for (i, row) in fresh.iter_mut().enumerate() {
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
    let mut cohort = before.unwrap_or_else(|| empty(asked));
    for facts in fresh
        .iter()
        .filter_map(|row| Some((row, row.facts.as_ref()?)))
    {
        let (row, facts) = facts;
        let known = cohort
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
    let settings = settings_of(asked.config);
    let hash = settings_hash(&settings, &cohort.models);
    let hash_before = settings_hash(&cohort.settings, &cohort.models);
    if !cohort.rows.is_empty() && hash != hash_before {
        return Err(CohortError::Usage(format!(
            "{}: was planned with other settings ({}): use those, or another folder",
            asked.layout.plan().display(),
            differences(&cohort.settings, &settings).join("; ")
        )));
    }
    cohort.settings = settings;
    cohort.settings_sha256 = hash;
    if cohort.trial.is_none() {
        cohort.trial = lookers.try_one(&fresh, say)?;
    }
    price(&mut fresh, cohort.trial.as_ref());
    // The costliest first: the last task is not left with the largest slide.
    fresh.sort_by(|a, b| b.expected.seconds.total_cmp(&a.expected.seconds));
    for row in fresh {
        let row = Row {
            row: cohort.rows.len(),
            duplicate_of: first_of(&cohort.rows, &row),
            ..row
        };
        cohort.rows.push(row);
    }
    Ok(cohort)
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

fn settings_of(config: &RunConfig) -> BTreeMap<String, Said> {
    let text = |from| match serde_json::to_value(from) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    };
    let settings = config.settings.iter().map(|(name, setting)| {
        let said = Said {
            value: setting.value.clone(),
            from: text(setting.from),
        };
        (name.clone(), said)
    });
    settings.collect()
}

fn settings_hash(settings: &BTreeMap<String, Said>, models: &BTreeMap<String, String>) -> String {
    let counted: BTreeMap<&String, &Value> = settings
        .iter()
        .filter(|(name, _)| !FREE_SETTINGS.contains(&name.as_str()))
        .map(|(name, said)| (name, &said.value))
        .collect();
    let all = json!({"algorithm": ALGORITHM, "settings": counted, "models": models});
    sha256_hex(all.to_string().as_bytes())
}

fn differences(stored: &BTreeMap<String, Said>, wanted: &BTreeMap<String, Said>) -> Vec<String> {
    let value = |settings: &BTreeMap<String, Said>, name: &str| {
        settings.get(name).map(|said| said.value.clone())
    };
    let names = stored.keys().filter(|name| {
        !FREE_SETTINGS.contains(&name.as_str()) && value(stored, name) != value(wanted, name)
    });
    let text = |value: Option<Value>| value.map_or("nothing".into(), |value| value.to_string());
    names
        .map(|name| {
            let (then, now) = (text(value(stored, name)), text(value(wanted, name)));
            format!("{name}: {then} then, {now} now")
        })
        .collect()
}

/// What each row takes, in proportion to the slide that was tried.
fn price(rows: &mut [Row], trial: Option<&Trial>) {
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

/// Processes that look at slides, one after another: a file that kills one costs that file alone.
struct Lookers<'a> {
    start: &'a dyn Fn() -> std::io::Result<std::process::Command>,
    worker: Option<Worker>,
}

impl<'a> Lookers<'a> {
    fn new(start: &'a dyn Fn() -> std::io::Result<std::process::Command>) -> Self {
        Self {
            start,
            worker: None,
        }
    }

    /// The answer to a request; the inner error is why the slide cannot be used.
    fn ask(&mut self, request: &Request) -> Result<Result<Reply, String>, CohortError> {
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => {
                let command = (self.start)().map_err(|error| {
                    CohortError::Machine(format!("a process cannot be started: {error}"))
                })?;
                Worker::start(command)?
            }
        };
        worker.ask(request);
        match worker.hear(LOOK_PATIENCE) {
            Heard::Reply(Reply::Refused(why)) => Err(CohortError::Usage(why)),
            Heard::Reply(Reply::Unusable(why)) => {
                self.worker = Some(worker);
                Ok(Err(why))
            }
            Heard::Reply(reply) => {
                self.worker = Some(worker);
                Ok(Ok(reply))
            }
            Heard::Nothing => Ok(Err(format!(
                "its header could not be read within {} s",
                LOOK_PATIENCE.as_secs()
            ))),
            Heard::Gone => {
                let last = worker.last_lines().join("; ");
                let status = worker.wait();
                match status.and_then(|status| status.code()) {
                    // It did not come as far as the slide.
                    Some(2 | 3) => Err(CohortError::Usage(last)),
                    _ => Ok(Err(format!(
                        "the process that read its header died ({}): the file may be damaged",
                        status.map_or("unknown".into(), |status| status.to_string())
                    ))),
                }
            }
        }
    }

    fn look(&mut self, row: &Row) -> Result<Result<Facts, String>, CohortError> {
        Ok(match self.ask(&Request::Look(row.clone()))? {
            Ok(Reply::Looked(facts)) => Ok(*facts),
            Ok(other) => Err(format!("no answer to the question: {other:?}")),
            Err(why) => Err(why),
        })
    }

    /// A trial of the slide in the middle by size; of another, where that one cannot be read through.
    fn try_one(&mut self, rows: &[Row], say: &dyn Fn(&str)) -> Result<Option<Trial>, CohortError> {
        let patches = |row: &&Row| row.facts.as_ref().map_or(0, |facts| facts.patches);
        let mut rows: Vec<&Row> = rows.iter().filter(|row| patches(row) > 0).collect();
        rows.sort_by_key(patches);
        let middle = rows.len() / 2;
        for row in rows
            .iter()
            .skip(middle)
            .chain(rows.iter().take(middle))
            .take(3)
        {
            say(&format!("trying a few tiles of {}", row.stem));
            if let Ok(Reply::Tried(trial)) = self.ask(&Request::Try((*row).clone()))? {
                return Ok(Some(trial));
            }
        }
        Ok(None)
    }
}

/// What a site would bill for all rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Bill {
    pub slides: usize,
    pub unreadable: usize,
    pub duplicates: usize,
    pub tissue_mm2: f64,
    pub hours: f64,
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
        bill.longest_s = bill.longest_s.max(row.expected.seconds);
        bill.memory_bytes = bill.memory_bytes.max(row.expected.memory_bytes);
        bill.disk_bytes += (row.expected.scratch_bytes as f64 * (1.0 + OUTPUTS_PER_STORE)) as u64;
    }
    bill
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
    fn costs_follow_the_trial_in_proportion() {
        let trial = Trial {
            patches: 10,
            planned_mm2: 5.0,
            seconds: 20.0,
            memory_bytes: 7,
            scratch_bytes: 50,
            ..Trial::default()
        };
        let mut rows = [row("a", "1", 30), row("b", "2", 5)];
        price(&mut rows, Some(&trial));
        let seconds: Vec<f64> = rows.iter().map(|row| row.expected.seconds).collect();
        assert_eq!(seconds, [60.0, 10.0]);
        assert_eq!(rows[0].expected.scratch_bytes, 300);
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

    #[test]
    fn the_hash_knows_what_results_depend_on_and_nothing_else() {
        let said = |value: Value| Said {
            value,
            from: "flag".into(),
        };
        let of = |mpp: Value, threads: Value| {
            let settings = [("mpp", mpp), ("threads", threads)];
            let settings = settings.map(|(name, value)| (name.to_owned(), said(value)));
            settings_hash(&settings.into(), &BTreeMap::new())
        };
        assert_eq!(of(json!(0.5), json!(1)), of(json!(0.5), json!(8)));
        assert_ne!(of(json!(0.5), json!(1)), of(json!(0.25), json!(1)));
    }

    #[test]
    fn settings_become_the_flags_that_they_were() {
        assert_eq!(flag_text(&json!("otsu")).unwrap(), "otsu");
        assert_eq!(flag_text(&json!(["json", "csv"])).unwrap(), "json,csv");
        assert_eq!(flag_text(&json!(0.25)).unwrap(), "0.25");
        assert_eq!(flag_text(&json!(true)).unwrap(), "true");
        assert_eq!(flag_text(&Value::Null), None);
    }
}
