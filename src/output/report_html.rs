//! report.html: a slide's results as one page.
//!
//! In: summary.json's document, the measured table, thumb, mask and crops: of a run, or read back from a
//! folder that has no store. Out: one file without clock, host or random number.

use std::path::Path;

use image::RgbImage;
use serde_json::Value;

use super::table::Measurements;
use super::{OutputError, write_file};
use crate::report::features::Columns;
use crate::report::maps::Mask;
use crate::report::slide::{Crop, SlideReport, html, types_of};
use crate::tissue::{Region, TissueMask};

/// The columns of the table before the features.
const LAST_BEFORE_FEATURES: &str = "max_y";
/// The last column that every slide has; the neighbourhood by type is left to the table.
const LAST_FEATURE: &str = "neighbours_50um";

/// What the page shows.
pub struct Results {
    /// The document of summary.json.
    pub summary: Value,
    /// All rows of the table.
    pub measured: Measurements,
    /// The whole slide, small.
    pub thumb: RgbImage,
    /// Its tissue mask.
    pub mask: TissueMask,
    /// The region asked for, if the run was restricted to one.
    pub region: Option<Region>,
    /// Fields at full resolution with their captions.
    pub crops: Vec<Crop>,
}

/// Writes `path`.
pub fn write(results: Results, path: &Path) -> Result<(), OutputError> {
    let page = page(results).map_err(|error| OutputError::Content {
        path: path.to_owned(),
        reason: format!("its pictures cannot be encoded: {error}"),
    })?;
    write_file(path, |out| out.write_all(page.as_bytes()))
}

/// The page.
pub fn page(results: Results) -> Result<String, image::ImageError> {
    let Results {
        summary,
        measured,
        thumb,
        mut mask,
        region,
        crops,
    } = results;
    if let Some(region) = &region {
        keep_inside(&mut mask, region, &summary);
    }
    let types = types_of(&summary);
    let ids: Vec<Option<u64>> = summary["types"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, entry)| entry["id"].as_u64())
        .collect();
    // A nucleus without a type belongs to the one unnamed type.
    let place_of = |id: &Option<usize>| match id {
        Some(id) => ids.iter().position(|i| *i == Some(*id as u64)).unwrap_or(0) as u8,
        None => 0,
    };
    let type_of: Vec<u8> = measured.types.iter().map(place_of).collect();
    let level0 = ["width", "height"].map(|name| summary[name].as_f64().unwrap_or(1.0).max(1.0));
    let mpp = [0, 1].map(|axis| summary["mpp"][axis].as_f64().unwrap_or(1.0));
    let shown = measured
        .names
        .iter()
        .position(|name| name == LAST_FEATURE)
        .map_or(measured.names.len(), |last| last + 1);
    let report = SlideReport {
        summary: &summary,
        types,
        columns: Columns {
            type_of: &type_of,
            places: &measured.places,
            slide_um: [level0[0] * mpp[0], level0[1] * mpp[1]],
            names: measured.names.iter().take(shown).cloned().collect(),
            values: measured
                .columns
                .iter()
                .take(shown)
                .map(Vec::as_slice)
                .collect(),
        },
        thumb: &thumb,
        mask: Mask {
            width: mask.width,
            height: mask.height,
            on_slide: [
                level0[0] / mask.cell_level0_px[0],
                level0[1] / mask.cell_level0_px[1],
            ],
            tissue: &mask.tissue,
        },
        region: region.as_ref(),
        crops,
    };
    html(&report)
}

/// Drops the tissue whose cell has its centre outside the region: it was not asked for.
fn keep_inside(mask: &mut TissueMask, region: &Region, summary: &Value) {
    let size = ["width", "height"].map(|name| summary[name].as_u64().unwrap_or(1));
    let [left, top, right, bottom] = region.bounds(size);
    let kept: Vec<bool> = {
        let is_inside = region.test(mask);
        let width = mask.width.max(1);
        let cells = mask.tissue.iter().zip(0u32..);
        cells
            .map(|(&tissue, place)| {
                let [x, y] = [
                    (f64::from(place % width) + 0.5) * mask.cell_level0_px[0],
                    (f64::from(place / width) + 0.5) * mask.cell_level0_px[1],
                ];
                let near = x >= left && x < right && y >= top && y < bottom;
                tissue && near && is_inside([x, y])
            })
            .collect()
    };
    mask.tissue = kept;
}

/// The results in a folder without a store, as `tile` writes them: summary.json, nuclei.csv, thumb.png, mask.png.
///
/// # Errors
/// [`OutputError::Content`] with the file that is missing or damaged, and how to get it.
pub fn read_folder(folder: &Path) -> Result<Results, OutputError> {
    let summary = read_summary(folder)?;
    let thumb = picture(&folder.join("thumb.png"))?.into_rgb8();
    let mask_path = folder.join("mask.png");
    let cells = picture(&mask_path)?.into_luma8();
    let size = ["width", "height"].map(|name| summary[name].as_u64().unwrap_or(1).max(1));
    let mpp = [0, 1].map(|axis| summary["mpp"][axis].as_f64().unwrap_or(1.0));
    let mut mask = TissueMask::all(size, mpp);
    if (mask.width, mask.height) != cells.dimensions() {
        return Err(content(
            &mask_path,
            "its size is not that of summary.json's slide: run again",
        ));
    }
    mask.tissue = cells.pixels().map(|pixel| pixel.0[0] > 0).collect();
    Ok(Results {
        measured: read_table(&folder.join("nuclei.csv"), size)?,
        summary,
        thumb,
        mask,
        region: None,
        crops: Vec::new(),
    })
}

