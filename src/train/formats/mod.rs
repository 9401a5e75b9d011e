//! One file a label format. Each turns a folder into [`LabelledImage`]s.
//!
//! In: a folder, what the configuration says about it. Out: an image or an error for each file: training stops at the
//! first error, `data check` lists them all. Never resamples.

pub mod consep;
pub mod dots;
pub mod geojson;
pub mod hovernet_npy;
pub mod labels;
pub mod mat5;
pub mod npy;
pub mod pannuke;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::TrainError;
use super::config::{DataSet, Format};
use super::data::LabelledImage;
use crate::eval::ids::Ids;

/// What a format makes of a folder.
pub type Loaded = Vec<Result<LabelledImage, TrainError>>;

/// Every image of `set`, whose files lie in `folder`.
pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, TrainError> {
    let loaded = match set.format {
        Format::Consep => consep::load(set, folder)?,
        Format::Labels => labels::load(set, folder)?,
        Format::Dots => dots::load(set, folder)?,
        Format::HovernetNpy => hovernet_npy::load(set, folder)?,
        Format::Pannuke => pannuke::load(set, folder)?,
        Format::Geojson => geojson::load(set, folder)?,
    };
    if loaded.is_empty() {
        return Err(TrainError::file(
            folder,
            "no labelled images here: check `folder` and `format`",
        ));
    }
    Ok(loaded)
}

/// The format of a folder by what lies in it.
///
/// # Errors
/// None of them: says what was looked for.
pub fn detect(folder: &Path) -> Result<Format, TrainError> {
    let has = |name: &str| folder.join(name).is_dir();
    match () {
        () if has("Images") && has("Labels") => Ok(Format::Consep),
        () if has("images") && has("labels") => Ok(Format::Labels),
        () if has("images") && has("points") => Ok(Format::Dots),
        () if pannuke::is_here(folder) => Ok(Format::Pannuke),
        () if !files(folder, &["geojson"])?.is_empty() => Ok(Format::Geojson),
        () if !files(folder, &["npy"])?.is_empty() => Ok(Format::HovernetNpy),
        () => Err(TrainError::file(
            folder,
            "no labelled images: looked for Images/ with Labels/*.mat, images/ with labels/*.png or .npy, images/ with \
             points/*.csv, PanNuke's images.npy and masks.npy, NAME.geojson beside images, hover_net's patches (.npy)",
        )),
    }
}

/// Names of types that the labels of a folder use, sorted; empty for formats that number them.
pub fn class_names(folder: &Path, format: Format) -> Vec<String> {
    match format {
        Format::Dots => dots::class_names(folder),
        Format::Geojson => geojson::class_names(folder),
        _ => Vec::new(),
    }
}

/// Our id of a set's own type number.
fn own_type(set: &DataSet, own: u32, path: &Path) -> Result<u8, TrainError> {
    if set.type_ids.is_empty() {
        return Ok(0);
    }
    set.type_ids.get(own as usize).copied().ok_or_else(|| {
        TrainError::file(
            path,
            format!(
                "holds type {own}, but type_ids has {} entries",
                set.type_ids.len()
            ),
        )
    })
}

/// Numbers the ids of a label map without gaps, and gives the type of each from the set's own type of each pixel.
pub(crate) fn id_types(
    ids: &mut [u32],
    own: impl Iterator<Item = u32>,
    ours: impl Fn(u32) -> Result<u8, TrainError>,
) -> Result<Vec<u8>, TrainError> {
    let mut types = Ids::renumber(ids).table(0u8);
    for (&id, own) in ids.iter().zip(own) {
        let ours = ours(own)?;
        if id > 0 && ours > 0 {
            types[id as usize] = ours;
        }
    }
    Ok(types)
}

/// Images of a folder with their file stems, sorted by name.
fn images(folder: &Path) -> Result<Vec<(String, PathBuf)>, TrainError> {
    files(folder, &["png", "jpg", "jpeg", "tif", "tiff"])
}

/// Files of a folder with one of these extensions (lower case), with their stems, sorted by name.
fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<(String, PathBuf)>, TrainError> {
    let entries = std::fs::read_dir(folder).map_err(|e| TrainError::file(folder, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| TrainError::file(folder, e))?.path();
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or("")
            .to_ascii_lowercase();
        let stem = path.file_stem().and_then(|s| s.to_str());
        if let (true, Some(stem)) = (extensions.contains(&extension.as_str()), stem) {
            found.push((stem.to_string(), path.clone()));
        }
    }
    found.sort();
    Ok(found)
}

fn read_rgb(path: &Path) -> Result<RgbImage, TrainError> {
    Ok(image::open(path)
        .map_err(|e| TrainError::file(path, e))?
        .to_rgb8())
}

fn same_size(path: &Path, label: (u32, u32), image: (u32, u32)) -> Result<(), TrainError> {
    if label == image {
        return Ok(());
    }
    Err(TrainError::file(
        path,
        format!(
            "labels are {} x {} px, the image {} x {}: they must be equal",
            label.0, label.1, image.0, image.1
        ),
    ))
}
