//! Which nuclei to keep, learnt from labelled images.
//!
//! In: what a model finds on the images of its training, its constants. Out: the [`Confidence`]
//! whose expected overlap is, by weighted least squares, closest to the true one, with the limit at
//! which dropping nuclei gains most PQ and DICE.

use std::collections::BTreeMap;

use super::least_squares::fit_linear;
use super::training_images::{TrainingImage, TrainingSets};
use crate::nuclei::{Confidence, PostprocParams, TRAITS, Traits, segment_with_traits};

/// Limits of the expected overlap that are tried.
const LEAST_OVERLAPS: [f64; 7] = [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5];

/// Limits whose scores differ by less than this are taken as equal.
const SCORE_TOLERANCE: f64 = 0.001;

/// The rule, and the scores at each limit on the images to which it was fitted.
pub(super) struct FittedConfidence {
    pub confidence: Confidence,
    pub limits: Vec<LimitScores>,
}

/// Scores of the nuclei that one limit keeps.
#[derive(Debug, Clone)]
pub struct LimitScores {
    /// The least expected overlap; `None`: every nucleus is kept.
    pub least: Option<f64>,
    /// Mean PQ and DICE of each set.
    pub scores: BTreeMap<String, [f64; 2]>,
}

/// A predicted nucleus beside the truth.
struct Example {
    traits: Traits,
    /// The largest intersection over union with a true nucleus.
    overlap: f64,
    px: usize,
    /// Number of its pixels that lie in any true nucleus.
    true_px: usize,
}

/// One image: its predicted nuclei, and the number of true nuclei and of their pixels.
struct ImageExamples {
    examples: Vec<Example>,
    true_nuclei: usize,
    true_px: usize,
}

type ExampleSets = BTreeMap<String, Vec<ImageExamples>>;

/// Fits the rule; every set has the same weight. `None` if the model finds too few nuclei.
pub(super) fn fit_confidence(
    sets: &TrainingSets,
    params: &PostprocParams,
) -> Option<FittedConfidence> {
    let examples_of_set = |(set, images): (&String, &Vec<TrainingImage>)| {
        let examples = images.iter().map(|image| find_examples(image, params));
        (set.clone(), examples.collect())
    };
    let sets: ExampleSets = sets.iter().map(examples_of_set).collect();
    let pairs_of = |images: &Vec<ImageExamples>| -> Vec<([f64; TRAITS], f64)> {
        let examples = images.iter().flat_map(|i| &i.examples);
        examples.map(|e| (e.traits.as_array(), e.overlap)).collect()
    };
    let by_set: Vec<_> = sets.values().map(pairs_of).collect();
    let nuclei: usize = by_set.iter().map(Vec::len).sum();
    tracing::info!("expected overlap: fitted to {nuclei} predicted nuclei");
    let (bias, weights) = fit_linear(&by_set)?;
    Some(choose_limit(bias, weights, &sets))
}

/// The rule with the highest limit at which PQ + DICE, averaged over the sets, is within
/// [`SCORE_TOLERANCE`] of the best.
fn choose_limit(bias: f64, weights: [f64; TRAITS], sets: &ExampleSets) -> FittedConfidence {
    let limit = |least: Option<f64>| Confidence {
        least: least.unwrap_or(f64::NEG_INFINITY),
        bias,
        weights,
    };
    let score = |least: Option<f64>| LimitScores {
        least,
        scores: score_sets(sets, &limit(least)),
    };
    let limits: Vec<LimitScores> = LEAST_OVERLAPS.map(|l| score(Some(l))).into();
    let best = limits.iter().map(LimitScores::total).fold(0.0, f64::max);
    // The highest of equal limits: new images have more false nuclei than those of the training.
    let chosen = limits.iter().rfind(|l| l.total() > best - SCORE_TOLERANCE);
    FittedConfidence {
        confidence: limit(chosen.and_then(|l| l.least)),
        limits: std::iter::once(score(None)).chain(limits).collect(),
    }
}

impl LimitScores {
    /// PQ + DICE, averaged over the sets.
    fn total(&self) -> f64 {
        let sum: f64 = self.scores.values().flatten().sum();
        sum / self.scores.len().max(1) as f64
    }
}

