//! Many JSON files of nuclei, one after the other: what `features` and `export` share.
//!
//! In: files and folders as typed. Out: for each file a [`SlideResult`] and the folder `OUT/<stem>/`; one that cannot
//! be taken is named and leaves the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::import::{self, Options, type_info};
use crate::model::TypeInfo;
use crate::output::{OutputError, Units};
use crate::result::SlideResult;
use crate::run::check_writable;
use crate::run::ending::{EXIT_NONE, EXIT_SOME};
use crate::run::inputs;
use clap::Args;

use super::settings::Mpp;
use super::{Failure, print};

/// Files of a run that are JSON but hold no nuclei.
const NO_NUCLEI: [&str; 4] = ["run.json", "summary.json", "crops.json", "raw.json"];
/// This program's file of nuclei, in the folder of its slide.
const NUCLEI: &str = "nuclei.json";

#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Look into folders of folders
    #[arg(short, long)]
    recursive: bool,
    /// µm a pixel of the JSON, over what it says
    #[arg(long, value_name = "UM")]
    mpp: Option<Mpp>,
    /// Names and colours of the types, as hover_net's type_info.json, for a JSON without its own
    #[arg(long, value_name = "JSON")]
    type_info: Option<PathBuf>,
}

impl JsonArgs {
    /// The first flag that was given.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            (self.recursive, "--recursive"),
            (self.mpp.is_some(), "--mpp"),
            (self.type_info.is_some(), "--type-info"),
        ];
        flags
            .iter()
            .find(|(given, _)| *given)
            .map(|(_, flag)| *flag)
    }

    fn types(&self) -> Result<Option<Vec<TypeInfo>>, Failure> {
        let Some(path) = &self.type_info else {
            return Ok(None);
        };
        std::fs::read_to_string(path)
            .map_err(|e| e.to_string())
            .and_then(|text| type_info::parse(&text))
            .map(Some)
            .map_err(|reason| Failure::usage(format!("--type-info {}: {reason}", path.display())))
    }
}

/// Reads each file and lets `write` fill its folder.
pub fn for_each_file(
    paths: &[PathBuf],
    args: &JsonArgs,
    units: Units,
    output: &Path,
    write: impl Fn(&SlideResult, &Path) -> Result<(), OutputError>,
) -> Result<(), Failure> {
    let types = args.types()?;
    let files = files(paths, args.recursive)?;
    check_writable(output)?;
    let mut failed = 0;
    for (stem, path) in &files {
        let folder = output.join(stem);
        let options = Options {
            mpp: args.mpp.map(|mpp| mpp.0),
            units,
            types: types.clone(),
            stem: stem.clone(),
        };
        let done = import::read(path, &options)
            .map_err(|e| e.to_string())
            .and_then(|result| {
                for warning in &result.meta.warnings {
                    eprintln!("warning: {warning}");
                }
                write(&result, &folder).map_err(|e| e.to_string())?;
                Ok(result.nuclei.len())
            });
        match done {
            Ok(count) => print(&format!(
                "{stem}: {count} nuclei, written to {}\n",
                folder.display()
            ))?,
            Err(message) => {
                eprintln!("error: {message}");
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(()),
        n if n == files.len() => Err(Failure::silent(EXIT_NONE)),
        _ => Err(Failure::silent(EXIT_SOME)),
    }
}

/// The files and the names of their folders, sorted by name, no two the same.
fn files(paths: &[PathBuf], recursive: bool) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in paths {
        let found = if path.is_dir() {
            let found = in_folder(path, recursive)?;
            if found.is_empty() {
                return Err(Failure::usage(no_json(path)));
            }
            found
        } else {
            vec![path.clone()]
        };
        for file in found {
            let stem = stem_of(&file);
            if let Some(other) = files.insert(stem.clone(), file.clone())
                && other != file
            {
                return Err(Failure::usage(format!(
                    "{} and {} would both be written to {stem}: take them one by one, each with its own -o",
                    other.display(),
                    file.display()
                )));
            }
        }
    }
    Ok(files)
}

/// The files of nuclei in `folder` (of all below it, with `recursive`), and the nuclei.json of each result folder in it.
fn in_folder(folder: &Path, recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut found = inputs::search(folder, recursive, &["json"])?;
    if !recursive {
        let results = folders_in(folder, |inner| inner.join(NUCLEI).is_file());
        found.extend(results.into_iter().map(|inner| inner.join(NUCLEI)));
    }
    found.retain(|file| holds_nuclei(file));
    Ok(found)
}

/// Whether a JSON may hold nuclei: not this program's other files, and nothing that lies beside a nuclei.json.
fn holds_nuclei(file: &Path) -> bool {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    // Shards write run-0-of-4.json.
    let of_shard = name.starts_with("run-") && name.contains("-of-");
    let beside = file.with_file_name(NUCLEI).is_file() && name != NUCLEI;
    !(NO_NUCLEI.contains(&name.as_ref()) || of_shard || beside)
}

/// The folders in `folder` that `wanted` takes, sorted by name; hidden ones are passed over.
pub fn folders_in(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let shown = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let mut folders: Vec<PathBuf> = shown.map(|entry| entry.path()).collect();
    folders.retain(|inner| inner.is_dir() && wanted(inner));
    folders.sort();
    folders
}

fn no_json(folder: &Path) -> String {
    let has_store = |inner: &Path| inner.join("store.zarr").is_dir();
    let place = folder.display();
    match has_store(folder) || !folders_in(folder, has_store).is_empty() {
        true => format!(
            "{place}: results without a nuclei.json: `wsi-nuclei export {place} -o OUT --format csv,parquet` takes their store"
        ),
        false => format!("{place}: no .json in this folder (-r also looks into its folders)"),
    }
}

/// The file's name, or, for this program's nuclei.json, that of its folder.
fn stem_of(path: &Path) -> String {
    let folder = path.parent().filter(|folder| folder.file_name().is_some());
    match folder {
        Some(folder) if path.ends_with("nuclei.json") => {
            // Nothing ends in an extension here.
            inputs::stem_of(&folder.with_file_name(format!(
                "{}.json",
                folder.file_name().unwrap_or_default().to_string_lossy()
            )))
        }
        _ => inputs::stem_of(path),
    }
}
