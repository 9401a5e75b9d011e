//! run.json: how a slide was run. The only file that may hold a clock.
//!
//! In: a [`RunReport`] and how the slide ended. Out: the file. Written for a slide that failed, too: then `error` says
//! why.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::config::Setting;
use super::{Ending, RunConfig, SlideConfig, exit_code};
use crate::model::Model;
use crate::output::{OutputError, write_file};
use crate::pipeline::ReadPx;
use crate::pipeline::telemetry::StageReport;

/// What computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Engine {
    pub version: String,
    pub libtorch: String,
    pub openslide: String,
    /// `cpu`, `cuda:0`, …
    pub device: String,
    /// After `auto`.
    pub precision: String,
    pub threads: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModelReport {
    pub name: String,
    pub sha256: Option<String>,
}

impl From<&Model> for ModelReport {
    fn from(model: &Model) -> Self {
        Self {
            name: model.spec.name.clone(),
            sha256: Some(model.weights_sha256.clone()),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SlideReport {
    pub path: String,
    pub quickhash: Option<String>,
    pub bytes: Option<u64>,
}

/// The content of run.json.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunReport {
    pub engine: Engine,
    pub slide: SlideReport,
    pub model: ModelReport,
    /// By public name, each with `value` and `from`.
    pub settings: BTreeMap<String, Setting>,
    /// Seconds since 1970-01-01 UTC.
    pub started_unix_s: u64,
    pub seconds: f64,
    pub stages: Vec<StageReport>,
    /// Proc px read from the slide by this run, and those of the blocks that its patches meet.
    pub read_px: ReadPx,
    pub tiles_planned: usize,
    pub tiles_reused: usize,
    pub nuclei: usize,
    /// Nuclei through which a seam of the tiles ran, and those on a crossing of four.
    pub nuclei_over_2_tiles: usize,
    pub nuclei_over_4_tiles: usize,
    pub peak_memory_bytes: Option<u64>,
    pub exit_code: u8,
    pub error: Option<String>,
}

impl RunReport {
    /// What is known of a slide or image before anything is done.
    pub fn begin(slide: &SlideConfig, config: &RunConfig) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            slide: SlideReport {
                path: slide.path.display().to_string(),
                ..SlideReport::default()
            },
            settings: config.settings.clone(),
            started_unix_s: now.map_or(0, |since| since.as_secs()),
            ..Self::default()
        }
    }
}

/// Writes `path`, with how it ended.
///
/// # Errors
/// A file that cannot be written.
pub fn write(mut report: RunReport, path: &Path, ending: &Ending) -> Result<(), OutputError> {
    report.exit_code = exit_code(std::slice::from_ref(ending));
    report.error = ending.reason().map(str::to_owned);
    write_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        out.write_all(b"\n")
    })
}

/// Writes `path`. The ending is another one where that fails.
pub fn finish(report: RunReport, path: &Path, ending: Ending) -> Ending {
    match (write(report, path, &ending), ending) {
        (Err(error), Ending::Done { .. } | Ending::Share { .. }) => {
            Ending::Failed(error.to_string())
        }
        (Err(error), Ending::Incomplete { nuclei, why }) => Ending::Incomplete {
            nuclei,
            why: format!("{why}; {error}"),
        },
        // What went wrong before is what the user must hear: a full disk takes run.json down as well.
        (_, ending) => ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::peak_memory_bytes;
    use crate::run::config::Origin;

    #[test]
    fn says_what_was_set_and_where_it_came_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/run.json");
        let setting = Setting {
            value: 4.into(),
            from: Origin::Environment,
        };
        let report = RunReport {
            settings: [("threads".to_owned(), setting)].into(),
            stages: vec![StageReport {
                name: "read".into(),
                workers: 2,
                busy_s: 1.5,
                cpu_s: 1.25,
                waiting_for_input_s: 0.0,
                waiting_for_output_s: 0.25,
            }],
            peak_memory_bytes: peak_memory_bytes(),
            ..RunReport::default()
        };
        write(report, &path, &Ending::Stopped).unwrap();
        let read: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["settings"]["threads"]["value"], 4);
        assert_eq!(read["settings"]["threads"]["from"], "environment");
        assert_eq!(read["stages"][0]["waiting_for_output_s"], 0.25);
        assert_eq!(read["exit_code"], 75);
        assert!(read["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }
}
