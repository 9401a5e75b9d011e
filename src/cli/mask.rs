//! `mask SLIDE -o PNG`: the tissue mask alone.

use std::path::PathBuf;

use crate::output::pictures;
use crate::slide::{self, mpp};
use crate::tissue;
use clap::Args;

use super::settings::Mpp;
use super::{Failure, print};

/// Find tissue and write it as a picture: 255 is tissue, one pixel about 8 µm.
#[derive(Debug, Args)]
pub struct MaskArgs {
    #[arg(value_name = "SLIDE")]
    slide: PathBuf,
    /// The picture; `run --mask PNG` takes it back, edited or not
    #[arg(short, long, value_name = "PNG")]
    output: PathBuf,
    /// µm a level-0 pixel, over what the slide says
    #[arg(long, value_name = "UM")]
    mpp: Option<Mpp>,
}

pub fn main(args: &MaskArgs) -> Result<(), Failure> {
    let reader = slide::open(&args.slide).map_err(Failure::slides)?;
    let info = reader.info();
    let mpp = mpp::resolve_mpp(info, args.mpp.map(|mpp| mpp.0)).map_err(Failure::slides)?;
    let mask = tissue::detect(reader.as_ref(), mpp.mpp).map_err(Failure::slides)?;
    let size = info
        .levels
        .first()
        .map_or([0, 0], |level| [level.width_px, level.height_px]);
    let mm2 = mask.tissue_mm2(size, mpp.mpp);
    pictures::write_png(&pictures::mask_picture(&mask).into(), &args.output)?;
    print(&format!(
        "{mm2:.3} mm² of tissue, written to {}\n",
        args.output.display()
    ))
}
