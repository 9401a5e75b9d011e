//! hover_net's extracted patches: one NAME.npy a patch, `[H, W, 4]` (RGB, instance ids) or `[H, W, 5]` (and types).

use std::path::Path;

use image::RgbImage;

use super::super::TrainError;
use super::super::config::DataSet;
use super::super::data::{LabelledImage, Truth};
use super::npy::{Npy, id_of};
use super::{Loaded, files, id_types, own_type};

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, TrainError> {
    let patches = files(folder, &["npy"])?;
    Ok(patches
        .into_iter()
        .map(|(stem, path)| patch(set, &stem, &path))
        .collect())
}

fn patch(set: &DataSet, stem: &str, path: &Path) -> Result<LabelledImage, TrainError> {
    let mut npy = Npy::open(path)?;
    let [h, w, channels @ (4 | 5)] = npy.shape[..] else {
        return Err(TrainError::file(
            path,
            format!("shape {:?}: [H, W, 4 or 5] is wanted", npy.shape),
        ));
    };
    let values = npy.take((h * w * channels) as usize)?;
    let pixels = values.chunks_exact(channels as usize);
    let rgb: Vec<u8> = pixels
        .clone()
        .flat_map(|p| p[..3].iter().map(|v| v.clamp(0.0, 255.0) as u8))
        .collect();
    let mut ids: Vec<u32> = pixels.clone().map(|p| id_of(p[3])).collect();
    let types = if channels == 5 {
        let own = pixels.map(|p| id_of(p[4]));
        id_types(&mut ids, own, |kind| own_type(set, kind, path))?
    } else {
        id_types(&mut ids, std::iter::empty(), |_| Ok(0))?
    };
    let rgb = RgbImage::from_raw(w as u32, h as u32, rgb)
        .ok_or_else(|| TrainError::file(path, "its shape is wrong"))?;
    Ok(LabelledImage {
        name: format!("{}/{stem}", set.name),
        held_out: set.holds_out(&format!("{stem}.")),
        rgb,
        truth: Truth::Instances { ids, types },
    })
}
