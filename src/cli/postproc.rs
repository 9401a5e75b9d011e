//! `postproc RAW.npy -o OUT`: a prediction map to instances, without a network.

use std::path::PathBuf;

use crate::model::Library;
use crate::nuclei::PostprocRules;
use crate::output::Units;
use crate::run::map::{MapRequest, segment_map};
use clap::Args;

use super::settings::Mpp;
use super::{Failure, print};

/// A prediction map to instances: H x W x C float32, [np, h, v], [tp, np, h, v], or class probabilities, np, h, v.
#[derive(Debug, Args)]
pub struct PostprocArgs {
    /// The map, as `tile --save-raw` or hover_net's --save_raw_map keep it
    #[arg(value_name = "RAW.npy")]
    raw: PathBuf,
    /// Folder for the results: OUT/<stem>/
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// µm a pixel of the map [default: what the .json beside it says, else 0.25]
    #[arg(long, value_name = "UM")]
    mpp: Option<Mpp>,
    /// Take constants and names of types from this model [default: the one in the .json beside the map]
    #[arg(long, value_name = "NAME|FOLDER")]
    model: Option<String>,
    /// reference: hover_net's rules, scaled over the whole map
    #[arg(long, value_enum, default_value = "default")]
    postproc: PostprocRules,
    /// The picture that the map was made from, of the same size: for colours and the overlay
    #[arg(long, value_name = "PNG")]
    image: Option<PathBuf>,
    /// Unit of lengths and areas in tables
    #[arg(long, value_enum, default_value = "um")]
    units: Units,
}

pub fn main(args: &PostprocArgs) -> Result<(), Failure> {
    let model = match &args.model {
        Some(name) => Some(Library::from_env().open(name).map_err(Failure::usage)?.spec),
        None => None,
    };
    let segmented = segment_map(MapRequest {
        path: &args.raw,
        output: &args.output,
        mpp: args.mpp.map(|mpp| mpp.0),
        model,
        rules: args.postproc,
        image: args.image.as_deref(),
        units: args.units,
    })?;
    let constants = match (&segmented.model, args.postproc) {
        (_, PostprocRules::Reference) => "hover_net's rules".to_owned(),
        (Some(name), _) => format!("constants of {name}"),
        (None, _) => {
            "no model is known for this map, so the usual constants: --model names one".to_owned()
        }
    };
    print(&format!(
        "{} nuclei ({constants}), written to {}\n",
        segmented.nuclei,
        segmented.folder.display()
    ))
}
