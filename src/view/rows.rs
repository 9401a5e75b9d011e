//! nuclei.csv as the page needs it: rows on disk, numbers in memory.
//!
//! In: a CSV of [`crate::output::nuclei_csv`]. Out: any row's own bytes, and the columns that hold numbers, for filters.
//! A row costs 8 bytes of memory and 4 a number; its text stays in the file. Never writes one.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Columns that are no quantity: nothing to filter by a range.
const NO_QUANTITY: [&str; 3] = ["id", "type", "type_name"];
/// Bytes of the file that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// The rows of a table, in its order; places count from 0.
#[derive(Debug)]
pub struct Rows {
    file: File,
    names: Vec<String>,
    /// Byte at which each row begins, and the end of the last.
    starts: Vec<u64>,
    ids: Vec<u64>,
    columns: Vec<Column>,
}

/// A column of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// As in the header; the unit is its ending.
    pub name: String,
    /// NaN where the cell is empty.
    pub values: Vec<f32>,
}

impl Column {
    /// The least and the greatest value; `None` where there is no value at all.
    pub fn range(&self) -> Option<[f32; 2]> {
        let finite = self.values.iter().filter(|v| v.is_finite());
        finite.fold(None, |range: Option<[f32; 2]>, &v| {
            Some(range.map_or([v, v], |[lo, hi]| [lo.min(v), hi.max(v)]))
        })
    }
}

impl Rows {
    /// Reads the table once.
    ///
    /// # Errors
    /// With the place, if the file cannot be read or is no table of nuclei.
    pub fn read(mut file: File) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        file.seek(SeekFrom::Start(0)).map_err(text)?;
        let buffered = BufReader::with_capacity(READ_BYTES, file.try_clone().map_err(text)?);
        let mut reader = csv::Reader::from_reader(buffered);
        let names: Vec<String> = match reader.headers() {
            Ok(headers) => headers.iter().map(str::to_owned).collect(),
            Err(error) => return Err(error.to_string()),
        };
        let id = names.iter().position(|name| name == "id");
        let id = id.ok_or("has no column id: it is no nuclei.csv")?;
        let mut columns: Vec<(usize, Column)> = (0..)
            .zip(&names)
            .filter(|(_, name)| !NO_QUANTITY.contains(&name.as_str()))
            .map(|(at, name)| {
                let (name, values) = (name.clone(), Vec::new());
                (at, Column { name, values })
            })
            .collect();
        let (mut starts, mut ids) = (Vec::new(), Vec::new());
        let mut row = csv::StringRecord::new();
        loop {
            let start = reader.position().byte();
            if !reader.read_record(&mut row).map_err(|e| e.to_string())? {
                break;
            }
            starts.push(start);
            let said = row.get(id).and_then(|cell| cell.parse().ok());
            ids.push(said.ok_or_else(|| format!("byte {start}: the id is no whole number"))?);
            for (at, column) in &mut columns {
                let value = row.get(*at).and_then(|cell| cell.parse().ok());
                column.values.push(value.unwrap_or(f32::NAN));
            }
        }
        starts.push(file.metadata().map_err(text)?.len());
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        Ok(Self {
            file,
            names,
            starts,
            ids,
            columns,
        })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids in order of the rows.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// The row of a nucleus's id.
    pub fn place_of(&self, id: u64) -> Option<usize> {
        self.ids.iter().position(|&other| other == id)
    }

    /// The columns of numbers, in the table's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of that name, if it holds numbers.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The header's bytes, with its line's end.
    pub fn header(&self) -> io::Result<Vec<u8>> {
        let end = self.starts.first().copied().unwrap_or(0);
        self.bytes(0, end)
    }

    /// A row's bytes, with its line's end; none for a place beyond the last row.
    pub fn line(&self, place: usize) -> io::Result<Vec<u8>> {
        match self.starts.get(place..place + 2) {
            Some(&[start, end]) => self.bytes(start, end),
            _ => Ok(Vec::new()),
        }
    }

    /// A row's cells with their columns' names.
    pub fn cells(&self, place: usize) -> io::Result<Vec<(&str, String)>> {
        let line = self.line(place)?;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(line.as_slice());
        let Some(row) = reader.records().next() else {
            return Ok(Vec::new());
        };
        let row = row.map_err(io::Error::other)?;
        let names = self.names.iter().map(String::as_str);
        Ok(names.zip(row.iter().map(str::to_owned)).collect())
    }

    fn bytes(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; end.saturating_sub(start) as usize];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn rows(text: &str) -> Result<Rows, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Rows::read(file)
    }

    #[test]
    fn rows_come_back_byte_for_byte_with_their_numbers() {
        let lines = [
            "id,type_name,area_um2\n",
            "7,\"a, \"\"b\"\"\nc\",1.5\n",
            "9,d,\n",
        ];
        let rows = rows(&lines.concat()).unwrap();
        assert_eq!(rows.header().unwrap(), lines[0].as_bytes());
        assert_eq!(rows.line(0).unwrap(), lines[1].as_bytes());
        assert_eq!(rows.line(1).unwrap(), lines[2].as_bytes());
        assert!(rows.line(2).unwrap().is_empty());
        assert_eq!(rows.cells(0).unwrap()[1].1, "a, \"b\"\nc");
        assert_eq!((rows.place_of(9), rows.place_of(8)), (Some(1), None));
        let area = &rows.columns()[rows.column("area_um2").unwrap()];
        assert_eq!(area.values[0], 1.5);
        assert!(area.values[1].is_nan() && rows.column("type_name").is_none());
        assert_eq!(area.range(), Some([1.5, 1.5]));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(rows("a,b\n1,2\n").unwrap_err().contains("id"));
        assert!(rows("id\nx\n").unwrap_err().contains("byte 3"));
        assert!(rows("id\n").unwrap().is_empty());
    }
}
