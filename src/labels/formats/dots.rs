//! images/NAME.* beside points/NAME.csv of x, y (px) and type: one dot inside each nucleus.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::{Loaded, load_images};
use crate::labels::{DataSet, Dot, LabelError, Truth};

#[derive(Deserialize)]
struct Row {
    x: f32,
    y: f32,
    r#type: String,
}

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    load_images(set, &folder.join("images"), |stem, _| {
        let points = folder.join("points").join(format!("{stem}.csv"));
        Ok(Truth::Dots(read_dots(set, &points)?))
    })
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

/// See [`super::class_names`].
pub fn class_names(folder: &Path) -> BTreeSet<String> {
    let files = super::list_files(&folder.join("points"), &["csv"]).unwrap_or_default();
    let rows = files.iter().filter_map(|(_, path)| {
        let mut reader = csv::Reader::from_path(path).ok()?;
        let names = reader.deserialize::<Row>().flatten().map(|row| row.r#type);
        Some(names.collect::<Vec<_>>())
    });
    rows.flatten().collect()
}
