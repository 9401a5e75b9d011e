//! Folders of annotations: truth or predictions, one image per file stem.
//!
//! In: a folder. For a stem it may hold `STEM/` (what `tile` writes: labels.png or labels.npy with
//! nuclei.json), `STEM.mat` (hover_net's, CoNSeP's: inst_map with type_map, or with inst_type),
//! `STEM.png` (8 or 16 bit ids), `STEM.npy` (ids `[H, W]`, or ids and types `[H, W, 2]`),
//! `STEM.json` (points, from hover_net or from here) or `STEM.csv` (x, y and optionally type, a
//! number). hover_net's `mat/` and CoNSeP's `Labels/` below the folder are found too. Out:
//! [`Annotation`]s by stem. Never pairs or scores them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::formats::npy::Npy;
use super::formats::{assign_types, read_picture_ids};
use super::ids::Ids;
use super::{Annotation, Detections, LabelError};
use crate::mat5;

/// The annotation files of `folder` by stem.
///
/// # Errors
/// A folder that cannot be read, or that holds no annotation.
pub fn list(folder: &Path) -> Result<BTreeMap<String, PathBuf>, LabelError> {
    for place in [
        folder.to_path_buf(),
        folder.join("mat"),
        folder.join("Labels"),
        folder.join("labels"),
    ] {
        if place.is_dir() {
            let found = list_flat(&place)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Err(LabelError::new(
        folder,
        "holds no annotations: .mat, .npy, label .png, .json, .csv, or folders that `tile` has written",
    ))
}

fn list_flat(folder: &Path) -> Result<BTreeMap<String, PathBuf>, LabelError> {
    let entries = std::fs::read_dir(folder).map_err(|e| LabelError::new(folder, e))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|e| LabelError::new(folder, e))?;
        let path = entry.path();
        // macOS puts a hidden ._NAME beside each NAME.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let usable = match extension {
            "mat" | "npy" | "png" | "json" | "csv" => path.is_file(),
            _ => path.join("nuclei.json").is_file(),
        };
        let name = if path.is_dir() {
            path.file_name()
        } else {
            path.file_stem()
        };
        if let (true, Some(stem)) = (usable, name) {
            found.insert(stem.to_string_lossy().into_owned(), path.clone());
        }
    }
    Ok(found)
}

/// Reads one of the annotations that [`list`] found.
pub fn read(path: &Path) -> Result<Annotation, LabelError> {
    if path.is_dir() {
        return read_tile(path);
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("mat") => read_mat(path),
        Some("npy") => read_npy(path),
        Some("json") => Ok(read_json(path)?.0),
        Some("csv") => read_csv(path),
        _ => {
            let (ids, width) = read_png(path)?;
            Ok(Annotation::of_map(ids, Vec::new(), width))
        }
    }
}

/// What `tile` writes: the label map, with types and probabilities from nuclei.json.
fn read_tile(folder: &Path) -> Result<Annotation, LabelError> {
    let (points, types) = read_json(&folder.join("nuclei.json"))?;
    let [png, npy] = ["labels.png", "labels.npy"].map(|n| folder.join(n));
    let (mut map, width) = if png.is_file() {
        read_png(&png)?
    } else if npy.is_file() {
        let mut map = Npy::open(&npy)?;
        let columns = map.shape.get(1).copied().unwrap_or(1) as usize;
        (map.take_ids()?, columns)
    } else {
        return Ok(points);
    };
    let ids = Ids::renumber(&mut map);
    let (mut id_types, mut probs) = (ids.table(0u8), ids.table(None));
    for (id, type_id, prob) in types {
        if let Some(new) = ids.new_of(id) {
            (id_types[new], probs[new]) = (type_id, prob);
        }
    }
    let mut annotation = Annotation::of_map(map, id_types, width);
    annotation.type_probs = probs.into_iter().skip(1).collect();
    Ok(annotation)
}

/// Id, type and probability of a nucleus in a JSON.
type JsonTypes = Vec<(u32, u8, Option<f64>)>;

/// hover_net's schema: centroids (pixel centres at whole numbers) with types.
fn read_json(path: &Path) -> Result<(Annotation, JsonTypes), LabelError> {
    let text = std::fs::read(path).map_err(|e| LabelError::new(path, e))?;
    let root: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| LabelError::new(path, e))?;
    let nuclei = root.get("nuc").unwrap_or(&root).as_object();
    let nuclei = nuclei.ok_or_else(|| LabelError::new(path, "has no object `nuc`"))?;
    let mut annotation = Annotation::default();
    let mut types = Vec::new();
    for (key, value) in nuclei {
        let wrong = |what: &str| LabelError::new(path, format!("nucleus {key}: {what}"));
        let id: u32 = key.parse().map_err(|_| wrong("its key is not a number"))?;
        let centroid = value.get("centroid").and_then(|c| c.as_array());
        let number = |i: usize| centroid.and_then(|c| c.get(i)).and_then(|v| v.as_f64());
        let (Some(x), Some(y)) = (number(0), number(1)) else {
            return Err(wrong("`centroid` is not [x, y]"));
        };
        let type_id = value.get("type").and_then(|t| t.as_u64()).unwrap_or(0);
        let type_id = u8::try_from(type_id).map_err(|_| wrong("`type` is above 255"))?;
        annotation.detections.points.push([x + 0.5, y + 0.5]);
        annotation.detections.types.push(type_id);
        types.push((id, type_id, value.get("type_prob").and_then(|p| p.as_f64())));
    }
    annotation.type_probs = types.iter().map(|t| t.2).collect();
    Ok((annotation, types))
}

