//! A line through examples, for the rules that `model tune` fits.
//!
//! In: examples of each data set, numbers and the answer they should give. Out: bias and weights. Never weighs a large
//! set more than a small one.

use tch::{Kind, Tensor};

/// Fewer examples than this a weight say too little.
const EXAMPLES_A_WEIGHT: usize = 20;

/// Bias and weights with the least squared error, every set with the same say. `None` where there are too few examples.
pub(super) fn least_squares<const N: usize>(
    by_set: &[Vec<([f64; N], f64)>],
) -> Option<(f64, [f64; N])> {
    let size = N + 1;
    if by_set.iter().map(Vec::len).sum::<usize>() < EXAMPLES_A_WEIGHT * size {
        return None;
    }
    let mut products = vec![0.0f64; size * size];
    let mut answers = vec![0.0f64; size];
    for examples in by_set.iter().filter(|e| !e.is_empty()) {
        let weight = 1.0 / examples.len() as f64;
        for (numbers, answer) in examples {
            let row = |i: usize| if i == 0 { 1.0 } else { numbers[i - 1] };
            for i in 0..size {
                answers[i] += weight * row(i) * answer;
                for j in 0..size {
                    products[i * size + j] += weight * row(i) * row(j);
                }
            }
        }
    }
    let matrix = Tensor::from_slice(&products).view([size as i64; 2]);
    // The least norm where numbers say the same twice.
    let inverse = matrix.linalg_pinv(1e-10, true);
    let found = inverse.matmul(&Tensor::from_slice(&answers).view([size as i64, 1]));
    let value = |i: usize| found.to_kind(Kind::Double).double_value(&[i as i64, 0]);
    Some((value(0), std::array::from_fn(|i| value(i + 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 8;

    fn examples(rng: &mut fastrand::Rng, n: usize, bias: f64) -> Vec<([f64; N], f64)> {
        let example = |_| {
            let numbers: [f64; N] = std::array::from_fn(|_| rng.f64());
            let terms = truth().into_iter().zip(&numbers).map(|(w, x)| w * x);
            (numbers, bias + terms.sum::<f64>())
        };
        (0..n).map(example).collect()
    }

    fn truth() -> [f64; N] {
        std::array::from_fn(|i| 0.1 * i as f64 - 0.3)
    }

    #[test]
    fn a_linear_rule_is_found_again_and_sets_count_alike() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (bias, weights) = least_squares(&[examples(&mut rng, 400, 0.2)]).unwrap();
        assert!((bias - 0.2).abs() < 1e-9, "{bias}");
        for (f, t) in weights.iter().zip(truth()) {
            assert!((f - t).abs() < 1e-9, "{weights:?}");
        }
        // A set of 4,000 pulls no more than one of 400.
        let sets = [
            examples(&mut rng, 4000, 0.0),
            examples(&mut rng, 400, 1.0),
            Vec::new(),
        ];
        let (bias, _) = least_squares(&sets).unwrap();
        assert!((bias - 0.5).abs() < 0.05, "{bias}");
    }

    #[test]
    fn a_handful_of_examples_gives_no_rule() {
        let mut rng = fastrand::Rng::with_seed(6);
        assert!(least_squares(&[examples(&mut rng, 9 * 20 - 1, 0.0)]).is_none());
        assert!(least_squares(&[examples(&mut rng, 9 * 20, 0.0)]).is_some());
    }
}
