//! `features JSON… -o OUT`: tables from results that exist already: no slide, no GPU.

use std::path::PathBuf;

use crate::output::{self, Choice, Format, Formats, GeojsonFrame, Units, tutorial_csv};
use clap::Args;

use super::{Failure, json_files};

/// Tables of shape from hover_net's JSON or this program's nuclei.json: no slide, no GPU.
#[derive(Debug, Args)]
pub struct FeaturesArgs {
    /// JSON files, or folders of them
    #[arg(value_name = "JSON", required = true)]
    json: Vec<PathBuf>,
    /// Folder for the results: OUT/<stem>/
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Tables: csv, parquet
    #[arg(long, value_name = "LIST", default_value = "csv,parquet")]
    format: Formats,
    /// Unit of lengths and areas
    #[arg(long, value_enum, default_value = "um")]
    units: Units,
    /// Also features.csv: the columns of hover_net's tutorial by its own names, in px
    #[arg(long)]
    tutorial: bool,
    #[command(flatten)]
    files: json_files::JsonArgs,
}

pub fn main(args: &FeaturesArgs) -> Result<(), Failure> {
    let tables = [Format::Csv, Format::Parquet];
    if let Some(other) = args.format.0.iter().find(|format| !tables.contains(format)) {
        return Err(Failure::usage(format!(
            "--format {}: `features` writes csv and parquet; `export` takes the same JSON for the rest",
            other.name()
        )));
    }
    let choice = Choice {
        formats: &args.format.0,
        units: args.units,
        geojson_frame: GeojsonFrame::Qupath,
    };
    json_files::for_each_file(
        &args.json,
        &args.files,
        args.units,
        &args.output,
        |result, folder| {
            output::write_nuclei(result, choice, folder)?;
            if args.tutorial {
                tutorial_csv::write(result, &folder.join("features.csv"))?;
            }
            Ok(())
        },
    )
}
