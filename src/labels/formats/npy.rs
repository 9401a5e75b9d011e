//! The values of an .npy file of any number type, read as a stream.
//!
//! In: a path. Out: shape, and values in C order, read on demand: 2 GB of PanNuke fit any memory.

use std::io;
use std::path::{Path, PathBuf};

use crate::labels::LabelError;
use crate::npy;

/// Most values that an .npy may declare, against absurd headers.
const MOST_VALUES: u64 = 1 << 34;

/// An open .npy.
pub struct Npy {
    path: PathBuf,
    pub shape: Vec<u64>,
    values: Box<dyn Iterator<Item = io::Result<f64>>>,
}

impl Npy {
    /// Opens `path` at its first value.
    ///
    /// # Errors
    /// Not an .npy, values that are no numbers, column order, or an absurd shape.
    pub fn open(path: &Path) -> Result<Self, LabelError> {
        let failed = |reason: &dyn ToString| LabelError::new(path, reason.to_string());
        let reader = || npy::open(path).map_err(|e| failed(&e));
        let header = reader()?;
        let shape = header.shape().to_vec();
        let values = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        if values.is_none_or(|n| n > MOST_VALUES) {
            return Err(failed(&format!("shape {shape:?} is too large")));
        }
        if header.order() != npyz::Order::C {
            return Err(failed(
                &"is stored column by column: save it with np.ascontiguousarray",
            ));
        }
        macro_rules! try_types {
            ($($kind:ty),*) => {$(
                if let Ok(data) = reader()?.data::<$kind>() {
                    return Ok(Self {
                        path: path.to_path_buf(),
                        shape,
                        values: Box::new(data.map(|v| v.map(|v| v as f64))),
                    });
                }
            )*};
        }
        try_types!(u8, u16, i16, i32, u32, i64, u64, f32, f64);
        Err(failed(&"holds no numbers"))
    }

    /// The next `n` values.
    pub fn take(&mut self, n: usize) -> Result<Vec<f64>, LabelError> {
        let values: io::Result<Vec<f64>> = self.values.by_ref().take(n).collect();
        let values = values.map_err(|e| LabelError::new(&self.path, e))?;
        if values.len() < n {
            return Err(LabelError::new(
                &self.path,
                format!("ends early: shape {:?} promises more", self.shape),
            ));
        }
        Ok(values)
    }

    /// All values as ids, see [`id_of`].
    pub fn take_ids(&mut self) -> Result<Vec<u32>, LabelError> {
        let n: u64 = self.shape.iter().product();
        Ok(self.take(n as usize)?.into_iter().map(id_of).collect())
    }
}

/// A value as an id: fractions are cut, negative numbers become 0.
pub fn id_of(value: f64) -> u32 {
    value.max(0.0) as u32
}

/// The texts of an .npy of type `<U…` (PanNuke's types.npy).
pub fn read_texts(path: &Path) -> Result<Vec<String>, LabelError> {
    let failed = |reason: String| LabelError::new(path, reason);
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    npy::open(path).map_err(|e| failed(e.to_string()))?;
    let mut rest = bytes.as_slice();
    let header = npyz::NpyHeader::from_reader(&mut rest).map_err(|e| failed(e.to_string()))?;
    let kind = header.dtype().descr();
    let letters: usize = kind
        .trim_matches(|c: char| c == '\'' || c == '"')
        .strip_prefix("<U")
        .and_then(|n| n.parse().ok())
        .filter(|n| (1..10_000).contains(n))
        .ok_or_else(|| failed(format!("type {kind}, but texts (<U…) are wanted")))?;
    Ok(rest
        .chunks_exact(letters * 4)
        .map(|text| {
            text.chunks_exact(4)
                .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
                .filter(|&c| c != 0)
                .filter_map(char::from_u32)
                .collect()
        })
        .collect())
}
