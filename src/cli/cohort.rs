//! `cohort plan / run / status / merge`: many slides, on one machine or a cluster.

use std::io::{self, Write};
use std::process::Command;

use crate::cohort::CohortError;
use crate::cohort::plan::Cohort;
use crate::machine;
use clap::{Args, Subcommand};

use super::cohort_merge::{self, MergeArgs};
use super::cohort_plan::{self, PlanArgs};
use super::cohort_run::{self, RunArgs, WorkArgs};
use super::cohort_status::{self, StatusArgs};
use super::settings::flags::Settings;
use super::settings::layers;
use super::{Failure, run};

/// Many slides on a cluster or one machine: plan rows, run them by atomic claim, see who is where, merge.
#[derive(Debug, Args)]
pub struct CohortArgs {
    #[command(subcommand)]
    command: CohortCommand,
}

#[derive(Debug, Subcommand)]
enum CohortCommand {
    Plan(Box<PlanArgs>),
    Run(RunArgs),
    Status(StatusArgs),
    Merge(MergeArgs),
    #[command(hide = true)]
    Work(Box<WorkArgs>),
}

pub fn main(args: CohortArgs) -> Result<(), Failure> {
    match args.command {
        CohortCommand::Plan(args) => cohort_plan::main(*args),
        CohortCommand::Run(args) => cohort_run::main(&args),
        CohortCommand::Status(args) => cohort_status::main(&args),
        CohortCommand::Merge(args) => cohort_merge::main(&args),
        CohortCommand::Work(args) => cohort_run::work(*args),
    }
}

impl From<CohortError> for Failure {
    fn from(error: CohortError) -> Self {
        match error {
            CohortError::Usage(message) => Self::usage(message),
            other => Self::slides(other),
        }
    }
}

/// The process that does slides, with these flags. What its environment says about settings does not count: the plan's
/// settings do.
pub(super) fn worker_command(flags: &[String]) -> io::Result<Command> {
    let mut command = run::this_program()?;
    command.args(["cohort", "work"]).args(flags);
    for field in Settings::FIELDS {
        command.env_remove(layers::variable(field));
    }
    Ok(command)
}

/// The flags of the process that does a cohort's slides.
pub(super) fn worker_flags(cohort: &Cohort, out: &std::path::Path) -> Vec<String> {
    let mut flags = vec![format!("--output={}", out.display())];
    flags.extend(cohort.flags());
    flags
}

/// A line for whoever reads the task's log.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "cohort: {text}");
}

/// A variable of the environment as text.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Cores that this process may use.
pub(super) fn cores() -> u32 {
    machine::usable_cores() as u32
}
