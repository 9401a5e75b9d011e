//! `run SLIDE… -o OUT`: slides to nuclei, one after another; an error of one leaves the others running. Several slides
//! run in processes of their own (`children`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use image::RgbImage;
use image::imageops::FilterType;
use wsi_nuclei::config::{Format, PostprocRules, RunConfig, Settings, Shard, SlideConfig};
use wsi_nuclei::model::ModelError;
use wsi_nuclei::output::pictures::OVERLAY_SIDE_PX;
use wsi_nuclei::output::run_json::{self, ModelReport, RunReport, SlideReport};
use wsi_nuclei::output::{self, OutputError, Pictures, SlideResult, crops};
use wsi_nuclei::pipeline::events::Event;
use wsi_nuclei::pipeline::{self, PipelineError};
use wsi_nuclei::slide::{self, SlideReader};
use wsi_nuclei::store::StoreError;
use wsi_nuclei::tissue::{TissueError, TissueMask};

use super::models::Models;
use super::progress::Progress;
use super::{EXIT_NONE, EXIT_SOME, EXIT_STOPPED, EXIT_USAGE, Failure, children, inputs, signals};

/// µm a px of overlay.png, where the slide is small enough.
const OVERLAY_MPP: f64 = 0.25;

/// Slides to nuclei: find tissue, infer, stitch, write OUT/<stem>/.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Slides, or folders of slides
    #[arg(value_name = "SLIDE")]
    slides: Vec<PathBuf>,
    /// Look into folders of folders
    #[arg(short, long)]
    recursive: bool,
    /// CSV of slides: path, and optionally id, mpp, mask, roi, model
    #[arg(long, value_name = "CSV", conflicts_with_all = ["slides", "recursive"])]
    manifest: Option<PathBuf>,
    /// TOML file of settings; `config/default.toml` lists them all
    #[arg(long, value_name = "FILE", env = "WSI_NUCLEI_CONFIG")]
    config: Option<PathBuf>,
    /// The one slide, by its folder's name, that this process runs for a parent
    #[arg(long, value_name = "STEM", hide = true)]
    only: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// How one slide ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Done {
        nuclei: usize,
    },
    /// A shard has done its share; others have not.
    Share {
        tiles_left: usize,
    },
    /// Results are there, but parts could not be read or are not done yet.
    Incomplete {
        nuclei: usize,
        why: String,
    },
    /// Stopped on request; the checkpoint is written.
    Stopped,
    /// Nothing was started: the settings do not fit (another identity in the store, a wrong model folder).
    Refused(String),
    Failed(String),
}

