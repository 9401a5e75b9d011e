//! `cohort status OUT`: who is where.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cohort::plan::Cohort;
use crate::cohort::scripts::quoted;
use crate::cohort::{Layout, status};
use clap::Args;

use super::{Failure, print, signals};

/// What is done, who works on what, what failed and why; reads files alone.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Folder of the cohort
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Again and again, every so many seconds, until nothing is left to do
    #[arg(long, value_name = "S", num_args = 0..=1, default_missing_value = "10", conflicts_with = "json")]
    watch: Option<f64>,
}

pub fn main(args: &StatusArgs) -> Result<(), Failure> {
    let layout = Layout::new(&args.out);
    let stop = signals::stop_flag()?;
    loop {
        let cohort = Cohort::read(&layout)?;
        let summary = status::read(&layout, &cohort)?.summary(&cohort);
        if args.json {
            let text = serde_json::to_string_pretty(&summary).map_err(Failure::slides)?;
            return print(&(text + "\n"));
        }
        print(&status::table(
            &summary,
            &quoted(&args.out.display().to_string()),
        ))?;
        let Some(seconds) = args.watch else {
            return Ok(());
        };
        let all = summary.done + summary.incomplete + summary.failed + summary.copies;
        let begun = Instant::now();
        let pause = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(10));
        while begun.elapsed() < pause && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50).min(pause));
        }
        if all == summary.rows || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        print("\n")?;
    }
}
