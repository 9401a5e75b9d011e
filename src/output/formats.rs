//! The output formats, as one table: name, what a format needs, whether it is written by default, its writer.
//!
//! To add a format: write `src/output/<format>.rs`, and add a variant of [`Format`] and its row of [`TABLE`] here.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::table::Row;
use super::{
    Choice, OutputError, Pictures, crops, geojson, gzip, labels_ome_zarr, nuclei_csv, nuclei_json,
    parquet, pictures,
};
use crate::result::SlideResult;
use crate::store::atomic::Partial;

/// A file of nuclei to write beside summary.json, run.json, thumb.png and mask.png.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// nuclei.json, hover_net's schema.
    Json,
    /// nuclei.csv, one row per nucleus.
    Csv,
    /// nuclei.parquet, the same columns.
    Parquet,
    /// nuclei.geojson, for QuPath and for programs that cannot unpack.
    Geojson,
    /// nuclei.geojson.gz: the same, a sixth as large.
    GeojsonGz,
    /// overlay.jpg, outlines over the picture.
    Overlay,
    /// crops/, fields at full resolution, outlined: the densest, the least certain, some at random.
    Crops,
    /// report.html, one page for the eye.
    Report,
    /// labels.ome.zarr/, an OME-Zarr 0.5 pyramid of ids and one of types.
    OmeZarr,
}

/// The least that must be at hand to write a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nuclei from anywhere, also from a JSON file.
    Nuclei,
    /// What a slide's store keeps: its masks, its thumbnail, its tissue.
    Store,
    /// The slide's own pixels.
    Pixels,
}

