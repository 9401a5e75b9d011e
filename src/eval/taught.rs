//! What the images look like on which a model's types were taught.
//!
//! In: a model and labelled images. Out: per data set the range of the images' medians, with which
//! the report compares a slide. Never looks at a held-out image.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::held_out;
use crate::features::stain;
use crate::labels::{LabelledImage, LoadedSet, Truth};
use crate::model::Model;
use crate::nuclei::Nucleus;
use crate::pipeline::PipelineError;

/// Fewest nuclei of an image whose medians count.
const MIN_NUCLEI: usize = 50;
/// Ends of the range: percentiles of the images' medians.
const ENDS: [f64; 2] = [0.05, 0.95];

/// What is compared: the columns of nuclei.csv.
pub const MEASURES: [&str; 3] = ["area_um2", "hematoxylin_od_mean", "eosin_od_mean"];

/// Range of the images' medians of each of [`MEASURES`], and the number of images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaughtRanges {
    pub ranges: [[f64; 2]; MEASURES.len()],
    pub images: usize,
}

/// The ranges of every set whose images have types and taught, by set. Nuclei are the model's own.
pub fn measure_sets(
    model: &Model,
    sets: &[LoadedSet],
) -> Result<BTreeMap<String, TaughtRanges>, PipelineError> {
    let mut found = BTreeMap::new();
    for set in sets {
        let taught = set.images.iter().filter(|i| !i.held_out && has_types(i));
        let images: Vec<&LabelledImage> = taught.collect();
        let medians: Vec<_> = images
            .par_iter()
            .map(|image| {
                let (nuclei, mpp) = held_out::find_nuclei(model, image)?;
                Ok(medians_of(&nuclei, mpp))
            })
            .collect::<Result<Vec<_>, PipelineError>>()?;
        let medians: Vec<_> = medians.into_iter().flatten().collect();
        if let Some(ranges) = ranges_of(&medians) {
            found.insert(set.name.clone(), ranges);
        }
    }
    Ok(found)
}

fn has_types(image: &LabelledImage) -> bool {
    match &image.truth {
        Truth::Instances { types, .. } => types.iter().any(|&t| t > 0),
        Truth::Dots(dots) => dots.iter().any(|dot| dot.type_id > 0),
        Truth::Unknown => false,
    }
}

/// Medians of [`MEASURES`] over an image's nuclei; `None` if they are too few. `mpp`: µm/px (x, y).
fn medians_of(nuclei: &[Nucleus], mpp: [f64; 2]) -> Option<[f64; MEASURES.len()]> {
    if nuclei.len() < MIN_NUCLEI {
        return None;
    }
    let median =
        |value: &dyn Fn(&Nucleus) -> f64| percentile(nuclei.iter().map(value).collect(), 0.5);
    Some([
        median(&|n| f64::from(n.area_px) * mpp[0] * mpp[1]),
        median(&|n| stain(n).hematoxylin_od_mean),
        median(&|n| stain(n).eosin_od_mean),
    ])
}

fn ranges_of(medians: &[[f64; MEASURES.len()]]) -> Option<TaughtRanges> {
    if medians.is_empty() {
        return None;
    }
    let values = |place: usize| medians.iter().map(|m| m[place]).collect::<Vec<_>>();
    Some(TaughtRanges {
        ranges: std::array::from_fn(|place| ENDS.map(|end| percentile(values(place), end))),
        images: medians.len(),
    })
}

/// The value below which the share `p` of `values` (at least one) lies, between neighbours by
/// straight lines, as numpy's percentile.
fn percentile(mut values: Vec<f64>, p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = p * (values.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    values[low] + (values[high] - values[low]) * (at - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        // numpy.percentile([4, 1, 3, 2], [5, 50, 95]) = 1.15, 2.5, 3.85.
        let at = |p| percentile(vec![4.0, 1.0, 3.0, 2.0], p);
        for (p, wanted) in [(0.05, 1.15), (0.5, 2.5), (0.95, 3.85)] {
            assert!((at(p) - wanted).abs() < 1e-12, "{p}: {}", at(p));
        }
        assert_eq!(percentile(vec![7.0], 0.95), 7.0);
    }

    #[test]
    fn an_images_medians_are_in_um2_and_optical_density() {
        let nucleus = |rows: usize| {
            let mut nucleus = Nucleus::drawn(0, 0, &vec!["####"; rows]);
            let n = i64::from(nucleus.area_px);
            (nucleus.stain.hematoxylin, nucleus.stain.eosin) = (8000 * n, 2000 * n);
            nucleus
        };
        // Areas of 4, 8, … 204 px: the median of 51 is 104 px, 26 at 0.5 µm/px.
        let nuclei: Vec<Nucleus> = (1..=51).map(nucleus).collect();
        let found = medians_of(&nuclei, [0.5; 2]).unwrap();
        for (found, wanted) in found.iter().zip([26.0, 0.8, 0.2]) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
        assert_eq!(medians_of(&nuclei[..49], [0.5; 2]), None);
    }

    #[test]
    fn ranges_are_over_images() {
        let medians: Vec<[f64; 3]> = (0..=20).map(|i| [f64::from(i), 1.0, -1.0]).collect();
        let found = ranges_of(&medians).unwrap();
        assert_eq!(found.images, 21);
        assert!((found.ranges[0][0] - 1.0).abs() < 1e-12);
        assert!((found.ranges[0][1] - 19.0).abs() < 1e-12);
        assert_eq!(found.ranges[1..], [[1.0; 2], [-1.0; 2]]);
        assert_eq!(ranges_of(&[]), None);
    }
}
