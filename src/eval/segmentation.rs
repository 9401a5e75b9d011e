//! Scores of instance maps: DICE, AJI (Kumar et al. 2017), AJI+ (Graham et al. 2019), DQ, SQ, PQ
//! (Kirillov et al. 2019).

use std::collections::BTreeMap;

use super::assignment::assign_at_least_cost;

/// Scores of one image: 1 where truth and prediction are both empty, 0 where one of them is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Segmentation {
    /// Twice the shared pixels over the sum of both areas, nuclei against background.
    pub dice: f64,
    /// Aggregated Jaccard index: each true nucleus takes the prediction of highest IoU.
    pub aji: f64,
    /// The same with a one-to-one assignment of predictions to true nuclei.
    pub aji_plus: f64,
    /// Detection quality: F1 of the pairs with IoU > 0.5.
    pub dq: f64,
    /// Segmentation quality: mean IoU of those pairs.
    pub sq: f64,
    /// Panoptic quality: `dq * sq`.
    pub pq: f64,
}

/// Number of pixels of each true id, of each predicted id, and of each pair of ids that share some.
#[derive(Default)]
struct Overlaps {
    truth: BTreeMap<u32, u64>,
    pred: BTreeMap<u32, u64>,
    both: BTreeMap<(u32, u32), u64>,
}

/// Compares two instance maps of equal size (0 = background).
///
/// ```
/// use wsi_nuclei::score_maps;
///
/// let truth = [1, 1, 1, 0, 2, 2, 0, 0];
/// // Two of the three pixels of nucleus 1, and nothing of nucleus 2.
/// let found = [1, 1, 0, 0, 0, 0, 0, 0];
/// let scores = score_maps(&truth, &found);
/// assert_eq!(scores.sq, 2.0 / 3.0);
/// assert_eq!(scores.dq, 2.0 / 3.0);
/// assert_eq!(scores.pq, scores.dq * scores.sq);
/// assert_eq!(scores.aji, 2.0 / 5.0);
/// assert_eq!(scores.dice, 4.0 / 7.0);
/// ```
pub fn score_maps(truth: &[u32], pred: &[u32]) -> Segmentation {
    let o = count_overlaps(truth, pred);
    if o.truth.is_empty() || o.pred.is_empty() {
        let both_empty = o.truth.is_empty() && o.pred.is_empty();
        let v = f64::from(u8::from(both_empty));
        return Segmentation {
            dice: v,
            aji: v,
            aji_plus: v,
            dq: v,
            sq: v,
            pq: v,
        };
    }
    let counts = Panoptic::of_overlaps(&o);
    let (dq, sq) = (counts.dq(), counts.sq());
    Segmentation {
        dice: dice(&o),
        aji: aji(&o),
        aji_plus: aji_plus(&o),
        dq,
        sq,
        pq: dq * sq,
    }
}

/// Mean of each score over images; `None` without images.
pub fn mean_scores(scores: &[Segmentation]) -> Option<Segmentation> {
    let mean =
        |part: fn(&Segmentation) -> f64| scores.iter().map(part).sum::<f64>() / scores.len() as f64;
    (!scores.is_empty()).then(|| Segmentation {
        dice: mean(|s| s.dice),
        aji: mean(|s| s.aji),
        aji_plus: mean(|s| s.aji_plus),
        dq: mean(|s| s.dq),
        sq: mean(|s| s.sq),
        pq: mean(|s| s.pq),
    })
}

fn count_overlaps(truth: &[u32], pred: &[u32]) -> Overlaps {
    let mut o = Overlaps::default();
    for (&t, &p) in truth.iter().zip(pred) {
        if t > 0 {
            *o.truth.entry(t).or_default() += 1;
        }
        if p > 0 {
            *o.pred.entry(p).or_default() += 1;
        }
        if t > 0 && p > 0 {
            *o.both.entry((t, p)).or_default() += 1;
        }
    }
    o
}

impl Overlaps {
    fn union(&self, t: u32, p: u32) -> u64 {
        self.truth[&t] + self.pred[&p] - self.both.get(&(t, p)).copied().unwrap_or(0)
    }

    fn iou(&self, t: u32, p: u32) -> f64 {
        self.both
            .get(&(t, p))
            .map_or(0.0, |&n| n as f64 / self.union(t, p) as f64)
    }
}

fn dice(o: &Overlaps) -> f64 {
    let sum = |m: &BTreeMap<u32, u64>| m.values().sum::<u64>() as f64;
    2.0 * o.both.values().sum::<u64>() as f64 / (sum(&o.truth) + sum(&o.pred))
}

/// The counts behind PQ, which may be summed over images.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Panoptic {
    pub paired: u64,
    pub unpaired_truth: u64,
    pub unpaired_pred: u64,
    pub iou_sum: f64,
}

impl Panoptic {
    /// Counts the pairs with IoU > 0.5 of two instance maps of equal size; such pairs are unique.
    pub fn of(truth: &[u32], pred: &[u32]) -> Self {
        Self::of_overlaps(&count_overlaps(truth, pred))
    }

    fn of_overlaps(o: &Overlaps) -> Self {
        let matched = o.both.keys().map(|&(t, p)| o.iou(t, p));
        let mut counts = Self::default();
        for iou in matched.filter(|&iou| iou > 0.5) {
            counts.paired += 1;
            counts.iou_sum += iou;
        }
        counts.unpaired_truth = o.truth.len() as u64 - counts.paired;
        counts.unpaired_pred = o.pred.len() as u64 - counts.paired;
        counts
    }

