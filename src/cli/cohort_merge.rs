//! `cohort merge OUT`: one data set of all slides, and the list of what is missing.

use std::path::PathBuf;

use crate::cohort::plan::Cohort;
use crate::cohort::{Layout, merge};
use clap::Args;

use super::{EXIT_NONE, EXIT_SOME, Failure, print};

/// Join what is done: OUT/merged/ with one Parquet data set, slides.csv, slides.parquet, failures.csv, index.html.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every row is there, 1 some failed, are incomplete or missing (they are listed), \
                        2 rows of other settings, 3 no row has results"
)]
pub struct MergeArgs {
    /// Folder of the cohort
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

pub fn main(args: &MergeArgs) -> Result<(), Failure> {
    let layout = Layout::new(&args.out);
    let cohort = Cohort::read(&layout)?;
    let merged = merge::merge(&layout, &cohort)?;
    let mut text = format!(
        "{}: {} slides, {} nuclei ({} partitions new, {} of them copies; {} removed)\n",
        layout.merged().display(),
        merged.slides,
        merged.nuclei,
        merged.linked + merged.copied,
        merged.copied,
        merged.removed
    );
    let lists = [
        ("failed", &merged.failed),
        ("incomplete", &merged.incomplete),
        ("still running", &merged.running),
        ("missing", &merged.missing),
        (
            "without nuclei.parquet (--format left it out)",
            &merged.without_table,
        ),
    ];
    for (what, rows) in lists {
        if !rows.is_empty() {
            text.push_str(&format!("{what}: rows {rows}\n"));
        }
    }
    print(&text)?;
    let whole = [
        &merged.failed,
        &merged.incomplete,
        &merged.running,
        &merged.missing,
    ]
    .iter()
    .all(|rows| rows.is_empty());
    match (whole, merged.slides) {
        (true, _) => Ok(()),
        (false, 0) => Err(Failure::silent(EXIT_NONE)),
        (false, _) => Err(Failure::silent(EXIT_SOME)),
    }
}
