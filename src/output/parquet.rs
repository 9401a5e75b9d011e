//! nuclei.parquet: the columns of [`super::table`], typed, compressed, with units and provenance.
//!
//! In: chunks of rows. Out: Parquet with zstd and statistics. Row groups of [`GROUP`] rows in order of id,
//! which is from the top of the slide to its bottom. One group is held in memory. Positions are
//! the CSV's numbers as 64 bits, other numbers the same as 32 bits, rounded to [`DIGITS`] binary digits so that they
//! compress; what is missing is null, never NaN. The metadata's key
//! `wsi-nuclei` is a JSON object.

mod arrow;
mod footer;

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, Type};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::Units;
use super::formats::RowSink;
use super::table::{self, Cell, Column, Kind, Row};
use crate::result::SlideResult;
use crate::store::atomic::Partial;

/// Binary digits of a float: an error below 1/100,000, far below that of any measurement. With all 24, a nucleus takes 150
/// bytes in place of 120 (docs/performance.md).
const DIGITS: u32 = 17;
/// Of a probability of a type: those of a nucleus add up to 1 within 1e-6.
const PROBABILITY_DIGITS: u32 = 20;
/// Rows of a row group: eight chunks of the table.
const GROUP: usize = 8 * table::CHUNK;

/// A table on its way into `W`.
pub struct Writer<'a, W: Write + Send> {
    result: &'a SlideResult,
    columns: Vec<Column>,
    /// The rows of the group at hand.
    held: Vec<Held>,
    held_rows: usize,
    /// Rows of a row group.
    group_rows: usize,
    file: SerializedFileWriter<footer::Tail<W>>,
}

/// Values of a column that wait for their row group; a level is 1 where there is a value, 0 where there is none.
enum Held {
    Ids(Vec<i64>),
    Places(Vec<f64>),
    Whole(Vec<i32>, Vec<i16>),
    Texts(Vec<ByteArray>, Vec<i16>),
    /// With the binary digits that are kept.
    Numbers(Vec<f32>, Vec<i16>, u32),
}

impl<'a, W: Write + Send> Writer<'a, W> {
    pub fn new(result: &'a SlideResult, units: Units, out: W) -> io::Result<Self> {
        let columns = table::columns(result, units);
        let schema = Arc::new(schema(&columns).map_err(wrong)?);
        let properties = properties(result, &columns).map_err(wrong)?;
        Ok(Self {
            result,
            held: columns.iter().map(Held::new).collect(),
            held_rows: 0,
            group_rows: GROUP,
            columns,
            file: SerializedFileWriter::new(footer::Tail::new(out), schema, properties)
                .map_err(wrong)?,
        })
    }

    pub fn rows(&mut self, rows: &[Row<'_>]) -> io::Result<()> {
        let (result, columns) = (self.result, &self.columns);
        let cells: Vec<Vec<Cell<'_>>> = rows
            .par_iter()
            .map(|row| table::cells(row, result, columns))
            .collect();
        self.held.par_iter_mut().enumerate().for_each(|(i, held)| {
            for row in &cells {
                held.push(row.get(i).copied().unwrap_or(Cell::Missing));
            }
        });
        self.held_rows += rows.len();
        if self.held_rows >= self.group_rows {
            self.write_group().map_err(wrong)?;
        }
        Ok(())
    }

    /// Gives `W` back, everything written.
    pub fn finish(mut self) -> io::Result<W> {
        if self.held_rows > 0 {
            self.write_group().map_err(wrong)?;
        }
        self.file.inner_mut().hold();
        let tail = self.file.into_inner().map_err(wrong)?;
        tail.finish(self.columns.len())
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.file.next_row_group()?;
        for held in &mut self.held {
            if let Some(column) = group.next_column()? {
                held.write(column)?;
            }
        }
        group.close()?;
        self.held_rows = 0;
        Ok(())
    }
}

impl Held {
    fn new(column: &Column) -> Self {
        let digits = match column.name.starts_with("prob_") {
            true => PROBABILITY_DIGITS,
            false => DIGITS,
        };
        match column.kind {
            Kind::Id => Self::Ids(Vec::new()),
            Kind::Place => Self::Places(Vec::new()),
            Kind::Whole => Self::Whole(Vec::new(), Vec::new()),
            Kind::Text => Self::Texts(Vec::new(), Vec::new()),
            Kind::Number => Self::Numbers(Vec::new(), Vec::new(), digits),
        }
    }

    fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Ids(values), Cell::Whole(v)) => values.push(v),
            (Self::Places(values), Cell::Number(v)) => values.push(v),
            (Self::Whole(values, levels), Cell::Whole(v)) => {
                values.push(v as i32);
                levels.push(1);
            }
            (Self::Texts(values, levels), Cell::Text(text)) => {
                values.push(ByteArray::from(text));
                levels.push(1);
            }
            (Self::Numbers(values, levels, digits), Cell::Number(v)) => {
                values.push(shortened(v as f32, *digits));
                levels.push(1);
            }
            (Self::Ids(values), _) => values.push(0),
            (Self::Places(values), _) => values.push(f64::NAN),
            (Self::Whole(_, levels) | Self::Texts(_, levels) | Self::Numbers(_, levels, _), _) => {
                levels.push(0);
            }
        }
    }

    /// Writes the values and forgets them.
    fn write(&mut self, mut column: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match (&mut *self, column.untyped()) {
            (Self::Ids(v), ColumnWriter::Int64ColumnWriter(w)) => w.write_batch(v, None, None)?,
            (Self::Places(v), ColumnWriter::DoubleColumnWriter(w)) => {
                w.write_batch(v, None, None)?
            }
            (Self::Whole(v, levels), ColumnWriter::Int32ColumnWriter(w)) => {
                w.write_batch(v, Some(levels), None)?
            }
            (Self::Texts(v, levels), ColumnWriter::ByteArrayColumnWriter(w)) => {
                w.write_batch(v, Some(levels), None)?
            }
            (Self::Numbers(v, levels, _), ColumnWriter::FloatColumnWriter(w)) => {
                w.write_batch(v, Some(levels), None)?
            }
            _ => return Err(ParquetError::General("a column of another type".into())),
        };
        column.close()?;
        match self {
            Self::Ids(values) => values.clear(),
            Self::Places(values) => values.clear(),
            Self::Whole(values, levels) => {
                values.clear();
                levels.clear();
            }
            Self::Texts(values, levels) => {
                values.clear();
                levels.clear();
            }
            Self::Numbers(values, levels, _) => {
                values.clear();
                levels.clear();
            }
        }
        Ok(())
    }
}

/// A float to so many binary digits, at most 23; ties go to the even one.
fn shortened(value: f32, digits: u32) -> f32 {
    let dropped = f32::MANTISSA_DIGITS - digits;
    let bits = value.to_bits();
    let half = (1 << (dropped - 1)) - 1 + ((bits >> dropped) & 1);
    // The carry of a mantissa raises the exponent, as it should.
    let rounded = f32::from_bits((bits.wrapping_add(half) >> dropped) << dropped);
    match rounded.is_finite() {
        true => rounded,
        false => value,
    }
}

fn schema(columns: &[Column]) -> Result<Type, ParquetError> {
    let fields: Result<Vec<_>, ParquetError> = columns
        .iter()
        .map(|column| {
            let (physical, repetition) = match column.kind {
                Kind::Id => (Physical::INT64, Repetition::REQUIRED),
                Kind::Place => (Physical::DOUBLE, Repetition::REQUIRED),
                Kind::Whole => (Physical::INT32, Repetition::OPTIONAL),
                Kind::Text => (Physical::BYTE_ARRAY, Repetition::OPTIONAL),
                Kind::Number => (Physical::FLOAT, Repetition::OPTIONAL),
            };
            let logical = (column.kind == Kind::Text).then_some(LogicalType::String);
            let field = Type::primitive_type_builder(&column.name, physical)
                .with_repetition(repetition)
                .with_logical_type(logical)
                .build()?;
            Ok(Arc::new(field))
        })
        .collect();
    Type::group_type_builder("nuclei")
        .with_fields(fields?)
        .build()
}

