//! images/NAME.* beside labels/NAME.png, .tif or .npy (`[H, W]`), whose pixel values are instance ids,
//! 0 the background.
//!
//! Types, where known, are in types/NAME.csv (`id,type`) or in one types.csv (`image,id,type`): a
//! number that `type_ids` maps, or a name in `types`. Without a table no nucleus has a type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Loaded, check_size, list_files, load_images, type_of_text};
use crate::labels::ids::Ids;
use crate::labels::points_table::{PointsTable, TYPE, type_number};
use crate::labels::{DataSet, LabelError, Truth, label_map};

/// Rows of a type table by image: (row in the file, instance id, type as written).
type Table = BTreeMap<String, Vec<(usize, u32, String)>>;

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    let whole = folder.join("types.csv");
    let table = match whole.exists() {
        true => read_table(&whole, None)?,
        false => Table::new(),
    };
    let maps = list_maps(&folder.join("labels"))?;
    load_images(set, &folder.join("images"), |stem, size| {
        let path = maps.get(stem).ok_or_else(|| {
            let place = folder.join("labels").join(stem);
            LabelError::new(place, "no label map .png, .tif or .npy of this name")
        })?;
        let map = label_map::read(path)?;
        check_size(path, map.size_px(), size)?;
        let mut ids = map.ids;
        let own = folder.join("types").join(format!("{stem}.csv"));
        let (table_path, rows) = match own.exists() {
            true => (&own, read_table(&own, Some(stem))?.remove(stem)),
            false => (&whole, table.get(stem).cloned()),
        };
        if rows.is_none() && table_path.exists() {
            tracing::warn!(
                "{}: has no row for the image {stem}: the types of its nuclei are unknown",
                table_path.display()
            );
        }
        let types = apply_table(set, &mut ids, &rows.unwrap_or_default(), table_path)?;
        Ok(Truth::Instances { ids, types })
    })
}

/// The label maps of a folder by the names of their images.
///
/// # Errors
/// Two maps of one image.
fn list_maps(folder: &Path) -> Result<BTreeMap<String, PathBuf>, LabelError> {
    let mut maps = BTreeMap::new();
    for (stem, path) in list_files(folder, &["png", "tif", "tiff", "npy"])? {
        if let Some(other) = maps.insert(stem, path.clone()) {
            let reason = format!("{} labels the same image: keep one", other.display());
            return Err(LabelError::new(path, reason));
        }
    }
    Ok(maps)
}

/// Reads a type table. `image`: the image of all rows, for a file without the column `image`.
fn read_table(path: &Path, image: Option<&str>) -> Result<Table, LabelError> {
    let file = PointsTable::read(path)?;
    let (id, kind) = (file.need(&["id"])?, file.need(TYPE)?);
    let name = match image {
        Some(_) => None,
        None => Some(file.need(&["image"])?),
    };
    let mut table = Table::new();
    for (line, row) in file.rows() {
        let text = |column: usize| row.get(column).unwrap_or_default();
        let number = type_number(text(id))
            .ok_or_else(|| file.error(format!("row {line}: id {:?} is no id", text(id))))?;
        let name = image.unwrap_or_else(|| stem_of(name.map_or("", text)));
        let rows = table.entry(name.to_owned()).or_default();
        rows.push((line, number, text(kind).to_owned()));
    }
    Ok(table)
}

/// An image's name without the extension that some tables keep.
fn stem_of(name: &str) -> &str {
    let known = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"];
    let dot = name.rfind('.').unwrap_or(name.len());
    let is_known = known.contains(&name[dot..].to_ascii_lowercase().as_str());
    if is_known { &name[..dot] } else { name }
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
        types[new] = type_of_text(set, written, path, *line)?;
    }
    Ok(types)
}
