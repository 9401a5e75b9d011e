//! Where to divide blobs, learnt from labelled images.
//!
//! In: what a model answers on images that taught it, its constants. Out: the [`Division`] whose expected gain comes
//! nearest to what dividing does to PQ, by least squares.

use super::answers::{Answered, Answers};
use super::least_squares::least_squares;
use crate::nuclei::{Branch, DIVISION_TRAITS, Division, PostprocParams, divisions};

/// Thresholds of the energy between which a rule may choose; seven of them gained no more.
const THRESHOLDS: [f32; 4] = [0.8, 0.5, 0.3, 0.15];
/// What one more nucleus costs. PQ = 2 Σ overlap / (predicted + true): at a PQ of 0.5, a quarter of an overlap.
const COST_OF_A_PART: f64 = 0.25;

/// The rule; sets count alike. `None` where too few blobs may be divided.
pub(super) fn fit(answers: &Answers, params: &PostprocParams) -> Option<Division> {
    let of_set = |images: &Vec<Answered>| images.iter().flat_map(|i| examples(i, params)).collect();
    let by_set: Vec<Vec<([f64; DIVISION_TRAITS], f64)>> = answers.values().map(of_set).collect();
    let places: usize = by_set.iter().map(Vec::len).sum();
    tracing::info!("expected gain: fitted to {places} places where a blob may be divided");
    let (bias, weights) = least_squares(&by_set)?;
    Some(Division {
        thresholds: THRESHOLDS.to_vec(),
        bias,
        weights,
    })
}

/// Each place with what dividing there would gain.
fn examples(image: &Answered, params: &PostprocParams) -> Vec<([f64; DIVISION_TRAITS], f64)> {
    let of_blob = |blob| divisions(blob, params, &THRESHOLDS, image.mpp);
    let branches = image.blobs.iter().flat_map(of_blob);
    branches
        .map(|b| (b.traits.as_array(), gain(image, &b)))
        .collect()
}

fn gain(image: &Answered, branch: &Branch) -> f64 {
    let matched = |nucleus| Some(image.under(nucleus).overlap).filter(|o| *o > 0.5);
    let parts: f64 = branch.parts.iter().filter_map(matched).sum();
    let more = branch.parts.len() as f64 - 1.0;
    parts - matched(&branch.whole).unwrap_or(0.0) - COST_OF_A_PART * more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nuclei::{DivisionTraits, Nucleus, Run};

    /// A full box of one row.
    fn row(x: i32, w: i32) -> Nucleus {
        Nucleus::from_runs(&[Run {
            y: 0,
            x0: x,
            x1: x + w,
        }])
    }

    #[test]
    fn gain_is_what_parts_match_less_what_the_whole_did_and_a_quarter_a_part() {
        // Two true nuclei of 10 px side by side.
        let ids: Vec<u32> = (0..20).map(|x| 1 + x / 10).collect();
        let image = Answered::of(&ids, 20);
        let gain_of = |whole: Nucleus, parts: Vec<Nucleus>| {
            gain(
                &image,
                &Branch::new(whole, parts, DivisionTraits::default()),
            )
        };
        // The whole overlaps either by half: no match. The parts are right but for one pixel: 10 / 11 and 9 / 10.
        let found = gain_of(row(0, 20), vec![row(0, 11), row(11, 9)]);
        assert!(
            (found - (10.0 / 11.0 + 0.9 - 0.25)).abs() < 1e-12,
            "{found}"
        );
        // A nucleus cut in two halves, each of which overlaps it by half at most.
        let found = gain_of(row(0, 10), vec![row(0, 5), row(5, 5)]);
        assert!((found - (-1.0 - 0.25)).abs() < 1e-12, "{found}");
    }
}
