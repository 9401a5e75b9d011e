//! One row a slide: slides.csv and slides.parquet; and the rows that have no results: failures.csv.
//!
//! In: records and summaries. Out: the bytes of those files. A cell that is not known is empty in CSV and null in
//! Parquet. Never reads a nucleus.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::Value;

use super::plan::Row;
use super::record::Record;

/// A value of the table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Text(String),
    Whole(i64),
    Number(f64),
    Missing,
}

/// What a column holds, known before its first value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Number,
}

/// The slides of a cohort, one row each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slides {
    columns: Vec<String>,
    kinds: Vec<Kind>,
    rows: Vec<Vec<Cell>>,
}

/// A row's own columns, in order; those of types and medians follow.
const COLUMNS: [(&str, Kind); 21] = [
    ("row", Kind::Whole),
    ("slide", Kind::Text),
    ("state", Kind::Text),
    ("nuclei", Kind::Whole),
    ("nuclei_per_mm2", Kind::Number),
    ("tissue_mm2", Kind::Number),
    ("planned_mm2", Kind::Number),
    ("done_mm2", Kind::Number),
    ("unreadable_mm2", Kind::Number),
    ("missing_mm2", Kind::Number),
    ("width_px", Kind::Whole),
    ("height_px", Kind::Whole),
    ("mpp_x", Kind::Number),
    ("mpp_y", Kind::Number),
    ("model", Kind::Text),
    ("warnings", Kind::Whole),
    ("warning_texts", Kind::Text),
    ("seconds", Kind::Number),
    ("expected_seconds", Kind::Number),
    ("attempts", Kind::Whole),
    ("path", Kind::Text),
];

impl Slides {
    /// The table of these slides: plan's row, record, summary.json.
    pub fn new(slides: &[(&Row, &Record, &Value)]) -> Self {
        let mut columns: Vec<(String, Kind)> = COLUMNS
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind))
            .collect();
        let types = names(slides, "/types");
        for name in &types {
            columns.push((format!("{name}_count"), Kind::Whole));
            columns.push((format!("{name}_share"), Kind::Number));
            columns.push((format!("{name}_per_mm2"), Kind::Number));
        }
        let medians = names(slides, "/feature_medians/all");
        for name in &medians {
            columns.push((format!("median_{name}"), Kind::Number));
        }
        let rows = slides
            .iter()
            .map(|(row, record, summary)| {
                let mut cells = own_cells(row, record, summary);
                for name in &types {
                    let kind = &summary["types"][name];
                    cells.push(whole(&kind["count"]));
                    cells.push(number(&kind["share"]));
                    cells.push(number(&kind["density_per_mm2"]));
                }
                let all = &summary["feature_medians"]["all"];
                cells.extend(medians.iter().map(|name| number(&all[name])));
                cells
            })
            .collect();
        let (columns, kinds) = columns.into_iter().unzip();
        Self {
            columns,
            kinds,
            rows,
        }
    }

    /// As CSV with a header.
    pub fn to_csv(&self) -> io::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.columns)?;
        for row in &self.rows {
            writer.write_record(row.iter().map(|cell| match cell {
                Cell::Text(text) => text.clone(),
                Cell::Whole(whole) => whole.to_string(),
                Cell::Number(number) => number.to_string(),
                Cell::Missing => String::new(),
            }))?;
        }
        writer.into_inner().map_err(|error| error.into_error())
    }

    /// As Parquet with zstd.
    pub fn write_parquet<W: Write + Send>(&self, out: W) -> Result<(), ParquetError> {
        let fields: Result<Vec<_>, ParquetError> = self
            .columns
            .iter()
            .zip(&self.kinds)
            .map(|(name, kind)| {
                let physical = match kind {
                    Kind::Text => Physical::BYTE_ARRAY,
                    Kind::Whole => Physical::INT64,
                    Kind::Number => Physical::DOUBLE,
                };
                let logical = (*kind == Kind::Text).then_some(LogicalType::String);
                let field = Type::primitive_type_builder(name, physical)
                    .with_repetition(Repetition::OPTIONAL)
                    .with_logical_type(logical);
                Ok(Arc::new(field.build()?))
            })
            .collect();
        let schema = Type::group_type_builder("slides")
            .with_fields(fields?)
            .build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(format!("wsi-nuclei {}", env!("CARGO_PKG_VERSION")))
            .build();
        let mut file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        let mut group = file.next_row_group()?;
        for (place, kind) in self.kinds.iter().enumerate() {
            let Some(mut column) = group.next_column()? else {
                break;
            };
            let cells = self.rows.iter().map(|row| &row[place]);
            let levels: Vec<i16> = cells
                .clone()
                .map(|cell| i16::from(*cell != Cell::Missing))
                .collect();
            match kind {
                Kind::Text => {
                    let texts: Vec<ByteArray> = cells
                        .filter_map(|cell| match cell {
                            Cell::Text(text) => Some(ByteArray::from(text.as_str())),
                            _ => None,
                        })
                        .collect();
                    let typed = column.typed::<ByteArrayType>();
                    typed.write_batch(&texts, Some(&levels), None)?;
                }
                Kind::Whole => {
                    let whole: Vec<i64> = cells
                        .filter_map(|cell| match cell {
                            Cell::Whole(whole) => Some(*whole),
                            _ => None,
                        })
                        .collect();
                    let typed = column.typed::<Int64Type>();
                    typed.write_batch(&whole, Some(&levels), None)?;
                }
                Kind::Number => {
                    let numbers: Vec<f64> = cells
                        .filter_map(|cell| match cell {
                            Cell::Number(number) => Some(*number),
                            _ => None,
                        })
                        .collect();
                    let typed = column.typed::<DoubleType>();
                    typed.write_batch(&numbers, Some(&levels), None)?;
                }
            }
            column.close()?;
        }
        group.close()?;
        file.close()?;
        Ok(())
    }
}