fn read_mat(path: &Path) -> Result<Annotation, LabelError> {
    let bytes = std::fs::read(path).map_err(|e| LabelError::new(path, e))?;
    let matrices = mat5::read(&bytes).map_err(|e| LabelError::new(path, e))?;
    let get = |name: &str| matrices.iter().find(|m| m.name == name);
    let map =
        get("inst_map").ok_or_else(|| LabelError::new(path, "has no numeric matrix inst_map"))?;
    let width = map.columns;
    let mut map = map.ids_by_row();
    let ids = Ids::renumber(&mut map);
    let mut id_types = ids.table(0u8);
    if let Some(types) = get("type_map").filter(|t| t.values.len() == map.len()) {
        id_types = assign_types(&mut map, types.ids_by_row().into_iter(), clamp_type)?;
    } else if let Some(types) = get("inst_type") {
        // inst_uid holds the id of each row; in older files without it, the row's number is the id.
        let uid = get("inst_uid").filter(|u| u.values.len() == types.values.len());
        for (i, &kind) in types.values.iter().enumerate() {
            let id = uid.map_or(i + 1, |u| u.values[i].max(0.0) as usize);
            if let Some(new) = u32::try_from(id).ok().and_then(|id| ids.new_of(id)) {
                id_types[new] = kind.clamp(0.0, 255.0) as u8;
            }
        }
    }
    Ok(Annotation::of_map(map, id_types, width))
}

/// A type number of a file as a type id.
fn clamp_type(kind: u32) -> Result<u8, LabelError> {
    Ok(kind.min(255) as u8)
}

fn read_npy(path: &Path) -> Result<Annotation, LabelError> {
    let mut npy = Npy::open(path)?;
    let (width, typed) = match npy.shape[..] {
        [_, w] => (w as usize, false),
        [_, w, 2] => (w as usize, true),
        _ => {
            return Err(LabelError::new(
                path,
                format!(
                    "shape {:?}: [H, W] ids or [H, W, 2] ids and types are wanted",
                    npy.shape
                ),
            ));
        }
    };
    let mut values = npy.take_ids()?;
    if !typed {
        Ids::renumber(&mut values);
        return Ok(Annotation::of_map(values, Vec::new(), width));
    }
    let mut map: Vec<u32> = values.iter().step_by(2).copied().collect();
    let kinds = values.iter().skip(1).step_by(2).copied();
    let id_types = assign_types(&mut map, kinds, clamp_type)?;
    Ok(Annotation::of_map(map, id_types, width))
}

fn read_png(path: &Path) -> Result<(Vec<u32>, usize), LabelError> {
    let label = image::open(path).map_err(|e| LabelError::new(path, e))?;
    let width = label.width() as usize;
    let reason = "is a colour picture, not a label map of 8 or 16 bit";
    let ids = read_picture_ids(label).ok_or_else(|| LabelError::new(path, reason))?;
    Ok((ids, width))
}

#[derive(serde::Deserialize)]
struct Row {
    x: f64,
    y: f64,
    #[serde(default)]
    r#type: Option<u8>,
}

fn read_csv(path: &Path) -> Result<Annotation, LabelError> {
    let mut reader = csv::Reader::from_path(path).map_err(|e| LabelError::new(path, e))?;
    let mut detections = Detections::default();
    for row in reader.deserialize() {
        let row: Row = row.map_err(|e| LabelError::new(path, e))?;
        detections.points.push([row.x, row.y]);
        detections.types.push(row.r#type.unwrap_or(0));
    }
    Ok(Annotation {
        detections,
        ..Annotation::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use npyz::WriterBuilder;

    /// Writes an .npy of these ids, `shape[0]` rows.
    fn save_npy(path: &Path, shape: &[u64], ids: &[u32]) {
        let file = std::fs::File::create(path).unwrap();
        let builder = npyz::WriteOptions::new().default_dtype().shape(shape);
        let mut writer = builder.writer(file).begin_nd().unwrap();
        writer.extend(ids.iter().copied()).unwrap();
        writer.finish().unwrap();
    }

    /// A table as long as the largest id would take 100 GB.
    #[test]
    fn large_ids_cost_no_memory_and_keep_their_types() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let map = [0, 4_000_000_000, 4_000_000_000, 0, 5, u32::MAX];
        save_npy(&at("labels.npy"), &[2, 3], &map);
        let nuclei = r#"{"nuc": {
            "4000000000": {"centroid": [1.0, 0.0], "type": 3, "type_prob": 0.75},
            "5": {"centroid": [1.0, 1.0], "type": 1, "type_prob": 0.5},
            "9": {"centroid": [9.0, 9.0], "type": 2, "type_prob": 0.25},
            "4294967295": {"centroid": [2.0, 1.0], "type": 4, "type_prob": 1.0}}}"#;
        std::fs::write(at("nuclei.json"), nuclei).unwrap();
        let tile = read(folder.path()).unwrap();
        assert_eq!(tile.ids.as_deref(), Some(&[0, 2, 2, 0, 1, 3][..]));
        assert_eq!(tile.id_types, [0, 1, 3, 4]);
        assert_eq!(tile.type_probs, Some(vec![0.5, 0.75, 1.0]));
        let centres = [[1.5, 1.5], [2.0, 0.5], [2.5, 1.5]];
        assert_eq!(tile.detections.points, centres);
        assert_eq!(tile.detections.types, [1, 3, 4]);

        let typed: Vec<u32> = map.iter().flat_map(|&id| [id, id % 7]).collect();
        save_npy(&at("typed.npy"), &[2, 3, 2], &typed);
        let typed = read(&at("typed.npy")).unwrap();
        assert_eq!(typed.ids, tile.ids);
        let kinds = [5u32, 4_000_000_000, u32::MAX].map(|id| (id % 7) as u8);
        assert_eq!(typed.detections.types, kinds);
        assert_eq!(read(&at("labels.npy")).unwrap().detections.points, centres);
    }
}