fn properties(
    result: &SlideResult,
    columns: &[Column],
) -> Result<WriterPropertiesPtr, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("wsi-nuclei ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_dictionary_enabled(false)
        .set_key_value_metadata(Some(vec![
            KeyValue::new("wsi-nuclei".into(), provenance(result, columns).to_string()),
            KeyValue::new(arrow::KEY.into(), arrow::schema(columns)),
        ]));
    for column in columns {
        let path = ColumnPath::from(vec![column.name.clone()]);
        properties = match column.kind {
            Kind::Text | Kind::Whole => properties.set_column_dictionary_enabled(path, true),
            // First bytes beside first bytes: the zeros of the last ones then cost nothing.
            Kind::Number => properties.set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT),
            Kind::Id => properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            Kind::Place => properties,
        };
    }
    Ok(Arc::new(properties.build()))
}

/// What the rows mean and where they come from; no path, no clock, no host.
fn provenance(result: &SlideResult, columns: &[Column]) -> Value {
    let meta = &result.meta;
    let units: Map<String, Value> = columns
        .iter()
        .filter(|column| !column.unit.is_empty())
        .map(|column| (column.name.clone(), json!(column.unit)))
        .collect();
    let um = |value: Value| {
        if result.scale_known() {
            value
        } else {
            Value::Null
        }
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "slide": {
            "stem": meta.stem,
            "quickhash": meta.slide.quickhash,
            "level0_size_px": meta.frames.level0_size_px,
            "level0_mpp": um(json!(meta.frames.level0_mpp)),
            "mpp_from": meta.mpp_from,
        },
        "model": {
            "name": meta.model.name,
            "sha256": meta.model.sha256,
            "mpp": um(json!(meta.model.mpp)),
            "licence": meta.model.licence,
            "types": meta.model.types.iter().map(|kind| &kind.name).collect::<Vec<_>>(),
        },
        "identity": meta.identity,
        "frame": "level-0 px, pixel i covers [i, i + 1)",
        "units": units,
    })
}

fn wrong(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other.to_string()),
        },
        other => io::Error::other(other.to_string()),
    }
}

