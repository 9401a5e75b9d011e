//! nuclei.csv: one row per nucleus, the columns of [`super::table`].
//!
//! In: chunks of rows. Out: RFC 4180 with a header, `.` decimals, empty where there is no value. Cells come rounded, so
//! the bytes are the same on every machine.

use std::fmt::Write as _;
use std::io::{self, Write};

use rayon::prelude::*;

use super::Units;
use super::formats::RowSink;
use super::table::{self, Cell, Column, Measurements, Row};
use crate::result::SlideResult;
use crate::store::atomic::Partial;

/// Rows that one core turns into text at a time.
const PART: usize = 256;

/// A table on its way into `W`.
pub struct Writer<'a, W: Write> {
    result: &'a SlideResult,
    columns: Vec<Column>,
    out: W,
}

impl<'a, W: Write> Writer<'a, W> {
    /// Writes the header.
    pub fn new(result: &'a SlideResult, units: Units, mut out: W) -> io::Result<Self> {
        let columns = table::columns(result, units);
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(columns.iter().map(|column| &column.name))?;
        out.write_all(&inner(csv)?)?;
        Ok(Self {
            result,
            columns,
            out,
        })
    }

    pub fn rows(&mut self, rows: &[Row<'_>]) -> io::Result<()> {
        let (result, columns) = (self.result, &self.columns);
        let parts = rows.par_chunks(PART);
        let texts: io::Result<Vec<Vec<u8>>> =
            parts.map(|rows| lines(rows, result, columns)).collect();
        texts?.iter().try_for_each(|text| self.out.write_all(text))
    }

    /// Gives `W` back, everything written.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.out)
    }
}

/// Writes the whole table into `out`.
pub fn stream(
    result: &SlideResult,
    units: Units,
    out: &mut (impl Write + ?Sized),
) -> io::Result<Measurements> {
    let mut writer = Writer::new(result, units, out)?;
    let measured = table::for_each_chunk(result, units, |rows| writer.rows(rows))?;
    writer.finish()?;
    Ok(measured)
}

