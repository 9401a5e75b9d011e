//! CoNSeP as published: Images/NAME.png beside Labels/NAME.mat (MATLAB 5), and Lizard's files in the
//! same folders. [`mat_file`] says which matrices are read.

use std::path::Path;

use super::{Loaded, check_size, load_images, map_type};
use crate::labels::{DataSet, LabelError, Truth, mat_file};

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    load_images(set, &folder.join("Images"), |stem, size| {
        let mat = folder.join("Labels").join(format!("{stem}.mat"));
        read_truth(set, &mat, size)
    })
}

fn read_truth(set: &DataSet, path: &Path, size: (u32, u32)) -> Result<Truth, LabelError> {
    let file = mat_file::read(path)?;
    check_size(path, file.map.size_px(), size)?;
    let ids = file.map.ids;
    let nuclei = ids.iter().max().map_or(0, |most| *most as usize);
    let types = match file.types {
        Some(numbers) => numbers
            .into_iter()
            .map(|number| map_type(set, number, path))
            .collect::<Result<_, _>>()?,
        None => vec![0; nuclei + 1],
    };
    Ok(Truth::Instances { ids, types })
}
