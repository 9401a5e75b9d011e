//! images/NAME.* beside points/NAME.csv with the columns x,y,type (px): one dot inside each nucleus.

use std::path::Path;

use serde::Deserialize;

use super::super::TrainError;
use super::super::config::DataSet;
use super::super::data::{Dot, LabelledImage, Truth};
use super::{Loaded, images, read_rgb};

#[derive(Deserialize)]
struct Row {
    x: f32,
    y: f32,
    r#type: String,
}

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, TrainError> {
    Ok(images(&folder.join("images"))?
        .into_iter()
        .map(|(stem, path)| {
            let points = folder.join("points").join(format!("{stem}.csv"));
            Ok(LabelledImage {
                name: format!("{}/{stem}", set.name),
                held_out: set.holds_out(&format!("{stem}.")),
                rgb: read_rgb(&path)?,
                truth: Truth::Dots(read_dots(set, &points)?),
            })
        })
        .collect())
}

fn read_dots(set: &DataSet, path: &Path) -> Result<Vec<Dot>, TrainError> {
    let mut reader = csv::Reader::from_path(path).map_err(|e| TrainError::file(path, e))?;
    let mut dots = Vec::new();
    for (i, row) in reader.deserialize().enumerate() {
        let row: Row = row.map_err(|e| TrainError::file(path, e))?;
        let type_id = *set.types.get(&row.r#type).ok_or_else(|| {
            TrainError::file(
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

/// Types that the points of a folder name, sorted. What cannot be read is left to [`load`].
pub fn class_names(folder: &Path) -> Vec<String> {
    let files = super::files(&folder.join("points"), &["csv"]).unwrap_or_default();
    let rows = files.iter().filter_map(|(_, path)| {
        let mut reader = csv::Reader::from_path(path).ok()?;
        let names = reader.deserialize::<Row>().flatten().map(|row| row.r#type);
        Some(names.collect::<Vec<_>>())
    });
    let names: std::collections::BTreeSet<String> = rows.flatten().collect();
    names.into_iter().collect()
}
