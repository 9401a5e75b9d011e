//! nuclei.csv as the page needs it: rows on disk, numbers in memory.
//!
//! In: a CSV of [`crate::output::nuclei_csv`]. Out: any row's own bytes, and the columns that hold numbers,
//! for filters. A row costs 16 bytes of memory and 4 a number; its text stays in the file. Never writes one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rayon::prelude::*;

/// Columns that are no quantity: nothing to filter by a range.
const NO_QUANTITY: [&str; 4] = ["id", "type", "type_name", "slide"];
/// Bytes of the file that are read at a time when lines are looked for.
const READ_BYTES: usize = 1 << 20;
/// Rows that one core reads at a time, and how many such parts are held.
const PART_ROWS: usize = 4096;
const PARTS_AT_A_TIME: usize = 16;

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
    /// Reads the table: once for its lines, once, on every core, for its numbers.
    ///
    /// # Errors
    /// With the place, if the file cannot be read or is no table of nuclei.
    pub fn read(file: File) -> Result<Self, String> {
        let mut starts = line_starts(&file).map_err(|error| error.to_string())?;
        let header = bytes(&file, 0, starts.get(1).copied().unwrap_or(0));
        let header = header.map_err(|error| error.to_string())?;
        let mut reader = csv::Reader::from_reader(header.as_slice());
        let names = reader.headers().map_err(|error| error.to_string())?;
        let names: Vec<String> = names.iter().map(str::to_owned).collect();
        let id = names.iter().position(|name| name == "id");
        let id = id.ok_or("has no column id: it is no nuclei.csv")?;
        let wanted: Vec<usize> = (0..names.len())
            .filter(|&at| !NO_QUANTITY.contains(&names[at].as_str()))
            .collect();
        starts.remove(0);
        let rows = starts.len() - 1;
        let cells = Cells {
            file: &file,
            width: names.len(),
            id,
            wanted: &wanted,
        };
        let mut all = Numbers::with_capacity(rows, wanted.len());
        let parts: Vec<&[u64]> = (0..rows)
            .step_by(PART_ROWS)
            .map(|first| &starts[first..=(first + PART_ROWS).min(rows)])
            .collect();
        // A few at a time: what is read is held twice for a moment.
        for parts in parts.chunks(PARTS_AT_A_TIME) {
            let read: Result<Vec<Numbers>, String> =
                parts.par_iter().map(|part| cells.read(part)).collect();
            read?.into_iter().for_each(|part| all.append(part));
        }
        let named = wanted.iter().zip(all.columns).map(|(&at, values)| Column {
            name: names[at].clone(),
            values,
        });
        Ok(Self {
            columns: named.collect(),
            file,
            starts,
            ids: all.ids,
            names,
        })
    }

    /// The header's cells.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.ids.len()
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
        bytes(&self.file, 0, end)
    }

    /// A row's bytes, with its line's end; none for a place beyond the last row.
    pub fn line(&self, place: usize) -> io::Result<Vec<u8>> {
        match self.starts.get(place..place + 2) {
            Some(&[start, end]) => bytes(&self.file, start, end),
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
}

/// Bytes `start` to `end` of a file.
fn bytes(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; end.saturating_sub(start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Where each line begins, that of the header first, and the end of the last. A line's end between quotation marks
/// belongs to a cell; an empty line belongs to the one before.
fn line_starts(file: &File) -> io::Result<Vec<u64>> {
    let mut starts = vec![0];
    let (mut block, mut at) = (vec![0; READ_BYTES], 0);
    let (mut quoted, mut ended) = (false, false);
    loop {
        let n = file.read_at(&mut block, at)?;
        if n == 0 {
            break;
        }
        for (place, byte) in (at..).zip(&block[..n]) {
            match byte {
                b'\r' => {}
                b'\n' if !quoted => ended = true,
                _ => {
                    if ended {
                        starts.push(place);
                        ended = false;
                    }
                    quoted ^= *byte == b'"';
                }
            }
        }
        at += n as u64;
    }
    starts.push(at);
    Ok(starts)
}

/// The numbers of some rows.
struct Numbers {
    ids: Vec<u64>,
    /// A column each.
    columns: Vec<Vec<f32>>,
}

impl Numbers {
    fn with_capacity(rows: usize, columns: usize) -> Self {
        Self {
            ids: Vec::with_capacity(rows),
            columns: (0..columns).map(|_| Vec::with_capacity(rows)).collect(),
        }
    }

    fn append(&mut self, other: Self) {
        self.ids.extend(other.ids);
        for (column, values) in self.columns.iter_mut().zip(other.columns) {
            column.extend(values);
        }
    }
}

/// How a row's cells are read.
struct Cells<'a> {
    file: &'a File,
    /// Cells of a row.
    width: usize,
    /// The cell of the id.
    id: usize,
    /// The cells that are quantities.
    wanted: &'a [usize],
}

impl Cells<'_> {
    /// Rows that begin at all but the last of `starts`.
    fn read(&self, starts: &[u64]) -> Result<Numbers, String> {
        let (Some(&first), Some(&end)) = (starts.first(), starts.last()) else {
            return Ok(Numbers::with_capacity(0, self.wanted.len()));
        };
        let text = bytes(self.file, first, end).map_err(|error| error.to_string())?;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_slice());
        let mut numbers = Numbers::with_capacity(starts.len(), self.wanted.len());
        let mut row = csv::ByteRecord::new();
        for start in &starts[..starts.len() - 1] {
            let found = reader.read_byte_record(&mut row);
            if !found.map_err(|error| format!("byte {start}: {error}"))? || row.len() != self.width
            {
                return Err(format!("byte {start}: not a row of {} cells", self.width));
            }
            let id = row.get(self.id).and_then(parsed);
            let id = id.ok_or_else(|| format!("byte {start}: the id is no whole number"))?;
            numbers.ids.push(id);
            for (column, &at) in numbers.columns.iter_mut().zip(self.wanted) {
                column.push(row.get(at).and_then(parsed).unwrap_or(f32::NAN));
            }
        }
        Ok(numbers)
    }
}

fn parsed<T: std::str::FromStr>(cell: &[u8]) -> Option<T> {
    std::str::from_utf8(cell).ok()?.parse().ok()
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
    fn parts_join_in_order_and_lines_may_end_as_on_windows() {
        let n = PART_ROWS * PARTS_AT_A_TIME + PART_ROWS + 7;
        let mut text = String::from("id,a\r\n");
        for i in 0..n {
            text += &format!("{},{}\r\n", 3 * i, i % 1000);
        }
        let last = format!("{},{}", 3 * n, n % 1000);
        let rows = rows(&format!("{text}{last}")).unwrap();
        assert_eq!(rows.len(), n + 1);
        assert!(
            rows.ids()
                .iter()
                .enumerate()
                .all(|(i, &id)| id == 3 * i as u64)
        );
        let a = &rows.columns()[0].values;
        assert!(a.iter().enumerate().all(|(i, &v)| v == (i % 1000) as f32));
        assert_eq!(rows.line(n).unwrap(), last.as_bytes());
        assert_eq!(rows.line(1).unwrap(), b"3,1\r\n");
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(rows("id,a\n1,2\n3\n").unwrap_err().contains("byte 9"));
        assert!(rows("").unwrap_err().contains("id"));
        assert!(rows("a,b\n1,2\n").unwrap_err().contains("id"));
        assert!(rows("id\nx\n").unwrap_err().contains("byte 3"));
        assert!(rows("id\n").unwrap().ids().is_empty());
    }
}
