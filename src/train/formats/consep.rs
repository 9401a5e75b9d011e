//! CoNSeP as published: Images/NAME.png beside Labels/NAME.mat (MATLAB 5) with inst_map and, for types, type_map, `[H, W]`.

use std::path::Path;

use super::super::TrainError;
use super::super::config::DataSet;
use super::super::data::{LabelledImage, Truth};
use super::mat5::{self, Matrix};
use super::{Loaded, id_types, images, own_type, read_rgb, same_size};

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, TrainError> {
    Ok(images(&folder.join("Images"))?
        .into_iter()
        .map(|(stem, path)| {
            let rgb = read_rgb(&path)?;
            let mat = folder.join("Labels").join(format!("{stem}.mat"));
            Ok(LabelledImage {
                name: format!("{}/{stem}", set.name),
                held_out: set.holds_out(&format!("{stem}.")),
                truth: read_truth(set, &mat, rgb.dimensions())?,
                rgb,
            })
        })
        .collect())
}

fn read_truth(set: &DataSet, path: &Path, size: (u32, u32)) -> Result<Truth, TrainError> {
    let bytes = std::fs::read(path).map_err(|e| TrainError::file(path, e))?;
    let mat = mat5::read(&bytes).map_err(|e| TrainError::file(path, e))?;
    let mut ids = read_map(&mat, path, "inst_map", size)?;
    // Segmentation alone: no type_map.
    if !mat.iter().any(|m| m.name == "type_map") {
        let types = id_types(&mut ids, std::iter::empty(), |_| Ok(0))?;
        return Ok(Truth::Instances { ids, types });
    }
    let pixel_types = read_map(&mat, path, "type_map", size)?;
    let types = id_types(&mut ids, pixel_types.into_iter(), |own| {
        own_type(set, own, path)
    })?;
    Ok(Truth::Instances { ids, types })
}

/// A matrix as `[H, W]` row by row (MATLAB stores columns).
fn read_map(
    mat: &[Matrix],
    path: &Path,
    name: &str,
    (w, h): (u32, u32),
) -> Result<Vec<u32>, TrainError> {
    let m = mat
        .iter()
        .find(|m| m.name == name)
        .ok_or_else(|| TrainError::file(path, format!("has no numeric matrix {name}")))?;
    same_size(path, (m.columns as u32, m.rows as u32), (w, h))?;
    Ok((0..m.rows)
        .flat_map(|y| (0..m.columns).map(move |x| x * m.rows + y))
        .map(|i| m.values[i].max(0.0) as u32)
        .collect())
}
