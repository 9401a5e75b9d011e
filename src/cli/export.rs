//! `export STORE|JSON… -o OUT`: outputs again, from a slide's store or from JSON of nuclei: no slide, no GPU.

use std::path::{Path, PathBuf};

use crate::output::{self, Choice, Format, Formats, GeojsonFrame, Needs, Units};
use crate::run;
use crate::run::ending::EXIT_SOME;
use clap::Args;

use super::{Failure, json_files, print};

/// Write outputs again from a slide's store, or from JSON of nuclei (hover_net's too): no slide, no GPU.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// OUT/<stem>/store.zarr of a run, or the folder that holds it; or JSON files, or folders of them
    #[arg(value_name = "STORE|JSON", required = true)]
    inputs: Vec<PathBuf>,
    /// Folder for the files; those of a JSON go into OUT/<stem>/
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Files of nuclei: json, csv, parquet, geojson, geojson.gz; from a STORE also overlay (over the thumbnail), report, ome-zarr
    /// [default: json,csv,parquet,geojson and, from a STORE, overlay,report]
    #[arg(long, value_name = "LIST")]
    format: Option<Formats>,
    /// Unit of lengths and areas in tables
    #[arg(long, value_enum, default_value = "um")]
    units: Units,
    /// Origin of nuclei.geojson: qupath (openslide.bounds taken off), level0
    #[arg(long, value_enum, default_value = "qupath")]
    geojson_frame: GeojsonFrame,
    #[command(flatten)]
    files: json_files::JsonArgs,
}

pub fn main(args: &ExportArgs) -> Result<(), Failure> {
    let stores: Vec<PathBuf> = args.inputs.iter().filter_map(|p| store_in(p)).collect();
    match stores.as_slice() {
        [] => from_json(args),
        [store] if args.inputs.len() == 1 => from_store(args, store),
        _ => Err(Failure::usage(
            "a store is exported alone: give one STORE, or JSON files and no STORE",
        )),
    }
}

/// The store that a path means. What is neither a folder nor JSON is taken for one: the message is about it.
fn store_in(path: &Path) -> Option<PathBuf> {
    let inner = path.join("store.zarr");
    if inner.is_dir() {
        return Some(inner);
    }
    let json = path.is_dir()
        || path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let is_store =
        path.join("zarr.json").is_file() || path.extension().is_some_and(|e| e == "zarr");
    (is_store || !json).then(|| path.to_owned())
}

/// The formats asked for, or the usual ones, where `at_hand` is there.
///
/// # Errors
/// A format that needs more; `why` says why it is not there and what to do.
fn formats(
    args: &ExportArgs,
    at_hand: Needs,
    why: impl Fn(&str) -> String,
) -> Result<Vec<Format>, Failure> {
    let Some(Formats(formats)) = args.format.clone() else {
        return Ok(Format::defaults(at_hand));
    };
    match formats.iter().find(|format| format.needs() > at_hand) {
        Some(format) => Err(Failure::usage(why(format.name()))),
        None => Ok(formats),
    }
}

fn choice<'a>(args: &ExportArgs, formats: &'a [Format]) -> Choice<'a> {
    Choice {
        formats,
        units: args.units,
        geojson_frame: args.geojson_frame,
    }
}

fn from_json(args: &ExportArgs) -> Result<(), Failure> {
    let formats = formats(args, Needs::Nuclei, |name| {
        format!("--format {name} needs more than JSON has: leave it out, or export from a STORE")
    })?;
    json_files::for_each_file(
        &args.inputs,
        &args.files,
        args.units,
        &args.output,
        |result, folder| output::write_nuclei(result, choice(args, &formats), folder).map(drop),
    )
}

fn from_store(args: &ExportArgs, path: &Path) -> Result<(), Failure> {
    if let Some(flag) = args.files.given() {
        return Err(Failure::usage(format!(
            "{flag} is for JSON: a store knows by itself, so leave it out"
        )));
    }
    let formats = formats(args, Needs::Store, |name| {
        format!("--format {name} needs the slide's pixels, which a store does not keep: use `run`")
    })?;
    run::check_writable(&args.output)?;
    let result = run::slide::export_store(path, choice(args, &formats), &args.output)?;
    print(&format!(
        "{} nuclei, written to {}\n",
        result.nuclei.len(),
        args.output.display()
    ))?;
    let covered = &result.coverage;
    if covered.missing_tiles > 0 {
        return Err(Failure {
            code: EXIT_SOME,
            message: format!(
                "{}: {} of {} tiles are not done, so nuclei are missing: finish the run first",
                path.display(),
                covered.missing_tiles,
                covered.planned_tiles
            ),
        });
    }
    Ok(())
}
