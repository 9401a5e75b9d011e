//! images/NAME.* beside labels/NAME.png, 8 or 16 bit: pixel value = instance id, 0 = background. No types.

use std::path::Path;

use super::super::TrainError;
use super::super::config::DataSet;
use super::super::data::{LabelledImage, Truth};
use super::{images, read_rgb, same_size};

pub fn load(set: &DataSet, folder: &Path) -> Result<Vec<LabelledImage>, TrainError> {
    images(&folder.join("images"))?
        .into_iter()
        .map(|(stem, path)| {
            let rgb = read_rgb(&path)?;
            let label_path = folder.join("labels").join(format!("{stem}.png"));
            let label = image::open(&label_path)
                .map_err(|e| TrainError::file(&label_path, e))?
                .to_luma16();
            same_size(&label_path, label.dimensions(), rgb.dimensions())?;
            let ids: Vec<u32> = label.pixels().map(|p| u32::from(p.0[0])).collect();
            let count = ids.iter().copied().max().unwrap_or(0) as usize + 1;
            Ok(LabelledImage {
                name: format!("{}/{stem}", set.name),
                held_out: set.holds_out(&format!("{stem}.")),
                rgb,
                truth: Truth::Instances {
                    ids,
                    types: vec![0; count],
                },
            })
        })
        .collect()
}
