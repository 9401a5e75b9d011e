//! images/NAME.* beside points/NAME.csv with the columns x, y (px) and type: one dot inside each
//! nucleus.

use std::path::Path;

use serde::Deserialize;

use super::{Loaded, list_images, read_rgb};
use crate::labels::{DataSet, Dot, LabelError, Truth};

#[derive(Deserialize)]
struct Row {
    x: f32,
    y: f32,
    r#type: String,
}

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    Ok(list_images(&folder.join("images"))?
        .into_iter()
        .map(|(stem, path)| {
            let points = folder.join("points").join(format!("{stem}.csv"));
            let rgb = read_rgb(&path)?;
            Ok(set.image(&stem, rgb, Truth::Dots(read_dots(set, &points)?)))
        })
        .collect())
}

fn read_dots(set: &DataSet, path: &Path) -> Result<Vec<Dot>, LabelError> {
    let mut reader = csv::Reader::from_path(path).map_err(|e| LabelError::new(path, e))?;
    let mut dots = Vec::new();
    for (i, row) in reader.deserialize().enumerate() {
        let row: Row = row.map_err(|e| LabelError::new(path, e))?;
        let type_id = *set.types.get(&row.r#type).ok_or_else(|| {
            LabelError::new(
                path,
                format!("row {}: type {:?} has no id in `types`", i + 2, row.r#type),
            )
        })?;
        dots.push(Dot {
            x_px: row.x,
            y_px: row.y,
            type_id,
        });
    }
    Ok(dots)
}

/// Names of the types of all points in a folder, sorted. Skips unreadable files: [`load`] reports
/// them.
pub fn class_names(folder: &Path) -> Vec<String> {
    let files = super::list_files(&folder.join("points"), &["csv"]).unwrap_or_default();
    let rows = files.iter().filter_map(|(_, path)| {
        let mut reader = csv::Reader::from_path(path).ok()?;
        let names = reader.deserialize::<Row>().flatten().map(|row| row.r#type);
        Some(names.collect::<Vec<_>>())
    });
    let names: std::collections::BTreeSet<String> = rows.flatten().collect();
    names.into_iter().collect()
}
