//! Data sets: what a configuration says about a folder of labelled images, and its images.
//!
//! In: [`DataSet`]s. Out: [`LoadedSet`]s at one scale, each image marked as held out or not.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{LabelError, LabelledImage, Truth, formats};
use crate::digest::sha256_hex;

/// How the files of a data set are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Images/*.png beside Labels/*.mat (inst_map, type_map).
    Consep,
    /// images/* beside labels/*.png, .tif or .npy of instance ids, with or without a table of types.
    Labels,
    /// images/* beside points/*.csv of x,y,type.
    Dots,
    /// hover_net's extracted patches, one .npy each.
    HovernetNpy,
    /// PanNuke's images.npy and masks.npy.
    Pannuke,
    /// CoNIC's images.npy and labels.npy.
    Conic,
    /// NAME.geojson, drawn in QuPath, beside its image.
    Geojson,
    /// Pictures that nobody labelled: a teacher's answers are all that is learnt from them.
    Pictures,
}

/// One `[[data]]` entry of a training configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Name of the set in scores and messages.
    pub name: String,
    /// How the set's files are laid out.
    pub format: Format,
    /// Relative to the data folder given on the command line.
    pub folder: PathBuf,
    /// µm/px of the images.
    pub mpp: f64,
    /// Share of the training crops that are drawn from this set.
    pub share: f64,
    /// The model's type id for each type number of the set (index = number); empty: no types.
    #[serde(default)]
    pub type_ids: Vec<u8>,
    /// The model's type id for each type name that the labels use.
    #[serde(default)]
    pub types: BTreeMap<String, u8>,
    /// Beginnings of the names of the images that training never sees.
    #[serde(default)]
    pub hold_out: Vec<String>,
}

/// The images of one data set.
pub struct LoadedSet {
    pub name: String,
    /// See [`DataSet::share`].
    pub share: f64,
    pub images: Vec<LabelledImage>,
}

impl DataSet {
    /// A data set for a folder that no configuration describes: named after the folder, its format
    /// detected, no types, nothing held out.
    ///
    /// # Errors
    /// No known format.
    pub fn from_folder(folder: &Path, mpp: f64) -> Result<Self, LabelError> {
        Ok(Self::of_format(formats::detect(folder)?, folder, mpp))
    }

    /// A folder of pictures without labels, for a teacher.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn of_pictures(folder: &Path, mpp: f64) -> Result<Self, LabelError> {
        let whole = std::path::absolute(folder).map_err(|e| LabelError::new(folder, e))?;
        Ok(Self::of_format(Format::Pictures, &whole, mpp))
    }

    fn of_format(format: Format, folder: &Path, mpp: f64) -> Self {
        let name = folder.file_name();
        Self {
            name: name.map_or("data".into(), |n| n.to_string_lossy().into_owned()),
            format,
            folder: folder.to_path_buf(),
            mpp,
            share: 1.0,
            type_ids: Vec::new(),
            types: BTreeMap::new(),
            hold_out: Vec::new(),
        }
    }

    /// What makes the entry unusable for a model with `types` types (background not counted).
    pub(crate) fn check(&self, types: usize) -> Result<(), String> {
        let ids = self.type_ids.iter().chain(self.types.values());
        if let Some(id) = ids.copied().find(|&id| usize::from(id) > types) {
            return Err(format!(
                "data set {}: type id {id}, but there are {types} types",
                self.name
            ));
        }
        if self.format == Format::Pictures && !self.hold_out.is_empty() {
            return Err(format!(
                "data set {}: pictures without labels cannot be held out for validation: drop its hold_out",
                self.name
            ));
        }
        if !(self.mpp > 0.0 && self.share >= 0.0) {
            return Err(format!(
                "data set {}: mpp must be positive, share not negative",
                self.name
            ));
        }
        Ok(())
    }

    /// Whether an image of this file name is kept from training.
    pub fn holds_out(&self, file_name: &str) -> bool {
        self.hold_out
            .iter()
            .any(|start| file_name.starts_with(start))
    }

    /// The image whose file is called `stem` plus an extension.
    pub(super) fn image(&self, stem: &str, rgb: image::RgbImage, truth: Truth) -> LabelledImage {
        LabelledImage {
            name: format!("{}/{stem}", self.name),
            held_out: self.holds_out(&format!("{stem}.")),
            rgb,
            truth,
        }
    }

    /// The images of the set as they are on disk.
    ///
    /// # Errors
    /// The first unusable file, or a set without a nucleus. Single images without nuclei are kept,
    /// because they teach what background looks like; their number is logged.
    fn load(&self, root: &Path) -> Result<Vec<LabelledImage>, LabelError> {
        let folder = root.join(&self.folder);
        let images: Vec<LabelledImage> = formats::load(self, &folder)?
            .into_iter()
            .collect::<Result<_, _>>()?;
        let empty = images.iter().filter(|i| i.is_empty()).count();
        if empty == images.len() {
            return Err(LabelError::new(
                folder,
                format!("no nucleus in any of its {empty} images: are the labels the right ones?"),
            ));
        }
        if empty > 0 {
            tracing::warn!("{}: {empty} images have no nuclei", self.name);
        }
        Ok(images)
    }
}

