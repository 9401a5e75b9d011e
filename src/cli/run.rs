//! `run SLIDE… -o OUT`: slides to nuclei, each in a process of its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::nuclei::PostprocRules;
use crate::run::children::{self, run_in_children};
use crate::run::ending::Cause;
use crate::run::models::first_device;
use crate::run::slide::{Hooks, run_slide_if};
use crate::run::{self, Attempt, Attempts, Ending, Models, RunEvent, SlideConfig, inputs, stage};
use clap::Args;

use super::progress::Progress;
use super::settings::{self, Settings};
use super::{Failure, outcome, print, signals, with_requeue_code};

/// Pause before a slide is tried again for the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Slides to nuclei: find tissue, infer, stitch, write OUT/<stem>/.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Slides, or folders of slides
    #[arg(value_name = "SLIDE")]
    slides: Vec<PathBuf>,
    /// Look into folders of folders
    #[arg(short, long)]
    recursive: bool,
    /// CSV of slides: path, and optionally id, mpp, mask, roi, model; other columns are carried through to the tables
    #[arg(long, value_name = "CSV", conflicts_with_all = ["slides", "recursive"])]
    manifest: Option<PathBuf>,
    /// TOML file of settings; `config/default.toml` lists them all
    #[arg(long, value_name = "FILE", env = "WSI_NUCLEI_CONFIG")]
    config: Option<PathBuf>,
    /// The one slide, by its folder's name, that this process runs for a parent
    #[arg(long, value_name = "STEM", hide = true)]
    only: Option<String>,
    /// The copy of that slide that is read in its place
    #[arg(long, value_name = "FILE", hide = true)]
    read_from: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub fn main(args: RunArgs) -> Result<(), Failure> {
    if args.only.is_some() {
        children::die_with_parent();
    }
    let (config, terminal) = settings::resolve(args.settings, args.config.as_deref())?;
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
        None => {
            let extensions = inputs::slide_extensions();
            inputs::from_paths(&args.slides, args.recursive, extensions, &config)?
        }
    };
    run::check_writable(&config.output)?;
    // What is wrong for all slides is said once, before the first.
    first_device(&config.device)?;
    let stage_folder = config.stage.as_deref();
    let stage_folder = stage_folder
        .map(|said| stage::folder(said, |name| std::env::var_os(name)))
        .transpose()?;
    let stop = signals::stop_flag()?;
    let progress = Progress::new(&terminal)?;
    let progress = match &args.only {
        Some(stem) => {
            let (place, of) = keep_only(&mut slides, stem, "the slides")?;
            for slide in &mut slides {
                slide.read_from.clone_from(&args.read_from);
            }
            progress.of_batch(place, of)
        }
        None => progress.of_slides(&slides),
    };
    let watch = |event: run::RunEvent<'_>| progress.show(event);
    // Whether the slide of a child may be tried again.
    let mut cause = Cause::default();
    // Also a lone slide: a C library that dies on it must leave somebody to say so.
    let endings = if args.only.is_none() {
        // Only of children that died without a word: the others have written their run.json.
        let watch = |event: run::RunEvent<'_>| {
            if let RunEvent::Ended {
                slide,
                ending,
                seconds,
            } = &event
                && let Err(error) = run::slide::report_death(slide, &config, ending, *seconds)
            {
                eprintln!("error: {error}");
            }
            progress.show(event);
        };
        let attempts = Attempts {
            stage: stage_folder.as_deref(),
            retries: config.retries,
            first_pause: FIRST_PAUSE,
            stop: &stop,
        };
        let endings = run_in_children(&slides, attempts, &watch, command_for)?;
        progress.batch_ended(&slides, &endings);
        endings
    } else {
        let mut models = Models::new(&config)?;
        run::run_in_turn(&slides, &watch, &stop, |slide| {
            let hooks = Hooks::default();
            let attempt = run_slide_if(slide, &config, &mut models, &watch, &stop, hooks);
            cause = attempt.cause;
            Ok(attempt.ending)
        })
    };
    report_to_parent(args.only.as_deref(), &endings, cause)?;
    with_requeue_code(outcome(&endings), terminal.requeue_exit_code)
}

/// Keeps the one slide that this process runs for a parent; returns its place among all, from 1, and their number.
pub fn keep_only(
    slides: &mut Vec<SlideConfig>,
    stem: &str,
    among: &str,
) -> Result<(usize, usize), Failure> {
    let of = slides.len();
    let place = slides.iter().position(|slide| slide.stem == stem);
    slides.retain(|slide| slide.stem == stem);
    match place {
        Some(place) => Ok((place + 1, of)),
        None => Err(Failure::slides(format!(
            "{stem}: is no longer among {among}"
        ))),
    }
}

/// In a process that runs one slide for a parent: tells it how the slide ended.
pub fn report_to_parent(
    only: Option<&str>,
    endings: &[Ending],
    cause: Cause,
) -> Result<(), Failure> {
    match (only, endings) {
        (Some(_), [ending]) => {
            let ending = ending.clone();
            print(&children::record_line(&Attempt { ending, cause }))
        }
        _ => Ok(()),
    }
}

/// This very program, though its file may have been replaced since.
pub fn this_program() -> io::Result<Command> {
    let program = match cfg!(target_os = "linux") {
        true => "/proc/self/exe".into(),
        false => std::env::current_exe()?,
    };
    let name = std::env::args_os().next();
    let mut command = Command::new(program);
    command.arg0(name.unwrap_or_else(|| "wsi-nuclei".into()));
    Ok(command)
}

/// This very program with the same arguments for one slide, read from `file`.
pub fn command_for(slide: &SlideConfig, file: &Path) -> io::Result<Command> {
    let mut args = std::env::args_os().skip(1);
    // Behind the subcommand's name: what follows may hold a `--`. One argument: a stem may begin with a dash.
    let subcommand = args.next();
    let only = OsString::from(format!("--only={}", slide.stem));
    let mut command = this_program()?;
    command.args(subcommand).arg(only);
    if file != slide.path {
        let mut read_from = OsString::from("--read-from=");
        read_from.push(file);
        command.arg(read_from);
    }
    command.args(args);
    Ok(command)
}
