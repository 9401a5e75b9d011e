//! The numeric matrices of a MATLAB 5 file, plain or compressed, as SciPy and MATLAB write them.
//!
//! In: bytes. Out: matrices by name, column by column. Skips everything else in the file. Layout:
//! "MAT-File Format" by MathWorks, version 5. Little endian only.

use std::io::Read;

/// A two-dimensional numeric matrix; `values[column * rows + row]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Name of the variable.
    pub name: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// `rows * columns` values, column by column.
    pub values: Vec<f64>,
}

impl Matrix {
    /// The values as ids, row by row: fractions are cut, negative numbers become 0.
    pub fn ids_by_row(&self) -> Vec<u32> {
        (0..self.rows)
            .flat_map(|y| (0..self.columns).map(move |x| x * self.rows + y))
            .map(|i| self.values[i].max(0.0) as u32)
            .collect()
    }
}

const HEADER_BYTES: usize = 128;
const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;
/// Most bytes of a compressed element, against decompression bombs; no label matrix is as large.
const MAX_BYTES: u64 = 1 << 30;

/// All numeric matrices of a file. The error says what is wrong, without the file's name.
pub fn read(bytes: &[u8]) -> Result<Vec<Matrix>, String> {
    if bytes.len() < HEADER_BYTES || &bytes[126..128] != b"IM" {
        return Err(
            "not a little-endian MATLAB 5 file (v7.3 files are HDF5: save with -v7)".into(),
        );
    }
    let mut found = Vec::new();
    let mut rest = &bytes[HEADER_BYTES..];
    while !rest.is_empty() {
        let (kind, data, after) = split_element(rest).ok_or("ends in the middle of an element")?;
        match kind {
            COMPRESSED => {
                let mut inner = Vec::new();
                flate2::read::ZlibDecoder::new(data)
                    .take(MAX_BYTES)
                    .read_to_end(&mut inner)
                    .map_err(|e| format!("a compressed element is damaged: {e}"))?;
                if let Some((MATRIX, data, _)) = split_element(&inner) {
                    found.extend(parse_matrix(data));
                }
            }
            MATRIX => found.extend(parse_matrix(data)),
            _ => {}
        }
        rest = after;
    }
    Ok(found)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The first element of `bytes`: its type, its content and the bytes after it.
fn split_element(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let kind = read_u32(bytes, 0)?;
    if kind >> 16 != 0 {
        // Small format: size in the upper half, up to four bytes of content in place of the size.
        let size = (kind >> 16) as usize;
        return Some((
            kind & 0xFFFF,
            bytes.get(4..4 + size.min(4))?,
            bytes.get(8..)?,
        ));
    }
    let size = read_u32(bytes, 4)? as usize;
    let data = bytes.get(8..8usize.checked_add(size)?)?;
    // Compressed elements are not padded to eight bytes.
    let padded = if kind == COMPRESSED {
        size
    } else {
        size.div_ceil(8) * 8
    };
    Some((kind, data, bytes.get(8 + padded..).unwrap_or(&[])))
}

/// The numeric matrix in an element; `None` for cells, structures, text, sparse, more dimensions.
fn parse_matrix(data: &[u8]) -> Option<Matrix> {
    let (_, flags, rest) = split_element(data)?;
    let class = flags.first()?;
    if !(6..=15).contains(class) {
        return None;
    }
    let (_, dims, rest) = split_element(rest)?;
    let (_, name, rest) = split_element(rest)?;
    let (kind, values, _) = split_element(rest)?;
    if dims.len() != 8 {
        return None;
    }
    let (rows, columns) = (read_u32(dims, 0)? as usize, read_u32(dims, 4)? as usize);
    let values = decode_numbers(kind, values)?;
    (values.len() == rows.checked_mul(columns)?).then(|| Matrix {
        name: String::from_utf8_lossy(name).into_owned(),
        rows,
        columns,
        values,
    })
}

/// Little-endian numbers of the storage type `kind` (miINT8 = 1, …) as f64; `None` for other types.
fn decode_numbers(kind: u32, data: &[u8]) -> Option<Vec<f64>> {
    macro_rules! decode_as {
        ($t:ty) => {
            data.chunks_exact(size_of::<$t>())
                .filter_map(|c| Some(<$t>::from_le_bytes(c.try_into().ok()?) as f64))
                .collect()
        };
    }
    Some(match kind {
        1 => decode_as!(i8),
        2 => decode_as!(u8),
        3 => decode_as!(i16),
        4 => decode_as!(u16),
        5 => decode_as!(i32),
        6 => decode_as!(u32),
        7 => decode_as!(f32),
        9 => decode_as!(f64),
        12 => decode_as!(i64),
        13 => decode_as!(u64),
        _ => return None,
    })
}
