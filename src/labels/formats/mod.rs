//! One file per label format. Each turns a folder into `LabelledImage`s.
//!
//! In: a folder, and what its [`DataSet`] says about it. Out: an image or an error for each file;
//! training stops at the first error, `data check` lists them all. Never resamples.

mod conic;
mod consep;
mod dots;
mod geojson;
mod hovernet_npy;
mod label_maps;
pub(super) mod npy;
mod pannuke;
mod polygons;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::ids::Ids;
use super::points_table::type_number;
use super::{DataSet, Format, LabelError, LabelledImage, Truth};
use crate::slide::picture;

/// Each image of a folder, or why it cannot be read.
pub type Loaded = Vec<Result<LabelledImage, LabelError>>;

/// Every image of `set`, whose files lie in `folder`.
pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    let loaded = match set.format {
        Format::Consep => consep::load(set, folder)?,
        Format::Labels => label_maps::load(set, folder)?,
        Format::Dots => dots::load(set, folder)?,
        Format::HovernetNpy => hovernet_npy::load(set, folder)?,
        Format::Pannuke => pannuke::load(set, folder)?,
        Format::Conic => conic::load(set, folder)?,
        Format::Geojson => geojson::load(set, folder)?,
        Format::Pictures => load_images(set, folder, |_, _| Ok(Truth::Unknown))?,
    };
    if loaded.is_empty() {
        return Err(LabelError::new(
            folder,
            "no labelled images here: check `folder` and `format`",
        ));
    }
    Ok(loaded)
}

/// The format of a folder, from the names of its files.
///
/// # Errors
/// No format fits; the message lists what was looked for.
pub fn detect(folder: &Path) -> Result<Format, LabelError> {
    let has = |name: &str| folder.join(name).is_dir();
    match () {
        () if has("Images") && has("Labels") => Ok(Format::Consep),
        () if has("images") && has("labels") => Ok(Format::Labels),
        () if has("images") && has("points") => Ok(Format::Dots),
        () if pannuke::is_fold(folder) => Ok(Format::Pannuke),
        () if conic::is_set(folder) => Ok(Format::Conic),
        () if !list_files(folder, &["geojson"])?.is_empty() => Ok(Format::Geojson),
        () if !list_files(folder, &["npy"])?.is_empty() => Ok(Format::HovernetNpy),
        () => Err(LabelError::new(
            folder,
            "no labelled images: looked for Images/ with Labels/*.mat, images/ with labels/*.png, .tif or .npy, images/ \
             with points/*.csv, PanNuke's images.npy and masks.npy, CoNIC's images.npy and labels.npy, NAME.geojson beside images, hover_net's patches (.npy)",
        )),
    }
}

/// Whether a folder holds pictures, labelled or not.
pub fn has_pictures(folder: &Path) -> bool {
    list_images(folder).is_ok_and(|images| !images.is_empty())
}

/// Names of the types that the labels of a folder use, sorted; empty for formats that number them.
/// Skips unreadable files: [`load`] reports them.
pub fn class_names(folder: &Path, format: Format) -> Vec<String> {
    let names = match format {
        Format::Dots => dots::class_names(folder),
        Format::Geojson => geojson::class_names(folder),
        _ => BTreeSet::new(),
    };
    names.into_iter().collect()
}

/// The model's type id for the type number `own` of a set; 0 where the set has no types.
fn map_type(set: &DataSet, own: u32, path: &Path) -> Result<u8, LabelError> {
    if set.type_ids.is_empty() {
        return Ok(0);
    }
    set.type_ids.get(own as usize).copied().ok_or_else(|| {
        LabelError::new(
            path,
            format!(
                "holds type {own}, but type_ids has {} entries",
                set.type_ids.len()
            ),
        )
    })
}

/// Numbers the ids of a label map without gaps; returns the type of each id. `pixel_types`: the
/// type number of each pixel in the file; `map`: the type id for a type number.
pub(super) fn assign_types<T: Copy + Default + PartialOrd>(
    ids: &mut [u32],
    pixel_types: impl Iterator<Item = u32>,
    map: impl Fn(u32) -> Result<T, LabelError>,
) -> Result<Vec<T>, LabelError> {
    let mut types = Ids::renumber(ids).table(T::default());
    for (&id, number) in ids.iter().zip(pixel_types) {
        let type_id = map(number)?;
        if id > 0 && type_id > T::default() {
            types[id as usize] = type_id;
        }
    }
    Ok(types)
}

/// The model's type id for a type as a table writes it: a name in `types`, or a number that
/// `type_ids` maps. `line`: its place in `path`.
fn type_of_text(set: &DataSet, text: &str, path: &Path, line: usize) -> Result<u8, LabelError> {
    match (set.types.get(text), type_number(text)) {
        (Some(id), _) => Ok(*id),
        (None, Some(number)) if !set.type_ids.is_empty() => map_type(set, number, path),
        _ => Err(LabelError::new(
            path,
            format!("row {line}: type {text:?} has no id in `types`"),
        )),
    }
}

/// Reads every image of `folder`; `read_truth` gets its file stem and size (width, height).
fn load_images(
    set: &DataSet,
    folder: &Path,
    read_truth: impl Fn(&str, (u32, u32)) -> Result<Truth, LabelError>,
) -> Result<Loaded, LabelError> {
    let load = |(stem, path): (String, PathBuf)| {
        let rgb = read_rgb(&path)?;
        let truth = read_truth(&stem, rgb.dimensions())?;
        Ok(set.image(&stem, rgb, truth))
    };
    Ok(list_images(folder)?.into_iter().map(load).collect())
}

/// Images of a folder with their file stems, sorted by name.
fn list_images(folder: &Path) -> Result<Vec<(String, PathBuf)>, LabelError> {
    list_files(folder, &["png", "jpg", "jpeg", "tif", "tiff"])
}

/// Files of a folder with one of these extensions (lower case), with their stems, sorted by name;
/// hidden files, such as macOS's `._NAME`, are passed over.
fn list_files(folder: &Path, extensions: &[&str]) -> Result<Vec<(String, PathBuf)>, LabelError> {
    let entries = std::fs::read_dir(folder).map_err(|e| LabelError::new(folder, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| LabelError::new(folder, e))?.path();
        let text = |part: Option<&OsStr>| part.map(|s| s.to_string_lossy().into_owned());
        let is_hidden = text(path.file_name()).is_none_or(|name| name.starts_with('.'));
        let extension = text(path.extension())
            .unwrap_or_default()
            .to_ascii_lowercase();
        if let (false, true, Some(stem)) = (
            is_hidden,
            extensions.contains(&extension.as_str()),
            text(path.file_stem()),
        ) {
            found.push((stem, path.clone()));
        }
    }
    found.sort();
    Ok(found)
}

fn read_rgb(path: &Path) -> Result<RgbImage, LabelError> {
    let picture = picture::read(path).map_err(|reason| LabelError::new(path, reason))?;
    Ok(picture.into_rgb().0)
}

/// Refuses labels that are not as large (width, height) as their image.
fn check_size(path: &Path, label: (u32, u32), image: (u32, u32)) -> Result<(), LabelError> {
    if label == image {
        return Ok(());
    }
    Err(LabelError::new(
        path,
        format!(
            "labels are {} x {} px, the image {} x {}: they must be equal",
            label.0, label.1, image.0, image.1
        ),
    ))
}
