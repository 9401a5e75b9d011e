//! One slide, from its file to its folder of results.
//!
//! In: a [`SlideConfig`], the run's settings, models. Out: `OUT/<stem>/` with store, tables, pictures and
//! run.json, which is written however the slide ended. The slide is opened once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use image::RgbImage;

use super::attempts::Attempt;
use super::ending::Cause;
use super::pictures::{read_crops, read_overlay};
use super::run_json::{self, RunReport};
use super::{Ending, Models, RunConfig, RunEvent, SlideConfig, SlideFailure, Watch};
use crate::machine::peak_memory_bytes;
use crate::model::Pool;
use crate::output::{self, Format, Pictures};
use crate::pipeline::events::Event;
use crate::pipeline::{self, PipelineError, Prepared, Request, telemetry};
use crate::plan::Shard;
use crate::result::SlideResult;
use crate::slide::SlideReader;
use crate::store::Store;
use crate::tissue::TissueMask;

/// A slide whose nuclei are known and in its store.
pub(super) struct AnalysedSlide {
    pub result: SlideResult,
    pub thumb: RgbImage,
    pub mask: TissueMask,
    pub reader: Arc<dyn SlideReader>,
}

/// Runs one slide and writes its results, with run.json beside them however it ended.
pub fn run_slide(
    slide: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    watch: Watch<'_>,
    stop: &AtomicBool,
) -> Ending {
    run_slide_if(slide, config, models, watch, stop, Hooks::default()).ending
}

/// Where a parent takes part in the run of a slide.
#[derive(Clone, Copy)]
pub struct Hooks<'a> {
    /// Asked once all nuclei are known. Where the answer is no, nothing more is written: another process has this slide
    /// now.
    pub may_write: &'a dyn Fn() -> bool,
    /// The slide as it was opened before its turn, if it was.
    pub opened: &'a dyn Fn(&Request) -> Option<Prepared>,
}

impl Default for Hooks<'_> {
    fn default() -> Self {
        Self {
            may_write: &|| true,
            opened: &|_| None,
        }
    }
}

/// Runs one slide as [`run_slide`] does, with a parent's part in it.
pub fn run_slide_if(
    slide: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    watch: Watch<'_>,
    stop: &AtomicBool,
    hooks: Hooks<'_>,
) -> Attempt {
    let clock = Instant::now();
    let mut report = RunReport {
        engine: models.engine(),
        ..RunReport::begin(slide, config)
    };
    let outcome = analyse_slide(slide, config, models, watch, stop, &mut report, hooks);
    if outcome.is_ok() && !(hooks.may_write)() {
        return Attempt {
            ending: Ending::Stopped,
            cause: Cause::Busy,
        };
    }
    let outcome = outcome.and_then(|analysed| {
        let write = || write_results(slide, config, analysed, watch);
        let (written, stage) = telemetry::alone("write", write);
        report.stages.push(stage);
        written
    });
    let cause = outcome
        .as_ref()
        .map_or_else(SlideFailure::cause, |_| Cause::Lasting);
    let ending = named_as_asked(outcome.unwrap_or_else(Ending::from), slide);
    report.seconds = clock.elapsed().as_secs_f64();
    report.peak_memory_bytes = peak_memory_bytes();
    // Nothing was started, or the folder belongs to another run.
    if matches!(ending, Ending::Refused(_)) {
        return Attempt { ending, cause };
    }
    // A slide that failed before it had a folder gets one, with the reason in it.
    if !slide.folder.is_dir() && !matches!(ending, Ending::Failed(_)) {
        return Attempt { ending, cause };
    }
    let path = report_path(slide, config, &ending);
    let ending = run_json::finish(report, &path, ending);
    Attempt { ending, cause }
}

/// An ending whose reason names the slide, though a copy was read: that is gone soon, and its name tells nobody anything.
fn named_as_asked(ending: Ending, slide: &SlideConfig) -> Ending {
    let Some(copy) = &slide.read_from else {
        return ending;
    };
    let (copy, path) = (copy.display().to_string(), slide.path.display().to_string());
    ending.with_reason(|why| why.replace(&copy, &path))
}

/// Writes run.json for a slide whose process died before it could: what is left is the reason.
///
/// # Errors
/// A file that cannot be written.
pub fn report_death(
    slide: &SlideConfig,
    config: &RunConfig,
    ending: &Ending,
    seconds: f64,
) -> Result<(), output::OutputError> {
    let mut report = RunReport {
        seconds,
        ..RunReport::begin(slide, config)
    };
    report.started_unix_s = report.started_unix_s.saturating_sub(seconds as u64);
    run_json::write(report, &report_path(slide, config, ending), ending)
}