/// Mean PQ and DICE per set of the nuclei that `confidence` keeps, over images with true nuclei.
fn score_sets(sets: &ExampleSets, confidence: &Confidence) -> BTreeMap<String, [f64; 2]> {
    let score_set = |images: &Vec<ImageExamples>| {
        let known = || images.iter().filter(|i| i.true_nuclei > 0);
        let n = known().count().max(1) as f64;
        let sums = known().fold([0.0; 2], |sums, image| {
            let [pq, dice] = image.scores(confidence);
            [sums[0] + pq, sums[1] + dice]
        });
        sums.map(|s| s / n)
    };
    sets.iter()
        .map(|(set, images)| (set.clone(), score_set(images)))
        .collect()
}

impl ImageExamples {
    /// PQ and DICE of the nuclei that `confidence` keeps. At most one of them overlaps a true
    /// nucleus by more than half.
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

/// The nuclei predicted in an image, before any is dropped.
fn find_examples(image: &TrainingImage, params: &PostprocParams) -> ImageExamples {
    let mut examples = Vec::new();
    for blob in &image.blobs {
        for (nucleus, traits) in segment_with_traits(blob, params, image.mpp) {
            let truth = image.compare(&nucleus);
            examples.push(Example {
                traits,
                overlap: truth.iou,
                px: nucleus.area_px as usize,
                true_px: truth.true_px,
            });
        }
    }
    ImageExamples {
        examples,
        true_nuclei: image.areas.iter().skip(1).filter(|a| **a > 0).count(),
        true_px: image.areas.iter().skip(1).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule whose expected overlap is the first trait, and nuclei of 100 px: (expected, true
    /// overlap, px in the truth).
    fn example_sets(nuclei: &[(f64, f64, usize)], true_nuclei: usize) -> ExampleSets {
        let example = |&(expected, overlap, true_px): &(f64, f64, usize)| {
            let traits = Traits {
                np_mean: expected,
                ..Traits::default()
            };
            Example {
                traits,
                overlap,
                px: 100,
                true_px,
            }
        };
        let image = ImageExamples {
            examples: nuclei.iter().map(example).collect(),
            true_nuclei,
            true_px: 100 * true_nuclei,
        };
        BTreeMap::from([("set".to_string(), vec![image])])
    }

    const FIRST_TRAIT: [f64; TRAITS] = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

    #[test]
    fn the_limit_drops_smears_and_keeps_pieces_of_nuclei() {
        // Two nuclei found, one smear outside all nuclei, one piece of a nucleus: without the smear
        // PQ is 2 x 1.6 / 6 and DICE 500 / 600.
        let nuclei = [
            (0.8, 0.8, 90),
            (0.7, 0.8, 90),
            (0.22, 0.0, 0),
            (0.37, 0.45, 70),
        ];
        let found = choose_limit(0.0, FIRST_TRAIT, &example_sets(&nuclei, 3));
        // 0.25, 0.3 and 0.35 keep the same nuclei.
        assert_eq!(found.confidence.least, 0.35);
        let at = |least: Option<f64>| {
            let row = found.limits.iter().find(|l| l.least == least).unwrap();
            row.scores["set"]
        };
        let near = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).abs() + (a[1] - b[1]).abs() < 1e-12;
        assert!(near(at(None), [3.2 / 7.0, 500.0 / 700.0]), "{:?}", at(None));
        assert!(near(at(Some(0.25)), [3.2 / 6.0, 500.0 / 600.0]));
        assert!(near(at(Some(0.4)), [3.2 / 5.0, 360.0 / 500.0]));
    }

    #[test]
    fn images_without_nuclei_do_not_change_the_scores() {
        let mut sets = example_sets(&[(0.8, 0.8, 90)], 1);
        let alone = choose_limit(0.0, FIRST_TRAIT, &sets).limits;
        sets.entry("set".into())
            .or_default()
            .extend(example_sets(&[], 0).remove("set").unwrap());
        let with_empty = choose_limit(0.0, FIRST_TRAIT, &sets).limits;
        assert_eq!(alone[0].scores, with_empty[0].scores);
    }
}
