//! Which slides, under which names.
//!
//! In: paths and folders as typed, or a manifest. Out: a [`SlideConfig`] a slide, in the order given (folders sorted
//! by name, several files of one slide as one), no two with one output folder. Never opens a slide.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{RunConfig, RunError, SlideConfig};
use crate::digest::hex;
use crate::slide::companions::group_files;
use crate::slide::mpp;
pub use crate::slide::{IMAGE_EXTENSIONS, slide_extensions};
use crate::tissue::MaskChoice;

/// The columns of a manifest that the run reads; all others are carried through to the tables.
const COLUMNS: [&str; 6] = ["path", "id", "mpp", "mask", "roi", "model"];

/// Longest line of a manifest, and largest manifest: a million slides have less.
const MAX_LINE_BYTES: usize = 1 << 16;
const MAX_MANIFEST_BYTES: u64 = 1 << 28;

/// One row of a manifest. Empty cells say nothing.
#[derive(Debug, Default, Deserialize)]
struct Row {
    path: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    mpp: String,
    #[serde(default)]
    mask: String,
    #[serde(default)]
    roi: String,
    #[serde(default)]
    model: String,
}

/// The slides of `paths` and folders.
pub fn from_paths(
    paths: &[PathBuf],
    recursive: bool,
    extensions: &[&str],
    config: &RunConfig,
) -> Result<Vec<SlideConfig>, RunError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = search(path, recursive, extensions)?;
            if found.is_empty() {
                let deeper = if recursive {
                    ""
                } else {
                    " (-r also looks into its folders)"
                };
                return Err(RunError::Usage(format!(
                    "{}: no slide or image in this folder{deeper}: looked for .{}",
                    path.display(),
                    extensions.join(", .")
                )));
            }
            let slides = group_files(found);
            for slide in slides.iter().filter(|slide| !slide.companions.is_empty()) {
                tracing::info!(
                    "{}: {} other files of the folder belong to this slide",
                    slide.path.display(),
                    slide.companions.len()
                );
            }
            files.extend(slides.into_iter().map(|slide| slide.path));
        } else {
            files.push(path.clone());
        }
    }
    let slides = files
        .into_iter()
        .map(|path| {
            let stem = stem_of(&path);
            slide(path, stem, config)
        })
        .collect();
    with_folders(slides, config)
}

/// The slides of a manifest: CSV with a header, column `path` and optionally `id, mpp, mask, roi, model`; other columns
/// are kept for the tables. Paths count from the manifest's folder.
pub fn from_manifest(manifest: &Path, config: &RunConfig) -> Result<Vec<SlideConfig>, RunError> {
    let wrong = |line: u64, reason: String| {
        RunError::Usage(format!("{}, line {line}: {reason}", manifest.display()))
    };
    let text = read_manifest(manifest)?;
    if let Some(line) = text.lines().position(|line| line.len() > MAX_LINE_BYTES) {
        let reason = format!("is longer than {MAX_LINE_BYTES} bytes: no row of a manifest is");
        return Err(wrong(line as u64 + 1, reason));
    }
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let header = reader
        .headers()
        .map_err(|e| wrong(1, e.to_string()))?
        .clone();
    if !header.iter().any(|name| name == "path") {
        return Err(wrong(
            1,
            "no column `path`: the first line names the columns (path, and optionally id, mpp, \
            mask, roi, model; others are carried through to the tables)"
                .into(),
        ));
    }
    for (place, name) in header.iter().enumerate() {
        if let Some(meant) = COLUMNS.iter().find(|known| is_slip(name, known)) {
            return Err(wrong(
                1,
                format!("column `{name}`: did you mean `{meant}`?"),
            ));
        }
        if name.is_empty() || header.iter().take(place).any(|other| other == name) {
            return Err(wrong(
                1,
                format!(
                    "column {} (`{name}`): each column needs a name of its own",
                    place + 1
                ),
            ));
        }
    }
    let mut slides = Vec::new();
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => return Err(wrong(line, error.to_string())),
        }
        let line = record.position().map_or(line, csv::Position::line);
        let row: Row = record.deserialize(Some(&header)).map_err(|error| {
            let reason = match error.kind() {
                csv::ErrorKind::Deserialize { err, .. } => err.kind().to_string(),
                _ => error.to_string(),
            };
            wrong(line, reason)
        })?;
        let slide = from_row(&row, folder, config).map_err(|reason| wrong(line, reason))?;
        let others = header.iter().zip(&record);
        let others = others.filter(|(name, _)| !COLUMNS.contains(name));
        slides.push(SlideConfig {
            manifest: others
                .map(|(name, cell)| (name.into(), cell.into()))
                .collect(),
            ..slide
        });
    }
    if slides.is_empty() {
        return Err(RunError::Usage(format!(
            "{}: no slides: each line after the first names one",
            manifest.display()
        )));
    }
    with_folders(slides, config)
}

/// Whether a name is a slip of the pen for a known column: other capitals, one letter too many or too few, two swapped.
/// Short names are near to too many words.
fn is_slip(name: &str, known: &str) -> bool {
    let lower = name.to_lowercase();
    if lower == known {
        return name != known;
    }
    let (a, b): (Vec<char>, Vec<char>) = (lower.chars().collect(), known.chars().collect());
    if b.len() < 4 {
        return false;
    }
    let without = |all: &[char], place: usize| {
        let mut rest = all.to_vec();
        rest.remove(place);
        rest
    };
    let swapped = |place: usize| {
        let mut other = a.clone();
        other.swap(place, place + 1);
        other == b
    };
    (a.len() == b.len() + 1 && (0..a.len()).any(|i| without(&a, i) == b))
        || (a.len() + 1 == b.len() && (0..b.len()).any(|i| without(&b, i) == a))
        || (a.len() == b.len() && (0..a.len().saturating_sub(1)).any(swapped))
}

