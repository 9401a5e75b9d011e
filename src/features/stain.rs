//! Colour, stain and type entropy of one nucleus, from its sums.
//!
//! In: a [`Nucleus`]. Out: means and standard deviations over its pixels, and the entropy of its
//! class probabilities. Never sees the pixels.

use crate::nuclei::{Nucleus, OD_SCALE};

/// Means and population standard deviations over a nucleus's pixels; all 0 for a nucleus without
/// pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stain {
    /// Red, green, blue, 0..=255.
    pub rgb_mean: [f64; 3],
    /// Optical density of the stain (colour deconvolution of Ruifrok and Johnston 2001).
    pub hematoxylin_od_mean: f64,
    pub hematoxylin_od_std: f64,
    pub eosin_od_mean: f64,
    pub eosin_od_std: f64,
}

/// Colour and stain of a nucleus.
pub fn stain(nucleus: &Nucleus) -> Stain {
    let n = nucleus.area_px;
    if n == 0 {
        return Stain::default();
    }
    let sums = &nucleus.stain;
    let [hematoxylin_od_mean, hematoxylin_od_std] =
        mean_and_std(n, sums.hematoxylin, sums.hematoxylin_sq);
    let [eosin_od_mean, eosin_od_std] = mean_and_std(n, sums.eosin, sums.eosin_sq);
    Stain {
        rgb_mean: sums.rgb.map(|sum| sum as f64 / f64::from(n)),
        hematoxylin_od_mean,
        hematoxylin_od_std,
        eosin_od_mean,
        eosin_od_std,
    }
}

/// Mean and population standard deviation of `n` optical densities from their sum and sum of
/// squares, which are in units of 1 / [`OD_SCALE`]. The difference of squares is computed in exact
/// integers.
pub(super) fn mean_and_std(n: u32, sum: i64, sum_sq: u64) -> [f64; 2] {
    let spread = i128::from(n) * i128::from(sum_sq) - i128::from(sum) * i128::from(sum);
    let n = f64::from(n);
    [
        sum as f64 / n / OD_SCALE,
        (spread.max(0) as f64).sqrt() / n / OD_SCALE,
    ]
}

/// Shannon entropy of the mean class probabilities, nats: 0 if one class is certain, ln(types) if
/// all are equally likely; 0 for a model without types.
pub fn type_entropy(nucleus: &Nucleus) -> f64 {
    let total: f64 = nucleus.prob_sums.iter().map(|&sum| f64::from(sum)).sum();
    let entropy: f64 = nucleus
        .prob_sums
        .iter()
        .filter(|&&sum| sum > 0)
        .map(|&sum| {
            let p = f64::from(sum) / total;
            -p * p.ln()
        })
        .sum();
    // The sum of no terms is -0.
    entropy + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nuclei::StainSums;

    fn nucleus(prob_sums: Vec<u32>) -> Nucleus {
        Nucleus {
            type_counts: vec![0; prob_sums.len()],
            prob_sums,
            np_sum: 500,
            // Two pixels: hematoxylin 0.3 and 0.5, eosin -0.1 and 0.2.
            stain: StainSums {
                rgb: [300, 200, 101],
                hematoxylin: 8000,
                hematoxylin_sq: 3000 * 3000 + 5000 * 5000,
                eosin: 1000,
                eosin_sq: 1000 * 1000 + 2000 * 2000,
            },
            ..Nucleus::drawn(0, 0, &["##"])
        }
    }

    #[test]
    fn means_and_standard_deviations_of_two_pixels() {
        let stain = stain(&nucleus(vec![]));
        assert_eq!(stain.rgb_mean, [150.0, 100.0, 50.5]);
        assert!((stain.hematoxylin_od_mean - 0.4).abs() < 1e-12);
        assert!((stain.hematoxylin_od_std - 0.1).abs() < 1e-12);
        assert!((stain.eosin_od_mean - 0.05).abs() < 1e-12);
        assert!((stain.eosin_od_std - 0.15).abs() < 1e-12);
    }

    #[test]
    fn entropy_runs_from_sure_to_even() {
        assert_eq!(type_entropy(&nucleus(vec![0, 510, 0])), 0.0);
        assert!((type_entropy(&nucleus(vec![7, 7, 7])) - 3f64.ln()).abs() < 1e-12);
        assert_eq!(type_entropy(&nucleus(vec![])).to_bits(), 0);
    }
}