fn own_cells(row: &Row, record: &Record, summary: &Value) -> Vec<Cell> {
    let area = |name: &str| number(&summary["area_mm2"][name]);
    let warnings: Vec<&str> = summary["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let state = match record.state {
        super::record::State::Done => "done",
        _ => "incomplete",
    };
    vec![
        Cell::Whole(row.row as i64),
        Cell::Text(row.stem.clone()),
        Cell::Text(state.into()),
        whole(&summary["nuclei"]["count"]),
        number(&summary["nuclei"]["density_per_mm2"]),
        area("tissue"),
        area("planned"),
        area("done"),
        area("unreadable"),
        area("missing"),
        whole(&summary["width"]),
        whole(&summary["height"]),
        number(&summary["mpp"][0]),
        number(&summary["mpp"][1]),
        summary["model"]
            .as_str()
            .map_or(Cell::Missing, |name| Cell::Text(name.into())),
        Cell::Whole(warnings.len() as i64),
        match warnings.is_empty() {
            true => Cell::Missing,
            false => Cell::Text(warnings.join("; ")),
        },
        Cell::Number(record.seconds),
        Cell::Number(row.expected.seconds),
        Cell::Whole(record.attempts.into()),
        Cell::Text(row.path.display().to_string()),
    ]
}

/// All keys of the objects at `path`, in the order in which they come.
fn names(slides: &[(&Row, &Record, &Value)], path: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for (_, _, summary) in slides {
        let object = summary.pointer(path).and_then(Value::as_object);
        for name in object.into_iter().flat_map(|object| object.keys()) {
            if known.insert(name.clone()) {
                names.push(name.clone());
            }
        }
    }
    names
}

fn whole(value: &Value) -> Cell {
    value.as_i64().map_or(Cell::Missing, Cell::Whole)
}

fn number(value: &Value) -> Cell {
    value.as_f64().map_or(Cell::Missing, Cell::Number)
}

/// A row of failures.csv: one that has no results, or not all.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Failure {
    pub row: usize,
    pub slide: String,
    pub state: String,
    pub reason: String,
    pub stage: String,
    pub attempts: u32,
    pub by: String,
    /// The last lines of its log.
    pub log: String,
    pub path: String,
}

/// As CSV with a header, though there may be no row.
pub fn failures_csv(failures: &[Failure]) -> io::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .from_writer(Vec::new());
    writer.write_record([
        "row", "slide", "state", "reason", "stage", "attempts", "by", "log", "path",
    ])?;
    for failure in failures {
        writer.serialize(failure)?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}
