//! Which nuclei to keep, learnt from labelled images.
//!
//! In: what a model answers on images that taught it, its constants. Out: the [`Confidence`] whose expected overlap comes nearest to the
//! true one, by weighted least squares, with the limit below which PQ and DICE together gain when nuclei are dropped.
//! Never sees a held-out image: a network that does not fit its training images much better than others errs there as
//! it errs elsewhere.

use std::collections::BTreeMap;

use super::answers::{Answered, Answers};
use super::least_squares::least_squares;
use crate::nuclei::{Confidence, PostprocParams, TRAITS, Traits, segment_with_traits};

/// Limits that are tried.
const LEAST_OVERLAPS: [f64; 7] = [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5];

/// Limits whose worth differs by less than this are alike.
const ALIKE: f64 = 0.001;

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

/// The rule fitted to what the network answers on images that taught it; sets count alike. `None` where they hold too few
/// nuclei.
pub(super) fn fit(answers: &Answers, params: &PostprocParams) -> Option<Fitted> {
    let of_set = |(set, images): (&String, &Vec<Answered>)| {
        let shown = images.iter().map(|image| show(image, params)).collect();
        (set.clone(), shown)
    };
    let shown: BTreeMap<String, Vec<Shown>> = answers.iter().map(of_set).collect();
    let pairs_of = |images: &Vec<Shown>| -> Vec<([f64; TRAITS], f64)> {
        let examples = images.iter().flat_map(|i| &i.examples);
        examples.map(|e| (e.traits.as_array(), e.overlap)).collect()
    };
    let by_set: Vec<_> = shown.values().map(pairs_of).collect();
    let nuclei: usize = by_set.iter().map(Vec::len).sum();
    tracing::info!("expected overlap: fitted to {nuclei} predicted nuclei");
    let (bias, weights) = least_squares(&by_set)?;
    Some(limited(bias, weights, &shown))
}

/// The rule with the highest limit at which PQ + DICE, a mean over the sets, is about as good as it gets.
fn limited(bias: f64, weights: [f64; TRAITS], shown: &BTreeMap<String, Vec<Shown>>) -> Fitted {
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
    let best = limited.iter().map(Kept::worth).fold(0.0, f64::max);
    // Of limits that are alike the highest: images never seen have more false nuclei than those that taught the network.
    let chosen = limited.iter().rfind(|k| k.worth() > best - ALIKE);
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

fn show(image: &Answered, params: &PostprocParams) -> Shown {
    let mut examples = Vec::new();
    for blob in &image.blobs {
        for (nucleus, traits) in segment_with_traits(blob, params, image.mpp) {
            let under = image.under(&nucleus);
            examples.push(Example {
                traits,
                overlap: under.overlap,
                px: nucleus.area_px as usize,
                true_px: under.true_px,
            });
        }
    }
    Shown {
        examples,
        true_nuclei: image.areas.iter().skip(1).filter(|a| **a > 0).count(),
        true_px: image.areas.iter().skip(1).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule whose expected overlap is the first trait, and nuclei of 100 px: (expected, true overlap, px in the truth).
    fn shown(nuclei: &[(f64, f64, usize)], true_nuclei: usize) -> BTreeMap<String, Vec<Shown>> {
        let example = |&(expected, overlap, true_px): &(f64, f64, usize)| Example {
            traits: Traits {
                np_mean: expected,
                ..Traits::default()
            },
            overlap,
            px: 100,
            true_px,
        };
        let image = Shown {
            examples: nuclei.iter().map(example).collect(),
            true_nuclei,
            true_px: 100 * true_nuclei,
        };
        BTreeMap::from([("set".to_string(), vec![image])])
    }

    const FIRST_TRAIT: [f64; TRAITS] = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

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
        // 0.25, 0.3 and 0.35 leave the same nuclei.
        assert_eq!(found.confidence.least, 0.35);
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
