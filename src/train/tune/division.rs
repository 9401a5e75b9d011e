//! Where to divide blobs, learnt from labelled images.
//!
//! In: what a model finds on the images of its training, its constants. Out: the [`Division`] whose
//! expected gain is, by least squares, closest to the true gain in PQ of dividing a blob.

use super::least_squares::fit_linear;
use super::training_images::{TrainingImage, TrainingSets};
use crate::nuclei::{Branch, DIVISION_TRAITS, Division, PostprocParams, divisions};

/// Thresholds of the energy between which the rule chooses; seven gained no more than these.
const THRESHOLDS: [f32; 4] = [0.8, 0.5, 0.3, 0.15];
/// Cost of one more predicted nucleus, in units of overlap: PQ = 2 Σ overlap / (predicted + true),
/// so at a PQ of 0.5 it is a quarter.
const COST_PER_PART: f64 = 0.25;

/// Fits the rule; every set has the same weight. `None` if too few blobs can be divided.
pub(super) fn fit_division(sets: &TrainingSets, params: &PostprocParams) -> Option<Division> {
    let examples_of_set =
        |images: &Vec<TrainingImage>| images.iter().flat_map(|i| examples(i, params)).collect();
    let by_set: Vec<Vec<([f64; DIVISION_TRAITS], f64)>> =
        sets.values().map(examples_of_set).collect();
    let places: usize = by_set.iter().map(Vec::len).sum();
    tracing::info!("expected gain: fitted to {places} places where a blob may be divided");
    let (bias, weights) = fit_linear(&by_set)?;
    Some(Division {
        thresholds: THRESHOLDS.to_vec(),
        bias,
        weights,
    })
}

/// The traits of each possible division in an image, with its true gain.
fn examples(image: &TrainingImage, params: &PostprocParams) -> Vec<([f64; DIVISION_TRAITS], f64)> {
    let divisions_of = |blob| divisions(blob, params, &THRESHOLDS, image.mpp);
    let branches = image.blobs.iter().flat_map(divisions_of);
    branches
        .map(|b| (b.traits.as_array(), gain(image, &b)))
        .collect()
}

/// Overlap that the parts match more than the whole does, less the cost of having more nuclei.
fn gain(image: &TrainingImage, branch: &Branch) -> f64 {
    let matched = |nucleus| Some(image.compare(nucleus).iou).filter(|iou| *iou > 0.5);
    let parts: f64 = branch.parts.iter().filter_map(matched).sum();
    let more = branch.parts.len() as f64 - 1.0;
    parts - matched(&branch.whole).unwrap_or(0.0) - COST_PER_PART * more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nuclei::{DivisionTraits, Nucleus, Run};

    /// A nucleus that fills a box of one row.
    fn row(x: i32, w: i32) -> Nucleus {
        Nucleus::from_runs(&[Run {
            y: 0,
            x0: x,
            x1: x + w,
        }])
    }

    #[test]
    fn the_gain_is_the_matched_overlap_less_a_quarter_per_added_part() {
        // Two true nuclei of 10 px side by side.
        let ids: Vec<u32> = (0..20).map(|x| 1 + x / 10).collect();
        let image = TrainingImage::from_truth(&ids, 20);
        let gain_of = |whole: Nucleus, parts: Vec<Nucleus>| {
            gain(
                &image,
                &Branch::new(whole, parts, DivisionTraits::default()),
            )
        };
        // The whole overlaps either by half: no match. The parts are right but for one pixel: 10 /
        // 11 and 9 / 10.
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
