//! `run SLIDE… -o OUT`: slides to nuclei, one after another; an error of one leaves the others running.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use wsi_nuclei::config::{PostprocRules, RunConfig, Settings, SlideConfig};

use super::progress::Progress;
use super::{EXIT_NONE, EXIT_SOME, EXIT_STOPPED, EXIT_USAGE, Failure, inputs, signals};

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
    #[command(flatten)]
    settings: Settings,
}

/// How one slide ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Done {
        nuclei: usize,
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
    let config = RunConfig::resolve(args.settings, args.config.as_deref(), |name| {
        std::env::var_os(name)
    })?;
    if config.postproc == PostprocRules::Reference {
        return Err(Failure::usage(
            "--postproc reference scales each map by itself, so on a slide its answer would depend on the tiling: \
             it is for `tile` and `postproc`; leave it out here",
        ));
    }
    let slides = match &args.manifest {
        Some(manifest) => inputs::from_manifest(manifest, &config)?,
        None if args.slides.is_empty() => {
            return Err(Failure::usage(
                "no slide: name slides or folders, or give --manifest CSV",
            ));
        }
        None => inputs::from_paths(
            &args.slides,
            args.recursive,
            inputs::SLIDE_EXTENSIONS,
            &config,
        )?,
    };
    writable(&config.output)?;
    let progress = Progress::new(&config)?;
    let stop = signals::stop_flag()?;
    let endings = all(&slides, &config, &progress, &stop);
    match exit_code(&endings) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

fn all(
    slides: &[SlideConfig],
    config: &RunConfig,
    progress: &Progress,
    stop: &AtomicBool,
) -> Vec<Ending> {
    let mut endings = Vec::new();
    for slide in slides {
        progress.begin(&slide.stem);
        let started = Instant::now();
        let ending = one(slide, config, progress, stop);
        let seconds = started.elapsed().as_secs_f64();
        match &ending {
            Ending::Done { nuclei } => progress.end(&format!(
                "{nuclei} nuclei in {seconds:.1} s, written to {}",
                slide.folder.display()
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

/// One slide: the only place that calls the pipeline.
fn one(slide: &SlideConfig, config: &RunConfig, progress: &Progress, stop: &AtomicBool) -> Ending {
    let _ = (config, progress, stop);
    Ending::Failed(format!(
        "{}: not done: the pipeline is not built into this binary yet",
        slide.path.display()
    ))
}

/// The exit code that the endings of all slides come to.
fn exit_code(endings: &[Ending]) -> u8 {
    let count = |of: fn(&Ending) -> bool| endings.iter().filter(|ending| of(ending)).count();
    let done = count(|e| matches!(e, Ending::Done { .. }));
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
        assert_eq!(exit_code(&[partly()]), 1);
        assert_eq!(exit_code(&[done(), refused()]), 1);
        assert_eq!(exit_code(&[refused()]), 2);
        assert_eq!(exit_code(&[refused(), failed()]), 3);
        assert_eq!(exit_code(&[failed(), failed()]), 3);
        assert_eq!(exit_code(&[done(), Ending::Stopped]), 75);
    }
}