/// A folder's summary.json.
pub fn read_summary(folder: &Path) -> Result<Value, OutputError> {
    let path = folder.join("summary.json");
    let text = std::fs::read(&path).map_err(|error| content(&path, &error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| content(&path, &format!("is no JSON: {error}")))
}

fn picture(path: &Path) -> Result<image::DynamicImage, OutputError> {
    image::open(path).map_err(|error| content(path, &format!("cannot be read: {error}")))
}

fn content(path: &Path, reason: &str) -> OutputError {
    OutputError::Content {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn read_table(path: &Path, level0_size_px: [u64; 2]) -> Result<Measurements, OutputError> {
    let failed = |error: csv::Error| match error.kind() {
        csv::ErrorKind::Io(_) => content(
            path,
            &format!("cannot be read: {error}: write it with --format csv"),
        ),
        _ => content(path, &error.to_string()),
    };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let names: Vec<String> = reader
        .headers()
        .map_err(failed)?
        .iter()
        .map(str::to_owned)
        .collect();
    let place = |name: &str| {
        names
            .iter()
            .position(|n| n == name)
            .ok_or_else(|| content(path, &format!("has no column {name}: it is not nuclei.csv")))
    };
    let [x, y, kind] = [place("x_px")?, place("y_px")?, place("type")?];
    let first = place(LAST_BEFORE_FEATURES)? + 1;
    let mut measured = Measurements {
        columns: vec![Vec::new(); names.len() - first],
        names: names.into_iter().skip(first).collect(),
        ..Measurements::default()
    };
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(failed)? {
        let number = |at: usize| row.get(at).and_then(|cell| cell.parse::<f32>().ok());
        let share = |at: usize, size: u64| number(at).unwrap_or(0.0) / size as f32;
        measured
            .places
            .push([share(x, level0_size_px[0]), share(y, level0_size_px[1])]);
        measured
            .types
            .push(row.get(kind).and_then(|cell| cell.parse().ok()));
        for (at, column) in (first..).zip(&mut measured.columns) {
            column.push(number(at).unwrap_or(f32::NAN));
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::super::{nuclei_csv, pictures, summary_json, table};
    use crate::result::fixture;
    use std::fs::File;

    use super::*;
    use crate::output::Units;
    use crate::tissue::Area;

    fn results(folder: &Path) -> Results {
        let result = fixture::result(1.0);
        let mut csv = File::create(folder.join("nuclei.csv")).unwrap();
        let measured = nuclei_csv::stream(&result, Units::Um, &mut csv).unwrap();
        let mask = TissueMask::all([60, 40], [0.25; 2]);
        let thumb = RgbImage::from_pixel(60, 40, image::Rgb([200, 150, 180]));
        let summary = summary_json::summary(&result, &measured.medians);
        std::fs::write(folder.join("summary.json"), summary.to_string()).unwrap();
        pictures::write_png(&thumb.clone().into(), &folder.join("thumb.png")).unwrap();
        let picture = pictures::mask_picture(&mask);
        pictures::write_png(&picture.into(), &folder.join("mask.png")).unwrap();
        Results {
            summary,
            measured,
            thumb,
            mask,
            region: None,
            crops: Vec::new(),
        }
    }

    #[test]
    fn the_page_says_what_the_tables_say_and_fetches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let html = page(results(folder.path())).unwrap();
        for text in [
            "tumour",
            "lymphocyte",
            "made by hand",
            "area, µm²",
            "75.0 %",
            "MIT",
        ] {
            assert!(html.contains(text), "{text}");
        }
        let names = table::feature_names(&fixture::result(1.0), Units::Um);
        let last = names.iter().position(|n| n == LAST_FEATURE).unwrap();
        assert_eq!(html.matches("type=\"radio\"").count(), last + 1);
        assert!(!html.contains("http") && !html.contains("<script"));
    }

    #[test]
    fn a_folder_without_a_store_gives_the_same_page() {
        let folder = tempfile::tempdir().unwrap();
        let from_result = page(results(folder.path())).unwrap();
        let from_files = page(read_folder(folder.path()).unwrap()).unwrap();
        assert!(from_files == from_result, "the pages differ");
        std::fs::remove_file(folder.path().join("nuclei.csv")).unwrap();
        let error = read_folder(folder.path()).err().unwrap().to_string();
        assert!(
            error.contains("nuclei.csv") && error.contains("--format csv"),
            "{error}"
        );
    }

    #[test]
    fn tissue_outside_the_region_is_not_drawn() {
        let (size, mpp) = ([64, 64], [1.0; 2]);
        let mut mask = TissueMask::all(size, mpp);
        let area = Area::new(mask.clone(), size, mpp).within_box([0.0, 16.0, 24.0, 64.0]);
        let region = area.region(false).unwrap();
        keep_inside(
            &mut mask,
            &region,
            &serde_json::json!({"width": 64, "height": 64}),
        );
        let kept = mask.tissue.iter().filter(|&&cell| cell).count();
        // Cells of 8 px: 3 x 6.
        assert_eq!(kept, 18);
        assert!(mask.is_tissue(0, 2) && !mask.is_tissue(3, 2) && !mask.is_tissue(0, 1));
    }

    #[test]
    fn no_nucleus_and_no_type_are_no_error() {
        let mut result = fixture::result(1.0);
        result.nuclei.clear();
        result.meta.model.types.clear();
        let Ok(measured) = table::for_each_chunk(&result, Units::Um, |_| {
            Ok::<(), std::convert::Infallible>(())
        });
        let html = page(Results {
            summary: summary_json::summary(&result, &measured.medians),
            measured,
            thumb: RgbImage::new(1, 1),
            mask: TissueMask::all([60, 40], [0.25; 2]),
            region: None,
            crops: Vec::new(),
        });
        assert!(html.unwrap().contains("no nucleus was found"));
    }
}
