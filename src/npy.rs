//! NumPy's .npy files. In: a path. Out: an open file with a header of plausible length.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use npyz::NpyFile;

/// Longest header that is read, bytes. NumPy's have about a hundred; npyz allocates it at once.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// Opens the .npy file at `path`.
///
/// # Errors
/// What the system says, or `InvalidData` for another format or a header longer than 1 MiB.
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
    if length > MAX_HEADER_BYTES {
        let reason = format!("its header says that it has {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    file.rewind()?;
    NpyFile::new(BufReader::new(file))
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
        let error = file(3, &[0x76, 0, 0x7b, 0x27]).err().unwrap();
        assert!(error.to_string().contains("662372470 bytes"), "{error}");
        std::fs::write(&path, b"\x93NUM").unwrap();
        assert!(open(&path).is_err());
    }
}