/// Names sets of folders apart: those whose folders are called alike get as much of the path before
/// the name as tells them apart (`fold1/train`, `fold2/train`).
///
/// # Errors
/// A folder that is given twice.
pub fn name_apart(sets: &mut [DataSet]) -> Result<(), LabelError> {
    let parts: Vec<Vec<String>> = sets.iter().map(|set| path_parts(&set.folder)).collect();
    for (i, own) in parts.iter().enumerate() {
        // The number of last parts that this path shares with the one most like it.
        let others = parts.iter().enumerate().filter(|(j, _)| *j != i);
        let shared = |other: &[String]| {
            let pairs = own.iter().rev().zip(other.iter().rev());
            pairs.take_while(|(a, b)| a == b).count()
        };
        if others.clone().any(|(_, other)| other == own) {
            return Err(LabelError::new(&sets[i].folder, "is given twice"));
        }
        let most = others.map(|(_, other)| shared(other)).max().unwrap_or(0);
        if most > 0 {
            let start = own.len().saturating_sub(most + 1);
            sets[i].name = own[start..].join("/");
        }
    }
    Ok(())
}

/// The parts of a folder's path, links and `..` resolved where it exists.
fn path_parts(folder: &Path) -> Vec<String> {
    let whole = folder.canonicalize().unwrap_or(folder.to_path_buf());
    let normal = whole.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    normal.collect()
}

/// Loads every set from below `root`, resampled to `mpp` µm/px. Of the images that are not held out
/// only the share `part` (0..=1) is kept.
///
/// # Errors
/// The first file that cannot be used, or a set without a nucleus.
pub fn load_sets(
    sets: &[DataSet],
    root: &Path,
    mpp: f64,
    part: f64,
) -> Result<Vec<LoadedSet>, LabelError> {
    let load = |set: &DataSet| {
        let images = keep_part(set.load(root)?, part).into_iter();
        Ok(LoadedSet {
            name: set.name.clone(),
            share: set.share,
            images: images.map(|i| i.rescaled(set.mpp / mpp)).collect(),
        })
    };
    sets.iter().map(load).collect()
}

/// The held-out images and the share `part` of the others, at least one. The choice follows the
/// hashes of the names, so the images of a smaller part are also in every larger one.
fn keep_part(mut images: Vec<LabelledImage>, part: f64) -> Vec<LabelledImage> {
    if part >= 1.0 {
        return images;
    }
    let mut hashes: Vec<String> = images
        .iter()
        .filter(|i| !i.held_out)
        .map(|i| sha256_hex(i.name.as_bytes()))
        .collect();
    hashes.sort_unstable();
    let kept = ((hashes.len() as f64 * part).round() as usize).max(1);
    hashes.truncate(kept);
    images.retain(|i| i.held_out || hashes.contains(&sha256_hex(i.name.as_bytes())));
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_called_alike_get_different_names() {
        let root = tempfile::tempdir().unwrap();
        let set = |folder: &str| {
            let folder = root.path().join(folder);
            std::fs::create_dir_all(folder.join("images")).unwrap();
            std::fs::create_dir_all(folder.join("labels")).unwrap();
            DataSet::from_folder(&folder, 0.25).unwrap()
        };
        let names = |folders: &[&str]| {
            let mut sets: Vec<DataSet> = folders.iter().map(|f| set(f)).collect();
            name_apart(&mut sets)?;
            Ok::<_, LabelError>(sets.into_iter().map(|s| s.name).collect::<Vec<_>>())
        };
        let found = names(&["fold1/train", "fold2/train", "other"]).unwrap();
        assert_eq!(found, ["fold1/train", "fold2/train", "other"]);
        let found = names(&["a/x/train", "b/x/train"]).unwrap();
        assert_eq!(found, ["a/x/train", "b/x/train"]);
        assert!(names(&["a/x/train", "a/../a/x/train"]).is_err());
    }

    fn images() -> Vec<LabelledImage> {
        let image = |i: usize| LabelledImage {
            name: format!("set/image_{i}.png"),
            held_out: i.is_multiple_of(5),
            rgb: image::RgbImage::new(1, 1),
            truth: Truth::Dots(Vec::new()),
        };
        (0..100).map(image).collect()
    }

    fn kept_names(part: f64) -> Vec<String> {
        let kept = keep_part(images(), part).into_iter();
        kept.map(|i| i.name).collect()
    }

    #[test]
    fn a_part_keeps_held_out_images_and_lies_within_a_larger_part() {
        let (quarter, half, all) = (kept_names(0.25), kept_names(0.5), kept_names(1.0));
        assert_eq!((quarter.len(), half.len(), all.len()), (40, 60, 100));
        assert!(quarter.iter().all(|n| half.contains(n)));
        for image in images().iter().filter(|i| i.held_out) {
            assert!(quarter.contains(&image.name), "{}", image.name);
        }
        assert_eq!(kept_names(1e-6).len(), 21);
    }
}
