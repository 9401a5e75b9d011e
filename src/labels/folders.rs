//! Folders of annotations: truth or predictions, one image per file stem.
//!
//! In: a folder. For a stem it may hold `STEM/` (what `tile` writes: labels.png or labels.npy with
//! nuclei.json), `STEM.mat` (hover_net's, CoNSeP's, Lizard's), `STEM.png` or `.tif` (ids),
//! `STEM.npy` (ids `[H, W]`, or ids and types `[H, W, 2]`), `STEM.json` (points, from hover_net or
//! from here) or `STEM.csv` (x, y and optionally type, a number). hover_net's `mat/` and CoNSeP's
//! `Labels/` below the folder are found too. Out:
//! [`Annotation`]s by stem. Never pairs or scores them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::formats::assign_types;
use super::formats::npy::Npy;
use super::ids::Ids;
use super::label_map::{self, LabelMap};
use super::points_table::{PointsTable, TYPE, type_number};
use super::{Annotation, Detections, LabelError, mat_file};

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
        "holds no annotations: .mat, .npy, label .png or .tif, .json, .csv, or folders that `tile` has written",
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
        let usable = match lower_extension(&path).as_str() {
            "mat" | "npy" | "png" | "tif" | "tiff" | "json" | "csv" => path.is_file(),
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

fn lower_extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

/// Reads one of the annotations that [`list`] found.
pub fn read(path: &Path) -> Result<Annotation, LabelError> {
    if path.is_dir() {
        return read_tile(path);
    }
    match lower_extension(path).as_str() {
        "mat" => read_mat(path),
        "npy" => read_npy(path),
        "json" => Ok(read_json(path)?.0),
        "csv" => read_csv(path),
        _ => {
            let map = label_map::read(path)?;
            Ok(Annotation::of_map(map.ids, Vec::new(), map.width))
        }
    }
}

/// What `tile` writes: the label map, with types and probabilities from nuclei.json.
fn read_tile(folder: &Path) -> Result<Annotation, LabelError> {
    let (points, types) = read_json(&folder.join("nuclei.json"))?;
    let [png, npy] = ["labels.png", "labels.npy"].map(|n| folder.join(n));
    let Some(map_path) = [png, npy].into_iter().find(|path| path.is_file()) else {
        return Ok(points);
    };
    let LabelMap {
        ids: mut map,
        width,
    } = label_map::read(&map_path)?;
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
        let type_id = type_of_json(value.get("type")).map_err(|reason| wrong(&reason))?;
        annotation.detections.points.push([x + 0.5, y + 0.5]);
        annotation.detections.types.push(type_id);
        types.push((id, type_id, value.get("type_prob").and_then(|p| p.as_f64())));
    }
    annotation.type_probs = types.iter().map(|t| t.2).collect();
    Ok((annotation, types))
}

/// A type as programs write it: 1, 1.0, "1", or nothing.
fn type_of_json(value: Option<&serde_json::Value>) -> Result<u8, String> {
    let number = match value {
        None | Some(serde_json::Value::Null) => return Ok(0),
        Some(serde_json::Value::String(text)) => type_number(text),
        Some(value) => type_number(&value.to_string()),
    };
    number
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| {
            let shown = value.map(ToString::to_string).unwrap_or_default();
            format!("`type` is {shown}, not a number from 0 to 255")
        })
}

fn read_mat(path: &Path) -> Result<Annotation, LabelError> {
    let file = mat_file::read(path)?;
    let types = file.types.unwrap_or_default().into_iter();
    let types = types.map(clamp_type).collect::<Result<_, _>>()?;
    Ok(Annotation::of_map(file.map.ids, types, file.map.width))
}

/// A type number of a file as a type id.
fn clamp_type(kind: u32) -> Result<u8, LabelError> {
    Ok(kind.min(255) as u8)
}

fn read_npy(path: &Path) -> Result<Annotation, LabelError> {
    let mut npy = Npy::open(path)?;
    let [_, width, 2] = npy.shape[..] else {
        let mut map = label_map::read(path)?;
        Ids::renumber(&mut map.ids);
        return Ok(Annotation::of_map(map.ids, Vec::new(), map.width));
    };
    let (values, width) = (npy.take_ids()?, width as usize);
    let mut map: Vec<u32> = values.iter().step_by(2).copied().collect();
    let kinds = values.iter().skip(1).step_by(2).copied();
    let id_types = assign_types(&mut map, kinds, clamp_type)?;
    Ok(Annotation::of_map(map, id_types, width))
}

fn read_csv(path: &Path) -> Result<Annotation, LabelError> {
    let table = PointsTable::read(path)?;
    let (x, y) = (table.need(&["x", "x_px"])?, table.need(&["y", "y_px"])?);
    let kind = table.find(TYPE);
    let mut detections = Detections::default();
    for (line, row) in table.rows() {
        let place = [table.number(line, row, x)?, table.number(line, row, y)?];
        let text = kind.and_then(|column| row.get(column)).unwrap_or_default();
        let type_id = match text {
            "" => Some(0),
            text => type_number(text).and_then(|number| u8::try_from(number).ok()),
        };
        let type_id = type_id.ok_or_else(|| {
            table.error(format!(
                "row {line}: type {text:?} is not a number from 0 to 255"
            ))
        })?;
        detections.points.push(place);
        detections.types.push(type_id);
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
