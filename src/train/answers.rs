//! What a model answers on images that taught it, beside their truth.
//!
//! In: a model and labelled images. Out: the blobs it finds in each, and how a predicted nucleus lies on the true ones. Never
//! looks at a held-out image: a network that does not fit its training images much better than others errs there as it errs
//! elsewhere, so rules that say where it errs can be learnt from them.

use std::collections::BTreeMap;

use super::data::{LabelledImage, LoadedSet, Truth};
use super::tune::{pixels_of, predict, shares};
use crate::model::Model;
use crate::nuclei::{Foreground, Nucleus, PostprocParams, components};
use crate::pipeline::PipelineError;

/// Images a set that are looked at, evenly spread.
const IMAGES: usize = 200;

/// Of each set, by name.
pub(super) type Answers<'a> = BTreeMap<String, Vec<Answered<'a>>>;

/// One image: its blobs, and what there is to find.
pub(super) struct Answered<'a> {
    pub blobs: Vec<Foreground>,
    /// µm a px, (x, y).
    pub mpp: [f64; 2],
    /// Pixels of each true id; entry 0 is background.
    pub areas: Vec<usize>,
    ids: &'a [u32],
    width: usize,
}

/// What lies under a predicted nucleus.
pub(super) struct Under {
    /// The largest intersection over union with a true nucleus.
    pub overlap: f64,
    /// Of its pixels, those in any true nucleus.
    pub true_px: usize,
}

/// The answers on the images of `sets` that are not held out and whose instances are known.
pub(super) fn answers<'a>(
    model: &Model,
    sets: &'a [LoadedSet],
    params: &PostprocParams,
) -> Result<Answers<'a>, PipelineError> {
    let mut found = BTreeMap::new();
    for set in sets {
        let teaches =
            |i: &&LabelledImage| !i.held_out && matches!(i.truth, Truth::Instances { .. });
        let images: Vec<_> = set.images.iter().filter(teaches).collect();
        let step = images.len().div_ceil(IMAGES).max(1);
        let of_set = images.into_iter().step_by(step);
        let of_set = of_set.filter_map(|image| answer(model, &set.name, image, params).transpose());
        let of_set = of_set.collect::<Result<Vec<_>, _>>()?;
        if !of_set.is_empty() {
            found.insert(set.name.clone(), of_set);
        }
    }
    Ok(found)
}

fn answer<'a>(
    model: &Model,
    set: &str,
    image: &'a LabelledImage,
    params: &PostprocParams,
) -> Result<Option<Answered<'a>>, PipelineError> {
    let Truth::Instances { ids, types } = &image.truth else {
        return Ok(None);
    };
    let predicted = predict(model, set, image)?;
    let mut areas = vec![0; types.len()];
    ids.iter().for_each(|&id| areas[id as usize] += 1);
    Ok(Some(Answered {
        blobs: components(&predicted.foreground(params)),
        mpp: predicted.mpp,
        areas,
        ids,
        width: predicted.map.width,
    }))
}

#[cfg(test)]
impl<'a> Answered<'a> {
    /// Truth alone, for tests.
    pub fn of(ids: &'a [u32], width: usize) -> Answered<'a> {
        let mut areas = vec![0; ids.iter().max().map_or(0, |m| *m as usize) + 1];
        ids.iter().for_each(|&id| areas[id as usize] += 1);
        Answered {
            blobs: Vec::new(),
            mpp: [0.25; 2],
            areas,
            ids,
            width,
        }
    }
}

impl Answered<'_> {
    pub fn under(&self, nucleus: &Nucleus) -> Under {
        let shares = shares(self.ids, &pixels_of(nucleus, self.width));
        let px = nucleus.area_px as usize;
        Under {
            overlap: overlap(&shares, px, &self.areas),
            true_px: px - shares.get(&0).copied().unwrap_or(0),
        }
    }
}

/// The largest intersection over union with a true nucleus. `shares`: pixels of each true id under the nucleus, `area` its
/// own pixels, `areas` those of each id.
fn overlap(shares: &BTreeMap<u32, usize>, area: usize, areas: &[usize]) -> f64 {
    let of = |(&id, &n): (&u32, &usize)| n as f64 / (area + areas[id as usize] - n) as f64;
    let true_ones = shares.iter().filter(|(id, _)| **id > 0);
    true_ones.map(of).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_that_of_the_nucleus_that_fits_best() {
        // 4 of 6 px lie in nucleus 1 (10 px), 1 in nucleus 2 (1 px): 4 / 12 and 1 / 6.
        let under = shares(&[0, 1, 1, 1, 1, 2, 0], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(overlap(&under, 6, &[50, 10, 1]), 4.0 / 12.0);
        assert_eq!(overlap(&shares(&[0, 0], &[0, 1]), 2, &[50, 10]), 0.0);
    }
}
