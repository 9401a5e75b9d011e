//! CoNSeP as published: Images/NAME.png beside Labels/NAME.mat (MATLAB 5) with the matrices
//! inst_map and, where types are known, type_map, both `[H, W]`.

use std::path::Path;

use super::{Loaded, assign_types, check_size, load_images, map_type};
use crate::labels::{DataSet, LabelError, Truth};
use crate::mat5::{self, Matrix};

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    load_images(set, &folder.join("Images"), |stem, size| {
        let mat = folder.join("Labels").join(format!("{stem}.mat"));
        read_truth(set, &mat, size)
    })
}

fn read_truth(set: &DataSet, path: &Path, size: (u32, u32)) -> Result<Truth, LabelError> {
    let bytes = std::fs::read(path).map_err(|e| LabelError::new(path, e))?;
    let mat = mat5::read(&bytes).map_err(|e| LabelError::new(path, e))?;
    let mut ids = read_map(&mat, path, "inst_map", size)?;
    // A file of segmentation alone has no type_map.
    if !mat.iter().any(|m| m.name == "type_map") {
        let types = assign_types(&mut ids, std::iter::empty(), |_| Ok(0))?;
        return Ok(Truth::Instances { ids, types });
    }
    let pixel_types = read_map(&mat, path, "type_map", size)?;
    let types = assign_types(&mut ids, pixel_types.into_iter(), |number| {
        map_type(set, number, path)
    })?;
    Ok(Truth::Instances { ids, types })
}

/// The matrix `name` of `mat` as `[H, W]`, row by row.
fn read_map(
    mat: &[Matrix],
    path: &Path,
    name: &str,
    size: (u32, u32),
) -> Result<Vec<u32>, LabelError> {
    let m = mat
        .iter()
        .find(|m| m.name == name)
        .ok_or_else(|| LabelError::new(path, format!("has no numeric matrix {name}")))?;
    check_size(path, (m.columns as u32, m.rows as u32), size)?;
    Ok(m.ids_by_row())
}
