//! A model on images that its training never saw.
//!
//! In: a model and labelled images at its scale. Out: scores a data set. Segmentation scores are means over images;
//! detections are counted over all images of a set. For dots, a prediction counts where it lies within 3 µm.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::detection::{Detections, TypeScores};
use super::segmentation::{self, Segmentation};
use crate::model::Model;
use crate::nuclei::Nucleus;
use crate::pipeline::{PipelineError, grid_of, image};
use crate::slide::SlideReader;
use crate::slide::blocks::ProcImage;
use crate::slide::frames::Frames;
use crate::slide::plain::PlainReader;
use crate::train::data::{LabelledImage, LoadedSet, Truth};

/// Pairing radius, µm: hover_net's 12 px at 40x.
const RADIUS_UM: f64 = 3.0;

/// Scores of one data set.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SetScores {
    pub images: usize,
    /// Mean over the images; absent for dots.
    pub segmentation: Option<Segmentation>,
    pub f1d: f64,
    /// F1 of each type that the truth knows.
    pub f1_types: BTreeMap<String, f64>,
    pub detections: TypeScores,
}

/// Scores the held-out images of every set.
pub fn score(
    model: &Model,
    sets: &[LoadedSet],
) -> Result<BTreeMap<String, SetScores>, PipelineError> {
    sets.iter()
        .map(|set| Ok((set.name.clone(), score_set(model, set)?)))
        .collect()
}

fn score_set(model: &Model, set: &LoadedSet) -> Result<SetScores, PipelineError> {
    let held_out: Vec<&LabelledImage> = set.images.iter().filter(|i| i.held_out).collect();
    let scored: Vec<(Option<Segmentation>, TypeScores)> = held_out
        .par_iter()
        .map(|image| score_image(model, image))
        .collect::<Result<_, _>>()?;
    let kinds = model.spec.types.len().max(1);
    let mut total = TypeScores::new(kinds);
    scored.iter().for_each(|(_, one)| total.merge(one));
    let segmentations: Vec<Segmentation> = scored.iter().filter_map(|(s, _)| *s).collect();
    let known =
        |id: &usize| total.confusion[*id].iter().sum::<u64>() + total.unpaired_truth_types[*id] > 0;
    let f1_types = (1..kinds)
        .filter(known)
        .map(|id| (model.spec.types[id].name.clone(), total.f1_type(id)))
        .collect();
    Ok(SetScores {
        images: held_out.len(),
        segmentation: segmentation::mean(&segmentations),
        f1d: total.f1d(),
        f1_types,
        detections: total,
    })
}

fn score_image(
    model: &Model,
    image: &LabelledImage,
) -> Result<(Option<Segmentation>, TypeScores), PipelineError> {
    let nuclei = predict(model, image)?;
    let mut types = TypeScores::new(model.spec.types.len().max(1));
    let (truth, segmentation) = match &image.truth {
        Truth::Dots(dots) => {
            let points = dots
                .iter()
                .map(|d| [f64::from(d.x_px), f64::from(d.y_px)])
                .collect();
            (
                Detections {
                    points,
                    types: dots.iter().map(|d| d.type_id).collect(),
                },
                None,
            )
        }
        Truth::Instances { ids, types } => {
            let grid = grid_of(&model.spec, &frames_of(model, image), None)?;
            let pred = image::instance_map(&nuclei, &grid);
            (
                centroids(ids, types, image.rgb.width() as usize),
                Some(segmentation::score(ids, &pred)),
            )
        }
    };
    let pred = Detections {
        points: nuclei.iter().map(centroid).collect(),
        types: nuclei
            .iter()
            .map(|n| n.type_id().unwrap_or(0) as u8)
            .collect(),
    };
    types.add(&truth, &pred, RADIUS_UM / model.spec.mpp);
    Ok((segmentation, types))
}

fn frames_of(model: &Model, image: &LabelledImage) -> Frames {
    let size = [u64::from(image.rgb.width()), u64::from(image.rgb.height())];
    Frames::new(size, [model.spec.mpp; 2], model.spec.mpp, &[]).0
}

fn predict(model: &Model, image: &LabelledImage) -> Result<Vec<Nucleus>, PipelineError> {
    let reader: Arc<dyn SlideReader> =
        Arc::new(PlainReader::from_rgb(&image.name, image.rgb.clone()));
    let (frames, level) = Frames::for_slide(reader.info(), [model.spec.mpp; 2], model.spec.mpp)?;
    let pixels = ProcImage::new(reader, frames, level, 64 << 20);
    let predicted = image::predict(&pixels, model, None, false)?;
    Ok(image::nuclei(
        &predicted.foreground,
        &model.spec.postproc,
        frames.proc_mpp(),
    ))
}

/// Centre of mass, pixel-edge frame.
fn centroid(nucleus: &Nucleus) -> [f64; 2] {
    let b = nucleus.bbox;
    let (mut x_sum, mut y_sum) = (0.0, 0.0);
    for y in b.y..b.bottom() {
        for x in b.x..b.right() {
            if nucleus.contains(x, y) {
                x_sum += f64::from(x) + 0.5;
                y_sum += f64::from(y) + 0.5;
            }
        }
    }
    let n = f64::from(nucleus.area_px);
    [x_sum / n, y_sum / n]
}

/// Centres of mass of an instance map, pixel-edge frame.
fn centroids(ids: &[u32], types: &[u8], width: usize) -> Detections {
    let mut sums = vec![(0.0, 0.0, 0.0); types.len()];
    for (i, &id) in ids.iter().enumerate().filter(|(_, id)| **id > 0) {
        let s = &mut sums[id as usize];
        *s = (
            s.0 + 1.0,
            s.1 + (i % width) as f64 + 0.5,
            s.2 + (i / width) as f64 + 0.5,
        );
    }
    let mut found = Detections::default();
    for ((n, x, y), &type_id) in sums.into_iter().zip(types).filter(|((n, ..), _)| *n > 0.0) {
        found.points.push([x / n, y / n]);
        found.types.push(type_id);
    }
    found
}
