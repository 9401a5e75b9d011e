//! `plan SLIDE`: tiles, patches, memory, scratch and time expected, from a trial of a few tiles; nothing is kept.

use std::path::PathBuf;

use crate::pipeline::{self, estimate};
use crate::run::{Models, inputs};
use clap::Args;

use super::settings::{self, Settings};
use super::{Failure, print};

/// What a run would take: tiles, patches, memory, scratch and time, from a trial of a few tiles; nothing is kept.
#[derive(Debug, Args)]
#[command(
    mut_arg("output", |arg| arg.hide(true)),
    mut_arg("restart", |arg| arg.hide(true)),
    mut_arg("dedupe_names", |arg| arg.hide(true)),
    mut_arg("stage", |arg| arg.hide(true)),
    mut_arg("retries", |arg| arg.hide(true)),
    mut_arg("requeue_exit_code", |arg| arg.hide(true)),
    mut_arg("log", |arg| arg.hide(true))
)]
pub struct PlanArgs {
    #[arg(value_name = "SLIDE")]
    slide: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// TOML file of settings
    #[arg(long, value_name = "FILE", env = "WSI_NUCLEI_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub fn main(mut args: PlanArgs) -> Result<(), Failure> {
    // Nothing is written, so nobody has to say where.
    args.settings.output.get_or_insert_with(PathBuf::new);
    let (config, _) = settings::resolve(args.settings, args.config.as_deref())?;
    let slides = inputs::from_paths(&[args.slide], false, inputs::slide_extensions(), &config)?;
    let [slide] = slides.as_slice() else {
        return Err(Failure::usage(
            "name one slide: a plan is made for one at a time",
        ));
    };
    let mut models = Models::new(&config)?;
    let pool = models.get(&slide.model).map_err(Failure::usage)?;
    let request = slide.request(&config);
    let prepared = pipeline::prepare(&request, &pool).map_err(Failure::slides)?;
    let expected = estimate::estimate(prepared, &pool).map_err(Failure::slides)?;
    if args.json {
        let text = serde_json::to_string_pretty(&expected).map_err(Failure::slides)?;
        return print(&(text + "\n"));
    }
    print(&format!(
        "tissue   {:.3} mm², {:.3} mm² with margins\n\
         patches  {} of {} px in, {} px out\n\
         tiles    {} of {} px\n\
         memory   {:.2} GiB with {} workers\n\
         scratch  {:.1} MB\n\
         time     {:.0} s ({:.3} s a patch and worker)\n\
         by       {}\n",
        expected.tissue_mm2,
        expected.planned_mm2,
        expected.patches,
        expected.patch_in_px,
        expected.patch_out_px,
        expected.tiles,
        expected.tile_px,
        expected.memory_bytes as f64 / f64::from(1u32 << 30),
        expected.infer_workers,
        expected.scratch_bytes as f64 / 1e6,
        expected.seconds,
        expected.seconds_per_patch,
        match expected.sampled_tiles {
            0 => "one patch and typical figures: a tile of this model takes too long to try".into(),
            n => format!("a trial of {n} tiles, which is not kept"),
        },
    ))
}
