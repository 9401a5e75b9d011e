//! A fold of PanNuke: images.npy `[N, 256, 256, 3]`, masks.npy `[N, 256, 256, 6]` (instance ids of
//! neoplastic, inflammatory, connective, dead and epithelial nuclei, then background) and types.npy
//! (tissue of each image).
//!
//! The files lie in the folder, or in the folds' own images/*/ and masks/*/. Images are named
//! TISSUE_0001, so that `hold_out` can name tissues. `type_ids` holds 0 and then the model's type
//! id for each of the five.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::npy::{Npy, id_of, read_texts};
use super::{Loaded, map_type};
use crate::labels::{DataSet, LabelError, LabelledImage, Truth};

/// Channels of nuclei, one per type; the sixth is the background.
const TYPE_CHANNELS: usize = 5;

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    let images_path = find_file(folder, "images")?;
    let masks_path = find_file(folder, "masks")?;
    let (mut images, mut masks) = (Npy::open(&images_path)?, Npy::open(&masks_path)?);
    let ([n, h, w, 3], [m, mh, mw, 6]) = (&images.shape[..], &masks.shape[..]) else {
        return Err(LabelError::new(
            &masks_path,
            format!(
                "shapes {:?} and {:?}: images [N, H, W, 3] and masks [N, H, W, 6] are wanted",
                images.shape, masks.shape
            ),
        ));
    };
    if (n, h, w) != (m, mh, mw) {
        return Err(LabelError::new(
            &masks_path,
            format!("{m} masks of {mw} x {mh} px for {n} images of {w} x {h}"),
        ));
    }
    let (n, h, w) = (*n as usize, *h as usize, *w as usize);
    let tissues = match images_path.with_file_name("types.npy") {
        path if path.exists() => read_texts(&path)?,
        _ => Vec::new(),
    };
    let mut loaded = Vec::new();
    for i in 0..n {
        let rgb = images.take(h * w * 3)?;
        let rgb = images.colours_of(&rgb)?;
        let rgb = RgbImage::from_raw(w as u32, h as u32, rgb)
            .ok_or_else(|| LabelError::new(&images_path, "its shape is wrong"))?;
        let truth = truth_of(set, &masks.take(h * w * 6)?, &masks_path)?;
        let tissue = tissues.get(i).map_or("image", String::as_str);
        let stem = format!("{tissue}_{i:04}");
        loaded.push(Ok(LabelledImage {
            held_out: set.holds_out(&stem),
            ..set.image(&stem, rgb, truth)
        }));
    }
    Ok(loaded)
}

/// The truth of one image. Each channel has its own ids: a nucleus is a pair of channel and id.
fn truth_of(set: &DataSet, mask: &[f64], path: &Path) -> Result<Truth, LabelError> {
    let mut known = BTreeMap::new();
    let mut types = vec![0u8];
    let mut ids = Vec::with_capacity(mask.len() / 6);
    for px in mask.chunks_exact(6) {
        let found = px[..TYPE_CHANNELS].iter().position(|v| id_of(*v) > 0);
        let Some(channel) = found else {
            ids.push(0);
            continue;
        };
        let key = (channel, id_of(px[channel]));
        let id = match known.get(&key) {
            Some(id) => *id,
            None => {
                types.push(map_type(set, channel as u32 + 1, path)?);
                let id = types.len() as u32 - 1;
                known.insert(key, id);
                id
            }
        };
        ids.push(id);
    }
    Ok(Truth::Instances { ids, types })
}

/// Whether `folder` holds a fold's files.
pub fn is_fold(folder: &Path) -> bool {
    find_file(folder, "images").is_ok() && find_file(folder, "masks").is_ok()
}

/// `what`.npy in the folder, or in a folder below `what`/.
fn find_file(folder: &Path, what: &str) -> Result<PathBuf, LabelError> {
    let name = format!("{what}.npy");
    let flat = folder.join(&name);
    if flat.exists() {
        return Ok(flat);
    }
    let nested = std::fs::read_dir(folder.join(what))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(&name))
        .find(|path| path.exists());
    nested.ok_or_else(|| LabelError::new(folder, format!("has no {name}")))
}
