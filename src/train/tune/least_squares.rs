//! Linear least squares, for the rules that `model tune` fits.
//!
//! In: examples of each data set, each of them numbers and the value they should give. Out: bias
//! and weights. A large set has no more weight than a small one.

use tch::{Kind, Tensor};

/// Fewest examples per weight.
const EXAMPLES_PER_WEIGHT: usize = 20;

/// Bias and weights with the least squared error, where every set has the same weight. `None` if
/// there are too few examples.
pub(super) fn fit_linear<const N: usize>(
    by_set: &[Vec<([f64; N], f64)>],
) -> Option<(f64, [f64; N])> {
    let size = N + 1;
    if by_set.iter().map(Vec::len).sum::<usize>() < EXAMPLES_PER_WEIGHT * size {
        return None;
    }
    let mut products = vec![0.0f64; size * size];
    let mut targets = vec![0.0f64; size];
    for examples in by_set.iter().filter(|e| !e.is_empty()) {
        let weight = 1.0 / examples.len() as f64;
        for (numbers, value) in examples {
            let row = |i: usize| if i == 0 { 1.0 } else { numbers[i - 1] };
            for i in 0..size {
                targets[i] += weight * row(i) * value;
                for j in 0..size {
                    products[i * size + j] += weight * row(i) * row(j);
                }
            }
        }
    }
    let matrix = Tensor::from_slice(&products).view([size as i64; 2]);
    // The pseudo-inverse gives the solution of least norm where numbers depend on each other.
    let inverse = matrix.linalg_pinv(1e-10, true);
    let found = inverse.matmul(&Tensor::from_slice(&targets).view([size as i64, 1]));
    let at = |i: usize| found.to_kind(Kind::Double).double_value(&[i as i64, 0]);
    Some((at(0), std::array::from_fn(|i| at(i + 1))))
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
    fn a_linear_rule_is_recovered_and_sets_have_equal_weight() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (bias, weights) = fit_linear(&[examples(&mut rng, 400, 0.2)]).unwrap();
        assert!((bias - 0.2).abs() < 1e-9, "{bias}");
        for (f, t) in weights.iter().zip(truth()) {
            assert!((f - t).abs() < 1e-9, "{weights:?}");
        }
        // A set of 4,000 examples has no more weight than one of 400.
        let sets = [
            examples(&mut rng, 4000, 0.0),
            examples(&mut rng, 400, 1.0),
            Vec::new(),
        ];
        let (bias, _) = fit_linear(&sets).unwrap();
        assert!((bias - 0.5).abs() < 0.05, "{bias}");
    }

    #[test]
    fn too_few_examples_give_no_rule() {
        let mut rng = fastrand::Rng::with_seed(6);
        assert!(fit_linear(&[examples(&mut rng, 9 * 20 - 1, 0.0)]).is_none());
        assert!(fit_linear(&[examples(&mut rng, 9 * 20, 0.0)]).is_some());
    }
}
