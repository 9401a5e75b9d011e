//! From a result folder to a [`Scene`].
//!
//! In: a result folder (`OUT/<stem>`) and which slide to show. Out: nuclei, their table, an index over them and tiles.
//! With a store, the nuclei are the store's; the table is nuclei.csv beside it if its rows are of these
//! nuclei, and else made again, as `export` does, in a file that has no name. Without a store, nuclei.csv and
//! nuclei.json of `tile` are read. Never believes that a file is the slide of the results because of its
//! name.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use super::rows::Rows;
use super::tiles::Tiles;
use super::{Scene, ViewError};
use crate::import;
use crate::output::Units;
use crate::output::table::columns;
use crate::output::{nuclei_csv, significant};
use crate::pipeline;
use crate::result::{Record, SlideResult};
use crate::slide::{self, SlideReader};
use crate::store::Store;

/// Longest side of the picture that stands for the slide from far away, px.
const THUMB_PX: u32 = 2048;
/// Level-0 px by which a place may differ that was rounded to 2 decimals and to 32 bits, far out on a slide.
const SAME_PX: f32 = 0.02;

/// Which pixels lie under the nuclei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlideChoice {
    /// This file, or an error.
    File(PathBuf),
    /// The file that the results name, if it is still there and the same; else the small picture.
    Recorded,
}

impl Scene {
    /// Reads the results in `folder`.
    ///
    /// # Errors
    /// [`ViewError`] if there are none, if they are damaged, or if the slide asked for is another one.
    pub fn open(folder: &Path, choice: &SlideChoice) -> Result<Self, ViewError> {
        let found = match folder.join("store.zarr").is_dir() {
            true => from_store(folder)?,
            false => from_files(folder)?,
        };
        let mut notes = found.notes;
        let slide = the_slide(&found.result, &found.slide_path, choice, &mut notes)?;
        let thumb = match &slide {
            Some(reader) => slide::thumb(reader.as_ref(), THUMB_PX)?,
            None => found.thumb,
        };
        let size_px = found.result.frames().level0_size_px;
        Ok(Self::new(
            found.result,
            found.rows,
            Tiles::new(size_px, slide.map(Arc::from), thumb),
            notes,
        ))
    }
}

/// What a folder holds.
struct Found {
    result: SlideResult,
    rows: Rows,
    thumb: image::RgbImage,
    slide_path: PathBuf,
    notes: Vec<String>,
}

fn from_store(folder: &Path) -> Result<Found, ViewError> {
    let store = Store::open(&folder.join("store.zarr"))?;
    let thumb = store.thumb()?;
    let (loaded, beside) = rayon::join(
        || pipeline::load(&store),
        || Rows::read(File::open(folder.join("nuclei.csv")).ok()?).ok(),
    );
    let result = loaded?.slide;
    let mut notes = Vec::new();
    if result.coverage.missing_tiles > 0 {
        notes.push(format!(
            "{} of {} tiles are not done, so nuclei are missing: finish the run",
            result.coverage.missing_tiles, result.coverage.planned_tiles
        ));
    }
    let rows = match beside.filter(|rows| are_of(rows, &result)) {
        Some(rows) => rows,
        None => table(&result).map_err(|reason| ViewError::Table {
            path: folder.to_owned(),
            reason: format!("its table cannot be made in the folder for temporary files: {reason}"),
        })?,
    };
    Ok(Found {
        slide_path: result.meta.slide.path.clone(),
        result,
        rows,
        thumb,
        notes,
    })
}

