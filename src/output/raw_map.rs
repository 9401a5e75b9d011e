//! raw.npy: a prediction map as NumPy sees it, written and read.
//!
//! In or out: float32 `[H, W, C]`. C is 3 for `[np, h, v]`, 4 for hover_net's `[tp, np, h, v]` (tp: the class itself),
//! 5 and more for `[p_0, …, p_T-1, np, h, v]` with the T class probabilities. Ours are written with probabilities, and
//! beside them, under the same name, a .json with the model that made them: a .npy has no room for it.

use std::io::ErrorKind;
use std::path::Path;

use npyz::WriterBuilder;
use serde::{Deserialize, Serialize};

use super::{OutputError, write_file};
use crate::model::ModelSpec;
use crate::npy;
use crate::prediction::PredictionMap;

/// Largest map read, values: 16 GiB.
const MOST_VALUES: u64 = 1 << 32;

/// Writes `path`.
pub fn write(map: &PredictionMap, path: &Path) -> Result<(), OutputError> {
    let channels = map.types as u64 + 3;
    write_file(path, |out| {
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[map.height as u64, map.width as u64, channels])
            .writer(out)
            .begin_nd()?;
        let hv = map.np.iter().zip(map.h.iter().zip(&map.v));
        for (i, (np, (h, v))) in hv.enumerate() {
            let probabilities = map
                .tp
                .get(i * map.types..(i + 1) * map.types)
                .unwrap_or(&[]);
            writer.extend(probabilities.iter().chain([np, h, v]).copied())?;
        }
        writer.finish()
    })
}

/// What a map cannot say itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapCard {
    /// µm per px of the map, x and y.
    pub mpp: [f64; 2],
    /// The model.toml of the model that made it.
    pub model: ModelSpec,
}

/// Writes the card of the map at `map`.
pub fn write_card(card: &MapCard, map: &Path) -> Result<(), OutputError> {
    write_file(&map.with_extension("json"), |out| {
        serde_json::to_writer_pretty(&mut *out, card)?;
        out.write_all(b"\n")
    })
}

/// The card beside the map at `map`; `None` where there is none, as beside hover_net's maps.
///
/// # Errors
/// [`OutputError::Content`] for a card that is damaged.
pub fn read_card(map: &Path) -> Result<Option<MapCard>, OutputError> {
    let path = map.with_extension("json");
    let wrong = |reason: String| OutputError::Content {
        path: path.clone(),
        reason: format!("{reason}: remove it, or give --model and --mpp"),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
    };
    // Another program's JSON may lie there under the same name.
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if value["model"]["postproc"].is_null() {
        return Ok(None);
    }
    let card: MapCard = serde_json::from_value(value)
        .map_err(|error| wrong(format!("is no card of a prediction map: {error}")))?;
    // The checks of a model.toml hold for its copy.
    let toml = toml::to_string(&card.model).map_err(|error| wrong(error.to_string()))?;
    let model = ModelSpec::parse(&toml, &path).map_err(|error| wrong(error.to_string()))?;
    match card.mpp.iter().all(|mpp| (0.01..=100.0).contains(mpp)) {
        true => Ok(Some(MapCard { model, ..card })),
        false => Err(wrong(format!("says {:?} µm/px", card.mpp))),
    }
}

/// Reads `path`. `types`: how many classes hover_net's class map has, background included; without it the greatest
/// class decides.
///
/// # Errors
/// [`OutputError::Content`] for what is no such map, with the shape that would be.
pub fn read(path: &Path, types: Option<usize>) -> Result<PredictionMap, OutputError> {
    let wrong = |reason: String| OutputError::Content {
        path: path.to_owned(),
        reason,
    };
    let npy = npy::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => {
            wrong(format!("cannot be read: {error}: check the path"))
        }
        _ => wrong(format!("is no .npy file: {error}")),
    })?;
    let shape = npy.shape().to_vec();
    let &[height, width, channels] = shape.as_slice() else {
        return Err(wrong(format!(
            "has the shape {shape:?}: H x W x C is needed, with C = [np, h, v], [tp, np, h, v] or class \
                probabilities, np, h, v"
        )));
    };
    let size = height
        .checked_mul(width)
        .and_then(|n| n.checked_mul(channels));
    if height == 0 || width == 0 {
        return Err(wrong(format!("is {height} x {width} px: it has no pixels")));
    }
    if channels < 3 || size.is_none_or(|n| n > MOST_VALUES) || npy.order() != npyz::Order::C {
        return Err(wrong(format!(
            "is {height} x {width} x {channels}{}: a map in C order with 3 channels or more is needed",
            if npy.order() == npyz::Order::C {
                ""
            } else {
                " in Fortran order"
            }
        )));
    }
    let values: Vec<f32> = npy
        .try_data::<f32>()
        .map_err(|npy| {
            wrong(format!(
                "holds {:?}: float32 is needed (astype(\"float32\"))",
                npy.dtype().descr()
            ))
        })?
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("is cut short: {error}")))?;
    Ok(split(
        &values,
        width as usize,
        height as usize,
        channels as usize,
        types,
    ))
}

fn split(
    values: &[f32],
    width: usize,
    height: usize,
    channels: usize,
    types: Option<usize>,
) -> PredictionMap {
    let pixels = values.chunks_exact(channels.max(1));
    let class_map = channels == 4;
    let greatest = || {
        let most = pixels
            .clone()
            .filter_map(|p| p.first())
            .fold(0.0f32, |a, b| a.max(*b));
        (most.min(254.0) as usize) + 1
    };
    let kinds = match channels {
        4 => types.unwrap_or_else(greatest).max(1),
        n => n - 3,
    };
    let n = width * height;
    let mut map = PredictionMap {
        width,
        height,
        np: Vec::with_capacity(n),
        h: Vec::with_capacity(n),
        v: Vec::with_capacity(n),
        types: kinds,
        tp: Vec::with_capacity(n * kinds),
    };
    for pixel in pixels {
        if let [classes @ .., np, h, v] = pixel {
            map.np.push(*np);
            map.h.push(*h);
            map.v.push(*v);
            match classes {
                [class] if class_map => {
                    map.tp
                        .extend((0..kinds).map(|k| if *class as usize == k { 1.0 } else { 0.0 }));
                }
                all => map.tp.extend(all),
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> PredictionMap {
        PredictionMap {
            width: 2,
            height: 1,
            np: vec![0.25, 0.75],
            h: vec![-1.0, 1.0],
            v: vec![0.5, -0.5],
            types: 2,
            tp: vec![0.9, 0.1, 0.2, 0.8],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw.npy");
        write(&map(), &path).unwrap();
        assert_eq!(read(&path, None).unwrap(), map());
    }

    #[test]
    fn hover_nets_class_map_becomes_certain_probabilities() {
        let values = [0.0, 0.9, 0.1, 0.2, 2.0, 0.8, 0.3, 0.4];
        let got = split(&values, 2, 1, 4, None);
        assert_eq!((got.types, &got.np[..]), (3, &[0.9, 0.8][..]));
        assert_eq!(got.tp, [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(split(&values, 2, 1, 4, Some(5)).types, 5);
        assert_eq!(split(&[0.5, 0.0, 0.0], 1, 1, 3, None).types, 0);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let message = || read(&path, None).unwrap_err().to_string();
        assert!(message().contains("cannot be read"));
        std::fs::write(&path, "text").unwrap();
        assert!(message().contains("no .npy"));
        npyz::to_file_1d(&path, [1.0f32, 2.0]).unwrap();
        assert!(message().contains("H x W x C"));
    }
}
