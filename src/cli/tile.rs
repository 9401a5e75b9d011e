//! `tile IMAGE… -o OUT`: plain images to nuclei, each held whole.

use std::path::PathBuf;

use crate::output::{Format, Formats};
use crate::run::{self, Models, inputs};
use clap::Args;

use super::progress::Progress;
use super::settings::{self, Settings};
use super::{Failure, outcome, signals};

/// Settings that only make sense on a slide with its store.
const FOR_RUN_ONLY: [&str; 11] = [
    "mask",
    "roi",
    "level0_box",
    "restart",
    "shard",
    "mix_devices",
    "stage",
    "retries",
    "requeue_exit_code",
    "tile_size",
    "memory",
];

/// Plain images (PNG, JPEG, TIFF) to nuclei: writes OUT/<stem>/ for each.
#[derive(Debug, Args)]
#[command(
    mut_arg("mask", |arg| arg.hide(true)),
    mut_arg("roi", |arg| arg.hide(true)),
    mut_arg("level0_box", |arg| arg.hide(true)),
    mut_arg("restart", |arg| arg.hide(true)),
    mut_arg("mix_devices", |arg| arg.hide(true)),
    mut_arg("stage", |arg| arg.hide(true)),
    mut_arg("retries", |arg| arg.hide(true)),
    mut_arg("requeue_exit_code", |arg| arg.hide(true)),
    mut_arg("tile_size", |arg| arg.hide(true)),
    mut_arg("memory", |arg| arg.hide(true)),
    mut_arg("format", |arg| arg.help(format_help()))
)]
pub struct TileArgs {
    /// Images, or folders of images; --mpp says their scale
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Look into folders of folders
    #[arg(short, long)]
    recursive: bool,
    /// Keep the prediction map as raw.npy
    #[arg(long)]
    save_raw: bool,
    /// TOML file of settings; `config/default.toml` lists them all
    #[arg(long, value_name = "FILE", env = "WSI_NUCLEI_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// An image gets other files than a slide where nobody asks.
fn format_help() -> String {
    let all = Formats(Format::all().collect());
    let usual = Formats(Format::defaults_of_images());
    let spaced = all.to_string().replace(',', ", ");
    format!("Files of nuclei: {spaced} [default: {usual}]")
}

pub fn main(args: TileArgs) -> Result<(), Failure> {
    if let Some(field) = FOR_RUN_ONLY.iter().find(|field| args.settings.has(field)) {
        return Err(Failure::usage(format!(
            "--{} is for `run`: an image is held whole, so leave it out here",
            field.replace('_', "-")
        )));
    }
    let (config, terminal) = settings::resolve(args.settings, args.config.as_deref())?;
    let extensions = inputs::IMAGE_EXTENSIONS;
    let images = inputs::from_paths(&args.images, args.recursive, extensions, &config)?;
    run::check_writable(&config.output)?;
    let progress = Progress::new(&terminal)?.of_slides(&images);
    let stop = signals::stop_flag()?;
    let mut models = Models::new(&config)?;
    let watch = |event: run::RunEvent<'_>| progress.show(event);
    let endings = run::run_in_turn(&images, &watch, &stop, |image| {
        let raw = args.save_raw;
        Ok(run::image::run_image(
            image,
            &config,
            &mut models,
            raw,
            &watch,
            &stop,
        ))
    });
    if images.len() > 1 {
        progress.batch_ended(&images, &endings);
    }
    outcome(&endings)
}
