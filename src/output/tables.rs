//! All files that need nothing but the nuclei, written in one go: the nuclei are measured once.
//!
//! In: a [`SlideResult`] and a [`Choice`]. Out: nuclei.json, nuclei.csv, nuclei.parquet, … as chosen, side by side, and what
//! was measured on the way. Memory does not grow with what is written, but for one row group of Parquet.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::formats::{RowSink, Writer};
use super::table::{self, Measurements};
use super::{Choice, OutputError};
use crate::result::SlideResult;
use crate::store::atomic::Partial;

/// Writes the chosen formats that need nothing but the nuclei into `folder` and returns what was measured.
///
/// ```
/// use wsi_nuclei::{Choice, Format, GeojsonFrame, ImportOptions, Units, read_json, write_nuclei};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("hovernet.json");
/// let text = r#"{"mag": 40, "nuc": {"1": {"contour": [[2, 2], [6, 2], [6, 5], [2, 5]], "type": 1}}}"#;
/// std::fs::write(&path, text)?;
/// let options = ImportOptions { mpp: None, units: Units::Um, types: None, stem: "field".into() };
/// let result = read_json(&path, &options)?;
///
/// let choice = Choice {
///     formats: &[Format::Csv, Format::Geojson],
///     units: Units::Um,
///     geojson_frame: GeojsonFrame::Level0,
/// };
/// let measured = write_nuclei(&result, choice, folder.path())?;
/// assert_eq!(measured.types, [Some(1)]);
/// let table = std::fs::read_to_string(folder.path().join("nuclei.csv"))?;
/// assert_eq!(table.lines().count(), 2);
/// assert!(folder.path().join("nuclei.geojson").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`OutputError`] for the first file that cannot be written.
pub fn write_nuclei(
    result: &SlideResult,
    choice: Choice<'_>,
    folder: &Path,
) -> Result<Measurements, OutputError> {
    let others: Vec<_> = choice
        .formats
        .iter()
        .filter_map(|format| match format.writer() {
            Writer::Nuclei(write) => Some(write),
            _ => None,
        })
        .collect();
    let (measured, written) = rayon::join(
        || write_rows(result, choice, folder),
        || {
            others
                .par_iter()
                .try_for_each(|write| write(result, folder))
        },
    );
    let measured = measured?;
    written.map(|()| measured)
}

/// Writes the chosen files of rows.
fn write_rows(
    result: &SlideResult,
    choice: Choice<'_>,
    folder: &Path,
) -> Result<Measurements, OutputError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        |source| OutputError::Write { path, source }
    };
    let mut sinks: Vec<(PathBuf, Box<dyn RowSink + '_>)> = Vec::new();
    for format in choice.formats {
        if let Writer::Rows(begin) = format.writer() {
            let path = folder.join(format!("nuclei.{}", format.name()));
            let sink = Partial::begin(&path).and_then(|file| begin(result, choice, file));
            sinks.push((path.clone(), sink.map_err(wrong(&path))?));
        }
    }
    let measured = table::for_each_chunk(result, choice.units, |rows| {
        sinks
            .par_iter_mut()
            .try_for_each(|(path, sink)| sink.write_rows(rows).map_err(wrong(path)))
    })?;
    sinks
        .into_par_iter()
        .try_for_each(|(path, sink)| sink.commit().map_err(wrong(&path)))?;
    Ok(measured)
}
