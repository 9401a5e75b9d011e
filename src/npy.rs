//! NumPy's .npy files. In: a path. Out: an open file with a header of plausible length.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use npyz::NpyFile;

/// Longest header that is read, bytes. NumPy's have about a hundred; npyz allocates it at once.
const MAX_HEADER_BYTES: u32 = 1 << 20;
/// Deepest brackets of a header: a dictionary, a shape, a type of several fields.
const MAX_NESTING: usize = 8;
/// Most values of an array, also where another axis has none.
const MAX_VALUES: u64 = 1 << 40;

/// Opens the .npy file at `path`.
///
/// # Errors
/// What the system says, or `InvalidData` for another format, or a header that no array has: longer than 1 MiB, nested
/// without end (npyz would take hours), or with an absurd shape.
pub fn open(path: &Path) -> io::Result<NpyFile<BufReader<File>>> {
    let mut file = File::open(path)?;
    let mut start = [0; 12];
    let read = file.by_ref().take(12).read(&mut start)?;
    // Version 1 has 16 bits of length, later ones 32 (NEP 1).
    let length = match (read, start[6]) {
        (12, 1) => u16::from_le_bytes([start[8], start[9]]).into(),
        (12, _) => u32::from_le_bytes([start[8], start[9], start[10], start[11]]),
        _ => 0,
    };
    let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    if length > MAX_HEADER_BYTES {
        return refuse(format!("its header says that it has {length} bytes"));
    }
    let mut header = Vec::new();
    file.by_ref().take(length.into()).read_to_end(&mut header)?;
    if nesting(&header) > MAX_NESTING {
        return refuse(format!("its header is nested more than {MAX_NESTING} deep"));
    }
    // Before npyz multiplies them.
    let mut left = MAX_VALUES;
    for side in sides(&header) {
        if side > left {
            return refuse("its shape is larger than any array".to_owned());
        }
        left /= side.max(1);
    }
    file.rewind()?;
    NpyFile::new(BufReader::new(file))
}

/// The numbers of the header's `shape`; one that does not fit 64 bits is the largest.
fn sides(header: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(header);
    let after = text.split_once("shape").map_or("", |(_, after)| after);
    let inner = after.split_once('(').map_or("", |(_, inner)| inner);
    let inner = inner.split_once(')').map_or(inner, |(inner, _)| inner);
    let numbers = inner
        .split(',')
        .map(|n| n.trim().trim_end_matches(['l', 'L']));
    numbers
        .filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        .map(|n| n.parse().unwrap_or(u64::MAX))
        .collect()
}

/// How deep brackets lie in brackets.
fn nesting(header: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in header {
        match byte {
            b'[' | b'(' | b'{' => depth += 1,
            b']' | b')' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_gigabytes_is_refused_and_an_honest_one_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n";
        let file = |version: u8, length: &[u8]| {
            let magic = [b"\x93NUMPY".as_slice(), &[version, 0], length].concat();
            std::fs::write(
                &path,
                [magic.as_slice(), header, &1.5f32.to_le_bytes()].concat(),
            )
            .unwrap();
            open(&path)
        };
        let short = (header.len() as u16).to_le_bytes();
        let long = (header.len() as u32).to_le_bytes();
        for honest in [file(1, &short), file(2, &long)] {
            let values: Vec<f32> = honest.unwrap().into_vec().unwrap();
            assert_eq!(values, [1.5]);
        }
        for (text, said) in [
            (
                "'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807, 4), ",
                "larger",
            ),
            (
                "'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), ",
                "larger",
            ),
            (&format!("'descr': {}", "[".repeat(5000)), "nested"),
        ] {
            let header = format!("{{{text}}}\n");
            let length = (header.len() as u16).to_le_bytes();
            let bytes = [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes()].concat();
            std::fs::write(&path, bytes).unwrap();
            let error = open(&path).err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
        let error = file(3, &[0x76, 0, 0x7b, 0x27]).err().unwrap();
        assert!(error.to_string().contains("662372470 bytes"), "{error}");
        std::fs::write(&path, b"\x93NUM").unwrap();
        assert!(open(&path).is_err());
    }
}
