//! Two networks of our own as one: outlines of the first, types of both.
//!
//! In: two folded networks with the same types. Out: a [`Network`] whose tp is the weighted mean of
//! both networks' probabilities, as logits, computed where the maps lie: whatever comes after
//! (cutting, rounding, averaged views) does not know that there are two. Never reads a file.

use tch::{Kind, Tensor};

use super::design::Folded;
use super::error::ModelError;
use super::network::{Network, RawMaps};

/// The least probability whose logarithm is taken: 0 would give an infinity.
const LEAST_PROBABILITY: f64 = 1e-30;

/// A network whose types are shared with a second one.
pub struct Joined {
    pub first: Folded,
    pub second: Folded,
    /// Weight of the second's probabilities, 0..=1.
    pub share: f64,
    /// Divisor of the logarithms of the mean.
    pub temperature: f64,
}

impl Network for Joined {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError> {
        let RawMaps { np, hv, tp } = self.first.forward(rgb)?;
        // Its np and hv go at once: they are as large as the picture.
        let second = self.second.forward(rgb)?.tp;
        let (Some(first), Some(second)) = (tp, second) else {
            return Err(ModelError::output("one of its two networks has no types"));
        };
        let tp = join_types(&first, &second, self.share, self.temperature)?;
        Ok(RawMaps {
            np,
            hv,
            tp: Some(tp),
        })
    }
}

/// Logits `[N, types, h, w]` of `softmax(ln(p) / temperature)`, where p is
/// `(1 - share) * softmax(first) + share * softmax(second)`.
fn join_types(
    first: &Tensor,
    second: &Tensor,
    share: f64,
    temperature: f64,
) -> Result<Tensor, ModelError> {
    let first = first.f_softmax(1, Kind::Float)?;
    let second = second.f_softmax(1, Kind::Float)?;
    let mean = first
        .f_mul_scalar(1.0 - share)?
        .f_add_(&second.f_mul_scalar(share)?)?;
    let logits = mean.f_clamp_min(LEAST_PROBABILITY)?.f_log()?;
    Ok(logits.f_div_scalar(temperature)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits `[1, 3, 1, 1]` of probabilities.
    fn logits(p: [f64; 3]) -> Tensor {
        Tensor::from_slice(&p.map(|p| p.ln() as f32)).view([1, 3, 1, 1])
    }

    fn joined(p: [f64; 3], q: [f64; 3], share: f64, temperature: f64) -> Vec<f32> {
        let found = join_types(&logits(p), &logits(q), share, temperature).unwrap();
        Vec::try_from(found.softmax(1, Kind::Float).flatten(0, 3)).unwrap()
    }

    fn is_near(found: &[f32], wanted: [f32; 3]) -> bool {
        found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    #[test]
    fn probabilities_are_averaged_by_the_share() {
        let (p, q) = ([0.0, 0.8, 0.2], [0.0, 0.1, 0.9]);
        let found = joined(p, q, 0.75, 1.0);
        assert!(is_near(&found, [0.0, 0.275, 0.725]), "{found:?}");
        assert!(is_near(&joined(p, q, 1.0, 1.0), [0.0, 0.1, 0.9]));
    }

    #[test]
    fn the_temperature_divides_the_logarithms_of_the_mean() {
        // The mean is 0.2 and 0.8, their roots are 1 : 2.
        let found = joined([0.0, 0.3, 0.7], [0.0, 0.1, 0.9], 0.5, 2.0);
        assert!(is_near(&found, [0.0, 1.0 / 3.0, 2.0 / 3.0]), "{found:?}");
    }

    #[test]
    fn half_precision_is_joined_in_f32() {
        let half = |p| logits(p).to_kind(Kind::Half);
        let (p, q) = ([0.1, 0.8, 0.1], [0.2, 0.1, 0.7]);
        let found = join_types(&half(p), &half(q), 0.5, 1.0).unwrap();
        assert_eq!(found.kind(), Kind::Float);
        let sum = found.softmax(1, Kind::Float).sum(Kind::Float);
        assert!((sum.double_value(&[]) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn other_numbers_of_types_are_an_error() {
        let two = Tensor::zeros([1, 2, 1, 1], (Kind::Float, tch::Device::Cpu));
        assert!(join_types(&logits([0.2, 0.3, 0.5]), &two, 0.5, 1.0).is_err());
    }
}
