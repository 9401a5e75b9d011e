//! `cohort run OUT`: one task of a cohort; and the process that it does slides in.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use crate::cohort::claim::Desk;
use crate::cohort::owner::Owner;
use crate::cohort::plan::Cohort;
use crate::cohort::serve::Serving;
use crate::cohort::task::Task;
use crate::cohort::worker::Reply;
use crate::cohort::{Layout, index, ranges};
use crate::plan::Shard;
use crate::run::{Attempts, Models, RunEvent, children, stage};
use clap::Args;

use super::cohort::{say, variable, worker_command, worker_flags};
use super::progress::Progress;
use super::settings::{self, Auto, ByteSize, Count, Settings};
use super::{Failure, outcome, signals, with_requeue_code};

/// Do rows of a cohort: the row that the scheduler's array index names, then whatever is free.
#[derive(Debug, Args)]
#[command(
    after_help = "The array index is read from the variables of Slurm, PBS, LSF, SGE, AWS Batch, Google Batch, Kubernetes and \
                  Fujitsu TCS. Exit codes: as run; 75 stopped on request, the row's checkpoint is kept"
)]
pub struct RunArgs {
    /// Folder of the cohort
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Only these rows, as 3 or 3,7,40-44; failed ones are done again
    #[arg(long, value_name = "ROWS", conflicts_with = "shard")]
    row: Option<String>,
    /// This share of the rows first, counted from 0, as 0/4; then whatever is free
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// The row of array index 0 (of 1, where a scheduler counts from 1): for arrays in parts
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    first_row: usize,
    /// Do not go on with what is free after the own rows
    #[arg(long)]
    own_only: bool,
    /// Try a row again so often after failures that may pass (files that did not answer)
    #[arg(long, value_name = "N", default_value_t = 2)]
    retries: u32,
    /// Wait before the first such try, s; doubles each time
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    retry_wait: f64,
    /// End with N, not 75, when stopped on request (nf-core starts 130 to 145 again)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    requeue_exit_code: Option<u8>,
    /// Copy each slide to this folder of a local disk first, where there is room; auto: the scheduler's
    /// ($SLURM_TMPDIR or $TMPDIR)
    #[arg(long, value_name = "DIR|auto")]
    stage: Option<PathBuf>,
    /// Worker threads [default: what the job may use]
    #[arg(long, value_name = "N")]
    threads: Option<Auto<Count>>,
    /// Budget of memory, as 8GiB [default: 60 % of what the job may use]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Auto<ByteSize>>,
    /// auto, cpu, cuda or cuda:1
    #[arg(long)]
    device: Option<String>,
    /// Patches a batch on a GPU
    #[arg(long, value_name = "N")]
    batch_size: Option<Auto<Count>>,
}

pub fn main(args: &RunArgs) -> Result<(), Failure> {
    let stop = signals::stop_flag()?;
    let layout = Layout::new(&absolute(&args.out));
    let cohort = Cohort::read(&layout)?;
    let (own, own_only) = own_rows(args, &cohort)?;
    let here = Owner::here(variable);
    let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or(Duration::from_secs(60));
    let desk = Desk::open(
        &layout,
        here,
        seconds(cohort.heartbeat_s),
        seconds(cohort.stale_s),
    )?;
    let mut flags = worker_flags(&cohort, &layout.out);
    // A later flag may not repeat an earlier one.
    for (name, value) in free_flags(args) {
        flags.retain(|flag| !flag.starts_with(&format!("--{name}=")));
        flags.push(format!("--{name}={value}"));
    }
    let stage_folder = args.stage.as_deref();
    let stage_folder = stage_folder
        .map(|said| stage::folder(said, |name| std::env::var_os(name)))
        .transpose()?;
    let start = || worker_command(&flags);
    let task = Task {
        layout: &layout,
        cohort: &cohort,
        desk,
        own,
        own_only,
        attempts: Attempts {
            stage: stage_folder.as_deref(),
            retries: args.retries,
            first_pause: seconds(args.retry_wait),
            stop: &stop,
        },
        start: &start,
        say: &say,
    };
    let endings = task.run()?;
    with_requeue_code(outcome(&endings), args.requeue_exit_code)
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The rows that this task begins with, and whether it does no others.
fn own_rows(args: &RunArgs, cohort: &Cohort) -> Result<(Vec<usize>, bool), Failure> {
    let rows = cohort.rows.len();
    let exists = |row: usize, said: &str| match row < rows {
        true => Ok(row),
        false => Err(Failure::usage(format!(
            "{said}: there is no row {row}: this cohort has rows 0 to {}",
            rows.saturating_sub(1)
        ))),
    };
    if let Some(text) = &args.row {
        let asked =
            ranges::from_text(text).map_err(|why| Failure::usage(format!("--row: {why}")))?;
        for &row in &asked {
            exists(row, "--row")?;
        }
        return Ok((asked, true));
    }
    if let Some(shard) = args.shard {
        let own = cohort.by_cost();
        let own = own.into_iter().filter(|&row| shard.has(row)).collect();
        return Ok((own, args.own_only));
    }
    let own = match index::from_environment(variable)? {
        None => Vec::new(),
        // More ranks than rows are no mistake: those beyond take what is free.
        Some(index) if index.is_rank => vec![index.row + args.first_row],
        // Beyond the rows are tasks that help with the parts of shared slides.
        Some(index) if (rows..cohort.most_tasks()).contains(&(index.row + args.first_row)) => {
            Vec::new()
        }
        Some(index) => vec![exists(index.row + args.first_row, index.variable)?],
    };
    Ok((own, args.own_only))
}

/// Settings that a task may choose: no result depends on them.
fn free_flags(args: &RunArgs) -> Vec<(&'static str, String)> {
    let flags = [
        ("threads", args.threads.as_ref().map(ToString::to_string)),
        ("memory", args.memory.as_ref().map(ToString::to_string)),
        ("device", args.device.clone()),
        (
            "batch-size",
            args.batch_size.as_ref().map(ToString::to_string),
        ),
    ];
    let given = flags.into_iter();
    given
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// The process that a task does slides in: requests on standard input, replies on standard output.
#[derive(Debug, Args)]
pub struct WorkArgs {
    #[command(flatten)]
    settings: Settings,
}

pub fn work(args: WorkArgs) -> Result<(), Failure> {
    children::die_with_parent();
    let (config, terminal) = settings::resolve(args.settings, None)?;
    let progress = Progress::new(&terminal)?;
    let stop = signals::stop_flag()?;
    let models = Models::new(&config)?;
    let watch = |event: RunEvent<'_>| progress.show(event);
    let out = Mutex::new(io::stdout());
    let say = |reply: &Reply| {
        let Ok(mut line) = serde_json::to_vec(reply) else {
            return;
        };
        line.push(b'\n');
        let mut out = out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A task that is gone takes this process along.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    };
    let mut serving = Serving {
        config: &config,
        models,
        stop: &stop,
        watch: &watch,
        say: &say,
        ahead: None,
    };
    serving.serve();
    Ok(())
}