/// One row of the table.
struct FormatRow {
    format: Format,
    /// As `--format` has it; a table is nuclei.NAME.
    name: &'static str,
    needs: Needs,
    /// Whether it is written where nobody asked for formats.
    default: Default,
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Default {
    No,
    /// Of slides only: nobody wants a page for each of a thousand small images.
    OfSlides,
    Always,
}

/// How a format is written.
#[derive(Clone, Copy)]
pub(super) enum Writer {
    /// Row by row: all such formats are written in one pass over the measured nuclei.
    Rows(BeginRows),
    /// From the nuclei, into the folder.
    Nuclei(fn(&SlideResult, &Path) -> Result<(), OutputError>),
    /// With pictures, into the folder.
    Picture(fn(&SlideResult, &mut Pictures, &Path) -> Result<(), OutputError>),
    /// The page, from everything that was made before it.
    Page,
}

/// Begins a file of rows.
pub(super) type BeginRows =
    for<'a> fn(&'a SlideResult, Choice<'_>, Partial) -> io::Result<Box<dyn RowSink + 'a>>;

/// A file that takes rows.
pub(super) trait RowSink: Send {
    fn write_rows(&mut self, rows: &[Row<'_>]) -> io::Result<()>;
    /// Ends the file and puts it in its place.
    fn commit(self: Box<Self>) -> io::Result<()>;
}

/// In the order of `--help`; a list of formats is sorted by it.
const TABLE: [FormatRow; 9] = [
    FormatRow {
        format: Format::Json,
        name: "json",
        needs: Needs::Nuclei,
        default: Default::Always,
        writer: Writer::Nuclei(|result, folder| {
            nuclei_json::write(result, &folder.join("nuclei.json"))
        }),
    },
    FormatRow {
        format: Format::Csv,
        name: "csv",
        needs: Needs::Nuclei,
        default: Default::Always,
        writer: Writer::Rows(|result, choice, file| {
            Ok(Box::new(nuclei_csv::Writer::new(
                result,
                choice.units,
                file,
            )?))
        }),
    },
    FormatRow {
        format: Format::Parquet,
        name: "parquet",
        needs: Needs::Nuclei,
        default: Default::Always,
        writer: Writer::Rows(|result, choice, file| {
            Ok(Box::new(parquet::Writer::new(result, choice.units, file)?))
        }),
    },
    FormatRow {
        format: Format::Geojson,
        name: "geojson",
        needs: Needs::Nuclei,
        default: Default::No,
        writer: Writer::Rows(|result, choice, file| {
            Ok(Box::new(geojson::Writer::new(
                result,
                choice.geojson_frame,
                file,
            )?))
        }),
    },
    FormatRow {
        format: Format::GeojsonGz,
        name: "geojson.gz",
        needs: Needs::Nuclei,
        default: Default::Always,
        writer: Writer::Rows(|result, choice, file| {
            let file = gzip::Writer::new(file)?;
            Ok(Box::new(geojson::Writer::new(
                result,
                choice.geojson_frame,
                file,
            )?))
        }),
    },
    FormatRow {
        format: Format::Overlay,
        name: "overlay",
        needs: Needs::Store,
        default: Default::Always,
        writer: Writer::Picture(pictures::write_overlay),
    },
    FormatRow {
        format: Format::Crops,
        name: "crops",
        needs: Needs::Pixels,
        default: Default::OfSlides,
        writer: Writer::Picture(|result, pictures, folder| {
            pictures.captions = crops::write(result, &pictures.mask, &pictures.crops, folder)?;
            Ok(())
        }),
    },
    FormatRow {
        format: Format::Report,
        name: "report",
        needs: Needs::Store,
        default: Default::OfSlides,
        writer: Writer::Page,
    },
    FormatRow {
        format: Format::OmeZarr,
        name: "ome-zarr",
        needs: Needs::Store,
        default: Default::No,
        writer: Writer::Nuclei(|result, folder| labels_ome_zarr::write(result, folder).map(drop)),
    },
];

impl Format {
    fn row(self) -> &'static FormatRow {
        // A test holds that the table has a row per variant, in order.
        &TABLE[self as usize]
    }

    /// Every format, in order.
    pub fn all() -> impl Iterator<Item = Format> {
        TABLE.iter().map(|row| row.format)
    }

    /// As `--format` has it; a table is nuclei.NAME.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The least that must be at hand to write it.
    pub fn needs(self) -> Needs {
        self.row().needs
    }

    pub(super) fn writer(self) -> Writer {
        self.row().writer
    }

    /// What is written where nobody asked for formats and only `at_hand` is there.
    pub fn defaults(at_hand: Needs) -> Vec<Format> {
        let rows = TABLE.iter();
        rows.filter(|row| row.default != Default::No && row.needs <= at_hand)
            .map(|row| row.format)
            .collect()
    }

    /// What is written of a plain image where nobody asked for formats.
    pub fn defaults_of_images() -> Vec<Format> {
        let rows = TABLE.iter();
        rows.filter(|row| row.default == Default::Always)
            .map(|row| row.format)
            .collect()
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let row = TABLE.iter().find(|row| row.name == text);
        row.map(|row| row.format).ok_or_else(|| {
            let all: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
            format!("`{text}` is no format: choose from {}", all.join(", "))
        })
    }
}

/// Formats, sorted, each once; written `json,csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats(pub Vec<Format>);

impl FromStr for Formats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim);
        let mut formats = names.map(str::parse).collect::<Result<Vec<Format>, _>>()?;
        formats.sort();
        formats.dedup();
        Ok(Formats(formats))
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, format) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "," } else { "" }, format.name())?;
        }
        Ok(())
    }
}

impl Serialize for Formats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Unit of lengths and areas in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// µm and µm².
    Um,
    /// Pixels at the model's µm/px.
    Px,
}

/// Where nuclei.geojson has its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GeojsonFrame {
    /// Level-0 px from the corner of openslide.bounds where the slide has them: what QuPath shows.
    Qupath,
    /// Level-0 px from the slide's own corner.
    Level0,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_format_in_order() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.format as usize, place, "{}", row.name);
            assert_eq!(row.name.parse(), Ok(row.format));
        }
    }

    #[test]
    fn what_is_at_hand_limits_the_defaults() {
        let names = |formats: Vec<Format>| Formats(formats).to_string();
        assert_eq!(
            names(Format::defaults(Needs::Nuclei)),
            "json,csv,parquet,geojson.gz"
        );
        assert_eq!(
            names(Format::defaults(Needs::Store)),
            "json,csv,parquet,geojson.gz,overlay,report"
        );
        assert_eq!(
            names(Format::defaults(Needs::Pixels)),
            "json,csv,parquet,geojson.gz,overlay,crops,report"
        );
        assert_eq!(
            names(Format::defaults_of_images()),
            "json,csv,parquet,geojson.gz,overlay"
        );
    }
}
