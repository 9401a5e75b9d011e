//! How good the averaged weights are while a training goes on.
//!
//! In: folded weights, the held-out images. Out: mean scores, and pictures of a fixed few. Draws no random number: a
//! training that validates learns the same as one that does not.

use std::path::Path;

use image::{RgbImage, imageops};
use tch::Tensor;

use super::TrainError;
use super::config::TrainConfig;
use super::data::{LabelledImage, LoadedSet};
use super::package;
use crate::eval::annotation::Annotation;
use crate::eval::held_out;
use crate::model::{Device, Model, ModelFolder};
use crate::report::overlay::{draw_ids, draw_points, side_by_side};

/// Side of a panel picture, px.
const PANEL_PX: u32 = 256;
/// Panel pictures in all.
const PANELS: usize = 6;

/// Scores of one moment, means over the data sets.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Validation {
    pub pq: f64,
    pub dice: f64,
    pub f1d: f64,
}

/// The first `most` held-out images of each set, as sets of their own.
pub fn sample(sets: &[LoadedSet], most: usize) -> Vec<LoadedSet> {
    sets.iter()
        .map(|set| LoadedSet {
            name: set.name.clone(),
            share: set.share,
            images: set
                .images
                .iter()
                .filter(|i| i.held_out)
                .take(most)
                .cloned()
                .collect(),
        })
        .filter(|set| !set.images.is_empty())
        .collect()
}

/// A model from weights that are still learning.
pub fn model_of(
    config: &TrainConfig,
    folded: &[(String, Tensor)],
    out: &Path,
) -> Result<Model, TrainError> {
    let (spec, bytes) = package::pack(config, folded, out)?;
    let failed = |e: crate::model::ModelError| TrainError::Config(e.to_string());
    ModelFolder::from_bytes(&spec, &bytes, out)
        .and_then(|folder| folder.load(Device::Cpu))
        .map_err(failed)
}

/// Scores `model` on `sets` (see [`sample`]). Dots give F1d only.
pub fn validate(model: &Model, sets: &[LoadedSet]) -> Result<Validation, TrainError> {
    let scores =
        held_out::score(model, sets).map_err(|e| TrainError::Config(format!("validation: {e}")))?;
    let mean = |name: &str| {
        let values: Vec<f64> = scores.values().filter_map(|s| s.value(name)).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    Ok(Validation {
        pq: mean("pq"),
        dice: mean("dice"),
        f1d: mean("f1d"),
    })
}

/// Truth beside prediction for the first image of each set, then the second, and so on.
pub fn panel(model: &Model, sets: &[LoadedSet]) -> Result<Vec<(String, RgbImage)>, TrainError> {
    let deepest = sets.iter().map(|s| s.images.len()).max().unwrap_or(0);
    let images = (0..deepest).flat_map(|i| sets.iter().filter_map(move |s| s.images.get(i)));
    images
        .take(PANELS)
        .map(|image| {
            let centre = centre_of(image);
            let pred = held_out::predict(model, &centre)
                .map_err(|e| TrainError::Config(format!("validation: {e}")))?;
            let pictures = [Annotation::of_image(&centre), pred].map(|a| drawn(&centre, &a, model));
            Ok((image.name.clone(), side_by_side(&pictures[0], &pictures[1])))
        })
        .collect()
}

fn drawn(image: &LabelledImage, annotation: &Annotation, model: &Model) -> RgbImage {
    let colours: Vec<[u8; 3]> = model.spec.types.iter().map(|t| t.color).collect();
    let mut picture = image.rgb.clone();
    match &annotation.ids {
        Some(ids) => draw_ids(&mut picture, ids, &annotation.id_types, &colours),
        None => {
            let d = &annotation.detections;
            draw_points(&mut picture, &d.points, &d.types, &colours);
        }
    }
    picture
}

/// The middle of an image, with its truth.
fn centre_of(image: &LabelledImage) -> LabelledImage {
    let (w, h) = image.rgb.dimensions();
    let (cw, ch) = (w.min(PANEL_PX), h.min(PANEL_PX));
    let (x, y) = ((w - cw) / 2, (h - ch) / 2);
    LabelledImage {
        rgb: imageops::crop_imm(&image.rgb, x, y, cw, ch).to_image(),
        truth: image.truth.cropped(w, [x, y, cw, ch]),
        ..image.clone()
    }
}
