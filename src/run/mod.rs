//! The front door: settings and slides in, results and files out.
//!
//! In: a [`RunConfig`] and the slides, images or maps to work on. Out: files in each slide's folder, an [`Ending`] for
//! each, and [`RunEvent`]s on the way. `run`, `tile`, `postproc` and `hovernet` all come through here. Never reads a
//! command line, never prints, never ends the process.

pub mod attempts;
pub mod children;
pub mod config;
pub mod ending;
pub mod hovernet;
pub mod image;
pub mod inputs;
pub mod map;
pub mod models;
mod pictures;
pub mod run_json;
pub mod scale_estimate;
pub mod slide;
pub mod stage;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use attempts::{Attempt, Attempts};
pub use config::{Origin, RunConfig, Setting, SlideConfig};
pub use ending::{Ending, SlideFailure, exit_code};
pub use models::Models;

use crate::pipeline::events::Event;
use crate::pipeline::{self, PipelineError};
use crate::result::SlideResult;
use crate::store::Store;

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// What was asked for is wrong, whatever the slides.
    #[error("{0}")]
    Usage(String),
    /// The machine cannot do it: no threads, no process.
    #[error("{0}")]
    Machine(String),
}

/// What happens while slides run, for whoever watches.
pub enum RunEvent<'a> {
    /// A slide begins.
    Begun(&'a SlideConfig),
    /// Something happened to the slide in work.
    Slide(Event),
    /// A slide has ended, after so many seconds.
    Ended {
        slide: &'a SlideConfig,
        ending: &'a Ending,
        seconds: f64,
    },
}

/// Who hears the events. May be called from any thread and must not block.
pub type Watch<'a> = &'a (dyn Fn(RunEvent<'_>) + Sync);

/// Runs one slide into `config.output/<stem>/`. Loads the model for this slide alone.
///
/// ```no_run
/// use wsi_nuclei::{Ending, RunConfig, run_slide};
///
/// let config = RunConfig { output: "results".into(), ..RunConfig::default() };
/// match run_slide("slide.svs".as_ref(), &config)? {
///     Ending::Done { nuclei } => println!("{nuclei} nuclei"),
///     other => println!("{}", other.reason().unwrap_or("not done")),
/// }
/// # Ok::<(), wsi_nuclei::RunError>(())
/// ```
///
/// # Errors
/// [`RunError`] where nothing could be started. A slide that fails is an [`Ending`].
pub fn run_slide(path: &Path, config: &RunConfig) -> Result<Ending, RunError> {
    let paths = [path.to_owned()];
    let slides = inputs::from_paths(&paths, false, inputs::slide_extensions(), config)?;
    let [slide] = slides.as_slice() else {
        return Err(RunError::Usage(format!(
            "{}: name one slide",
            path.display()
        )));
    };
    check_writable(&config.output)?;
    let mut models = Models::new(config)?;
    let go_on = AtomicBool::new(false);
    Ok(slide::run_slide(
        slide,
        config,
        &mut models,
        &|_| {},
        &go_on,
    ))
}

/// Reads the result of a finished slide from its folder (`OUT/<stem>`) or its store.
///
/// ```no_run
/// let result = wsi_nuclei::read_result("results/slide".as_ref())?;
/// for record in result.records() {
///     println!("{}: {:?}", record.id, record.type_id);
/// }
/// # Ok::<(), wsi_nuclei::PipelineError>(())
/// ```
///
/// # Errors
/// No store there, or one that cannot be read.
pub fn read_result(folder: &Path) -> Result<SlideResult, PipelineError> {
    let inner = folder.join("store.zarr");
    let store = match inner.is_dir() {
        true => Store::open(&inner)?,
        false => Store::open(folder)?,
    };
    Ok(pipeline::load(&store)?.slide)
}

/// Runs `run_slide` on slide after slide, until all are done or `stop` is raised. An error of one slide
/// leaves the others running.
pub fn run_in_turn(
    slides: &[SlideConfig],
    watch: Watch<'_>,
    stop: &AtomicBool,
    mut run_slide: impl FnMut(&SlideConfig) -> Result<Ending, SlideFailure>,
) -> Vec<Ending> {
    let mut endings = Vec::new();
    for slide in slides {
        watch(RunEvent::Begun(slide));
        let started = Instant::now();
        let ending = run_slide(slide).unwrap_or_else(Ending::from);
        watch(RunEvent::Ended {
            slide,
            ending: &ending,
            seconds: started.elapsed().as_secs_f64(),
        });
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

/// Makes the output folder and tries to write into it, before any work is done.
///
/// # Errors
/// [`RunError::Usage`] where it cannot be written.
pub fn check_writable(folder: &Path) -> Result<(), RunError> {
    std::fs::create_dir_all(folder)
        .and_then(|()| tempfile::tempfile_in(folder).map(drop))
        .map_err(|error| {
            RunError::Usage(format!(
                "{}: results cannot be written there: {error}: choose another folder with -o",
                folder.display()
            ))
        })
}
