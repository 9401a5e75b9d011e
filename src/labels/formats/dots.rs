//! images/NAME.* beside points/NAME.csv of x, y (px) and type: one dot inside each nucleus.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Loaded, load_images, type_of_text};
use crate::labels::points_table::{PointsTable, TYPE};
use crate::labels::{DataSet, Dot, LabelError, Truth};

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    load_images(set, &folder.join("images"), |stem, _| {
        let points = folder.join("points").join(format!("{stem}.csv"));
        Ok(Truth::Dots(read_dots(set, &points)?))
    })
}

fn read_dots(set: &DataSet, path: &Path) -> Result<Vec<Dot>, LabelError> {
    let table = PointsTable::read(path)?;
    let (x, y) = (table.need(&["x"])?, table.need(&["y"])?);
    let kind = table.need(TYPE)?;
    let dot = |(line, row): (usize, &csv::StringRecord)| {
        let text = row.get(kind).unwrap_or_default();
        Ok(Dot {
            x_px: table.number(line, row, x)? as f32,
            y_px: table.number(line, row, y)? as f32,
            type_id: type_of_text(set, text, path, line)?,
        })
    };
    table.rows().map(dot).collect()
}

/// See [`super::class_names`].
pub fn class_names(folder: &Path) -> BTreeSet<String> {
    let files = super::list_files(&folder.join("points"), &["csv"]).unwrap_or_default();
    let names = files.iter().filter_map(|(_, path)| {
        let table = PointsTable::read(path).ok()?;
        let kind = table.find(TYPE)?;
        let names = table.rows().filter_map(|(_, row)| row.get(kind));
        Some(names.map(str::to_owned).collect::<Vec<_>>())
    });
    names.flatten().collect()
}
