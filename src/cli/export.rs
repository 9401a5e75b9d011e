//! `export STORE|JSON… -o OUT`: outputs again, from a slide's store or from JSON of nuclei: no slide, no GPU.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::output::{self, Choice, Format, Formats, GeojsonFrame, Needs, Units};
use crate::run;
use crate::run::ending::{EXIT_NONE, EXIT_SOME, EXIT_USAGE};
use clap::Args;

use super::{Failure, json_files, print};

/// Write outputs again from a slide's store, or from JSON of nuclei (hover_net's too): no slide, no GPU.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// OUT of a run, OUT/<stem> or its store.zarr; or JSON files, or folders of them
    #[arg(value_name = "STORE|JSON", required = true)]
    inputs: Vec<PathBuf>,
    /// Folder for the files; those of a JSON or of the OUT of a run go into OUT/<stem>/
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Files of nuclei: json, csv, parquet, geojson.gz, geojson; from a STORE also overlay (over the thumbnail), report, ome-zarr
    /// [default: json,csv,parquet,geojson.gz and, from a STORE, overlay,report]
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
    // Stores that are named go alone and straight into -o; those of a run's OUT each into a folder of their own.
    let named: Vec<PathBuf> = args.inputs.iter().filter_map(|p| store_in(p)).collect();
    let of_runs: Vec<Vec<PathBuf>> = args.inputs.iter().map(|p| results_in(p)).collect();
    let runs = of_runs.iter().filter(|found| !found.is_empty()).count();
    match named.as_slice() {
        [] if runs == args.inputs.len() => from_runs(args, &of_runs.concat()),
        [] if runs == 0 => from_json(args),
        [store] if args.inputs.len() == 1 => from_store(args, store, &args.output),
        _ => Err(Failure::usage(
            "a store is exported alone: give one STORE, or the OUT of runs, or JSON files and no STORE",
        )),
    }
}

/// The result folders of slides in `path`, where it is the OUT of a run.
fn results_in(path: &Path) -> Vec<PathBuf> {
    match store_in(path) {
        Some(_) => Vec::new(),
        None => json_files::folders_in(path, |inner| inner.join("store.zarr").is_dir()),
    }
}

/// Every slide into its own folder; an error of one leaves the others.
fn from_runs(args: &ExportArgs, folders: &[PathBuf]) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for name in folders.iter().filter_map(|folder| folder.file_name()) {
        if !seen.insert(name) {
            return Err(Failure::usage(format!(
                "two slides are called {}: export their runs one by one, each with its own -o",
                name.display()
            )));
        }
    }
    let mut failed = 0;
    for folder in folders {
        let into = args.output.join(folder.file_name().unwrap_or_default());
        match from_store(args, &folder.join("store.zarr"), &into) {
            // What was asked for is wrong, whatever the slide.
            Err(failure) if failure.code == EXIT_USAGE => return Err(failure),
            Err(failure) => {
                eprintln!("error: {}", failure.message);
                failed += 1;
            }
            Ok(()) => {}
        }
    }
    match failed {
        0 => Ok(()),
        n if n == folders.len() => Err(Failure::silent(EXIT_NONE)),
        _ => Err(Failure::silent(EXIT_SOME)),
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

fn from_store(args: &ExportArgs, path: &Path, output: &Path) -> Result<(), Failure> {
    if let Some(flag) = args.files.given() {
        return Err(Failure::usage(format!(
            "{flag} is for JSON: a store knows by itself, so leave it out"
        )));
    }
    let formats = formats(args, Needs::Store, |name| {
        format!("--format {name} needs the slide's pixels, which a store does not keep: use `run`")
    })?;
    run::check_writable(output)?;
    let result = run::slide::export_store(path, choice(args, &formats), output)?;
    print(&format!(
        "{} nuclei, written to {}\n",
        result.nuclei.len(),
        output.display()
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
