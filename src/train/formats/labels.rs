//! images/NAME.* beside labels/NAME.png (8 or 16 bit) or labels/NAME.npy (`[H, W]`): pixel value = instance id, 0 =
//! background. Types, if known, in types/NAME.csv (`id,type`) or in one types.csv (`image,id,type`): a number of
//! `type_ids`, or a name of `types`. Without a table no nucleus has a type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::TrainError;
use super::super::config::DataSet;
use super::super::data::{LabelledImage, Truth};
use super::npy::Npy;
use super::{Loaded, images, own_type, read_rgb, same_size};
use crate::eval::ids::Ids;

/// Rows of a type table by image: (row in the file, instance id, type as written).
type Table = BTreeMap<String, Vec<(usize, u32, String)>>;

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, TrainError> {
    let whole = folder.join("types.csv");
    let table = match whole.exists() {
        true => read_table(&whole, None)?,
        false => Table::new(),
    };
    Ok(images(&folder.join("images"))?
        .into_iter()
        .map(|(stem, path)| {
            let rgb = read_rgb(&path)?;
            let mut ids = read_ids(folder, &stem, rgb.dimensions())?;
            let own = folder.join("types").join(format!("{stem}.csv"));
            let (table_path, rows) = match own.exists() {
                true => (own.clone(), read_table(&own, Some(&stem))?.remove(&stem)),
                false => (whole.clone(), table.get(&stem).cloned()),
            };
            let types = types_of(set, &mut ids, &rows.unwrap_or_default(), &table_path)?;
            Ok(LabelledImage {
                name: format!("{}/{stem}", set.name),
                held_out: set.holds_out(&format!("{stem}.")),
                rgb,
                truth: Truth::Instances { ids, types },
            })
        })
        .collect())
}

fn read_ids(folder: &Path, stem: &str, size: (u32, u32)) -> Result<Vec<u32>, TrainError> {
    let [png, npy] = ["png", "npy"].map(|e| folder.join("labels").join(format!("{stem}.{e}")));
    if npy.exists() && !png.exists() {
        let mut file = Npy::open(&npy)?;
        let [h, w] = file.shape[..] else {
            let reason = format!("shape {:?}: [H, W] is wanted", file.shape);
            return Err(TrainError::file(&npy, reason));
        };
        same_size(&npy, (w as u32, h as u32), size)?;
        return file.ids();
    }
    let label = image::open(&png).map_err(|e| TrainError::file(&png, e))?;
    same_size(&png, (label.width(), label.height()), size)?;
    Ok(match label {
        // 8 bit must not be stretched to 16.
        image::DynamicImage::ImageLuma8(map) => map.pixels().map(|p| u32::from(p.0[0])).collect(),
        other if other.color().has_color() => {
            return Err(TrainError::file(
                &png,
                "is a colour picture, not a label map",
            ));
        }
        other => other
            .to_luma16()
            .pixels()
            .map(|p| u32::from(p.0[0]))
            .collect(),
    })
}

#[derive(serde::Deserialize)]
struct Row {
    #[serde(default)]
    image: Option<String>,
    id: u32,
    r#type: String,
}

/// `image`: whose rows these are, where the file has no such column.
fn read_table(path: &PathBuf, image: Option<&str>) -> Result<Table, TrainError> {
    let mut reader = csv::Reader::from_path(path).map_err(|e| TrainError::file(path, e))?;
    let mut table = Table::new();
    for (i, row) in reader.deserialize().enumerate() {
        let row: Row = row.map_err(|e| TrainError::file(path, e))?;
        let name = image
            .map(str::to_string)
            .or(row.image)
            .ok_or_else(|| TrainError::file(path, "has no column `image`"))?;
        table
            .entry(name)
            .or_default()
            .push((i + 2, row.id, row.r#type));
    }
    Ok(table)
}

/// Numbers the ids of a label map without gaps, and gives the type of each by the table's rows.
fn types_of(
    set: &DataSet,
    ids: &mut [u32],
    rows: &[(usize, u32, String)],
    path: &Path,
) -> Result<Vec<u8>, TrainError> {
    let ids = Ids::renumber(ids);
    let mut types = ids.table(0u8);
    for (line, id, own) in rows {
        let new = ids.new_of(*id).filter(|_| *id > 0).ok_or_else(|| {
            TrainError::file(
                path,
                format!("row {line}: the label map has no nucleus {id}"),
            )
        })?;
        types[new] = match own.parse::<u32>() {
            Ok(number) => own_type(set, number, path)?,
            Err(_) => *set.types.get(own).ok_or_else(|| {
                TrainError::file(
                    path,
                    format!("row {line}: type {own:?} has no id in `types`"),
                )
            })?,
        };
    }
    Ok(types)
}
