//! Which nuclei to keep, learnt from labelled images.
//!
//! In: a model, its constants, images that taught it. Out: the [`Confidence`] whose expected overlap comes nearest to the
//! true one, by weighted least squares, with the limit below which PQ and DICE together gain when nuclei are dropped.
//! Never sees a held-out image: a network that does not fit its training images much better than others errs there as
//! it errs elsewhere.

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
/// Limits that are tried.
const LEAST_OVERLAPS: [f64; 7] = [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5];
/// Fewer nuclei than this a weight say too little.
const NUCLEI_A_WEIGHT: usize = 20;

/// The rule, and what each limit would do to the images that it was fitted to.
pub(super) struct Fitted {
    pub confidence: Confidence,
    pub kept: Vec<Kept>,
}

/// What one limit leaves of the images that taught the rule.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Kept {
    /// `None`: every nucleus is kept.
    pub least: Option<f64>,
    /// Mean PQ and DICE of each set.
    pub scores: BTreeMap<String, [f64; 2]>,
}

/// A predicted nucleus beside the truth.
struct Example {
    traits: Traits,
    /// With the true nucleus that it fits best.
    overlap: f64,
    px: usize,
    /// Of its pixels, those in any true nucleus.
    true_px: usize,
}

/// One image: what was predicted, and how much there is to find.
struct Shown {
    examples: Vec<Example>,
    true_nuclei: usize,
    true_px: usize,
}

/// The rule fitted to the images of `sets` that are not held out and whose instances are known; sets count alike.
/// `None` where they hold too few nuclei.
pub(super) fn fit(
    model: &Model,
    sets: &[LoadedSet],
    params: &PostprocParams,
) -> Result<Option<Fitted>, PipelineError> {
    let mut shown = BTreeMap::new();
    for set in sets {
        let teaches =
            |i: &&LabelledImage| !i.held_out && matches!(i.truth, Truth::Instances { .. });
        let images: Vec<_> = set.images.iter().filter(teaches).collect();
        if images.is_empty() {
            continue;
        }
        let step = images.len().div_ceil(IMAGES);
        let of_set = images.into_iter().step_by(step);
        let of_set = of_set.map(|image| show(model, &set.name, image, params));
        shown.insert(set.name.clone(), of_set.collect::<Result<Vec<_>, _>>()?);
    }
    let pairs_of = |images: &Vec<Shown>| -> Vec<(Traits, f64)> {
        let examples = images.iter().flat_map(|i| &i.examples);
        examples.map(|e| (e.traits, e.overlap)).collect()
    };
    let by_set: Vec<_> = shown.values().map(pairs_of).collect();
    let nuclei: usize = by_set.iter().map(Vec::len).sum();
    tracing::info!("expected overlap: fitted to {nuclei} predicted nuclei");
    let rule = |(bias, weights)| limited(bias, weights, &shown);
    Ok((nuclei >= NUCLEI_A_WEIGHT * (TRAITS + 1)).then(|| rule(least_squares(&by_set))))
}

/// The rule with the limit at which PQ + DICE, a mean over the sets, is highest.
fn limited(bias: f64, weights: Traits, shown: &BTreeMap<String, Vec<Shown>>) -> Fitted {
    let limit = |least: Option<f64>| Confidence {
        least: least.unwrap_or(f64::NEG_INFINITY),
        bias,
        weights,
    };
    let tried = |least: Option<f64>| Kept {
        least,
        scores: scores(shown, &limit(least)),
    };
    let limited: Vec<Kept> = LEAST_OVERLAPS.map(|l| tried(Some(l))).into();
    let worse_first = |a: &&Kept, b: &&Kept| a.worth().total_cmp(&b.worth());
    // Reversed: of limits that are alike the lowest, which drops least.
    let chosen = limited.iter().rev().max_by(worse_first);
    Fitted {
        confidence: limit(chosen.and_then(|k| k.least)),
        kept: std::iter::once(tried(None)).chain(limited).collect(),
    }
}

impl Kept {
    /// PQ + DICE, a mean over the sets.
    fn worth(&self) -> f64 {
        let sum: f64 = self.scores.values().flatten().sum();
        sum / self.scores.len().max(1) as f64
    }
}

/// Mean PQ and DICE of each set's images that hold nuclei, when `confidence` has dropped its share.
fn scores(
    shown: &BTreeMap<String, Vec<Shown>>,
    confidence: &Confidence,
) -> BTreeMap<String, [f64; 2]> {
    let of_set = |images: &Vec<Shown>| {
        let known = || images.iter().filter(|i| i.true_nuclei > 0);
        let n = known().count().max(1) as f64;
        let sums = known().fold([0.0; 2], |sums, image| {
            let [pq, dice] = image.scores(confidence);
            [sums[0] + pq, sums[1] + dice]
        });
        sums.map(|s| s / n)
    };
    shown
        .iter()
        .map(|(set, images)| (set.clone(), of_set(images)))
        .collect()
}

impl Shown {
    /// PQ and DICE of the nuclei that `confidence` keeps. Only one can overlap a true nucleus by more than half.
    fn scores(&self, confidence: &Confidence) -> [f64; 2] {
        let kept = || self.examples.iter().filter(|e| confidence.keeps(&e.traits));
        let matched: f64 = kept().map(|e| e.overlap).filter(|o| *o > 0.5).sum();
        let [px, true_px] = kept().fold([0, 0], |s, e| [s[0] + e.px, s[1] + e.true_px]);
        [
            2.0 * matched / (kept().count() + self.true_nuclei) as f64,
            2.0 * true_px as f64 / (px + self.true_px) as f64,
        ]
    }
}

