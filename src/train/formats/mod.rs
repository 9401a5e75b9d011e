//! One file a label format. Each turns a folder into [`LabelledImage`](super::data::LabelledImage)s.

pub mod consep;
pub mod dots;
pub mod labels;
pub mod mat5;

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::TrainError;
use super::config::Format;

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
        () => Err(TrainError::file(
            folder,
            "no labelled images: looked for Images/ with Labels/*.mat, images/ with labels/*.png, images/ with points/*.csv",
        )),
    }
}

/// Images of a folder with their file stems, sorted by name.
fn images(folder: &Path) -> Result<Vec<(String, PathBuf)>, TrainError> {
    let entries = std::fs::read_dir(folder).map_err(|e| TrainError::file(folder, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| TrainError::file(folder, e))?.path();
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or("")
            .to_ascii_lowercase();
        if let ("png" | "jpg" | "jpeg" | "tif" | "tiff", Some(stem)) = (
            extension.as_str(),
            path.file_stem().and_then(|s| s.to_str()),
        ) {
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
