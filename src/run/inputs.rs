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
mod tests {
    use super::*;

    fn config(dedupe_names: bool) -> RunConfig {
        RunConfig {
            dedupe_names,
            ..RunConfig::default()
        }
    }

    fn touch(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
    }

    fn stems(slides: &[SlideConfig]) -> Vec<&str> {
        slides.iter().map(|slide| slide.stem.as_str()).collect()
    }

    #[test]
    fn folders_are_searched_sorted_and_deep_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        touch(
            dir.path(),
            &["b.svs", "a.SVS", "notes.txt", ".hidden.svs", "deep/c.tiff"],
        );
        let flat = from_paths(
            &[dir.path().into()],
            false,
            slide_extensions(),
            &config(false),
        )
        .unwrap();
        assert_eq!(stems(&flat), ["a", "b"]);
        let deep = from_paths(
            &[dir.path().into()],
            true,
            slide_extensions(),
            &config(false),
        )
        .unwrap();
        assert_eq!(stems(&deep), ["a", "b", "c"]);
        assert_eq!(deep[2].folder, Path::new("out/c"));
    }

    #[test]
    fn an_empty_folder_is_an_error_that_says_what_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = from_paths(
            &[dir.path().into()],
            false,
            slide_extensions(),
            &config(false),
        )
        .unwrap_err();
        assert!(error.to_string().contains(".svs") && error.to_string().contains("-r"));
    }

    #[test]
    fn one_stem_twice_is_refused_unless_names_are_made_unique() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["a/x.svs", "b/x.tif"]);
        let paths = [dir.path().join("a/x.svs"), dir.path().join("b/x.tif")];
        let error = from_paths(&paths, false, slide_extensions(), &config(false)).unwrap_err();
        assert!(error.to_string().contains("--dedupe-names"));
        let slides = from_paths(&paths, false, slide_extensions(), &config(true)).unwrap();
        assert_ne!(slides[0].stem, slides[1].stem);
        assert!(slides.iter().all(|s| s.stem.len() == "x-".len() + 8));
        let same = [paths[0].clone(), dir.path().join("b/../a/x.svs")];
        assert_eq!(
            from_paths(&same, false, slide_extensions(), &config(false))
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn stems_never_leave_the_output_folder() {
        for (name, stem) in [
            ("..", "slide"),
            ("../../x", ".._.._x"),
            (".hid", "hid"),
            ("a:b\n", "a_b_"),
            ("", "slide"),
        ] {
            let got = sanitised(name);
            assert!(!got.contains('/') && !got.starts_with('.'), "{got}");
            if name != "../../x" {
                assert_eq!(got, stem);
            }
        }
        assert_eq!(sanitised("CMU-1 (größer).v2"), "CMU-1 (größer).v2");
    }

    #[test]
    fn a_manifest_gives_names_and_settings() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["a/x.svs", "b/x.svs", "m.png"]);
        let file = dir.path().join("cohort.csv");
        fs::write(
            &file,
            "path,id,mpp,mask,roi,model\na/x.svs,one,0.5,m.png,,\n\"b/x.svs\",two,,none,,other\n",
        )
        .unwrap();
        let slides = from_manifest(&file, &config(false)).unwrap();
        assert_eq!(stems(&slides), ["one", "two"]);
        assert_eq!(
            (slides[0].mpp, slides[0].mpp_from),
            (Some(0.5), Some("manifest"))
        );
        assert_eq!(slides[0].mask, MaskChoice::File(dir.path().join("m.png")));
        assert_eq!(slides[0].path, dir.path().join("a/x.svs"));
        assert_eq!((&slides[1].mask, slides[1].mpp), (&MaskChoice::None, None));
        assert_eq!(slides[1].model, "other");
    }

    #[test]
    fn other_columns_of_a_manifest_are_kept_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cohort.csv");
        let text = "patient,path,task,id,age\nP1,x.svs,train,one,63\n\"P, 2\",y.svs,,two,\n";
        fs::write(&file, text).unwrap();
        let slides = from_manifest(&file, &config(false)).unwrap();
        let kept = |slide: &SlideConfig| -> Vec<String> {
            let pairs = slide.manifest.iter();
            pairs.map(|(name, cell)| format!("{name}={cell}")).collect()
        };
        assert_eq!(kept(&slides[0]), ["patient=P1", "task=train", "age=63"]);
        assert_eq!(kept(&slides[1]), ["patient=P, 2", "task=", "age="]);
    }

    #[test]
    fn a_manifests_mistakes_are_named_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cohort.csv");
        let mistake = |text: &str| {
            fs::write(&file, text).unwrap();
            from_manifest(&file, &config(false))
                .unwrap_err()
                .to_string()
        };
        assert!(mistake("slide\nx\n").contains("line 1: no column `path`"));
        assert!(mistake("path,mpp\nx.svs,\ny.svs,fast\n").contains("line 3: mpp `fast`"));
        assert!(mistake("path,id\nx.svs,../up\n").contains("line 2: id `../up`"));
        assert!(mistake("path,mask\nx.svs,none.png\n").contains("line 2: mask"));
        let huge = format!("path\n{}\n", "a".repeat(1 << 20));
        assert!(mistake(&huge).contains("line 2: is longer than 65536 bytes"));
        for slip in [
            "Path,path",
            "path,MPP",
            "path,maks",
            "path,masks",
            "path,modl",
        ] {
            let said = mistake(&format!("{slip}\nx.svs,\n"));
            assert!(
                said.contains("line 1") && said.contains("did you mean"),
                "{said}"
            );
        }
        assert!(mistake("path,a,a\nx.svs,1,2\n").contains("a name of its own"));
        assert!(mistake("path,id\nx.svs\n").contains("line 2"));
        assert!(mistake("path\n").contains("no slides"));
    }
}
