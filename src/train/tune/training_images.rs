//! What a model finds on the images of its training, beside their truth.
//!
//! In: a model and labelled images. Out: [`TrainingImage`]s, from which the rules of `model tune`
//! are learnt. Never looks at a held-out image: a network that fits its training images hardly
//! better than others makes the same errors on both, so the training images show where it errs.

use std::collections::BTreeMap;

use super::{count_ids, list_pixels, predict};
use crate::labels::{LabelledImage, LoadedSet, Truth};
use crate::model::Model;
use crate::nuclei::{Foreground, Nucleus, PostprocParams, components};
use crate::pipeline::PipelineError;

/// Most images per set that are predicted, evenly spread over it.
const MAX_IMAGES_PER_SET: usize = 200;

/// Training images by the name of their set.
pub(super) type TrainingSets<'a> = BTreeMap<String, Vec<TrainingImage<'a>>>;

/// One training image: the blobs that the model finds, and its true nuclei.
pub(super) struct TrainingImage<'a> {
    pub blobs: Vec<Foreground>,
    /// µm/px (x, y).
    pub mpp: [f64; 2],
    /// Number of pixels of each true id; entry 0 is the background.
    pub areas: Vec<usize>,
    ids: &'a [u32],
    width: usize,
}

/// How a predicted nucleus lies on the true ones.
pub(super) struct TruthOverlap {
    /// The largest intersection over union with a true nucleus.
    pub iou: f64,
    /// Number of its pixels that lie in any true nucleus.
    pub true_px: usize,
}

/// Predicts the images of `sets` that are not held out and whose instances are known.
pub(super) fn predict_training_images<'a>(
    model: &Model,
    sets: &'a [LoadedSet],
    params: &PostprocParams,
) -> Result<TrainingSets<'a>, PipelineError> {
    let mut found = BTreeMap::new();
    for set in sets {
        let is_usable =
            |i: &&LabelledImage| !i.held_out && matches!(i.truth, Truth::Instances { .. });
        let images: Vec<_> = set.images.iter().filter(is_usable).collect();
        let step = images.len().div_ceil(MAX_IMAGES_PER_SET).max(1);
        let predicted = images
            .into_iter()
            .step_by(step)
            .filter_map(|image| predict_image(model, &set.name, image, params).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        if !predicted.is_empty() {
            found.insert(set.name.clone(), predicted);
        }
    }
    Ok(found)
}

fn predict_image<'a>(
    model: &Model,
    set: &str,
    image: &'a LabelledImage,
    params: &PostprocParams,
) -> Result<Option<TrainingImage<'a>>, PipelineError> {
    let Truth::Instances { ids, types } = &image.truth else {
        return Ok(None);
    };
    let predicted = predict(model, set, image)?;
    let mut areas = vec![0; types.len()];
    ids.iter().for_each(|&id| areas[id as usize] += 1);
    Ok(Some(TrainingImage {
        blobs: components(&predicted.foreground(params)),
        mpp: predicted.mpp,
        areas,
        ids,
        width: predicted.map.width,
    }))
}

#[cfg(test)]
impl<'a> TrainingImage<'a> {
    /// Truth without predictions.
    pub fn from_truth(ids: &'a [u32], width: usize) -> TrainingImage<'a> {
        let mut areas = vec![0; ids.iter().max().map_or(0, |m| *m as usize) + 1];
        ids.iter().for_each(|&id| areas[id as usize] += 1);
        TrainingImage {
            blobs: Vec::new(),
            mpp: [0.25; 2],
            areas,
            ids,
            width,
        }
    }
}

impl TrainingImage<'_> {
    /// Compares a predicted nucleus with the truth.
    pub fn compare(&self, nucleus: &Nucleus) -> TruthOverlap {
        let counts = count_ids(self.ids, &list_pixels(nucleus, self.width));
        let px = nucleus.area_px as usize;
        TruthOverlap {
            iou: largest_iou(&counts, px, &self.areas),
            true_px: px - counts.get(&0).copied().unwrap_or(0),
        }
    }
}

/// The largest intersection over union of a predicted nucleus of `area` pixels with a true one.
/// `counts`: how many of these have each true id; `areas`: pixels of each true id in the image.
fn largest_iou(counts: &BTreeMap<u32, usize>, area: usize, areas: &[usize]) -> f64 {
    let iou = |(&id, &n): (&u32, &usize)| n as f64 / (area + areas[id as usize] - n) as f64;
    let nuclei = counts.iter().filter(|(id, _)| **id > 0);
    nuclei.map(iou).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iou_is_that_of_the_best_fitting_nucleus() {
        // 4 of 6 px lie in nucleus 1 (10 px), 1 in nucleus 2 (1 px): 4 / 12 and 1 / 6.
        let counts = count_ids(&[0, 1, 1, 1, 1, 2, 0], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(largest_iou(&counts, 6, &[50, 10, 1]), 4.0 / 12.0);
        assert_eq!(largest_iou(&count_ids(&[0, 0], &[0, 1]), 2, &[50, 10]), 0.0);
    }
}