fn report_path(slide: &SlideConfig, config: &RunConfig, ending: &Ending) -> PathBuf {
    let name = match (config.shard, ending) {
        // Shards that end at the same time must not write over each other; the last one writes for the slide.
        (Some(Shard { index, of }), Ending::Share { .. } | Ending::Stopped | Ending::Failed(_)) => {
            format!("run-{index}-of-{of}.json")
        }
        _ => "run.json".to_owned(),
    };
    slide.folder.join(name)
}

/// Brings a slide's store to its end and reads all nuclei from it.
pub(super) fn analyse_slide(
    slide: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    watch: Watch<'_>,
    stop: &AtomicBool,
    report: &mut RunReport,
    hooks: Hooks<'_>,
) -> Result<AnalysedSlide, SlideFailure> {
    let (started, start) =
        telemetry::alone("start", || start(slide, config, models, report, hooks));
    let Started {
        pool,
        prepared,
        store,
        thumb,
        mask,
    } = started?;
    let reader = prepared.image.reader().clone();
    let finished = pipeline::run(prepared, &store, &pool, stop, &|event| {
        watch(RunEvent::Slide(event));
    })?;
    let mut result = finished.loaded.slide;
    // No result depends on it, so the store may hold an earlier manifest's.
    result.meta.manifest.clone_from(&slide.manifest);
    report.stages = finished.stages;
    report.stages.insert(0, start);
    report.read_px = finished.read_px;
    report.tiles_planned = result.coverage.planned_tiles;
    report.tiles_reused = finished.tiles_reused;
    report.nuclei = result.nuclei.len();
    report.nuclei_over_2_tiles = finished.loaded.seams.nuclei_over_2_tiles;
    report.nuclei_over_4_tiles = finished.loaded.seams.nuclei_over_4_tiles;
    Ok(AnalysedSlide {
        result,
        thumb,
        mask,
        reader,
    })
}

/// A slide whose first patch can be read.
struct Started {
    pool: Pool,
    prepared: Prepared,
    store: Store,
    thumb: RgbImage,
    mask: TissueMask,
}

/// Everything before the first patch: the model, the plan, the store.
fn start(
    slide: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    report: &mut RunReport,
    hooks: Hooks<'_>,
) -> Result<Started, SlideFailure> {
    let pool = models.get(&slide.model)?;
    report.engine.precision = pool.model().precision.name().into();
    report.model = pool.model().as_ref().into();
    let request = slide.request(config);
    let mut prepared = match (hooks.opened)(&request) {
        Some(prepared) => prepared,
        None => pipeline::prepare(&request, &pool)?,
    };
    report.slide.quickhash = Some(prepared.meta.slide.quickhash.clone());
    report.slide.bytes = Some(prepared.meta.slide.file_bytes);
    let store = prepared.open_store(&slide.folder.join("store.zarr"), config.restart)?;
    let thumb = store.thumb().map_err(PipelineError::from)?;
    let mask = store.mask().map_err(PipelineError::from)?;
    Ok(Started {
        pool,
        prepared,
        store,
        thumb,
        mask,
    })
}

fn write_results(
    slide: &SlideConfig,
    config: &RunConfig,
    analysed: AnalysedSlide,
    watch: Watch<'_>,
) -> Result<Ending, SlideFailure> {
    watch(RunEvent::Slide(Event::Stage("writing")));
    let AnalysedSlide {
        result,
        thumb,
        mask,
        reader,
    } = analysed;
    let formats = config.formats_of_slides();
    let overlay = match formats.contains(&Format::Overlay) {
        true => Some(read_overlay(reader.as_ref(), &result).map_err(PipelineError::from)?),
        false => None,
    };
    let crops = read_crops(&result, reader.as_ref(), &mask, &formats);
    let pictures = Pictures {
        overlay,
        crops,
        ..Pictures::new(thumb, mask)
    };
    output::write_all(&result, pictures, config.choice(&formats), &slide.folder)?;
    for warning in output::summary_json::result_warnings(&result) {
        watch(RunEvent::Slide(Event::Warning(warning)));
    }
    Ok(Ending::of_result(&result))
}

/// Writes outputs again from the store at `store` into `folder`: no slide, no network. Returns the nuclei.
///
/// # Errors
/// A store that cannot be read, or a file that cannot be written.
pub fn export_store(
    store: &Path,
    choice: output::Choice<'_>,
    folder: &Path,
) -> Result<SlideResult, SlideFailure> {
    let store = Store::open(store).map_err(PipelineError::from)?;
    let thumb = store.thumb().map_err(PipelineError::from)?;
    let mask = store.mask().map_err(PipelineError::from)?;
    let result = pipeline::load(&store)?.slide;
    output::write_all(&result, Pictures::new(thumb, mask), choice, folder)?;
    Ok(result)
}
