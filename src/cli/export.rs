//! `export STORE|JSON… -o OUT`: outputs again, from a slide's store or from JSON of nuclei: no slide, no GPU.

use std::path::{Path, PathBuf};

use clap::Args;
use wsi_nuclei::config::{Format, Formats, GeojsonFrame, Units};
use wsi_nuclei::output::{self, Choice, Pictures, nuclei_json};
use wsi_nuclei::pipeline;
use wsi_nuclei::store::Store;

use super::run::writable;
use super::{EXIT_SOME, Failure, json_files, print};

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

/// The formats asked for, or all of `default`.
fn formats(args: &ExportArgs, default: &[Format]) -> Vec<Format> {
    args.format
        .as_ref()
        .map_or(default.to_vec(), |f| f.0.clone())
}

fn from_json(args: &ExportArgs) -> Result<(), Failure> {
    let default = [Format::Json, Format::Csv, Format::Parquet, Format::Geojson];
    let formats = formats(args, &default);
    let pictured = [
        Format::Overlay,
        Format::Crops,
        Format::Report,
        Format::OmeZarr,
    ];
    if let Some(format) = formats.iter().find(|format| pictured.contains(format)) {
        return Err(Failure::usage(format!(
            "--format {} needs more than JSON has: leave it out, or export from a STORE",
            format.name()
        )));
    }
    let choice = Choice {
        formats: &formats,
        units: args.units,
        geojson_frame: args.geojson_frame,
    };
    json_files::each(
        &args.inputs,
        &args.files,
        args.units,
        &args.output,
        |result, folder| {
            output::write_tables(result, choice, folder)?;
            if formats.contains(&Format::Json) {
                nuclei_json::write(result, &folder.join("nuclei.json"))?;
            }
            Ok(())
        },
    )
}

fn from_store(args: &ExportArgs, path: &Path) -> Result<(), Failure> {
    if let Some(flag) = args.files.given() {
        return Err(Failure::usage(format!(
            "{flag} is for JSON: a store knows by itself, so leave it out"
        )));
    }
    let default = [
        Format::Json,
        Format::Csv,
        Format::Parquet,
        Format::Geojson,
        Format::Overlay,
        Format::Report,
    ];
    let formats = formats(args, &default);
    if formats.contains(&Format::Crops) {
        return Err(Failure::usage(
            "--format crops needs the slide's pixels, which a store does not keep: use `run`",
        ));
    }
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
    let choice = Choice {
        formats: &formats,
        units: args.units,
        geojson_frame: args.geojson_frame,
    };
    output::write_all(&result, pictures, choice, &args.output)?;
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
