//! A model on images that its training never saw.
//!
//! In: a model and labelled images at its scale. Out: scores per data set. Points pair within 3 µm.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::scores::{ImageScores, SetScores, score_image};
use crate::labels::{Annotation, LabelledImage, LoadedSet};
use crate::model::Model;
use crate::nuclei::{Nucleus, segment_foreground};
use crate::pipeline::image::{self, ImagePrediction};
use crate::pipeline::{PipelineError, grid_of};
use crate::plan::PatchGrid;
use crate::slide::SlideReader;
use crate::slide::blocks::ProcImage;
use crate::slide::frames::Frames;
use crate::slide::plain::PlainReader;

/// Pairing radius, µm: hover_net's 12 px at 40x.
pub const RADIUS_UM: f64 = 3.0;

/// Decoded pixels of one image that are kept while it is read, bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Names of a model's types by id, background first.
pub fn type_names(model: &Model) -> Vec<String> {
    let types = &model.spec.types;
    let names = types.iter().map(|t| t.name.clone());
    if types.is_empty() {
        return vec!["background".into()];
    }
    names.collect()
}

/// Scores `model` on the held-out images of every set that has some.
pub fn score_sets(
    model: &Model,
    sets: &[LoadedSet],
) -> Result<BTreeMap<String, SetScores>, PipelineError> {
    let names = type_names(model);
    sets.iter()
        .filter(|set| set.images.iter().any(|i| i.held_out))
        .map(|set| {
            let held_out: Vec<&LabelledImage> = set.images.iter().filter(|i| i.held_out).collect();
            let images: Vec<ImageScores> = held_out
                .par_iter()
                .map(|image| score_model(model, image))
                .collect::<Result<_, _>>()?;
            Ok((set.name.clone(), SetScores::of(images, &names)))
        })
        .collect()
}

fn score_model(model: &Model, image: &LabelledImage) -> Result<ImageScores, PipelineError> {
    let pred = predict(model, image)?;
    let truth = Annotation::of_image(image);
    let kinds = type_names(model).len();
    let radius_px = RADIUS_UM / model.spec.mpp;
    Ok(score_image(&image.name, &truth, &pred, kinds, radius_px))
}

/// The nuclei that the model finds in one image at the model's scale.
pub fn predict(model: &Model, image: &LabelledImage) -> Result<Annotation, PipelineError> {
    let (predicted, grid, mpp) = run_model(model, image, false)?;
    let nuclei = segment_foreground(&predicted.foreground, &model.spec.postproc, mpp);
    let ids = image::instance_map(&nuclei, &grid);
    let width = image.rgb.width() as usize;
    Ok(Annotation::of_nuclei(&nuclei, ids, width))
}

/// [`predict`] as nuclei with all their sums, and µm/px (x, y).
pub(super) fn find_nuclei(
    model: &Model,
    image: &LabelledImage,
) -> Result<(Vec<Nucleus>, [f64; 2]), PipelineError> {
    let (predicted, _, mpp) = run_model(model, image, false)?;
    let params = &model.spec.postproc;
    Ok((segment_foreground(&predicted.foreground, params, mpp), mpp))
}

/// The network's output for one image at the model's scale (with the whole map if `keep_map`), the
/// grid of its patches, and µm/px (x, y).
pub(crate) fn run_model(
    model: &Model,
    image: &LabelledImage,
    keep_map: bool,
) -> Result<(ImagePrediction, PatchGrid, [f64; 2]), PipelineError> {
    let reader: Arc<dyn SlideReader> =
        Arc::new(PlainReader::from_rgb(&image.name, image.rgb.clone()));
    let (frames, level) = Frames::for_slide(reader.info(), [model.spec.mpp; 2], model.spec.mpp)?;
    let pixels = ProcImage::new(reader, frames, level, CACHE_BYTES);
    let options = image::ImageOptions {
        keep_map,
        ..image::ImageOptions::default()
    };
    let predicted = image::predict(&pixels, model, options)?;
    let grid = grid_of(&model.spec, &frames, None)?;
    Ok((predicted, grid, frames.proc_mpp()))
}
