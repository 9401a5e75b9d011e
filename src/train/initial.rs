//! Random weights before the first step.
//!
//! In: a shape, a standard deviation, a generator. Out: normal numbers, a pure function of the
//! generator's seed. Never draws from libtorch's generator: the whole process shares it, so any
//! other use of it would change the weights.

use fastrand::Rng;
use tch::Tensor;

/// Normal numbers of mean 0 and deviation `spread`, f32 of `shape`, by Box and Muller 1958.
pub fn draw_normal(shape: &[i64], spread: f64, rng: &mut Rng) -> Tensor {
    let n = shape.iter().product::<i64>() as usize;
    let mut values = Vec::with_capacity(n + 1);
    while values.len() < n {
        // 1 - u is never 0, so its logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * spread;
        let (sin, cos) = (rng.f64() * std::f64::consts::TAU).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(n);
    Tensor::from_slice(&values).view(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn numbers_are_normal_and_follow_from_the_seed() {
        let draw = |seed| draw_normal(&[40, 5, 50, 9], 0.3, &mut Rng::with_seed(seed));
        let (a, b) = (draw(1), draw(2));
        assert_eq!(a, draw(1));
        assert_ne!(a, b);
        let n = a.numel() as f64;
        let moment = |p: i64| {
            (&a / 0.3)
                .pow_tensor_scalar(p)
                .sum(Kind::Double)
                .double_value(&[])
                / n
        };
        // Four standard errors of the moments of 90,000 normal numbers: 1/n, 2/n, 96/n.
        assert!(moment(1).abs() < 4.0 * (1.0 / n).sqrt(), "{}", moment(1));
        assert!(
            (moment(2) - 1.0).abs() < 4.0 * (2.0 / n).sqrt(),
            "{}",
            moment(2)
        );
        assert!(
            (moment(4) - 3.0).abs() < 4.0 * (96.0 / n).sqrt(),
            "{}",
            moment(4)
        );
    }

    #[test]
    fn an_odd_number_of_values_can_be_drawn() {
        assert_eq!(draw_normal(&[3], 1.0, &mut Rng::with_seed(4)).size(), [3]);
    }
}
