//! hover_net's .mat: `inst_map`, `inst_uid`, `inst_type` (of typed models), `inst_centroid` and, asked, `raw_map`.
//!
//! In: the [`SlideResult`] of an image, its prediction map. Out: a MATLAB 5 file, compressed, as "MAT-File Format" by
//! MathWorks describes it; scipy.io.loadmat and MATLAB read it. Nothing is read here: src/mat5.rs does that.

use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{OutputError, labels, write_file};
use crate::prediction::PredictionMap;
use crate::result::SlideResult;

/// Data types and array classes of the format.
const MI_INT8: u32 = 1;
const MI_INT32: u32 = 5;
const MI_UINT32: u32 = 6;
const MI_SINGLE: u32 = 7;
const MI_DOUBLE: u32 = 9;
const MI_INT64: u32 = 12;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;
const MX_DOUBLE: u32 = 6;
const MX_SINGLE: u32 = 7;
const MX_INT32: u32 = 12;
const MX_INT64: u32 = 14;
/// A matrix of the format holds less than 2 GiB.
const MOST_BYTES: usize = (1 << 31) - 1024;

/// Values of one kind, the first axis fastest.
enum Values {
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Values {
    /// Array class, data type, bytes.
    fn encoded(&self) -> (u32, u32, Vec<u8>) {
        match self {
            Self::I32(v) => (
                MX_INT32,
                MI_INT32,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Self::I64(v) => (
                MX_INT64,
                MI_INT64,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Self::F32(v) => (
                MX_SINGLE,
                MI_SINGLE,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Self::F64(v) => (
                MX_DOUBLE,
                MI_DOUBLE,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
        }
    }
}

/// Writes `path`; `raw`: the map that goes in as `raw_map`, `[H, W, C]` in the order [tp, np, h, v].
pub fn write(
    result: &SlideResult,
    raw: Option<&PredictionMap>,
    path: &Path,
) -> Result<(), OutputError> {
    let [width, height] = result.frames().level0_size_px.map(|n| n as usize);
    let map = labels::label_map(result, path)?;
    let records: Vec<_> = result.records().collect();
    let n = records.len();
    let centroids = records.iter().map(|r| r.to_centre(r.centroid_proc_px()));
    let centroids: Vec<[f64; 2]> = centroids.collect();
    let ids = |i: usize| map[i % height * width + i / height] as i32;
    let mut arrays = vec![
        (
            "inst_map",
            vec![height, width],
            Values::I32((0..map.len()).map(ids).collect()),
        ),
        (
            "inst_uid",
            vec![n, 1],
            Values::I32((1..=n as i32).collect()),
        ),
    ];
    if result.meta.model.types.len() > 1 {
        let types = records.iter().map(|r| r.type_id.unwrap_or(0) as i64);
        arrays.push(("inst_type", vec![n, 1], Values::I64(types.collect())));
    }
    let xs = centroids.iter().map(|c| c[0]);
    let both = xs.chain(centroids.iter().map(|c| c[1])).collect();
    arrays.push(("inst_centroid", vec![n, 2], Values::F64(both)));
    if let Some(raw) = raw {
        let (shape, values) = raw_map(raw);
        arrays.push(("raw_map", shape, Values::F32(values)));
    }
    if let Some((name, ..)) = arrays
        .iter()
        .find(|(_, shape, _)| shape.iter().product::<usize>() > MOST_BYTES / 8)
    {
        return Err(OutputError::Content {
            path: path.to_owned(),
            reason: format!("{name} is too large for a .mat file: use `run` or `tile`"),
        });
    }
    write_file(path, |out| {
        out.write_all(&header())?;
        for (name, shape, values) in &arrays {
            out.write_all(&compressed(&matrix(name, shape, values))?)?;
        }
        Ok(())
    })
}

/// 116 bytes of text, no subsystem, version 1.0, little endian.
fn header() -> Vec<u8> {
    let mut bytes = b"MATLAB 5.0 MAT-file, written by wsi-nuclei".to_vec();
    bytes.resize(116, b' ');
    bytes.extend([0; 8]);
    bytes.extend([0x00, 0x01, b'I', b'M']);
    bytes
}

/// Type, length and content, padded to 8 bytes.
fn element(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 16);
    bytes.extend(kind.to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn matrix(name: &str, shape: &[usize], values: &Values) -> Vec<u8> {
    let (class, kind, content) = values.encoded();
    let flags = [class, 0].map(u32::to_le_bytes).concat();
    let shape: Vec<u8> = shape
        .iter()
        .flat_map(|&n| (n as i32).to_le_bytes())
        .collect();
    let parts = [
        element(MI_UINT32, &flags),
        element(MI_INT32, &shape),
        element(MI_INT8, name.as_bytes()),
        element(kind, &content),
    ];
    element(MI_MATRIX, &parts.concat())
}

/// A compressed element is not padded.
fn compressed(matrix: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(matrix)?;
    let content = encoder.finish()?;
    let head = [MI_COMPRESSED, content.len() as u32].map(u32::to_le_bytes);
    Ok([head.concat(), content].concat())
}

/// `[H, W, C]` and the values, H fastest.
fn raw_map(map: &PredictionMap) -> (Vec<usize>, Vec<f32>) {
    let (width, height) = (map.width, map.height);
    let class = |i: usize| {
        let row = &map.tp[i * map.types..(i + 1) * map.types];
        let best =
            row.iter().enumerate().fold(
                (0, f32::MIN),
                |best, (k, &p)| {
                    if p > best.1 { (k, p) } else { best }
                },
            );
        best.0 as f32
    };
    let mut channels: Vec<Box<dyn Fn(usize) -> f32>> = Vec::new();
    if map.types > 0 {
        channels.push(Box::new(class));
    }
    channels.push(Box::new(|i| map.np[i]));
    channels.push(Box::new(|i| map.h[i]));
    channels.push(Box::new(|i| map.v[i]));
    let mut values = Vec::with_capacity(width * height * channels.len());
    for channel in &channels {
        for x in 0..width {
            values.extend((0..height).map(|y| channel(y * width + x)));
        }
    }
    (vec![height, width, channels.len()], values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mat5 as reader;
    use crate::result::fixture;

    #[test]
    fn what_was_written_is_read() {
        let result = fixture::result(1.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mat");
        write(&result, None, &path).unwrap();
        let found = reader::read(&std::fs::read(&path).unwrap()).unwrap();
        let named = |name: &str| found.iter().find(|m| m.name == name).unwrap();
        let n = result.nuclei.len();
        let map = named("inst_map");
        assert_eq!((map.rows, map.columns), (40, 60));
        for (i, nucleus) in result.nuclei.iter().enumerate() {
            let count = map.values.iter().filter(|v| **v == (i + 1) as f64).count();
            assert_eq!(count as u32, nucleus.area_px);
            let (y, x) = nucleus.first_pixel();
            assert_eq!(map.values[x as usize * 40 + y as usize], (i + 1) as f64);
        }
        let uid: Vec<f64> = (1..=n).map(|i| i as f64).collect();
        assert_eq!(named("inst_uid").values, uid);
        let centroids = named("inst_centroid");
        assert_eq!((centroids.rows, centroids.columns), (n, 2));
        for (i, record) in result.records().enumerate() {
            let [x, y] = record.to_centre(record.centroid_proc_px());
            assert_eq!([centroids.values[i], centroids.values[n + i]], [x, y]);
            assert_eq!(named("inst_type").values[i], record.type_id.unwrap() as f64);
        }
    }

    #[test]
    fn raw_map_is_class_np_h_v() {
        let map = PredictionMap {
            width: 2,
            height: 1,
            np: vec![0.25, 0.5],
            h: vec![-1.0, 1.0],
            v: vec![2.0, 3.0],
            types: 3,
            tp: vec![0.1, 0.2, 0.7, 0.5, 0.3, 0.2],
        };
        let (shape, values) = raw_map(&map);
        assert_eq!(shape, [1, 2, 4]);
        assert_eq!(values, [2.0, 0.0, 0.25, 0.5, -1.0, 1.0, 2.0, 3.0]);
    }
}
