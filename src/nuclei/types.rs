//! The type of a nucleus from the sums over its pixels.
//!
//! In: a [`Nucleus`]. Out: its type id and the probability of it. Id 0 is background and is never
//! chosen while another type is present. Never looks at pixels.

use super::Nucleus;

impl Nucleus {
    /// The type with the greatest sum of class probabilities, background (0) left out; ties go to
    /// the lowest id. `None` for a model without types.
    pub fn type_id(&self) -> Option<usize> {
        first_greatest(self.prob_sums.iter().skip(1)).map(|i| i + 1)
    }

    /// Mean probability of class `id` over the pixels, 0..=1; 0 for an unknown id. Those of all classes add up to 1: the
    /// rounding of each pixel's probabilities to 1/255 is shared out.
    pub fn mean_probability(&self, id: usize) -> f64 {
        let sum = self.prob_sums.get(id).copied().unwrap_or(0);
        let all: u64 = self.prob_sums.iter().map(|&sum| u64::from(sum)).sum();
        f64::from(sum) / all.max(1) as f64
    }

    /// Mean probability of [`Nucleus::type_id`] over the pixels, 0..=1.
    pub fn type_prob(&self) -> Option<f64> {
        self.type_id().map(|id| self.mean_probability(id))
    }

    /// Share of the pixels whose most probable class is [`Nucleus::type_id`], 0..=1. hover_net
    /// calls it `type_prob`.
    pub fn type_share(&self) -> Option<f64> {
        self.type_id().map(|id| self.pixel_share(id))
    }

    /// hover_net's type and `type_prob`: the class of most pixels, or, if that is background and
    /// another class is present, the next most frequent class; and its pixels over (area + 1e-6).
    /// Ties go to the lowest id.
    pub fn reference_type(&self) -> Option<(usize, f64)> {
        let most = first_greatest(self.type_counts.iter())?;
        let id = match first_greatest(self.type_counts.iter().skip(1)) {
            Some(second) if most == 0 && self.type_counts[second + 1] > 0 => second + 1,
            _ => most,
        };
        let area = f64::from(self.area_px) + 1e-6;
        Some((id, f64::from(self.type_counts[id]) / area))
    }

    /// Mean probability of nucleus over the pixels, 0..=1.
    pub fn mean_np(&self) -> f64 {
        f64::from(self.np_sum) / (255.0 * f64::from(self.area_px.max(1)))
    }

    fn pixel_share(&self, id: usize) -> f64 {
        let count = self.type_counts.get(id).copied().unwrap_or(0);
        f64::from(count) / f64::from(self.area_px.max(1))
    }
}

fn first_greatest<'a>(values: impl Iterator<Item = &'a u32>) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    for (i, &value) in values.enumerate() {
        if best.is_none_or(|(_, greatest)| value > greatest) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use crate::nuclei::Nucleus;

    fn nucleus(prob_sums: &[u32], type_counts: &[u32]) -> Nucleus {
        Nucleus {
            prob_sums: prob_sums.to_vec(),
            type_counts: type_counts.to_vec(),
            np_sum: 2040,
            ..Nucleus::drawn(0, 0, &["#####"; 2])
        }
    }

    #[test]
    fn type_is_the_most_probable_class_beside_background() {
        let n = nucleus(&[2000, 100, 225, 225], &[9, 0, 0, 1]);
        assert_eq!(n.type_id(), Some(2));
        assert_eq!(n.type_prob(), Some(225.0 / 2550.0));
        assert_eq!(n.type_share(), Some(0.0));
        assert_eq!(n.mean_np(), 0.8);
    }

    #[test]
    fn probabilities_add_up_to_one_whatever_rounding_left() {
        let n = nucleus(&[700, 1100, 730], &[1, 8, 1]);
        let sum: f64 = (0..3).map(|id| n.mean_probability(id)).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn a_model_without_types_gives_none() {
        for n in [nucleus(&[], &[]), nucleus(&[255], &[10])] {
            assert_eq!(
                (n.type_id(), n.type_prob(), n.type_share()),
                (None, None, None)
            );
        }
        assert_eq!(nucleus(&[], &[]).reference_type(), None);
    }

    #[test]
    fn reference_type_takes_the_second_class_over_background() {
        let share = |count: f64| count / (10.0 + 1e-6);
        let reference_type = |counts: &[u32]| nucleus(&[0; 4], counts).reference_type();
        assert_eq!(reference_type(&[8, 0, 2, 0]), Some((2, share(2.0))));
        assert_eq!(reference_type(&[10, 0, 0, 0]), Some((0, share(10.0))));
        assert_eq!(reference_type(&[1, 2, 5, 2]), Some((2, share(5.0))));
        assert_eq!(reference_type(&[4, 3, 3, 0]), Some((1, share(3.0))));
        assert_eq!(reference_type(&[5, 5, 0, 0]), Some((1, share(5.0))));
    }
}