impl RowSink for Writer<'_, Partial> {
    fn write_rows(&mut self, rows: &[Row<'_>]) -> io::Result<()> {
        self.rows(rows)
    }

    fn commit(self: Box<Self>) -> io::Result<()> {
        self.finish()?.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::super::nuclei_csv;
    use super::*;
    use crate::result::fixture;
    use parquet::basic::ColumnOrder;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::file::statistics::Statistics;
    use parquet::record::Field;

    fn written(result: &SlideResult, units: Units) -> SerializedFileReader<bytes::Bytes> {
        let mut writer = Writer::new(result, units, Vec::new()).unwrap();
        writer.group_rows = 3;
        table::for_each_chunk(result, units, |rows| {
            rows.chunks(3).try_for_each(|rows| writer.rows(rows))
        })
        .unwrap();
        SerializedFileReader::new(bytes::Bytes::from(writer.finish().unwrap())).unwrap()
    }

    /// As the CSV would write it.
    fn text(field: &Field) -> String {
        match field {
            Field::Null => String::new(),
            Field::Long(v) => v.to_string(),
            Field::Int(v) => v.to_string(),
            Field::Double(v) => v.to_string(),
            Field::Float(v) => v.to_string(),
            Field::Str(v) => v.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// To so many binary digits, by arithmetic.
    fn to_digits(value: f32, digits: u32) -> f32 {
        if value == 0.0 {
            return value;
        }
        let value = f64::from(value);
        let unit = 2f64.powi(value.abs().log2().floor() as i32 + 1 - digits as i32);
        ((value / unit).round_ties_even() * unit) as f32
    }

    #[test]
    fn floats_have_17_or_20_binary_digits() {
        let mut rng = fastrand::Rng::with_seed(4);
        let mut cases = vec![
            0.0, 1.0, -1.0, 0.6, 131_071.5, 131_072.5, 131_073.5, 1e-30, 1e30,
        ];
        cases.extend((0..100_000).map(|_| (rng.f32() - 0.5) * 10f32.powi(rng.i32(-9..9))));
        for value in cases {
            for digits in [DIGITS, PROBABILITY_DIGITS] {
                assert_eq!(
                    shortened(value, digits),
                    to_digits(value, digits),
                    "{value:e}"
                );
            }
            let found = shortened(value, DIGITS);
            assert!(
                (found - value).abs() <= value.abs() / 131_072.0,
                "{value:e}"
            );
        }
        assert_eq!(shortened(f32::MAX, DIGITS), f32::MAX);
    }

    #[test]
    fn read_back_it_is_the_csv() {
        for units in [Units::Um, Units::Px] {
            let mut result = fixture::result(1.996);
            // A nucleus that has no type, so cells without a value.
            result.nuclei[2].prob_sums.clear();
            let file = written(&result, units);
            assert_eq!(file.metadata().num_row_groups(), 2);
            let mut csv = Vec::new();
            nuclei_csv::stream(&result, units, &mut csv).unwrap();
            let mut csv = csv::Reader::from_reader(csv.as_slice());
            let names = csv.headers().unwrap().clone();
            let mut rows = file.get_row_iter(None).unwrap();
            for expected in csv.records() {
                let row = rows.next().unwrap().unwrap();
                let found: Vec<(&String, String)> =
                    row.get_column_iter().map(|(n, f)| (n, text(f))).collect();
                assert_eq!(found.len(), names.len());
                let floats = row
                    .get_column_iter()
                    .map(|(_, f)| matches!(f, Field::Float(_)));
                let floats: Vec<bool> = floats.collect();
                for (((name, found), is_float), (column, expected)) in found
                    .iter()
                    .zip(floats)
                    .zip(names.iter().zip(&expected.unwrap()))
                {
                    assert_eq!(name.as_str(), column);
                    let equal = match (found.parse::<f32>(), expected.parse::<f32>()) {
                        (Ok(a), Ok(b)) if is_float => {
                            let is_probability = name.starts_with("prob_");
                            let digits = if is_probability {
                                PROBABILITY_DIGITS
                            } else {
                                DIGITS
                            };
                            a == to_digits(b, digits)
                        }
                        (Ok(a), Ok(b)) => a == b,
                        _ => found == expected,
                    };
                    assert!(equal, "{name}: {found}, not {expected}");
                }
            }
            assert!(rows.next().is_none());
        }
    }

    #[test]
    fn metadata_says_units_and_provenance() {
        let file = written(&fixture::result(1.0), Units::Um);
        let meta = file.metadata().file_metadata();
        assert!(meta.created_by().unwrap().starts_with("wsi-nuclei "));
        let entry = &meta.key_value_metadata().unwrap()[0];
        assert_eq!(entry.key, "wsi-nuclei");
        let value: Value = serde_json::from_str(entry.value.as_ref().unwrap()).unwrap();
        assert_eq!(value["units"]["area_um2"], "um2");
        assert_eq!(value["units"]["x_px"], "level-0 px");
        assert_eq!(value["model"]["types"][1], "tumour");
        let columns = file.metadata().row_group(0).columns();
        let of = |name: &str| {
            let found = columns.iter().find(|c| c.column_path().string() == name);
            found.unwrap()
        };
        assert!(of("type_name").dictionary_page_offset().is_some());
    }

    #[test]
    fn a_group_says_between_which_values_its_floats_lie() {
        let mut result = fixture::result(1.0);
        // Of the first group of 3; its certainty is null and no NaN.
        result.nuclei[2].prob_sums.clear();
        let file = written(&result, Units::Um);
        let columns = file.metadata().file_metadata().schema_descr();
        let statistics = |name: &str| {
            let at = columns.columns().iter().position(|c| c.name() == name);
            let group = file.metadata().row_group(0);
            group.column(at.unwrap()).statistics().unwrap().clone()
        };
        let Statistics::Double(places) = statistics("max_y") else {
            panic!("no double")
        };
        // Boxes end at 6, 18 and 29.
        assert_eq!(
            (places.min_opt(), places.max_opt()),
            (Some(&6.0), Some(&29.0))
        );
        let Statistics::Float(probs) = statistics("type_prob") else {
            panic!("no float")
        };
        assert_eq!(probs.min_opt(), Some(&to_digits(0.6, DIGITS)));
        assert_eq!(probs.null_count_opt(), Some(1));
        // The order that other readers know.
        let orders = file.metadata().file_metadata().column_orders().unwrap();
        assert_eq!(orders.len(), columns.num_columns());
        for order in orders {
            assert!(
                matches!(order, ColumnOrder::TYPE_DEFINED_ORDER(_)),
                "{order:?}"
            );
        }
    }

    #[test]
    fn no_nuclei_are_an_empty_table() {
        let mut result = fixture::result(1.0);
        result.nuclei.clear();
        let file = written(&result, Units::Um);
        assert_eq!(file.metadata().file_metadata().num_rows(), 0);
    }
}