fn read_manifest(manifest: &Path) -> Result<String, RunError> {
    let unreadable = |reason: String| {
        RunError::Usage(format!(
            "{}: cannot be read as a manifest: {reason}",
            manifest.display()
        ))
    };
    let bytes = fs::metadata(manifest)
        .map_err(|error| unreadable(error.to_string()))?
        .len();
    if bytes > MAX_MANIFEST_BYTES {
        return Err(unreadable(format!("it has {} MB", bytes / 1_000_000)));
    }
    fs::read_to_string(manifest).map_err(|error| unreadable(error.to_string()))
}

fn from_row(row: &Row, folder: &Path, config: &RunConfig) -> Result<SlideConfig, String> {
    if row.path.is_empty() {
        return Err("`path` is empty: name a slide".into());
    }
    let path = folder.join(&row.path);
    let stem = match row.id.as_str() {
        "" => stem_of(&path),
        id if sanitised(id) == id => id.to_owned(),
        id => {
            return Err(format!(
                "id `{id}` cannot name a folder: use letters, digits, - _ . (`{}`)",
                sanitised(id)
            ));
        }
    };
    let mut slide = slide(path, stem, config);
    if !row.mpp.is_empty() {
        let mpp = mpp::parse(&row.mpp).map_err(|reason| format!("mpp `{}`: {reason}", row.mpp))?;
        slide.mpp = Some(mpp);
        slide.mpp_from = Some("manifest");
    }
    if !row.mask.is_empty() {
        slide.mask = match row.mask.parse()? {
            MaskChoice::File(file) => MaskChoice::File(existing(folder.join(file), "mask")?),
            other => other,
        };
    }
    if !row.roi.is_empty() {
        slide.roi = Some(existing(folder.join(&row.roi), "roi")?);
    }
    if !row.model.is_empty() {
        // A folder counts from the manifest, a name is looked up.
        let folder = folder.join(&row.model);
        slide.model = match folder.join("model.toml").is_file() {
            true => folder.display().to_string(),
            false => row.model.clone(),
        };
    }
    Ok(slide)
}

fn existing(path: PathBuf, column: &str) -> Result<PathBuf, String> {
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{column} {}: no such file", path.display()))
    }
}

fn slide(path: PathBuf, stem: String, config: &RunConfig) -> SlideConfig {
    SlideConfig {
        folder: config.output.join(&stem),
        results: None,
        path,
        read_from: None,
        stem,
        model: config.model.clone(),
        mpp: config.mpp,
        mpp_from: config.mpp.map(|_| "flag"),
        mask: config.mask.clone(),
        roi: config.roi.clone(),
        manifest: Vec::new(),
    }
}

/// Gives every slide a folder of its own, or refuses.
fn with_folders(
    slides: Vec<SlideConfig>,
    config: &RunConfig,
) -> Result<Vec<SlideConfig>, RunError> {
    let mut seen_paths = BTreeSet::new();
    let mut slides: Vec<SlideConfig> = slides
        .into_iter()
        // The same file under the same name twice is one slide.
        .filter(|slide| seen_paths.insert((absolute(&slide.path), slide.stem.clone())))
        .collect();
    if config.dedupe_names {
        for slide in &mut slides {
            slide.stem = format!("{}-{}", slide.stem, path_hash(&slide.path));
            slide.folder = config.output.join(&slide.stem);
        }
    }
    let mut owners: BTreeMap<&str, &Path> = BTreeMap::new();
    for slide in &slides {
        if let Some(other) = owners.insert(&slide.stem, &slide.path) {
            return Err(RunError::Usage(format!(
                "{} and {} would both be written to {}: give them ids in a manifest (--manifest), or --dedupe-names",
                other.display(),
                slide.path.display(),
                slide.folder.display()
            )));
        }
    }
    Ok(slides)
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

/// Eight hex digits that only this path has.
fn path_hash(path: &Path) -> String {
    let digest = Sha256::digest(absolute(path).as_os_str().as_encoded_bytes());
    hex(&digest[..4])
}

/// A slide's file name without its extension, fit to name a folder.
pub fn stem_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    sanitised(stem.as_deref().unwrap_or(""))
}

/// One path component: letters, digits, `-`, `_`, `.`, blanks; never hidden, never `..`.
fn sanitised(name: &str) -> String {
    let kept: String = name
        .chars()
        .map(|c| match c {
            '-' | '_' | '.' | ' ' | '+' | '(' | ')' => c,
            c if c.is_alphanumeric() => c,
            _ => '_',
        })
        .collect();
    let trimmed = kept
        .trim_start_matches(['.', ' '])
        .trim_end_matches(['.', ' ']);
    if trimmed.is_empty() {
        "slide".to_owned()
    } else {
        trimmed.to_owned()
    }
}

/// Files below `folder` with one of `extensions`, sorted by name; hidden files and folders, and the insides of Zarr
/// stores, are passed over.
pub fn search(
    folder: &Path,
    recursive: bool,
    extensions: &[&str],
) -> Result<Vec<PathBuf>, RunError> {
    let unreadable = |error: std::io::Error| {
        RunError::Usage(format!(
            "{}: the folder cannot be read: {error}",
            folder.display()
        ))
    };
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A folder that a link points to may lead back here.
        let linked = entry.file_type().map_err(unreadable)?.is_symlink();
        if path.is_dir() {
            // A store or a label pyramid is one thing, and full of JSON.
            let zarr = path.extension().is_some_and(|e| e == "zarr");
            if recursive && !linked && !zarr {
                files.extend(search(&path, recursive, extensions)?);
            }
            continue;
        }
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if extension.is_some_and(|e| extensions.contains(&e.as_str())) {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
