//! Everything that is one row a nucleus, written in one go: the nuclei are measured once.
//!
//! In: a [`SlideResult`] and a [`Choice`]. Out: nuclei.csv, nuclei.parquet, nuclei.geojson, nuclei.geojson.gz as chosen,
//! and what the rows come to. Memory does not grow with what is written, but for one row group of Parquet.

use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::table::{self, Measurements, Row};
use super::{Choice, OutputError, SlideResult, geojson, gzip, nuclei_csv, parquet};
use crate::config::Format;
use crate::store::atomic::Partial;

/// One file that takes rows.
enum Sink<'a> {
    Csv(Box<nuclei_csv::Writer<'a, Partial>>),
    Parquet(Box<parquet::Writer<'a, Partial>>),
    Geojson(geojson::Writer<'a, Partial>),
    GeojsonGz(geojson::Writer<'a, gzip::Writer<Partial>>),
}

impl<'a> Sink<'a> {
    /// `None`: no table.
    fn begin(
        format: Format,
        result: &'a SlideResult,
        choice: Choice<'_>,
        path: &Path,
    ) -> io::Result<Option<Self>> {
        let (units, frame) = (choice.units, choice.geojson_frame);
        Ok(Some(match format {
            Format::Csv => {
                let writer = nuclei_csv::Writer::new(result, units, Partial::begin(path)?)?;
                Self::Csv(Box::new(writer))
            }
            Format::Parquet => {
                let writer = parquet::Writer::new(result, units, Partial::begin(path)?)?;
                Self::Parquet(Box::new(writer))
            }
            Format::Geojson => {
                Self::Geojson(geojson::Writer::new(result, frame, Partial::begin(path)?)?)
            }
            Format::GeojsonGz => {
                let gz = gzip::Writer::new(Partial::begin(path)?)?;
                Self::GeojsonGz(geojson::Writer::new(result, frame, gz)?)
            }
            Format::Json | Format::Overlay | Format::Crops | Format::Report | Format::OmeZarr => {
                return Ok(None);
            }
        }))
    }

    fn rows(&mut self, rows: &[Row<'_>]) -> io::Result<()> {
        match self {
            Self::Csv(writer) => writer.rows(rows),
            Self::Parquet(writer) => writer.rows(rows),
            Self::Geojson(writer) => writer.rows(rows),
            Self::GeojsonGz(writer) => writer.rows(rows),
        }
    }

    fn commit(self) -> io::Result<()> {
        match self {
            Self::Csv(writer) => writer.finish()?,
            Self::Parquet(writer) => writer.finish()?,
            Self::Geojson(writer) => writer.finish()?,
            Self::GeojsonGz(writer) => writer.finish()?.finish()?,
        }
        .commit()
    }
}

/// Writes the tables of `choice` into `folder` and returns what was measured.
pub fn write_tables(
    result: &SlideResult,
    choice: Choice<'_>,
    folder: &Path,
) -> Result<Measurements, OutputError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        |source| OutputError::Write { path, source }
    };
    let mut sinks: Vec<(PathBuf, Sink<'_>)> = Vec::new();
    for format in choice.formats {
        let path = folder.join(format!("nuclei.{}", format.name()));
        if let Some(sink) = Sink::begin(*format, result, choice, &path).map_err(wrong(&path))? {
            sinks.push((path, sink));
        }
    }
    let measured = table::for_each_chunk(result, choice.units, |rows| {
        sinks
            .par_iter_mut()
            .try_for_each(|(path, sink)| sink.rows(rows).map_err(wrong(path)))
    })?;
    for (path, sink) in sinks {
        sink.commit().map_err(wrong(&path))?;
    }
    Ok(measured)
}