/// Whether a table's rows are of these nuclei, one by one: the same columns, ids, boxes, centroids and certainties.
fn are_of(rows: &Rows, result: &SlideResult) -> bool {
    let same_columns = [Units::Um, Units::Px].into_iter().any(|units| {
        let columns = columns(result, units);
        rows.names()
            .iter()
            .eq(columns.iter().map(|column| &column.name))
    });
    let values = |name: &str| Some(rows.columns().get(rows.column(name)?)?.values.as_slice());
    let names = ["x_px", "y_px", "min_x", "min_y", "max_x", "max_y"];
    let said: Option<Vec<&[f32]>> = names.into_iter().map(values).collect();
    let (Some(said), Some(probs)) = (said, values("type_prob")) else {
        return false;
    };
    let nuclei = result.nuclei.par_iter().enumerate();
    same_columns
        && rows.len() == result.nuclei.len()
        && nuclei.all(|(place, nucleus)| {
            let record = Record::new(place, nucleus, result);
            let prob = record.type_prob.and_then(significant);
            let prob = prob.map_or(f32::NAN, |prob| prob as f32);
            let same_place = where_it_is(&record)
                .into_iter()
                .zip(&said)
                .all(|(px, said)| (px as f32 - said[place]).abs() <= SAME_PX);
            rows.ids()[place] == record.id
                && (probs[place] == prob || probs[place].is_nan() && prob.is_nan())
                && same_place
        })
}

/// Centroid and box of a nucleus as the table has them, level-0 px.
fn where_it_is(record: &Record<'_>) -> [f64; 6] {
    let bbox = record.nucleus.bbox;
    let corner = |x: i32, y: i32| record.to_edge([x, y].map(f64::from));
    let [x, y] = record.to_edge(record.centroid_proc_px());
    let [min_x, min_y] = corner(bbox.x, bbox.y);
    let [max_x, max_y] = corner(bbox.right(), bbox.bottom());
    [x, y, min_x, min_y, max_x, max_y]
}

/// nuclei.csv in a file without a name.
pub(super) fn table(result: &SlideResult) -> Result<Rows, String> {
    let file = tempfile::tempfile().map_err(|error| error.to_string())?;
    let mut out = BufWriter::new(file);
    nuclei_csv::stream(result, Units::Um, &mut out).map_err(|error| error.to_string())?;
    Rows::read(out.into_inner().map_err(|error| error.to_string())?)
}

/// The results of `tile`, which keeps no store.
fn from_files(folder: &Path) -> Result<Found, ViewError> {
    let file = |name: &str| match folder.join(name) {
        path if path.is_file() => Ok(path),
        _ => Err(ViewError::NoResults {
            folder: folder.to_owned(),
            reason: format!(
                "it has no store.zarr, and without that {name} is needed: give OUT/<stem> of run, or of tile \
                    --format json,csv"
            ),
        }),
    };
    let (json, csv) = (file("nuclei.json")?, file("nuclei.csv")?);
    let stem = folder.file_name().unwrap_or(folder.as_os_str());
    let options = import::Options {
        mpp: None,
        units: Units::Px,
        types: None,
        stem: stem.to_string_lossy().into_owned(),
    };
    let result = import::read(&json, &options)?;
    let broken = |reason: String| ViewError::Table {
        path: csv.clone(),
        reason,
    };
    let rows = File::open(&csv).map_err(|error| broken(error.to_string()))?;
    let rows = Rows::read(rows).map_err(&broken)?;
    if !result
        .records()
        .map(|record| record.id)
        .eq(rows.ids().iter().copied())
    {
        return Err(broken(
            "its ids are not those of nuclei.json: they are of two runs: run again".to_owned(),
        ));
    }
    let [width, height] = result.frames().level0_size_px;
    let blank = || {
        image::RgbImage::from_pixel(
            1,
            (height / width.max(1)).clamp(1, 64) as u32,
            image::Rgb([255; 3]),
        )
    };
    let thumb = image::open(folder.join("thumb.png")).map_or_else(|_| blank(), |p| p.into_rgb8());
    Ok(Found {
        slide_path: recorded_path(folder),
        result,
        rows,
        thumb,
        notes: Vec::new(),
    })
}

