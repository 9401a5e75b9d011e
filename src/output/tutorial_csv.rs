//! features.csv: the columns of hover_net's tutorial by its own names, so that its plots can be drawn again.
//!
//! In: a [`SlideResult`]. Out: `id, type, type_prob, centroid_x, centroid_y` (px of the file, its frame of pixel
//! centres), then the 15 properties in px, then the slide's name. The tutorial measures an image of the outlines' points; here it is the mask.

use std::path::Path;

use super::table::{self, Row};
use super::{OutputError, significant, write_file};
use crate::output::Units;
use crate::result::SlideResult;

const COLUMNS: [&str; 21] = [
    "id",
    "type",
    "type_prob",
    "centroid_x",
    "centroid_y",
    "area",
    "bbox_area",
    "convex_area",
    "eccentricity",
    "equivalent_diameter",
    "euler_number",
    "extent",
    "filled_area",
    "inertia_tensor_eigvals_x",
    "inertia_tensor_eigvals_y",
    "major_axis_length",
    "minor_axis_length",
    "orientation",
    "perimeter",
    "solidity",
    "slide",
];

/// Writes `path`.
pub fn write(result: &SlideResult, path: &Path) -> Result<(), OutputError> {
    write_file(path, |out| {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS)?;
        table::for_each_chunk(result, Units::Px, |rows| {
            rows.iter()
                .try_for_each(|row| csv.write_record(cells(row, &result.meta.stem)))
        })?;
        csv.flush()
    })
}

fn cells(row: &Row<'_>, slide: &str) -> Vec<String> {
    let (record, s) = (&row.record, &row.shape_px);
    let [x, y] = record.to_centre(s.centroid);
    let number = |v: f64| significant(v).map(|v| v.to_string()).unwrap_or_default();
    let mut cells = vec![
        record.id.to_string(),
        record.type_id.map(|id| id.to_string()).unwrap_or_default(),
        record.type_prob.map(number).unwrap_or_default(),
        x.to_string(),
        y.to_string(),
    ];
    let properties = [
        s.area,
        s.bbox_area,
        s.convex_area,
        s.eccentricity,
        s.equivalent_diameter,
        f64::from(s.euler_number),
        s.extent,
        s.filled_area,
        s.inertia_eigval_x,
        s.inertia_eigval_y,
        s.major_axis_length,
        s.minor_axis_length,
        s.orientation,
        s.perimeter,
        s.solidity,
    ];
    cells.extend(properties.map(number));
    cells.push(slide.to_owned());
    cells
}
