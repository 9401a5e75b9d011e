//! Validation: how good the averaged weights are during a training.
//!
//! In: folded weights, the held-out images. Out: mean scores, and pictures of some images. Draws no
//! random number, so a training with validation gives the same weights as one without.

use std::path::Path;

use image::RgbImage;
use tch::Tensor;

use super::TrainError;
use super::config::TrainConfig;
use super::package;
use crate::eval::held_out;
use crate::labels::{Annotation, LabelledImage, LoadedSet};
use crate::model::{Device, Model, ModelFolder};
use crate::report::overlay::side_by_side;

/// Side of a panel picture, px.
const PANEL_PX: u32 = 256;
/// Number of panel pictures.
const PANEL_PICTURES: usize = 6;

/// Scores at one step, means over the data sets.
#[derive(Debug, Clone, Copy)]
pub struct Validation {
    pub pq: f64,
    pub dice: f64,
    pub f1d: f64,
}

/// The first `n` held-out images of each set that has some.
pub fn sample_held_out(sets: &[LoadedSet], n: usize) -> Vec<LoadedSet> {
    sets.iter()
        .map(|set| LoadedSet {
            name: set.name.clone(),
            share: set.share,
            images: set
                .images
                .iter()
                .filter(|i| i.held_out)
                .take(n)
                .cloned()
                .collect(),
        })
        .filter(|set| !set.images.is_empty())
        .collect()
}

/// A model with the weights `folded` of a training under way.
pub fn load_model(
    config: &TrainConfig,
    folded: &[(String, Tensor)],
    out: &Path,
) -> Result<Model, TrainError> {
    let scratch = tempfile::tempdir().map_err(|e| TrainError::file(out, e))?;
    package::write_model(scratch.path(), config, folded)?;
    let failed = |e: crate::model::ModelError| TrainError::Config(e.to_string());
    ModelFolder::open(scratch.path())
        .and_then(|folder| folder.load(Device::Cpu))
        .map_err(failed)
}

/// Scores `model` on `sets` (see [`sample_held_out`]). Images with dots have F1d only.
pub fn score_model(model: &Model, sets: &[LoadedSet]) -> Result<Validation, TrainError> {
    let scores = held_out::score_sets(model, sets)
        .map_err(|e| TrainError::Config(format!("validation: {e}")))?;
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
pub fn draw_panel(
    model: &Model,
    sets: &[LoadedSet],
) -> Result<Vec<(String, RgbImage)>, TrainError> {
    let deepest = sets.iter().map(|s| s.images.len()).max().unwrap_or(0);
    let images = (0..deepest).flat_map(|i| sets.iter().filter_map(move |s| s.images.get(i)));
    let colours: Vec<[u8; 3]> = model.spec.types.iter().map(|t| t.color).collect();
    images
        .take(PANEL_PICTURES)
        .map(|image| {
            let centre = crop_centre(image);
            let pred = held_out::predict(model, &centre)
                .map_err(|e| TrainError::Config(format!("validation: {e}")))?;
            let [truth, pred] = [Annotation::of_image(&centre), pred]
                .map(|annotation| annotation.draw_over(&centre.rgb, &colours));
            Ok((image.name.clone(), side_by_side(&truth, &pred)))
        })
        .collect()
}

/// The middle of an image, at most [`PANEL_PX`] wide and high, with its truth.
fn crop_centre(image: &LabelledImage) -> LabelledImage {
    let (w, h) = image.rgb.dimensions();
    let (cw, ch) = (w.min(PANEL_PX), h.min(PANEL_PX));
    image.cropped([(w - cw) / 2, (h - ch) / 2, cw, ch])
}
