//! All files that need nothing but the nuclei, written in one go: the nuclei are measured once.
//!
//! In: a [`SlideResult`] and a [`Choice`]. Out: nuclei.json, nuclei.csv, nuclei.parquet, … as chosen, and what was
//! measured on the way. Memory does not grow with what is written, but for one row group of Parquet.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::formats::{RowSink, Writer};
use super::table::{self, Measurements};
use super::{Choice, OutputError};
use crate::result::SlideResult;
use crate::store::atomic::Partial;

/// Writes the chosen formats that need nothing but the nuclei into `folder` and returns what was measured.
///
/// # Errors
/// [`OutputError`] for the first file that cannot be written.
pub fn write_nuclei(
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
    for (path, sink) in sinks {
        sink.commit().map_err(wrong(&path))?;
    }
    for format in choice.formats {
        if let Writer::Nuclei(write) = format.writer() {
            write(result, folder)?;
        }
    }
    Ok(measured)
}
