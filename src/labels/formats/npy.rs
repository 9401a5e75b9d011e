//! The values of an .npy file of any number type, read as a stream.
//!
//! In: a path. Out: shape, and values in C order, read on demand: 2 GB of PanNuke fit any memory.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::labels::LabelError;
use crate::labels::label_map::id_from;
use crate::npy;

/// Most values that an .npy may declare, against absurd headers.
const MOST_VALUES: u64 = 1 << 34;

/// Largest id up to which a 16-bit float holds every whole number.
const MOST_F16_ID: u32 = 2048;

/// Whether the file at `path` starts as an .npy.
pub fn is_npy(path: &Path) -> bool {
    let mut start = [0; 6];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && &start == b"\x93NUMPY"
}

/// An open .npy.
pub struct Npy {
    path: PathBuf,
    pub shape: Vec<u64>,
    /// The kind of number as NumPy writes it: `<f4`, `|u1`, …
    kind: String,
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
        let kind = header.dtype().descr();
        let kind = kind
            .trim_matches(|c: char| c == '\'' || c == '"')
            .to_owned();
        if kind.ends_with("b1") {
            return Err(failed(
                &"is a mask (bool), not instances: give each nucleus an id of its own (skimage.measure.label)",
            ));
        }
        let of = |values| Self {
            path: path.to_path_buf(),
            shape: shape.clone(),
            kind: kind.clone(),
            values,
        };
        macro_rules! try_types {
            ($($kind:ty),*) => {$(
                if let Ok(data) = reader()?.data::<$kind>() {
                    return Ok(of(Box::new(data.map(|v| v.map(|v| v as f64)))));
                }
            )*};
        }
        try_types!(u8, i8, u16, i16, i32, u32, i64, u64, f32, f64);
        if let Ok(data) = reader()?.data::<half::f16>() {
            return Ok(of(Box::new(data.map(|v| v.map(f64::from)))));
        }
        Err(failed(&format!(
            "holds {kind}, no numbers: save it as int32"
        )))
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

    /// All values as ids.
    ///
    /// # Errors
    /// A value that is no id, also one that its kind of number cannot have kept: a negative one in 8
    /// or 16 bits, or one of more than 2048 in a 16-bit float.
    pub fn take_ids(&mut self) -> Result<Vec<u32>, LabelError> {
        let n: u64 = self.shape.iter().product();
        let ids = self.take(n as usize)?.into_iter();
        let ids: Result<Vec<u32>, String> = ids
            .map(|value| id_from(value, &format!(".npy of {}", self.kind)))
            .collect();
        let ids = ids.map_err(|reason| LabelError::new(&self.path, reason))?;
        if self.kind.ends_with("f2") && ids.iter().any(|&id| id > MOST_F16_ID) {
            return Err(LabelError::new(
                &self.path,
                format!("16-bit floats hold ids only up to {MOST_F16_ID}: save them as int32"),
            ));
        }
        Ok(ids)
    }

    /// The colours of one picture as 8 bits: numbers from 0 to 255, or floats from 0 to 1.
    ///
    /// # Errors
    /// A value outside the range.
    pub fn colours_of(&self, values: &[f64]) -> Result<Vec<u8>, LabelError> {
        let is_unit = self.kind.contains('f') && values.iter().all(|v| *v <= 1.0);
        let scale = if is_unit { 255.0 } else { 1.0 };
        let colour = |value: &f64| {
            let scaled = scale * value;
            (0.0..=255.0).contains(&scaled).then_some(scaled.round() as u8).ok_or_else(|| {
                let reason = format!(
                    "its picture holds {value}: colours from 0 to 255, or floats from 0 to 1, are wanted"
                );
                LabelError::new(&self.path, reason)
            })
        };
        values.iter().map(colour).collect()
    }
}

/// A stored number as the id of a nucleus in a channel: fractions are cut, negative numbers are 0.
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
