//! Scores of instance maps: DICE, AJI (Kumar et al. 2017), AJI+ (Graham et al. 2019), DQ, SQ, PQ (Kirillov et al. 2019).

use std::collections::BTreeMap;

use super::assignment::least_cost;

/// Scores of one image. Images without truth and prediction score 1, with only one of them 0.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Segmentation {
    pub dice: f64,
    pub aji: f64,
    pub aji_plus: f64,
    pub dq: f64,
    pub sq: f64,
    pub pq: f64,
}

/// Pixels of each truth and predicted id, and of each pair that shares some.
struct Overlaps {
    truth: BTreeMap<u32, u64>,
    pred: BTreeMap<u32, u64>,
    both: BTreeMap<(u32, u32), u64>,
}

/// Compares two instance maps of equal size (0 = background).
pub fn score(truth: &[u32], pred: &[u32]) -> Segmentation {
    let o = overlaps(truth, pred);
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
    let (dq, sq) = panoptic(&o);
    Segmentation {
        dice: dice(&o),
        aji: aji(&o),
        aji_plus: aji_plus(&o),
        dq,
        sq,
        pq: dq * sq,
    }
}

/// Mean of each score; `None` of nothing.
pub fn mean(scores: &[Segmentation]) -> Option<Segmentation> {
    let of =
        |part: fn(&Segmentation) -> f64| scores.iter().map(part).sum::<f64>() / scores.len() as f64;
    (!scores.is_empty()).then(|| Segmentation {
        dice: of(|s| s.dice),
        aji: of(|s| s.aji),
        aji_plus: of(|s| s.aji_plus),
        dq: of(|s| s.dq),
        sq: of(|s| s.sq),
        pq: of(|s| s.pq),
    })
}

fn overlaps(truth: &[u32], pred: &[u32]) -> Overlaps {
    let mut o = Overlaps {
        truth: BTreeMap::new(),
        pred: BTreeMap::new(),
        both: BTreeMap::new(),
    };
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

/// Pairs with IoU > 0.5 are unique; DQ = F1 of them, SQ = their mean IoU.
fn panoptic(o: &Overlaps) -> (f64, f64) {
    let matched: Vec<f64> = o
        .both
        .keys()
        .map(|&(t, p)| o.iou(t, p))
        .filter(|&iou| iou > 0.5)
        .collect();
    let tp = matched.len() as f64;
    let (fp, fnn) = (o.pred.len() as f64 - tp, o.truth.len() as f64 - tp);
    let dq = tp / (tp + 0.5 * fp + 0.5 * fnn);
    let sq = if matched.is_empty() {
        0.0
    } else {
        matched.iter().sum::<f64>() / tp
    };
    (dq, sq)
}

/// Each truth takes its best prediction (several may take the same); predictions that nobody took count whole.
fn aji(o: &Overlaps) -> f64 {
    let mut best: BTreeMap<u32, (f64, u32)> = BTreeMap::new();
    for &(t, p) in o.both.keys() {
        let iou = o.iou(t, p);
        if best.get(&t).is_none_or(|b| iou > b.0) {
            best.insert(t, (iou, p));
        }
    }
    let pairs: Vec<(u32, u32)> = best.iter().map(|(&t, &(_, p))| (t, p)).collect();
    jaccard_of(o, &pairs)
}

/// As AJI, with the one-to-one pairing of the largest total IoU.
fn aji_plus(o: &Overlaps) -> f64 {
    let truth: Vec<u32> = o.truth.keys().copied().collect();
    let pred: Vec<u32> = o.pred.keys().copied().collect();
    let pairs: Vec<(u32, u32)> =
        least_cost(truth.len(), pred.len(), |t, p| -o.iou(truth[t], pred[p]))
            .into_iter()
            .map(|(t, p)| (truth[t], pred[p]))
            .filter(|&(t, p)| o.iou(t, p) > 0.0)
            .collect();
    jaccard_of(o, &pairs)
}

fn jaccard_of(o: &Overlaps, pairs: &[(u32, u32)]) -> f64 {
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
        let s = score(&map, &map);
        assert_eq!([s.dice, s.aji, s.aji_plus, s.dq, s.sq, s.pq], [1.0; 6]);
    }

    #[test]
    fn a_split_nucleus_by_hand() {
        // Truth 1 has 6 px; the prediction has 4 of them as 1 and 2 as 2.
        let s = score(&[1, 1, 1, 1, 1, 1, 0], &[1, 1, 1, 1, 2, 2, 0]);
        assert_eq!(s.dice, 1.0);
        assert!((s.sq - 4.0 / 6.0).abs() < 1e-12);
        assert!((s.dq - 1.0 / 1.5).abs() < 1e-12);
        // Shared 4, union 6, and the piece that nobody took counts 2.
        assert!((s.aji - 4.0 / 8.0).abs() < 1e-12);
        assert!((s.aji_plus - 4.0 / 8.0).abs() < 1e-12);
    }

    #[test]
    fn empty_images() {
        assert_eq!(score(&[0, 0], &[0, 0]).pq, 1.0);
        assert_eq!(score(&[0, 1], &[0, 0]).pq, 0.0);
        assert_eq!(score(&[0, 0], &[0, 1]).pq, 0.0);
    }
}