pub fn main(args: RunArgs) -> Result<(), Failure> {
    if args.only.is_some() {
        children::die_with_parent();
    }
    let config = RunConfig::resolve(args.settings, args.config.as_deref(), |name| {
        std::env::var_os(name)
    })?;
    if config.postproc == PostprocRules::Reference {
        return Err(Failure::usage(
            "--postproc reference scales each map by itself, so on a slide its answer would depend on the tiling: \
             it is for `tile` and `postproc`; leave it out here",
        ));
    }
    let mut slides = match &args.manifest {
        Some(manifest) => inputs::from_manifest(manifest, &config)?,
        None if args.slides.is_empty() => {
            return Err(Failure::usage(
                "no slide: name slides or folders, or give --manifest CSV",
            ));
        }
        None => inputs::from_paths(
            &args.slides,
            args.recursive,
            inputs::slide_extensions(),
            &config,
        )?,
    };
    writable(&config.output)?;
    let progress = Progress::new(&config)?;
    let stop = signals::stop_flag()?;
    if let Some(stem) = &args.only {
        slides.retain(|slide| &slide.stem == stem);
        if slides.is_empty() {
            return Err(Failure::slides(format!(
                "{stem}: is no longer among the slides"
            )));
        }
    }
    let endings = if slides.len() > 1 {
        children::each(&slides, &progress, &stop)?
    } else {
        let mut models = Models::new(&config)?;
        each(&slides, &progress, &stop, |slide| {
            one(slide, &config, &mut models, &progress, &stop)
        })
    };
    match exit_code(&endings) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

/// Runs `one` on slide after slide, until all are done or a signal asks to stop, and says how each ended.
pub fn each(
    slides: &[SlideConfig],
    progress: &Progress,
    stop: &AtomicBool,
    mut one: impl FnMut(&SlideConfig) -> Ending,
) -> Vec<Ending> {
    let mut endings = Vec::new();
    for slide in slides {
        progress.begin(&slide.stem);
        let started = Instant::now();
        let ending = one(slide);
        let seconds = started.elapsed().as_secs_f64();
        match &ending {
            Ending::Done { nuclei } => progress.end(&format!(
                "{nuclei} nuclei in {seconds:.1} s, written to {}",
                slide.folder.display()
            )),
            Ending::Share { tiles_left } => progress.end(&format!(
                "share done in {seconds:.1} s; {tiles_left} tiles of other shares are not done yet"
            )),
            Ending::Incomplete { nuclei, why } => progress.error(&format!(
                "{}: incomplete, {why}; the {nuclei} nuclei found are in {}",
                slide.path.display(),
                slide.folder.display()
            )),
            Ending::Stopped => {
                progress.end("stopped; what was done is kept: run the same command again to go on");
            }
            Ending::Refused(why) | Ending::Failed(why) => progress.error(why),
        }
        let stopped = ending == Ending::Stopped;
        endings.push(ending);
        if stopped || stop.load(Ordering::Relaxed) {
            if !stopped && endings.len() < slides.len() {
                endings.push(Ending::Stopped);
            }
            break;
        }
    }
    endings
}

/// One slide, with run.json beside its results however it ended.
fn one(
    slide: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    progress: &Progress,
    stop: &AtomicBool,
) -> Ending {
    let clock = Instant::now();
    let mut report = RunReport {
        engine: models.engine(config),
        slide: SlideReport {
            path: slide.path.display().to_string(),
            ..SlideReport::default()
        },
        settings: config.settings.clone(),
        started_unix_s: unix_seconds(),
        ..RunReport::default()
    };
    let ending = match work(slide, config, models, progress, stop, &mut report) {
        Ok(ending) => ending,
        Err(failure) => failure.into(),
    };
    report.seconds = clock.elapsed().as_secs_f64();
    report.peak_memory_bytes = wsi_nuclei::machine::peak_memory_bytes();
    report.exit_code = exit_code(std::slice::from_ref(&ending));
    report.error = match &ending {
        Ending::Failed(why) | Ending::Refused(why) | Ending::Incomplete { why, .. } => {
            Some(why.clone())
        }
        Ending::Done { .. } | Ending::Share { .. } | Ending::Stopped => None,
    };
    // A slide that never got a folder, or whose folder belongs to another run, gets no report either.
    let ours = slide.folder.is_dir() && !matches!(ending, Ending::Refused(_));
    let name = match (config.shard, &ending) {
        // Shards that end at the same time must not write over each other; the last one writes for the slide.
        (Some(Shard { index, of }), Ending::Share { .. } | Ending::Stopped | Ending::Failed(_)) => {
            format!("run-{index}-of-{of}.json")
        }
        _ => "run.json".to_owned(),
    };
    let written = ours.then(|| run_json::write(&report, &slide.folder.join(name)));
    match (written, ending) {
        (Some(Err(error)), Ending::Done { .. } | Ending::Share { .. }) => {
            Ending::Failed(error.to_string())
        }
        (Some(Err(error)), Ending::Incomplete { nuclei, why }) => Ending::Incomplete {
            nuclei,
            why: format!("{why}; {error}"),
        },
        // What went wrong before is what the user must hear: a full disk takes run.json down as well.
        (_, ending) => ending,
    }
}

/// The only place that calls the pipeline.
fn work(
    slide: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    progress: &Progress,
    stop: &AtomicBool,
    report: &mut RunReport,
) -> Result<Ending, SlideFailure> {
    let model = models.get(&slide.model)?;
    report.model = ModelReport {
        name: model.spec.name.clone(),
        sha256: Some(model.weights_sha256.clone()),
    };
    let mut prepared = pipeline::prepare(slide, config, &model)?;
    report.slide.quickhash = Some(prepared.meta.slide.quickhash.clone());
    report.slide.bytes = Some(prepared.meta.slide.file_bytes);
    let store = prepared.open_store(&slide.folder.join("store.zarr"), config.restart)?;
    let thumb = store.thumb().map_err(PipelineError::from)?;
    let mask = store.mask().map_err(PipelineError::from)?;
    let batch = config.batch_size.unwrap_or(models.default_batch());
    let finished = pipeline::run(prepared, &store, model, batch, stop, &|event| {
        progress.event(event);
    })?;
    let result = &finished.loaded.slide;
    report.stages = finished.stages;
    report.tiles_planned = result.meta.planned_tiles.len();
    report.tiles_reused = finished.tiles_reused;
    report.nuclei = result.nuclei.len();
    report.nuclei_over_2_tiles = finished.loaded.seams.nuclei_over_2_tiles;
    report.nuclei_over_4_tiles = finished.loaded.seams.nuclei_over_4_tiles;

    progress.event(Event::Stage("writing"));
    let reader = slide::open(&slide.path).map_err(PipelineError::from)?;
    let overlay = config
        .formats
        .contains(&Format::Overlay)
        .then(|| overlay_picture(reader.as_ref(), result))
        .transpose()?;
    let crops = crops_of(result, reader.as_ref(), &mask, &config.formats);
    let pictures = Pictures {
        thumb,
        mask,
        overlay,
        crops,
        legend: true,
    };
    output::write_all(result, pictures, config.choice(), &slide.folder)?;
    for warning in output::plausible::warnings(result) {
        progress.event(Event::Warning(warning));
    }
    Ok(ending_of(result))
}

/// The slide as overlay.png shows it: at 0.25 µm/px (outlines of 2 px stay thin) or level 0, whichever is finer, but
/// no side longer than [`OVERLAY_SIDE_PX`].
fn overlay_picture(
    reader: &dyn SlideReader,
    result: &SlideResult,
) -> Result<RgbImage, PipelineError> {
    let picture = slide::thumb::thumb(reader, OVERLAY_SIDE_PX)?;
    let frames = result.frames();
    let longest_px = frames.level0_size_px[0]
        .max(frames.level0_size_px[1])
        .max(1) as f64;
    let finest = (frames.level0_mpp[0] / OVERLAY_MPP).max(1.0);
    let scale = finest.min(f64::from(OVERLAY_SIDE_PX) / longest_px);
    if scale <= 1.0 {
        return Ok(picture);
    }
    let side = |px: u32| (f64::from(px) * scale).round() as u32;
    let (width, height) = (side(picture.width()), side(picture.height()));
    Ok(image::imageops::resize(
        &picture,
        width,
        height,
        FilterType::Triangle,
    ))
}

/// The fields of crops/ with their level-0 pixels, if asked for; those that cannot be read are left out.
pub fn crops_of(
    result: &SlideResult,
    reader: &dyn SlideReader,
    mask: &TissueMask,
    formats: &[Format],
) -> Vec<(crops::Field, RgbImage)> {
    if !formats.contains(&Format::Crops) {
        return Vec::new();
    }
    crops::choose(result, mask)
        .into_iter()
        .filter_map(|field| {
            let [x, y, w, h] = field.level0_px;
            let pixels = reader.read_level(0, x, y, w as u32, h as u32).ok()?;
            Some((field, pixels))
        })
        .collect()
}

/// Done, or what is missing.
pub fn ending_of(result: &SlideResult) -> Ending {
    let nuclei = result.nuclei.len();
    let mut why = Vec::new();
    if result.unreadable_px > 0 {
        let reason = result.read_errors.first().map_or("", String::as_str);
        why.push(format!(
            "{:.4} mm² could not be read ({reason})",
            result.frames().mm2(result.unreadable_px)
        ));
    }
    if result.missing_tiles > 0 {
        why.push(format!("{} tiles are not done", result.missing_tiles));
    }
    if why.is_empty() {
        Ending::Done { nuclei }
    } else {
        Ending::Incomplete {
            nuclei,
            why: why.join(", "),
        }
    }
}

fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// Why a slide could not be done, on its way to an [`Ending`].
#[derive(Debug, thiserror::Error)]
pub enum SlideFailure {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl From<SlideFailure> for Ending {
    fn from(failure: SlideFailure) -> Self {
        let text = failure.to_string();
        match failure {
            SlideFailure::Pipeline(PipelineError::Stopped) => Ending::Stopped,
            SlideFailure::Pipeline(PipelineError::ShareDone { tiles_left }) => {
                Ending::Share { tiles_left }
            }
            // Settings that cannot work, whatever the slide: nothing was started.
            SlideFailure::Model(_)
            | SlideFailure::Pipeline(
                PipelineError::Memory { .. }
                | PipelineError::Tissue(TissueError::Mask { .. } | TissueError::Region { .. })
                | PipelineError::Identity(_)
                | PipelineError::Numerics { .. }
                | PipelineError::Store(StoreError::Busy { .. }),
            ) => Ending::Refused(text),
            _ => Ending::Failed(text),
        }
    }
}

/// The exit code that the endings of all slides come to.
pub fn exit_code(endings: &[Ending]) -> u8 {
    let count = |of: fn(&Ending) -> bool| endings.iter().filter(|ending| of(ending)).count();
    let done = count(|e| matches!(e, Ending::Done { .. } | Ending::Share { .. }));
    let incomplete = count(|e| matches!(e, Ending::Incomplete { .. }));
    let refused = count(|e| matches!(e, Ending::Refused(_)));
    if endings.contains(&Ending::Stopped) {
        EXIT_STOPPED
    } else if done == endings.len() {
        0
    } else if done + incomplete > 0 {
        EXIT_SOME
    } else if refused == endings.len() {
        EXIT_USAGE
    } else {
        EXIT_NONE
    }
}

/// Makes the output folder and tries to write into it, before any work is done.
pub fn writable(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .and_then(|()| tempfile::tempfile_in(folder).map(drop))
        .map_err(|error| {
            Failure::usage(format!(
                "{}: results cannot be written there: {error}: choose another folder with -o",
                folder.display()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let done = || Ending::Done { nuclei: 1 };
        let partly = || Ending::Incomplete {
            nuclei: 1,
            why: String::new(),
        };
        let failed = || Ending::Failed(String::new());
        let refused = || Ending::Refused(String::new());
        assert_eq!(exit_code(&[done(), done()]), 0);
        assert_eq!(exit_code(&[done(), failed()]), 1);
        assert_eq!(exit_code(&[done(), Ending::Share { tiles_left: 3 }]), 0);
        assert_eq!(exit_code(&[partly()]), 1);
        assert_eq!(exit_code(&[done(), refused()]), 1);
        assert_eq!(exit_code(&[refused()]), 2);
        assert_eq!(exit_code(&[refused(), failed()]), 3);
        assert_eq!(exit_code(&[failed(), failed()]), 3);
        assert_eq!(exit_code(&[done(), Ending::Stopped]), 75);
    }
}
