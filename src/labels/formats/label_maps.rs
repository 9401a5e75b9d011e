//! images/NAME.* beside labels/NAME.png (8 or 16 bit) or labels/NAME.npy (`[H, W]`), whose pixel
//! values are instance ids, 0 the background.
//!
//! Types, where known, are in types/NAME.csv (`id,type`) or in one types.csv (`image,id,type`): a
//! number that `type_ids` maps, or a name in `types`. Without a table no nucleus has a type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::npy::Npy;
use super::{Loaded, check_size, load_images, map_type, read_picture_ids};
use crate::labels::ids::Ids;
use crate::labels::{DataSet, LabelError, Truth};

/// Rows of a type table by image: (row in the file, instance id, type as written).
type Table = BTreeMap<String, Vec<(usize, u32, String)>>;

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    let whole = folder.join("types.csv");
    let table = match whole.exists() {
        true => read_table(&whole, None)?,
        false => Table::new(),
    };
    load_images(set, &folder.join("images"), |stem, size| {
        let mut ids = read_ids(folder, stem, size)?;
        let own = folder.join("types").join(format!("{stem}.csv"));
        let (table_path, rows) = match own.exists() {
            true => (&own, read_table(&own, Some(stem))?.remove(stem)),
            false => (&whole, table.get(stem).cloned()),
        };
        let types = apply_table(set, &mut ids, &rows.unwrap_or_default(), table_path)?;
        Ok(Truth::Instances { ids, types })
    })
}

fn read_ids(folder: &Path, stem: &str, size: (u32, u32)) -> Result<Vec<u32>, LabelError> {
    let [png, npy] = ["png", "npy"].map(|e| folder.join("labels").join(format!("{stem}.{e}")));
    if npy.exists() && !png.exists() {
        let mut file = Npy::open(&npy)?;
        let [h, w] = file.shape[..] else {
            let reason = format!("shape {:?}: [H, W] is wanted", file.shape);
            return Err(LabelError::new(&npy, reason));
        };
        check_size(&npy, (w as u32, h as u32), size)?;
        return file.take_ids();
    }
    let label = image::open(&png).map_err(|e| LabelError::new(&png, e))?;
    check_size(&png, (label.width(), label.height()), size)?;
    read_picture_ids(label)
        .ok_or_else(|| LabelError::new(&png, "is a colour picture, not a label map"))
}

#[derive(serde::Deserialize)]
struct Row {
    #[serde(default)]
    image: Option<String>,
    id: u32,
    r#type: String,
}

/// Reads a type table. `image`: the image of all rows, for a file without the column `image`.
fn read_table(path: &PathBuf, image: Option<&str>) -> Result<Table, LabelError> {
    let mut reader = csv::Reader::from_path(path).map_err(|e| LabelError::new(path, e))?;
    let mut table = Table::new();
    for (i, row) in reader.deserialize().enumerate() {
        let row: Row = row.map_err(|e| LabelError::new(path, e))?;
        let name = image
            .map(str::to_string)
            .or(row.image)
            .ok_or_else(|| LabelError::new(path, "has no column `image`"))?;
        table
            .entry(name)
            .or_default()
            .push((i + 2, row.id, row.r#type));
    }
    Ok(table)
}

/// Numbers the ids of a label map without gaps; returns the type of each, from its table.
fn apply_table(
    set: &DataSet,
    ids: &mut [u32],
    rows: &[(usize, u32, String)],
    path: &Path,
) -> Result<Vec<u8>, LabelError> {
    let ids = Ids::renumber(ids);
    let mut types = ids.table(0u8);
    for (line, id, written) in rows {
        let new = ids.new_of(*id).filter(|_| *id > 0).ok_or_else(|| {
            LabelError::new(
                path,
                format!("row {line}: the label map has no nucleus {id}"),
            )
        })?;
        types[new] = match written.parse::<u32>() {
            Ok(number) => map_type(set, number, path)?,
            Err(_) => *set.types.get(written).ok_or_else(|| {
                LabelError::new(
                    path,
                    format!("row {line}: type {written:?} has no id in `types`"),
                )
            })?,
        };
    }
    Ok(types)
}
