//! Scores of detections: F1d by pairing centroids, F1 per type (Graham et al. 2019, section 4.3).

use super::assignment::assign_at_least_cost;
use crate::labels::Detections;

/// Counts summed over images; the scores are computed from the sums.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct TypeScores {
    pub paired: u64,
    pub unpaired_truth: u64,
    pub unpaired_pred: u64,
    /// `confusion[truth][pred]` over pairs.
    pub confusion: Vec<Vec<u64>>,
    pub unpaired_truth_types: Vec<u64>,
    pub unpaired_pred_types: Vec<u64>,
}

impl TypeScores {
    /// Empty counts for `types` types, the background (0, which also means "unknown") included.
    pub fn new(types: usize) -> Self {
        Self {
            confusion: vec![vec![0; types]; types],
            unpaired_truth_types: vec![0; types],
            unpaired_pred_types: vec![0; types],
            ..Self::default()
        }
    }

    /// Adds one image; points pair within `radius_px`. Returns its pairs (truth, prediction).
    pub fn add(
        &mut self,
        truth: &Detections,
        pred: &Detections,
        radius_px: f64,
    ) -> Vec<(usize, usize)> {
        let pairs = pair_points(truth, pred, radius_px);
        let mut truth_paired = vec![false; truth.points.len()];
        let mut pred_paired = vec![false; pred.points.len()];
        for &(t, p) in &pairs {
            (truth_paired[t], pred_paired[p]) = (true, true);
            self.paired += 1;
            self.confusion[usize::from(truth.types[t])][usize::from(pred.types[p])] += 1;
        }
        for (t, _) in truth_paired.iter().enumerate().filter(|p| !p.1) {
            self.unpaired_truth += 1;
            self.unpaired_truth_types[usize::from(truth.types[t])] += 1;
        }
        for (p, _) in pred_paired.iter().enumerate().filter(|p| !p.1) {
            self.unpaired_pred += 1;
            self.unpaired_pred_types[usize::from(pred.types[p])] += 1;
        }
        pairs
    }

    /// Adds the counts of other images.
    pub fn merge(&mut self, other: &Self) {
        self.paired += other.paired;
        self.unpaired_truth += other.unpaired_truth;
        self.unpaired_pred += other.unpaired_pred;
        let add = |mine: &mut Vec<u64>, theirs: &[u64]| {
            mine.iter_mut().zip(theirs).for_each(|(m, t)| *m += t)
        };
        self.confusion
            .iter_mut()
            .zip(&other.confusion)
            .for_each(|(m, t)| add(m, t));
        add(&mut self.unpaired_truth_types, &other.unpaired_truth_types);
        add(&mut self.unpaired_pred_types, &other.unpaired_pred_types);
    }

    /// Whether there are predictions, and none of them has a type.
    pub fn has_untyped_preds_only(&self) -> bool {
        let of_type = |p: usize| {
            let paired: u64 = self.confusion.iter().map(|row| row[p]).sum();
            paired + self.unpaired_pred_types[p]
        };
        let typed = (1..self.unpaired_pred_types.len()).any(|p| of_type(p) > 0);
        !typed && self.paired + self.unpaired_pred > 0
    }

    /// F1 of detection, regardless of type.
    pub fn f1d(&self) -> f64 {
        ratio(
            2 * self.paired,
            2 * self.paired + self.unpaired_truth + self.unpaired_pred,
        )
    }

    /// F1 of the type `id`: 2 TP / (2 TP + 2 FPc + 2 FNc + FPd + FNd). Pairs whose true type is
    /// unknown (0) do not count.
    pub fn f1_type(&self, id: usize) -> f64 {
        let tp = self.confusion[id][id];
        let known = 1..self.confusion.len();
        let fp_class: u64 = known
            .filter(|&t| t != id)
            .map(|t| self.confusion[t][id])
            .sum();
        let fn_class: u64 = self.confusion[id].iter().sum::<u64>() - tp;
        let unpaired = self.unpaired_truth_types[id] + self.unpaired_pred_types[id];
        ratio(2 * tp, 2 * (tp + fp_class + fn_class) + unpaired)
    }
}

/// One-to-one pairs: first the assignment of least total distance over all points, then pairs
/// farther apart than `radius_px` are dropped (as hover_net does).
fn pair_points(truth: &Detections, pred: &Detections, radius_px: f64) -> Vec<(usize, usize)> {
    let distance = |t: usize, p: usize| {
        let ([ax, ay], [bx, by]) = (truth.points[t], pred.points[p]);
        (ax - bx).hypot(ay - by)
    };
    let mut pairs = assign_at_least_cost(truth.points.len(), pred.points.len(), distance);
    pairs.retain(|&(t, p)| distance(t, p) <= radius_px);
    pairs
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_within_the_radius_by_hand() {
        let truth = Detections {
            points: vec![[0.0, 0.0], [20.0, 0.0], [100.0, 0.0]],
            types: vec![1, 2, 1],
        };
        let pred = Detections {
            points: vec![[3.0, 4.0], [21.0, 0.0], [150.0, 0.0]],
            types: vec![1, 1, 2],
        };
        let mut s = TypeScores::new(3);
        s.add(&truth, &pred, 12.0);
        assert_eq!((s.paired, s.unpaired_truth, s.unpaired_pred), (2, 1, 1));
        assert!((s.f1d() - 4.0 / 6.0).abs() < 1e-12);
        // Type 1: one right, one false (truth 2), one truth unpaired. Type 2: one missed by class,
        // one pred unpaired.
        assert!((s.f1_type(1) - 2.0 / (2.0 + 2.0 + 1.0)).abs() < 1e-12);
        assert_eq!(s.f1_type(2), 0.0);
    }
}
