//! CoNIC as published: images.npy `[N, H, W, 3]` beside labels.npy `[N, H, W, 2]` (instance ids,
//! then type numbers).
//!
//! Images are named image_0001, in their order. `type_ids` maps the type numbers.

use std::path::Path;

use image::RgbImage;

use super::npy::{Npy, id_of};
use super::{Loaded, assign_types, map_type};
use crate::labels::{DataSet, LabelError, Truth};

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    let [images_path, labels_path] = ["images.npy", "labels.npy"].map(|name| folder.join(name));
    let (mut images, mut labels) = (Npy::open(&images_path)?, Npy::open(&labels_path)?);
    let ([n, h, w, 3], [m, mh, mw, 2]) = (&images.shape[..], &labels.shape[..]) else {
        return Err(LabelError::new(
            &labels_path,
            format!(
                "shapes {:?} and {:?}: images [N, H, W, 3] and labels [N, H, W, 2] are wanted",
                images.shape, labels.shape
            ),
        ));
    };
    if (n, h, w) != (m, mh, mw) {
        return Err(LabelError::new(
            &labels_path,
            format!("{m} labels of {mw} x {mh} px for {n} images of {w} x {h}"),
        ));
    }
    let (n, h, w) = (*n as usize, *h as usize, *w as usize);
    let mut loaded = Vec::new();
    for i in 0..n {
        let colours = images.take(h * w * 3)?;
        let rgb = RgbImage::from_raw(w as u32, h as u32, images.colours_of(&colours)?)
            .ok_or_else(|| LabelError::new(&images_path, "its shape is wrong"))?;
        let pairs = labels.take(h * w * 2)?;
        let mut ids: Vec<u32> = pairs.iter().step_by(2).map(|v| id_of(*v)).collect();
        let numbers = pairs.iter().skip(1).step_by(2).map(|v| id_of(*v));
        let types = assign_types(&mut ids, numbers, |n| map_type(set, n, &labels_path))?;
        let truth = Truth::Instances { ids, types };
        loaded.push(Ok(set.image(&format!("image_{i:04}"), rgb, truth)));
    }
    Ok(loaded)
}

/// Whether `folder` holds the two files.
pub fn is_set(folder: &Path) -> bool {
    ["images.npy", "labels.npy"]
        .iter()
        .all(|name| folder.join(name).is_file())
}
