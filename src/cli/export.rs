//! `export STORE -o OUT`: outputs again from a slide's store: no slide, no GPU.

use std::path::PathBuf;

use clap::Args;
use wsi_nuclei::config::{Format, Formats, Units};
use wsi_nuclei::output::{self, Pictures};
use wsi_nuclei::pipeline;
use wsi_nuclei::store::Store;

use super::run::writable;
use super::{EXIT_SOME, Failure, print};

/// Write the outputs again from a slide's store: no slide, no GPU.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// OUT/<stem>/store.zarr of a run, or the folder that holds it
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Folder for the files
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Files of nuclei: json, csv, overlay (over the thumbnail), report, ome-zarr
    #[arg(long, value_name = "LIST", default_value = "json,csv,overlay,report")]
    format: Formats,
    /// Unit of lengths and areas in tables
    #[arg(long, value_enum, default_value = "um")]
    units: Units,
}

pub fn main(args: &ExportArgs) -> Result<(), Failure> {
    if args.format.0.contains(&Format::Crops) {
        return Err(Failure::usage(
            "--format crops needs the slide's pixels, which a store does not keep: use `run`",
        ));
    }
    let inner = args.store.join("store.zarr");
    let path = if inner.is_dir() { &inner } else { &args.store };
    let store = Store::open(path).map_err(Failure::slides)?;
    let pictures = Pictures {
        thumb: store.thumb().map_err(Failure::slides)?,
        mask: store.mask().map_err(Failure::slides)?,
        overlay: None,
        crops: Vec::new(),
        legend: true,
    };
    writable(&args.output)?;
    let result = pipeline::load(&store).map_err(Failure::slides)?.slide;
    output::write_all(&result, pictures, &args.format.0, args.units, &args.output)?;
    print(&format!(
        "{} nuclei, written to {}\n",
        result.nuclei.len(),
        args.output.display()
    ))?;
    if result.missing_tiles > 0 {
        return Err(Failure {
            code: EXIT_SOME,
            message: format!(
                "{}: {} of {} tiles are not done, so nuclei are missing: finish the run first",
                path.display(),
                result.missing_tiles,
                result.meta.planned_tiles.len()
            ),
        });
    }
    Ok(())
}
