//! `train`: a model folder from labelled images.

use std::path::PathBuf;

use clap::Args;
use wsi_nuclei::train::config::TrainConfig;
use wsi_nuclei::train::run::{TrainJob, run};

use super::Failure;

/// Learn a hovernet-lite from labelled images; goes on from its last checkpoint
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// What to learn from and how; see config/train-default.toml
    #[arg(long, value_name = "TOML", default_value = "config/train-default.toml")]
    config: PathBuf,
    /// Folder below which the data sets of the configuration lie
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// ImageNet encoder to start from: scripts/imagenet_encoder.py makes it
    #[arg(long, value_name = "SAFETENSORS")]
    encoder: PathBuf,
    /// Model folder to write; holds the checkpoint and a log too
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Optimisation steps in all
    #[arg(long, default_value_t = 5000)]
    steps: u64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 100)]
    checkpoint_every: u64,
    /// Convolutions in bf16: a third faster on CPUs that have it
    #[arg(long)]
    bf16: bool,
    /// CPU threads
    #[arg(long, default_value_t = 1)]
    threads: i32,
}

pub fn main(args: TrainArgs) -> Result<(), Failure> {
    let config = TrainConfig::read(&args.config).map_err(Failure::usage)?;
    tch::set_num_threads(args.threads.max(1));
    run(&TrainJob {
        config,
        data_root: args.data,
        encoder: args.encoder,
        out: args.output,
        steps: args.steps,
        checkpoint_every: args.checkpoint_every.max(1),
        bf16: args.bf16,
    })
    .map_err(Failure::slides)
}
