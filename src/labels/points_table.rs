//! Tables of nuclei as people save them: CSV with a header.
//!
//! In: a path. Out: a [`PointsTable`], whose columns are found by name in any case. Semicolons between
//! columns mean commas in numbers, as spreadsheets of many countries write them. Never says what a
//! type means.

use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::LabelError;

/// Names under which the type of a nucleus is found, the first that exists.
pub const TYPE: &[&str] = &["type", "class", "label"];

/// A table in memory.
pub struct PointsTable {
    path: PathBuf,
    header: Vec<String>,
    rows: Vec<StringRecord>,
    has_decimal_commas: bool,
}

impl PointsTable {
    /// Reads the table at `path`.
    ///
    /// # Errors
    /// A file that is no CSV, or a row of another length than its header.
    pub fn read(path: &Path) -> Result<Self, LabelError> {
        let failed = |reason: String| LabelError::new(path, reason);
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let first = text.lines().next().unwrap_or_default();
        let has_semicolons = first.contains(';') && !first.contains(',');
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if has_semicolons { b';' } else { b',' })
            .trim(csv::Trim::All)
            .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        let header = reader.headers().map_err(|e| failed(e.to_string()))?;
        let header = header.iter().map(str::to_ascii_lowercase).collect();
        let rows: Result<Vec<_>, _> = reader.records().collect();
        Ok(Self {
            path: path.to_path_buf(),
            header,
            rows: rows.map_err(|e| failed(e.to_string()))?,
            has_decimal_commas: has_semicolons,
        })
    }

    /// The rows with their line numbers in the file.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &StringRecord)> {
        self.rows.iter().enumerate().map(|(i, row)| (i + 2, row))
    }

    /// The index of the first column that has one of `names`.
    pub fn find(&self, names: &[&str]) -> Option<usize> {
        let place = |name: &&str| self.header.iter().position(|h| h == name);
        names.iter().find_map(place)
    }

    /// [`Self::find`] of a column that must be there.
    ///
    /// # Errors
    /// No such column; the message lists those that are.
    pub fn need(&self, names: &[&str]) -> Result<usize, LabelError> {
        self.find(names).ok_or_else(|| {
            let wanted = names.join("` or `");
            let there = self.header.join(", ");
            self.error(format!("has no column `{wanted}` (it has: {there})"))
        })
    }

    /// The number in a column of a row.
    ///
    /// # Errors
    /// Text that is no finite number.
    pub fn number(
        &self,
        line: usize,
        row: &StringRecord,
        column: usize,
    ) -> Result<f64, LabelError> {
        let text = row.get(column).unwrap_or_default();
        let number = match self.has_decimal_commas {
            true => text.replace(',', ".").parse(),
            false => text.parse(),
        };
        number.ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| {
            let name = &self.header[column];
            self.error(format!("row {line}: {name} is {text:?}, not a number"))
        })
    }

    /// An error about this file.
    pub fn error(&self, reason: String) -> LabelError {
        LabelError::new(&self.path, reason)
    }
}

/// A type written as a whole number: `1`, or `1.0` as pandas writes it beside missing values.
pub fn type_number(text: &str) -> Option<u32> {
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number))
        .then_some(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_gives_the_same_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        for text in [
            "x,y,type\n1.5,2,3\n",
            "\u{feff}X,Y,Class\r\n1.5,2,3\r\n",
            "type, y, x\n3, 2, 1.5\n",
            "x;y;label\n1,5;2;3\n",
        ] {
            std::fs::write(&path, text).unwrap();
            let table = PointsTable::read(&path).unwrap();
            let [x, y] = ["x", "y"].map(|name| table.need(&[name]).unwrap());
            let kind = table.need(TYPE).unwrap();
            let (line, row) = table.rows().next().unwrap();
            let place = [x, y].map(|column| table.number(line, row, column).unwrap());
            assert_eq!(
                (line, place, row.get(kind)),
                (2, [1.5, 2.0], Some("3")),
                "{text}"
            );
        }
        std::fs::write(&path, "x,y\n1,a\n2,nan\n").unwrap();
        let table = PointsTable::read(&path).unwrap();
        for (line, row) in table.rows() {
            let error = table.number(line, row, 1).unwrap_err().to_string();
            assert!(error.contains(&format!("row {line}: y is")), "{error}");
        }
        let error = table.need(TYPE).err().unwrap().to_string();
        assert!(
            error.contains("no column `type` or `class` or `label` (it has: x, y)"),
            "{error}"
        );
        assert_eq!(
            ["1", "1.0", "a", "-1", "1.5"].map(type_number),
            [Some(1), Some(1), None, None, None]
        );
    }
}
