//! `eval`: a model on the held-out images of a training configuration.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use wsi_nuclei::eval::held_out::{self, SetScores};
use wsi_nuclei::model::ModelSpec;
use wsi_nuclei::model::library::Library;
use wsi_nuclei::store::atomic;
use wsi_nuclei::train::config::TrainConfig;
use wsi_nuclei::train::data;

use super::{Failure, print};

/// Score a model on images that its training never saw
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Model name or folder
    #[arg(long, default_value = "default")]
    model: String,
    /// Training configuration: its held-out images are scored
    #[arg(long, value_name = "TOML", default_value = "config/train-default.toml")]
    config: PathBuf,
    /// Folder below which the data sets of the configuration lie
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Write the scores into the model folder's model.toml
    #[arg(long)]
    record: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn main(args: &EvalArgs) -> Result<(), Failure> {
    let config = TrainConfig::read(&args.config).map_err(Failure::usage)?;
    let folder = Library::from_env()
        .open(&args.model)
        .map_err(Failure::usage)?;
    tch::set_num_threads(1);
    let model = folder.load(tch::Device::Cpu).map_err(Failure::usage)?;
    let sets = data::load(&config, &args.data).map_err(Failure::slides)?;
    let scores = held_out::score(&model, &sets).map_err(Failure::slides)?;
    if args.record {
        record(args, &scores)?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(&scores).map_err(Failure::slides)?;
        return print(&(text + "\n"));
    }
    print(&table(&scores))
}

/// Scores to three digits, under `[scores.<set>]`.
fn record(args: &EvalArgs, scores: &BTreeMap<String, SetScores>) -> Result<(), Failure> {
    let path = PathBuf::from(&args.model).join("model.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::usage(format!(
            "{}: {e}: --record needs --model FOLDER",
            path.display()
        ))
    })?;
    let mut spec = ModelSpec::parse(&text, &path).map_err(Failure::usage)?;
    spec.scores = scores
        .iter()
        .map(|(name, s)| (name.clone(), entry(s).into()))
        .collect();
    let text = toml::to_string(&spec).map_err(Failure::slides)?;
    atomic::write_bytes(&path, text.as_bytes()).map_err(Failure::slides)
}

fn entry(scores: &SetScores) -> toml::Table {
    let round = |v: f64| toml::Value::from((v * 1000.0).round() / 1000.0);
    let mut entry = toml::Table::new();
    entry.insert("images".into(), (scores.images as i64).into());
    if let Some(s) = scores.segmentation {
        for (name, v) in [
            ("dice", s.dice),
            ("aji", s.aji),
            ("dq", s.dq),
            ("sq", s.sq),
            ("pq", s.pq),
        ] {
            entry.insert(name.into(), round(v));
        }
    }
    entry.insert("f1d".into(), round(scores.f1d));
    for (kind, f1) in &scores.f1_types {
        entry.insert(format!("f1_{kind}"), round(*f1));
    }
    entry
}

fn table(scores: &BTreeMap<String, SetScores>) -> String {
    let mut out = format!(
        "{:<10} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}\n",
        "set", "images", "DICE", "AJI", "DQ", "SQ", "PQ", "F1d"
    );
    for (name, s) in scores {
        let part = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.3}"));
        let seg = s.segmentation;
        let _ = write!(
            out,
            "{name:<10} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6.3}",
            s.images,
            part(seg.map(|s| s.dice)),
            part(seg.map(|s| s.aji)),
            part(seg.map(|s| s.dq)),
            part(seg.map(|s| s.sq)),
            part(seg.map(|s| s.pq)),
            s.f1d
        );
        for (kind, f1) in &s.f1_types {
            let _ = write!(out, "  {kind} {f1:.3}");
        }
        out.push('\n');
    }
    out
}
