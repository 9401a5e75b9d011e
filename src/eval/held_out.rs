//! A model on images that its training never saw.
//!
//! In: a model and labelled images at its scale. Out: scores a data set. Points pair within 3 µm.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::annotation::Annotation;
use super::scores::{ImageScores, SetScores, of_image};
use crate::model::Model;
use crate::pipeline::{PipelineError, grid_of, image};
use crate::slide::SlideReader;
use crate::slide::blocks::ProcImage;
use crate::slide::frames::Frames;
use crate::slide::plain::PlainReader;
use crate::train::data::{LabelledImage, LoadedSet};

/// Pairing radius, µm: hover_net's 12 px at 40x.
pub const RADIUS_UM: f64 = 3.0;

/// Names of a model's types by id, background first.
pub fn type_names(model: &Model) -> Vec<String> {
    let types = &model.spec.types;
    let names = types.iter().map(|t| t.name.clone());
    if types.is_empty() {
        return vec!["background".into()];
    }
    names.collect()
}

/// Scores the held-out images of every set.
pub fn score(
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
                .map(|image| score_image(model, image))
                .collect::<Result<_, _>>()?;
            Ok((set.name.clone(), SetScores::of(images, &names)))
        })
        .collect()
}

fn score_image(model: &Model, image: &LabelledImage) -> Result<ImageScores, PipelineError> {
    let pred = predict(model, image)?;
    let truth = Annotation::of_image(image);
    let kinds = type_names(model).len();
    let radius_px = RADIUS_UM / model.spec.mpp;
    Ok(of_image(&image.name, &truth, &pred, kinds, radius_px))
}

/// The model's nuclei of one image at the model's scale.
pub fn predict(model: &Model, image: &LabelledImage) -> Result<Annotation, PipelineError> {
    let reader: Arc<dyn SlideReader> =
        Arc::new(PlainReader::from_rgb(&image.name, image.rgb.clone()));
    let (frames, level) = Frames::for_slide(reader.info(), [model.spec.mpp; 2], model.spec.mpp)?;
    let pixels = ProcImage::new(reader, frames, level, 64 << 20);
    let predicted = image::predict(&pixels, model, image::ImageOptions::default())?;
    let nuclei = image::nuclei(
        &predicted.foreground,
        &model.spec.postproc,
        frames.proc_mpp(),
    );
    let grid = grid_of(&model.spec, &frames, None)?;
    let ids = image::instance_map(&nuclei, &grid);
    Ok(Annotation::of_nuclei(
        &nuclei,
        ids,
        image.rgb.width() as usize,
    ))
}