    /// Adds the counts of other images.
    pub fn merge(&mut self, other: &Self) {
        self.paired += other.paired;
        self.unpaired_truth += other.unpaired_truth;
        self.unpaired_pred += other.unpaired_pred;
        self.iou_sum += other.iou_sum;
    }

    /// Whether neither truth nor prediction has a nucleus.
    pub fn is_empty(&self) -> bool {
        self.paired + self.unpaired_truth + self.unpaired_pred == 0
    }

    /// F1 of the pairs.
    pub fn dq(&self) -> f64 {
        let tp = self.paired as f64;
        tp / (tp + 0.5 * (self.unpaired_truth + self.unpaired_pred) as f64)
    }

    /// Mean IoU of the pairs, 0 without pairs.
    pub fn sq(&self) -> f64 {
        if self.paired == 0 {
            return 0.0;
        }
        self.iou_sum / self.paired as f64
    }

    /// DQ x SQ; 1 where truth and prediction are both empty.
    pub fn pq(&self) -> f64 {
        if self.is_empty() {
            return 1.0;
        }
        self.dq() * self.sq()
    }
}

/// AJI. Each true nucleus is paired with the prediction of largest IoU (several may share one);
/// unpaired predictions count in full. Of two equal IoUs the larger pair counts, as in hover_net,
/// which adds 1e-6 to each union.
fn aji(o: &Overlaps) -> f64 {
    let mut best: BTreeMap<u32, (u64, u64, u32)> = BTreeMap::new();
    for (&(t, p), &shared) in &o.both {
        let union = o.union(t, p);
        let better = |&(shared_b, union_b, _): &(u64, u64, u32)| {
            let (this, that) = (
                u128::from(shared) * u128::from(union_b),
                u128::from(shared_b) * u128::from(union),
            );
            this > that || (this == that && union > union_b)
        };
        if best.get(&t).is_none_or(better) {
            best.insert(t, (shared, union, p));
        }
    }
    let pairs: Vec<(u32, u32)> = best.iter().map(|(&t, &(.., p))| (t, p)).collect();
    aggregate_jaccard(o, &pairs)
}

/// AJI+: as AJI, with the one-to-one pairing of largest total IoU.
fn aji_plus(o: &Overlaps) -> f64 {
    let truth: Vec<u32> = o.truth.keys().copied().collect();
    let pred: Vec<u32> = o.pred.keys().copied().collect();
    let pairs: Vec<(u32, u32)> =
        assign_at_least_cost(truth.len(), pred.len(), |t, p| -o.iou(truth[t], pred[p]))
            .into_iter()
            .map(|(t, p)| (truth[t], pred[p]))
            .filter(|&(t, p)| o.iou(t, p) > 0.0)
            .collect();
    aggregate_jaccard(o, &pairs)
}

/// Shared pixels over united pixels: of the pairs, and of all nuclei that are in no pair.
fn aggregate_jaccard(o: &Overlaps, pairs: &[(u32, u32)]) -> f64 {
    let shared: u64 = pairs.iter().map(|pair| o.both[pair]).sum();
    let mut union: u64 = pairs.iter().map(|&(t, p)| o.union(t, p)).sum();
    union += o
        .truth
        .iter()
        .filter(|(t, _)| !pairs.iter().any(|(pt, _)| pt == *t))
        .map(|(_, n)| n)
        .sum::<u64>();
    union += o
        .pred
        .iter()
        .filter(|(p, _)| !pairs.iter().any(|(_, pp)| pp == *p))
        .map(|(_, n)| n)
        .sum::<u64>();
    shared as f64 / union as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_maps_score_one() {
        let map = [0, 1, 1, 2, 2, 0];
        let s = score_maps(&map, &map);
        assert_eq!([s.dice, s.aji, s.aji_plus, s.dq, s.sq, s.pq], [1.0; 6]);
    }

    #[test]
    fn a_split_nucleus_by_hand() {
        // Truth 1 has 6 px; the prediction has 4 of them as 1 and 2 as 2.
        let s = score_maps(&[1, 1, 1, 1, 1, 1, 0], &[1, 1, 1, 1, 2, 2, 0]);
        assert_eq!(s.dice, 1.0);
        assert!((s.sq - 4.0 / 6.0).abs() < 1e-12);
        assert!((s.dq - 1.0 / 1.5).abs() < 1e-12);
        // 4 px are shared, the union is 6, and the unpaired prediction adds 2.
        let mut twice = Panoptic::of(&[1, 1, 1, 1, 1, 1, 0], &[1, 1, 1, 1, 2, 2, 0]);
        twice.merge(&twice.clone());
        assert_eq!(
            (twice.paired, twice.unpaired_truth, twice.unpaired_pred),
            (2, 0, 2)
        );
        assert!((twice.pq() - s.pq).abs() < 1e-12);
        assert!((s.aji - 4.0 / 8.0).abs() < 1e-12);
        assert!((s.aji_plus - 4.0 / 8.0).abs() < 1e-12);
    }

    #[test]
    fn empty_images() {
        assert_eq!(score_maps(&[0, 0], &[0, 0]).pq, 1.0);
        assert_eq!(score_maps(&[0, 1], &[0, 0]).pq, 0.0);
        assert_eq!(score_maps(&[0, 0], &[0, 1]).pq, 0.0);
    }
}
