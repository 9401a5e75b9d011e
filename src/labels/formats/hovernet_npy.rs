//! hover_net's patches: NAME.npy, `[H, W, 4]` (RGB, instance ids) or `[H, W, 5]` (with types).

use std::path::Path;

use image::RgbImage;

use super::npy::{Npy, id_of};
use super::{Loaded, assign_types, list_files, map_type};
use crate::labels::{DataSet, LabelError, LabelledImage, Truth};

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    let patches = list_files(folder, &["npy"])?;
    Ok(patches
        .into_iter()
        .map(|(stem, path)| read_patch(set, &stem, &path))
        .collect())
}

fn read_patch(set: &DataSet, stem: &str, path: &Path) -> Result<LabelledImage, LabelError> {
    let mut npy = Npy::open(path)?;
    let [h, w, channels @ (4 | 5)] = npy.shape[..] else {
        return Err(LabelError::new(
            path,
            format!("shape {:?}: [H, W, 4 or 5] is wanted", npy.shape),
        ));
    };
    let values = npy.take((h * w * channels) as usize)?;
    let pixels = values.chunks_exact(channels as usize);
    let colours: Vec<f64> = pixels.clone().flat_map(|p| &p[..3]).copied().collect();
    let rgb = npy.colours_of(&colours)?;
    let mut ids: Vec<u32> = pixels.clone().map(|p| id_of(p[3])).collect();
    let types = if channels == 5 {
        let pixel_types = pixels.map(|p| id_of(p[4]));
        assign_types(&mut ids, pixel_types, |number| map_type(set, number, path))?
    } else {
        assign_types(&mut ids, std::iter::empty(), |_| Ok(0))?
    };
    let rgb = RgbImage::from_raw(w as u32, h as u32, rgb)
        .ok_or_else(|| LabelError::new(path, "its shape is wrong"))?;
    Ok(set.image(stem, rgb, Truth::Instances { ids, types }))
}