fn show(
    model: &Model,
    set: &str,
    image: &LabelledImage,
    params: &PostprocParams,
) -> Result<Shown, PipelineError> {
    let mut shown = Shown {
        examples: Vec::new(),
        true_nuclei: 0,
        true_px: 0,
    };
    let Truth::Instances { ids, types } = &image.truth else {
        return Ok(shown);
    };
    let mut areas = vec![0usize; types.len()];
    ids.iter().for_each(|&id| areas[id as usize] += 1);
    let of_nuclei = areas.iter().skip(1);
    shown.true_nuclei = of_nuclei.clone().filter(|a| **a > 0).count();
    shown.true_px = of_nuclei.sum();
    let predicted = predict(model, set, image)?;
    let width = predicted.map.width;
    for blob in components(&predicted.foreground(params)) {
        for (nucleus, traits) in segment_with_traits(&blob, params, predicted.mpp) {
            let shares = shares(ids, &pixels_of(&nucleus, width));
            let px = nucleus.area_px as usize;
            shown.examples.push(Example {
                traits,
                overlap: overlap(&shares, px, &areas),
                px,
                true_px: px - shares.get(&0).copied().unwrap_or(0),
            });
        }
    }
    Ok(shown)
}

/// The largest intersection over union with a true nucleus. `shares`: pixels of each true id under the nucleus, `area` its
/// own pixels, `areas` those of each id.
fn overlap(shares: &BTreeMap<u32, usize>, area: usize, areas: &[usize]) -> f64 {
    let of = |(&id, &n): (&u32, &usize)| n as f64 / (area + areas[id as usize] - n) as f64;
    let true_ones = shares.iter().filter(|(id, _)| **id > 0);
    true_ones.map(of).fold(0.0, f64::max)
}

/// Bias and weights with the least squared error, every set with the same say.
fn least_squares(by_set: &[Vec<(Traits, f64)>]) -> (f64, Traits) {
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
    (value(0), std::array::from_fn(|i| value(i + 1)))
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
        let mut examples = |n: usize, bias: f64| -> Vec<(Traits, f64)> {
            (0..n)
                .map(|_| {
                    let traits: Traits = std::array::from_fn(|_| rng.f64());
                    let terms = truth.iter().zip(&traits).map(|(w, t)| w * t);
                    (traits, bias + terms.sum::<f64>())
                })
                .collect()
        };
        let (bias, weights) = least_squares(&[examples(400, 0.2)]);
        assert!((bias - 0.2).abs() < 1e-9, "{bias}");
        for (f, t) in weights.iter().zip(truth) {
            assert!((f - t).abs() < 1e-9, "{weights:?}");
        }
        // A set of 4,000 pulls no more than one of 400.
        let (bias, _) = least_squares(&[examples(4000, 0.0), examples(400, 1.0), Vec::new()]);
        assert!((bias - 0.5).abs() < 0.05, "{bias}");
    }

    /// A rule whose expected overlap is the first trait, and nuclei of 100 px: (expected, true overlap, px in the truth).
    fn shown(nuclei: &[(f64, f64, usize)], true_nuclei: usize) -> BTreeMap<String, Vec<Shown>> {
        let example = |&(expected, overlap, true_px): &(f64, f64, usize)| {
            let mut traits = [0.0; TRAITS];
            traits[0] = expected;
            Example {
                traits,
                overlap,
                px: 100,
                true_px,
            }
        };
        let image = Shown {
            examples: nuclei.iter().map(example).collect(),
            true_nuclei,
            true_px: 100 * true_nuclei,
        };
        BTreeMap::from([("set".to_string(), vec![image])])
    }

    const FIRST_TRAIT: Traits = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

    #[test]
    fn the_limit_drops_smears_and_keeps_what_covers_nuclei() {
        // Two found, one smear beside all nuclei, one piece of a nucleus: without the smear PQ is 2 x 1.6 / 6, DICE 500 / 600.
        let nuclei = [
            (0.8, 0.8, 90),
            (0.7, 0.8, 90),
            (0.22, 0.0, 0),
            (0.37, 0.45, 70),
        ];
        let found = limited(0.0, FIRST_TRAIT, &shown(&nuclei, 3));
        assert_eq!(found.confidence.least, 0.25);
        let at = |least: Option<f64>| {
            let row = found.kept.iter().find(|k| k.least == least).unwrap();
            row.scores["set"]
        };
        let near = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).abs() + (a[1] - b[1]).abs() < 1e-12;
        assert!(near(at(None), [3.2 / 7.0, 500.0 / 700.0]), "{:?}", at(None));
        assert!(near(at(Some(0.25)), [3.2 / 6.0, 500.0 / 600.0]));
        assert!(near(at(Some(0.4)), [3.2 / 5.0, 360.0 / 500.0]));
    }

    #[test]
    fn images_without_nuclei_say_nothing_about_the_limit() {
        let mut sets = shown(&[(0.8, 0.8, 90)], 1);
        let alone = limited(0.0, FIRST_TRAIT, &sets).kept;
        sets.entry("set".into())
            .or_default()
            .extend(shown(&[], 0).remove("set").unwrap());
        let with_empty = limited(0.0, FIRST_TRAIT, &sets).kept;
        assert_eq!(alone[0].scores, with_empty[0].scores);
    }
}