/// The slide's path as run.json has it; empty where it does not say.
fn recorded_path(folder: &Path) -> PathBuf {
    let text = std::fs::read(folder.join("run.json")).unwrap_or_default();
    let run: Value = serde_json::from_slice(&text).unwrap_or_default();
    run["slide"]["path"].as_str().unwrap_or_default().into()
}

/// The slide to show. What is recorded and cannot be used is a note; what was asked for and cannot be used an error.
fn the_slide(
    result: &SlideResult,
    recorded: &Path,
    choice: &SlideChoice,
    notes: &mut Vec<String>,
) -> Result<Option<Box<dyn SlideReader>>, ViewError> {
    let path = match choice {
        SlideChoice::File(path) => path,
        SlideChoice::Recorded => recorded,
    };
    let opened = slide::open(path)
        .map_err(ViewError::from)
        .and_then(|reader| match other_slide(result, reader.as_ref()) {
            Some(reason) => Err(ViewError::OtherSlide {
                slide: path.to_owned(),
                reason,
            }),
            None => Ok(reader),
        });
    match (opened, choice) {
        (Ok(reader), _) => Ok(Some(reader)),
        (Err(error), SlideChoice::File(_)) => Err(error),
        (Err(_), SlideChoice::Recorded) if recorded.as_os_str().is_empty() => {
            notes.push("The results do not name their slide: give it with --slide.".to_owned());
            Ok(None)
        }
        (Err(error), SlideChoice::Recorded) => {
            notes.push(format!(
                "Nuclei lie over the small picture of the results ({error}); give the slide with --slide."
            ));
            Ok(None)
        }
    }
}

/// Why the nuclei are not of this slide.
fn other_slide(result: &SlideResult, reader: &dyn SlideReader) -> Option<String> {
    let info = reader.info();
    let size = info.levels.first().map(|l| [l.width_px, l.height_px]);
    let [w, h] = result.frames().level0_size_px;
    let known = &result.meta.slide.quickhash;
    if size != Some([w, h]) {
        let [sw, sh] = size.unwrap_or_default();
        return Some(format!(
            "is {sw} x {sh} px, but the nuclei are of a slide of {w} x {h} px: give that one"
        ));
    }
    (result.imported.is_none() && *known != info.quickhash).then(|| {
        "has other pixels than the slide of these nuclei (quickhash): give that one".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::fixture;
    use crate::slide::testing::TestSlide;

    #[test]
    fn a_table_of_other_nuclei_is_not_believed() {
        let result = fixture::result(1.996);
        for units in [Units::Um, Units::Px] {
            let mut file = tempfile::tempfile().unwrap();
            nuclei_csv::stream(&result, units, &mut file).unwrap();
            let rows = Rows::read(file).unwrap();
            assert!(are_of(&rows, &result), "{units:?}");
            let is_told = |change: fn(&mut SlideResult)| {
                let mut other = result.clone();
                change(&mut other);
                !are_of(&rows, &other)
            };
            assert!(is_told(|other| other.nuclei[1].bbox.x += 1));
            assert!(is_told(|other| other.nuclei[1].mask[0] = 0));
            assert!(is_told(|other| other.nuclei[3].prob_sums.clear()));
            assert!(is_told(|other| other.nuclei.truncate(3)));
            assert!(is_told(
                |other| other.meta.model.types[2].name = "other".into()
            ));
        }
    }

    #[test]
    fn another_slide_is_told_from_the_right_one() {
        let result = fixture::result(1.0);
        let reader = |side: u64| TestSlide::new(&[[side, 40]], |_, _, _| [0; 3]);
        let reason = other_slide(&result, &reader(61)).unwrap();
        assert!(reason.contains("61 x 40") && reason.contains("60 x 40"));
        // Of the right size, but not the same file.
        assert!(
            other_slide(&result, &reader(60))
                .unwrap()
                .contains("quickhash")
        );
        let mut same = result;
        same.meta.slide.quickhash = reader(60).info().quickhash.clone();
        assert_eq!(other_slide(&same, &reader(60)), None);
    }
}
