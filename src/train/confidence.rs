//! Which nuclei to keep, learnt from labelled images.
//!
//! In: a model, its constants, images that taught it. Out: the [`Confidence`] whose expected overlap comes nearest to the
//! true one, by weighted least squares. Never sees a held-out image: a network that does not fit its training images
//! much better than others errs there as it errs elsewhere.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::data::{LabelledImage, LoadedSet, Truth};
use super::tune::{pixels_of, predict, shares};
use crate::model::Model;
use crate::nuclei::confidence::TRAITS;
use crate::nuclei::{Confidence, PostprocParams, Traits, components, segment_with_traits};
use crate::pipeline::PipelineError;

/// Images a set that are looked at, evenly spread.
const IMAGES: usize = 48;
/// Nuclei from which less overlap is expected are dropped. On CoNSeP's training images PQ is highest here, and the F1 of
/// detection a hundredth below that of keeping all (docs/accuracy.md).
const LEAST_OVERLAP: f64 = 0.4;
/// Fewer nuclei than this a weight say too little.
const NUCLEI_A_WEIGHT: usize = 20;

/// What is measured of a predicted nucleus, and its overlap with the true one that it fits best.
type Example = (Traits, f64);

/// The rule fitted to the images of `sets` that are not held out and whose instances are known; sets count alike.
/// `None` where they hold too few nuclei.
pub(super) fn fit(
    model: &Model,
    sets: &[LoadedSet],
    params: &PostprocParams,
) -> Result<Option<Confidence>, PipelineError> {
    let mut by_set = Vec::new();
    for set in sets {
        let teaches =
            |i: &&LabelledImage| !i.held_out && matches!(i.truth, Truth::Instances { .. });
        let images: Vec<_> = set.images.iter().filter(teaches).collect();
        let step = images.len().div_ceil(IMAGES).max(1);
        let mut examples = Vec::new();
        for image in images.into_iter().step_by(step) {
            examples.extend(examples_of(model, &set.name, image, params)?);
        }
        by_set.push(examples);
    }
    let nuclei: usize = by_set.iter().map(Vec::len).sum();
    tracing::info!("expected overlap: fitted to {nuclei} predicted nuclei");
    Ok((nuclei >= NUCLEI_A_WEIGHT * (TRAITS + 1)).then(|| least_squares(&by_set)))
}

fn examples_of(
    model: &Model,
    set: &str,
    image: &LabelledImage,
    params: &PostprocParams,
) -> Result<Vec<Example>, PipelineError> {
    let Truth::Instances { ids, types } = &image.truth else {
        return Ok(Vec::new());
    };
    let mut areas = vec![0usize; types.len()];
    ids.iter().for_each(|&id| areas[id as usize] += 1);
    let predicted = predict(model, set, image)?;
    let width = predicted.map.width;
    let mut examples = Vec::new();
    for blob in components(&predicted.foreground(params)) {
        for (nucleus, traits) in segment_with_traits(&blob, params, predicted.mpp) {
            let shares = shares(ids, &pixels_of(&nucleus, width));
            examples.push((traits, overlap(&shares, nucleus.area_px as usize, &areas)));
        }
    }
    Ok(examples)
}

/// The largest intersection over union with a true nucleus. `shares`: pixels of each true id under the nucleus, `area` its
/// own pixels, `areas` those of each id.
fn overlap(shares: &BTreeMap<u32, usize>, area: usize, areas: &[usize]) -> f64 {
    let of = |(&id, &n): (&u32, &usize)| n as f64 / (area + areas[id as usize] - n) as f64;
    let true_ones = shares.iter().filter(|(id, _)| **id > 0);
    true_ones.map(of).fold(0.0, f64::max)
}

/// Bias and weights with the least squared error, every set with the same say.
fn least_squares(by_set: &[Vec<Example>]) -> Confidence {
    const N: usize = TRAITS + 1;
    let mut products = [[0.0f64; N]; N];
    let mut answers = [0.0f64; N];
    for examples in by_set.iter().filter(|e| !e.is_empty()) {
        let weight = 1.0 / examples.len() as f64;
        for (traits, overlap) in examples {
            let row: [f64; N] = std::array::from_fn(|i| if i == 0 { 1.0 } else { traits[i - 1] });
            for i in 0..N {
                answers[i] += weight * row[i] * overlap;
                for j in 0..N {
                    products[i][j] += weight * row[i] * row[j];
                }
            }
        }
    }
    let matrix = Tensor::from_slice(products.as_flattened()).view([N as i64; 2]);
    // The least norm where traits say the same twice.
    let inverse = matrix.linalg_pinv(1e-10, true);
    let found = inverse.matmul(&Tensor::from_slice(&answers).view([N as i64, 1]));
    let value = |i: usize| found.to_kind(Kind::Double).double_value(&[i as i64, 0]);
    Confidence {
        least: LEAST_OVERLAP,
        bias: value(0),
        weights: std::array::from_fn(|i| value(i + 1)),
    }
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

    #[test]
    fn a_linear_rule_is_found_again_and_sets_count_alike() {
        let mut rng = fastrand::Rng::with_seed(5);
        let truth: Traits = std::array::from_fn(|i| 0.1 * i as f64 - 0.3);
        let mut examples = |n: usize, bias: f64| -> Vec<Example> {
            (0..n)
                .map(|_| {
                    let traits: Traits = std::array::from_fn(|_| rng.f64());
                    let terms = truth.iter().zip(&traits).map(|(w, t)| w * t);
                    (traits, bias + terms.sum::<f64>())
                })
                .collect()
        };
        let found = least_squares(&[examples(400, 0.2)]);
        assert!((found.bias - 0.2).abs() < 1e-9, "{found:?}");
        for (f, t) in found.weights.iter().zip(truth) {
            assert!((f - t).abs() < 1e-9, "{found:?}");
        }
        // A set of 4,000 pulls no more than one of 400.
        let found = least_squares(&[examples(4000, 0.0), examples(400, 1.0), Vec::new()]);
        assert!((found.bias - 0.5).abs() < 0.05, "{found:?}");
    }
}
