//! `model tune`: fits the parameters of a model that training does not fit, and writes them into
//! its folder.

use std::fmt::Write;
use std::path::PathBuf;

use crate::model::Device;
use crate::model::ModelFolder;
use crate::train::config::TrainConfig;
use crate::train::tune::Tuned;
use crate::train::{package, tune};
use clap::Args;

use super::{Failure, print};

#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Model folder; its model.toml and weights are rewritten
    #[arg(value_name = "FOLDER")]
    model: PathBuf,
    /// Training configuration: its held-out images are used, and the others for which nuclei to
    /// keep [default: that of the embedded model]
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// Folder below which the data sets of the configuration lie
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Keep the constants; fit only the temperature and which nuclei are dropped as too unsure
    #[arg(long)]
    keep_constants: bool,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

pub fn main(args: &TuneArgs) -> Result<(), Failure> {
    let config = TrainConfig::read_or_default(args.config.as_deref()).map_err(Failure::usage)?;
    let folder = ModelFolder::open(&args.model).map_err(Failure::usage)?;
    tch::set_num_threads(1);
    let model = folder.load(Device::Cpu).map_err(Failure::usage)?;
    let sets = config.load_data(&args.data).map_err(Failure::slides)?;
    let tuned = tune::tune(&model, &sets, args.keep_constants).map_err(Failure::slides)?;
    print(&summary(&tuned)?)?;
    if args.dry_run {
        return Ok(());
    }
    package::apply_tuning(&args.model, &tuned).map_err(Failure::slides)
}

/// What was fitted, with the scores before and after.
fn summary(tuned: &Tuned) -> Result<String, Failure> {
    let mut text = toml::to_string(&tuned.postproc).map_err(Failure::slides)?;
    for (set, [before, after]) in &tuned.pq {
        let _ = writeln!(text, "PQ {set}: {before:.4} before, {after:.4} after");
    }
    for limit in &tuned.limits {
        let name = limit
            .least
            .map_or("all kept".into(), |l| format!("least {l}"));
        let _ = write!(text, "{name}, images that taught it, PQ and DICE:");
        for (set, [pq, dice]) in &limit.scores {
            let _ = write!(text, " {set} {pq:.4} {dice:.4}");
        }
        let _ = writeln!(text);
    }
    if let Some(t) = tuned.temperature {
        let [before, after] = tuned.nll;
        let _ = writeln!(
            text,
            "temperature of types: {t:.3}; -ln p(true type): {before:.4} before, {after:.4} after"
        );
    }
    Ok(text)
}
