//! Calibration: whether predicted types are right as often as their probabilities say.
//!
//! In: for many nuclei the probability of the predicted type, and whether it was right. Out: the
//! expected calibration error (Naeini et al. 2015; ten bins of equal width), the Brier score of the
//! predicted type, and the bins for a plot.

/// Number of bins of equal width over 0..=1.
pub const BINS: usize = 10;

/// Sums over nuclei, which may be added over images.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Calibration {
    pub bins: [Bin; BINS],
    pub squared_error_sum: f64,
}

/// The nuclei whose probabilities fall into one bin.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Bin {
    pub nuclei: u64,
    /// Nuclei whose predicted type is the true one.
    pub right: u64,
    pub prob_sum: f64,
}

impl Calibration {
    /// Adds a nucleus whose predicted type has probability `prob`.
    pub fn add(&mut self, prob: f64, right: bool) {
        let bin = &mut self.bins[((prob * BINS as f64) as usize).min(BINS - 1)];
        bin.nuclei += 1;
        bin.right += u64::from(right);
        bin.prob_sum += prob;
        self.squared_error_sum += (prob - f64::from(u8::from(right))).powi(2);
    }

    /// Adds the sums of other images.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            mine.nuclei += theirs.nuclei;
            mine.right += theirs.right;
            mine.prob_sum += theirs.prob_sum;
        }
        self.squared_error_sum += other.squared_error_sum;
    }

    pub fn nuclei(&self) -> u64 {
        self.bins.iter().map(|b| b.nuclei).sum()
    }

    /// Expected calibration error: the distance between a bin's mean probability and its share of
    /// right types, averaged over nuclei. `None` without nuclei.
    pub fn ece(&self) -> Option<f64> {
        let all = self.nuclei() as f64;
        let gap = |b: &Bin| (b.prob_sum - b.right as f64).abs();
        (all > 0.0).then(|| self.bins.iter().map(gap).sum::<f64>() / all)
    }

    /// Mean squared distance of the probability from the outcome (0 or 1); `None` without nuclei.
    pub fn brier(&self) -> Option<f64> {
        let all = self.nuclei() as f64;
        (all > 0.0).then(|| self.squared_error_sum / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_by_hand() {
        let mut c = Calibration::default();
        assert_eq!((c.ece(), c.brier()), (None, None));
        // Bin 9: probabilities .9 and 1.0, one right; bin 5: .5, right.
        c.add(0.9, true);
        c.add(1.0, false);
        c.add(0.5, true);
        let mut two = Calibration::default();
        two.merge(&c);
        assert!((two.ece().unwrap() - (0.9 + 0.5) / 3.0).abs() < 1e-12);
        assert!((two.brier().unwrap() - (0.01 + 1.0 + 0.25) / 3.0).abs() < 1e-12);
    }
}
