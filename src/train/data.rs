//! Labelled images in memory, at the model's scale.
//!
//! In: folders. Out: [`LabelledImage`]s, split into those to learn from and those held out. Nothing is dropped in
//! silence: a file that cannot be used is an error that names it.

use std::path::Path;

use image::RgbImage;

use super::TrainError;
use super::config::{DataSet, TrainConfig};
use super::formats;
use crate::digest::sha256_hex;

/// What is known about an image's nuclei.
#[derive(Debug, Clone)]
pub enum Truth {
    /// Instance id of each pixel (0: none) and the type of each id (0: unknown); `types[0]` is unused.
    Instances { ids: Vec<u32>, types: Vec<u8> },
    /// A point inside each nucleus, px, and its type.
    Dots(Vec<Dot>),
}

impl Truth {
    /// What is known inside `[x, y, w, h]` of an image `width` px wide.
    pub fn cropped(&self, width: u32, [x, y, w, h]: [u32; 4]) -> Self {
        match self {
            Truth::Instances { ids, types } => Truth::Instances {
                ids: (y..y + h)
                    .flat_map(|row| {
                        let start = (row * width + x) as usize;
                        ids[start..start + w as usize].iter().copied()
                    })
                    .collect(),
                types: types.clone(),
            },
            Truth::Dots(dots) => Truth::Dots(
                dots.iter()
                    .map(|d| Dot {
                        x_px: d.x_px - x as f32,
                        y_px: d.y_px - y as f32,
                        ..*d
                    })
                    .filter(|d| {
                        let inside = |v: f32, n: u32| v >= 0.0 && v < n as f32;
                        inside(d.x_px, w) && inside(d.y_px, h)
                    })
                    .collect(),
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dot {
    pub x_px: f32,
    pub y_px: f32,
    pub type_id: u8,
}

#[derive(Debug, Clone)]
pub struct LabelledImage {
    /// Data set and file name.
    pub name: String,
    pub held_out: bool,
    pub rgb: RgbImage,
    pub truth: Truth,
}

/// The images of one set.
pub struct LoadedSet {
    pub name: String,
    pub share: f64,
    pub images: Vec<LabelledImage>,
}

/// Loads every set of `config` from below `root`, resampled to the model's µm/px.
pub fn load(config: &TrainConfig, root: &Path) -> Result<Vec<LoadedSet>, TrainError> {
    config
        .data
        .iter()
        .map(|set| {
            let images = part_of(load_set(set, root)?, config.data_part)
                .into_iter()
                .map(|image| rescale(image, set.mpp / config.mpp))
                .collect();
            Ok(LoadedSet {
                name: set.name.clone(),
                share: set.share,
                images,
            })
        })
        .collect()
}

impl LabelledImage {
    /// Whether no nucleus is marked.
    pub fn is_empty(&self) -> bool {
        match &self.truth {
            Truth::Instances { ids, .. } => ids.iter().all(|id| *id == 0),
            Truth::Dots(dots) => dots.is_empty(),
        }
    }
}

/// The images of a set, as they are on disk.
///
/// # Errors
/// The first file that cannot be used, or a set without a nucleus. Single images without nuclei teach background: they
/// are kept, and counted in the log.
fn load_set(set: &DataSet, root: &Path) -> Result<Vec<LabelledImage>, TrainError> {
    let folder = root.join(&set.folder);
    let images: Vec<LabelledImage> = formats::load(set, &folder)?
        .into_iter()
        .collect::<Result<_, _>>()?;
    let empty = images.iter().filter(|i| i.is_empty()).count();
    if empty == images.len() {
        return Err(TrainError::file(
            folder,
            format!("no nucleus in any of its {empty} images: are the labels the right ones?"),
        ));
    }
    if empty > 0 {
        tracing::warn!("{}: {empty} images have no nuclei", set.name);
    }
    Ok(images)
}

/// The held-out images and `part` of the others, at least one: those whose names hash lowest, so that a smaller part lies
/// within a larger one.
fn part_of(mut images: Vec<LabelledImage>, part: f64) -> Vec<LabelledImage> {
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

/// Resamples image (anti-aliased) and truth (nearest) by `factor`; within 5 % the pixels stay as they are, as on slides.
pub(super) fn rescale(image: LabelledImage, factor: f64) -> LabelledImage {
    if (factor - 1.0).abs() <= 0.05 {
        return image;
    }
    let (w, h) = image.rgb.dimensions();
    let (new_w, new_h) = (
        ((f64::from(w) * factor).round() as u32).max(1),
        ((f64::from(h) * factor).round() as u32).max(1),
    );
    let rgb = image::imageops::resize(
        &image.rgb,
        new_w,
        new_h,
        image::imageops::FilterType::CatmullRom,
    );
    let truth = match image.truth {
        Truth::Instances { ids, types } => {
            let nearest = |i: u32, old: u32, new: u32| {
                ((f64::from(i) + 0.5) * f64::from(old) / f64::from(new)) as usize
            };
            let ids = (0..new_h)
                .flat_map(|y| (0..new_w).map(move |x| (x, y)))
                .map(|(x, y)| {
                    let (sx, sy) = (nearest(x, w, new_w), nearest(y, h, new_h));
                    ids[sy.min(h as usize - 1) * w as usize + sx.min(w as usize - 1)]
                })
                .collect();
            Truth::Instances { ids, types }
        }
        Truth::Dots(dots) => Truth::Dots(
            dots.into_iter()
                .map(|d| Dot {
                    x_px: d.x_px * factor as f32,
                    y_px: d.y_px * factor as f32,
                    ..d
                })
                .collect(),
        ),
    };
    LabelledImage {
        rgb,
        truth,
        ..image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<LabelledImage> {
        let image = |i: usize| LabelledImage {
            name: format!("set/image_{i}.png"),
            held_out: i.is_multiple_of(5),
            rgb: RgbImage::new(1, 1),
            truth: Truth::Dots(Vec::new()),
        };
        (0..100).map(image).collect()
    }

    fn names(part: f64) -> Vec<String> {
        part_of(images(), part)
            .into_iter()
            .map(|i| i.name)
            .collect()
    }

    #[test]
    fn a_part_keeps_what_is_held_out_and_lies_within_a_larger_part() {
        let (quarter, half, all) = (names(0.25), names(0.5), names(1.0));
        assert_eq!((quarter.len(), half.len(), all.len()), (40, 60, 100));
        assert!(quarter.iter().all(|n| half.contains(n)));
        for image in images().iter().filter(|i| i.held_out) {
            assert!(quarter.contains(&image.name), "{}", image.name);
        }
        assert_eq!(names(1e-6).len(), 21);
    }
}