/// The rows' text.
fn lines(rows: &[Row<'_>], result: &SlideResult, columns: &[Column]) -> io::Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::with_capacity(rows.len() * 8 * columns.len()));
    let mut text = String::new();
    for row in rows {
        for cell in table::cells(row, result, columns) {
            text.clear();
            // Writing into a String cannot fail.
            let _ = match cell {
                Cell::Whole(value) => write!(text, "{value}"),
                Cell::Number(value) => write!(text, "{value}"),
                Cell::Text(name) => text.write_str(name),
                Cell::Missing => Ok(()),
            };
            csv.write_field(&text)?;
        }
        csv.write_record(None::<&[u8]>)?;
    }
    inner(csv)
}

fn inner(csv: csv::Writer<Vec<u8>>) -> io::Result<Vec<u8>> {
    let text = |e: csv::IntoInnerError<csv::Writer<Vec<u8>>>| e.error().to_string();
    csv.into_inner().map_err(|e| io::Error::other(text(e)))
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
    use super::super::nuclei_json;
    use super::*;
    use crate::result::fixture;
    use std::collections::BTreeMap;

    fn read(result: &SlideResult, units: Units) -> (Vec<String>, Vec<BTreeMap<String, String>>) {
        let mut bytes = Vec::new();
        stream(result, units, &mut bytes).unwrap();
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let names: Vec<String> = reader
            .headers()
            .unwrap()
            .iter()
            .map(str::to_owned)
            .collect();
        let rows = reader
            .records()
            .map(|row| {
                names
                    .iter()
                    .cloned()
                    .zip(row.unwrap().iter().map(str::to_owned))
                    .collect()
            })
            .collect();
        (names, rows)
    }

    /// The columns that users' scripts rely on.
    const COLUMNS: &str = "id,x_px,y_px,x_um,y_um,type,type_name,type_prob,prob_background,prob_tumour,\
        prob_lymphocyte,type_entropy,type_share,min_x,min_y,max_x,max_y,area_um2,bbox_area_um2,convex_area_um2,\
        eccentricity,equivalent_diameter_um,euler_number,extent,filled_area_um2,inertia_eigval_x_um2,\
        inertia_eigval_y_um2,major_axis_length_um,minor_axis_length_um,orientation,perimeter_um,solidity,circularity,\
        feret_max_um,feret_min_um,roughness,hematoxylin_od_mean,hematoxylin_od_std,eosin_od_mean,eosin_od_std,\
        red_mean,green_mean,blue_mean,ring_hematoxylin_od_mean,ring_hematoxylin_od_std,ring_eosin_od_mean,\
        ring_eosin_od_std,nearest_um,neighbours_50um,nearest_tumour_um,neighbours_50um_tumour,nearest_lymphocyte_um,neighbours_50um_lymphocyte,slide";

    #[test]
    fn columns_are_the_contract() {
        let (names, _) = read(&fixture::result(1.0), Units::Um);
        assert_eq!(names.join(","), COLUMNS);
        let (names, _) = read(&fixture::result(1.0), Units::Px);
        assert!(names.contains(&"x_um".to_owned()) && names.contains(&"area".to_owned()));
    }

    #[test]
    fn a_row_by_hand() {
        let (_, rows) = read(&fixture::result(1.0), Units::Um);
        let row = &rows[1];
        let expected = [
            ("id", "2"),
            ("x_px", "26"),
            ("y_px", "14"),
            ("x_um", "6.5"),
            ("y_um", "3.5"),
            ("type", "2"),
            ("type_name", "lymphocyte"),
            ("type_prob", "0.6"),
            ("prob_background", "0.2"),
            ("type_share", "0.5"),
            ("min_x", "20"),
            ("max_x", "32"),
            ("min_y", "10"),
            ("max_y", "18"),
            ("area_um2", "6"),
            ("solidity", "1"),
            ("extent", "1"),
            ("euler_number", "1"),
            // 4 / sqrt(12) x 12 px sides, population moments: 16 (12² - 1) / 12 = 190.67 -> 13.8082 px.
            ("major_axis_length_um", "3.45205"),
            ("hematoxylin_od_mean", "0.8"),
            ("hematoxylin_od_std", "0"),
            ("blue_mean", "140"),
            ("ring_hematoxylin_od_mean", "0.2"),
            ("ring_hematoxylin_od_std", "0.1"),
            ("ring_eosin_od_mean", "0.5"),
            ("ring_eosin_od_std", "0"),
            ("neighbours_50um", "3"),
        ];
        assert_eq!(rows[0]["ring_eosin_od_mean"], "");
        for (name, value) in expected {
            assert_eq!(row[name], value, "{name}");
        }
    }

    #[test]
    fn every_nucleus_of_the_json_has_its_row_and_all_lies_inside() {
        for ratio in [1.0, 1.996, 0.5] {
            let result = fixture::result(ratio);
            let [width, height] = result.frames().level0_size_px.map(|n| n as f64);
            let (_, rows) = read(&result, Units::Um);
            let mut json = Vec::new();
            nuclei_json::stream(&result, &mut json).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let nuclei = json["nuc"].as_object().unwrap();
            assert_eq!(nuclei.len(), rows.len());
            for ((id, nucleus), row) in nuclei.iter().zip(&rows) {
                assert_eq!(id, &row["id"]);
                assert_eq!(nucleus["type"].to_string(), row["type"]);
                let value = |name: &str| row[name].parse::<f64>().unwrap();
                assert!((0.0..=width).contains(&value("x_px")));
                assert!((0.0..=height).contains(&value("max_y")));
                // The two frames are half a pixel apart.
                let x = nucleus["centroid"][0].as_f64().unwrap();
                assert!((x + 0.5 - value("x_px")).abs() < 0.011, "{ratio}");
            }
        }
    }

    #[test]
    fn a_table_names_its_slide_and_carries_the_manifests_columns() {
        let mut result = fixture::result(1.0);
        let of = |name: &str, cell: &str| (name.to_owned(), cell.to_owned());
        result.meta.manifest = vec![
            of("patient", "P, \"7\""),
            of("arm", ""),
            of("type_name", "biopsy"),
        ];
        let (names, rows) = read(&result, Units::Um);
        let last = &names[names.len() - 4..];
        assert_eq!(last, ["slide", "patient", "arm", "manifest_type_name"]);
        for row in &rows {
            assert_eq!(row["slide"], "hand-made");
            assert_eq!(row["patient"], "P, \"7\"");
            assert_eq!(
                (row["arm"].as_str(), row["manifest_type_name"].as_str()),
                ("", "biopsy")
            );
            assert_ne!(row["type_name"], "biopsy");
        }
    }

    #[test]
    fn a_lone_untyped_nucleus_has_empty_cells_where_there_is_nothing_to_say() {
        let mut result = fixture::result(1.0);
        result.meta.model.types.clear();
        result.nuclei.truncate(1);
        result.nuclei[0].prob_sums.clear();
        result.nuclei[0].type_counts.clear();
        let (names, rows) = read(&result, Units::Um);
        assert!(!names.iter().any(|name| name.starts_with("prob_")));
        for name in [
            "type",
            "type_name",
            "type_prob",
            "type_entropy",
            "type_share",
            "nearest_um",
        ] {
            assert_eq!(rows[0][name], "", "{name}");
        }
        result.nuclei.clear();
        assert_eq!(read(&result, Units::Um).1.len(), 0);
    }
}
