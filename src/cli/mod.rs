//! One file a subcommand: flags -> config -> one library call -> what the user sees.
//!
//! In: the command line. Out: results on standard output, messages on standard error, an exit code. Everything that
//! can go wrong arrives here as a [`Failure`]; nothing below ends the process.

mod closing;
mod cohort;
mod cohort_merge;
mod cohort_plan;
mod cohort_run;
mod cohort_status;
mod completions;
mod data;
mod doctor;
mod eval;
mod export;
mod features;
mod hovernet;
mod json_files;
mod log;
mod mask;
mod model;
mod model_tune;
mod plan;
mod postproc;
mod progress;
mod report;
mod run;
pub mod settings;
mod signals;
mod slide;
mod tile;
mod timestamp;
mod train;
mod view;

use std::fmt;
use std::io::{self, IsTerminal, Write};

use crate::machine::{libtorch, openslide};
use crate::output::OutputError;
use crate::run::ending::SlideFailure;
pub use crate::run::ending::{EXIT_NONE, EXIT_SOME, EXIT_STOPPED, EXIT_USAGE};
use crate::run::map::MapError;
use crate::run::{Ending, RunError, exit_code};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use settings::ConfigError;

/// Second Ctrl-C.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Why a command ends with something else than 0: what went wrong, where, and what to type next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: u8,
    /// Empty: already said.
    pub message: String,
}

impl Failure {
    /// The command line or the config is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self {
            code: EXIT_USAGE,
            message: message.to_string(),
        }
    }

    /// No slide could be done.
    pub fn slides(message: impl fmt::Display) -> Self {
        Self {
            code: EXIT_NONE,
            message: message.to_string(),
        }
    }

    /// Everything has been said.
    pub fn silent(code: u8) -> Self {
        Self {
            code,
            message: String::new(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::slides(error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Usage(message) => Self::usage(message),
            RunError::Machine(message) => Self::slides(message),
        }
    }
}

impl From<SlideFailure> for Failure {
    fn from(failure: SlideFailure) -> Self {
        Self::slides(failure)
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Refused(error) => error.into(),
            MapError::Failed(failure) => failure.into(),
        }
    }
}

/// What the endings of all slides come to; each has been shown already.
fn outcome(endings: &[Ending]) -> Result<(), Failure> {
    match exit_code(endings) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

/// Every nucleus of a whole-slide H&E image: where it is, what type, what shape.
#[derive(Debug, Parser)]
#[command(
    name = "wsi-nuclei",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with: wsi-nuclei run SLIDE -o OUT\n\
                  Exit codes: 0 done, 1 some slides failed, 2 wrong command line, 3 no slide could be done, 75 stopped on request"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Tile(Box<tile::TileArgs>),
    Slide(slide::SlideArgs),
    Mask(mask::MaskArgs),
    Plan(Box<plan::PlanArgs>),
    Postproc(postproc::PostprocArgs),
    Export(export::ExportArgs),
    Features(features::FeaturesArgs),
    Report(report::ReportArgs),
    View(view::ViewArgs),
    Hovernet(Box<hovernet::HovernetArgs>),
    Cohort(cohort::CohortArgs),
    Model(model::ModelArgs),
    Doctor(doctor::DoctorArgs),
    Train(train::TrainArgs),
    Data(data::DataArgs),
    Eval(eval::EvalArgs),
    Completions(completions::CompletionsArgs),
}

/// Parses, dispatches, says what went wrong. Returns the exit code.
pub fn main() -> u8 {
    let command = Cli::command().version(version());
    let parsed = command
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let is_training = matches!(&parsed, Ok(cli) if matches!(cli.command, Command::Train(_)));
    log::show_events(is_training && !io::stderr().is_terminal());
    let outcome = match parsed {
        Ok(cli) => dispatch(cli.command),
        Err(error) => {
            // Help and versions go to standard output with code 0; a closed pipe is nobody's business.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { 0 };
        }
    };
    let code = match outcome {
        Ok(()) => 0,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(io::stderr().lock(), "error: {}", failure.message);
            }
            failure.code
        }
    };
    let _ = io::stdout().flush();
    code
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::main(*args),
        Command::Data(args) => data::main(&args),
        Command::Tile(args) => tile::main(*args),
        Command::Slide(args) => slide::main(&args),
        Command::Mask(args) => mask::main(&args),
        Command::Plan(args) => plan::main(*args),
        Command::Postproc(args) => postproc::main(&args),
        Command::Export(args) => export::main(&args),
        Command::Features(args) => features::main(&args),
        Command::Report(args) => report::main(&args),
        Command::View(args) => view::main(&args),
        Command::Hovernet(args) => hovernet::main(&args),
        Command::Cohort(args) => cohort::main(args),
        Command::Model(args) => model::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Train(args) => train::main(args),
        Command::Eval(args) => eval::main(&args),
        Command::Completions(args) => completions::main(&args, Cli::command()),
    }
}

/// An outcome with the exit code that an engine starts again in place of [`EXIT_STOPPED`].
fn with_requeue_code(outcome: Result<(), Failure>, requeue: Option<u8>) -> Result<(), Failure> {
    match (outcome, requeue) {
        (Err(failure), Some(code)) if failure.code == EXIT_STOPPED => Err(Failure::silent(code)),
        (outcome, _) => outcome,
    }
}

/// The version, and what it computes with. clap keeps it for the life of the process.
fn version() -> &'static str {
    let model = match crate::model::library::embedded_spec() {
        Some(spec) => format!("model {}", spec.name),
        None => "no embedded model".into(),
    };
    let text = format!(
        "{} (libtorch {}, OpenSlide {}, {model})",
        env!("CARGO_PKG_VERSION"),
        libtorch().version,
        openslide().version
    );
    Box::leak(text.into_boxed_str())
}

/// Prints a result. A reader that has gone away (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::slides(format!(
            "standard output cannot be written: {error}"
        ))),
        _ => Ok(()),
    }
}
