//! Scores of one image, and of a set of images with intervals.
//!
//! In: pairs of [`Annotation`]s. Out: [`ImageScores`], and for a set scores by name with bootstrap
//! intervals over images (Efron 1979; 1,000 resamples, percentiles 2.5 and 97.5, a fixed seed). A
//! mean over images and a score of the sums over all nuclei have different names: `pq` and
//! `pq_pooled`.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::TypeScores;
use super::calibration::Calibration;
use super::segmentation::{self, Panoptic, Segmentation};
use crate::labels::{Annotation, Detections};

const RESAMPLES: usize = 1000;
const SEED: u64 = 20_260_101;

/// All counts and scores of one image.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ImageScores {
    /// Name of the image within its data set.
    pub name: String,
    /// Absent where the truth is dots.
    pub segmentation: Option<Segmentation>,
    /// The counts behind PQ, all types together; absent where the truth is dots.
    pub panoptic: Option<Panoptic>,
    /// By type id, 1 upwards; empty where the truth has no types.
    pub panoptic_types: BTreeMap<usize, Panoptic>,
    /// Pairs of true and predicted centroids, by type.
    pub detections: TypeScores,
    /// How often the predicted types are right, by their probability.
    pub calibration: Calibration,
}

/// A score and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Score {
    /// The score over all images.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Scores of one data set.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SetScores {
    /// Scores by name, as `pq`; a name with a type ends in it, as `pq_TYPE`.
    pub scores: BTreeMap<String, Score>,
    /// Counts over all images: confusion, misses, spurious detections.
    pub detections: TypeScores,
    /// Sums over all images.
    pub calibration: Calibration,
    /// The images that the scores come from.
    pub images: Vec<ImageScores>,
}

impl SetScores {
    /// Scores of a set. `names[id]` is the name of type `id`; entry 0 is the background.
    pub fn of(images: Vec<ImageScores>, names: &[String]) -> Self {
        let all: Vec<&ImageScores> = images.iter().collect();
        let (detections, calibration) = sum_counts(&all, names.len());
        let scores = bootstrap(images.len(), |sample| {
            let chosen: Vec<&ImageScores> = sample.iter().map(|&i| &images[i]).collect();
            score_images(&chosen, names)
        });
        Self {
            scores,
            detections,
            calibration,
            images,
        }
    }

    /// The score called `name`, if the set has it.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.scores.get(name).map(|s| s.value)
    }
}

/// Compares truth and prediction of one image. `kinds`: number of types, the background included;
/// points pair within `radius_px`.
pub fn score_image(
    name: &str,
    truth: &Annotation,
    pred: &Annotation,
    kinds: usize,
    radius_px: f64,
) -> ImageScores {
    let mut detections = TypeScores::new(kinds);
    let pairs = detections.add(&truth.detections, &pred.detections, radius_px);
    let mut calibration = Calibration::default();
    if let Some(probs) = &pred.type_probs {
        let known = |d: &Detections, i: usize| d.types[i] > 0;
        for (t, p) in pairs {
            if known(&truth.detections, t) && known(&pred.detections, p) {
                let right = truth.detections.types[t] == pred.detections.types[p];
                calibration.add(probs[p], right);
            }
        }
    }
    let maps = truth.ids.as_ref().zip(pred.ids.as_ref());
    let typed = truth.id_types.iter().any(|&t| t > 0);
    let panoptic_types = (1..kinds)
        .filter(|_| typed)
        .filter_map(|id| {
            let maps = truth
                .ids_of_type(id as u8)
                .zip(pred.ids_of_type(id as u8))?;
            Some((id, Panoptic::of(&maps.0, &maps.1)))
        })
        .collect();
    ImageScores {
        name: name.to_string(),
        segmentation: maps.map(|(t, p)| segmentation::score_maps(t, p)),
        panoptic: maps.map(|(t, p)| Panoptic::of(t, p)),
        panoptic_types,
        detections,
        calibration,
    }
}

/// Counts over all images. `kinds` as in [`score_image`].
fn sum_counts(images: &[&ImageScores], kinds: usize) -> (TypeScores, Calibration) {
    let mut detections = TypeScores::new(kinds.max(1));
    let mut calibration = Calibration::default();
    for image in images {
        detections.merge(&image.detections);
        calibration.merge(&image.calibration);
    }
    (detections, calibration)
}

/// All scores of some images by name. `names` as in [`SetScores::of`].
fn score_images(images: &[&ImageScores], names: &[String]) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: f64| {
        all.insert(name.to_string(), value);
    };
    let segmentations: Vec<Segmentation> = images.iter().filter_map(|i| i.segmentation).collect();
    if let Some(mean) = segmentation::mean_scores(&segmentations) {
        set("dice", mean.dice);
        set("aji", mean.aji);
        set("aji_plus", mean.aji_plus);
        set("dq", mean.dq);
        set("sq", mean.sq);
        set("pq", mean.pq);
        let pooled = sum_panoptic(images.iter().filter_map(|i| i.panoptic.as_ref()));
        set("pq_pooled", pooled.pq());
    }
    let (detections, calibration) = sum_counts(images, names.len());
    // Predictions without types say nothing about types: no score is 0 then.
    let kinds = match detections.has_untyped_preds_only() {
        true => &names[..names.len().min(1)],
        false => names,
    };
    let mut pq_types = Vec::new();
    for (id, name) in kinds.iter().enumerate().skip(1) {
        let counts = sum_panoptic(images.iter().filter_map(|i| i.panoptic_types.get(&id)));
        if !counts.is_empty() {
            set(&format!("pq_{name}"), counts.pq());
            pq_types.push(counts.pq());
        }
    }
    if !pq_types.is_empty() {
        set("mpq", pq_types.iter().sum::<f64>() / pq_types.len() as f64);
    }
    set("f1d", detections.f1d());
    for (id, name) in kinds.iter().enumerate().skip(1) {
        let paired: u64 = detections.confusion[id].iter().sum();
        if paired + detections.unpaired_truth_types[id] > 0 {
            set(&format!("f1_{name}"), detections.f1_type(id));
        }
    }
    if let (Some(ece), Some(brier)) = (calibration.ece(), calibration.brier()) {
        set("ece", ece);
        set("brier", brier);
    }
    all
}

fn sum_panoptic<'a>(counts: impl Iterator<Item = &'a Panoptic>) -> Panoptic {
    let mut sum = Panoptic::default();
    counts.for_each(|c| sum.merge(c));
    sum
}

/// Scores of `n` images, with intervals from resampled images. `score` takes the indices of the
/// images, repeated where an image was drawn several times.
fn bootstrap(
    n: usize,
    score: impl Fn(&[usize]) -> BTreeMap<String, f64>,
) -> BTreeMap<String, Score> {
    let mut rng = Rng::with_seed(SEED);
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..RESAMPLES {
        let chosen: Vec<usize> = (0..n).map(|_| rng.usize(..n.max(1))).collect();
        for (name, value) in score(&chosen) {
            samples.entry(name).or_default().push(value);
        }
    }
    let whole: Vec<usize> = (0..n).collect();
    score(&whole)
        .into_iter()
        .map(|(name, value)| {
            let mut drawn = samples.remove(&name).unwrap_or_default();
            drawn.sort_by(f64::total_cmp);
            let at = |share: f64| {
                let place = (share * drawn.len() as f64) as usize;
                drawn
                    .get(place.min(drawn.len().saturating_sub(1)))
                    .copied()
                    .unwrap_or(value)
            };
            let (low, high) = (at(0.025), at(0.975));
            (name, Score { value, low, high })
        })
        .collect()
}

/// The scores of `b` minus those of `a` on the same images, with intervals of the difference.
pub fn compare_sets(a: &SetScores, b: &SetScores, names: &[String]) -> BTreeMap<String, Score> {
    let n = a.images.len().min(b.images.len());
    bootstrap(n, |sample| {
        let [va, vb] = [a, b].map(|set| {
            let chosen: Vec<&ImageScores> = sample.iter().map(|&i| &set.images[i]).collect();
            score_images(&chosen, names)
        });
        vb.into_iter()
            .filter_map(|(name, v)| Some((name.clone(), v - va.get(&name)?)))
            .collect()
    })
}

/// The group of an image: the patient of a TCGA barcode (its first three parts), else the file name
/// up to its last letter (`nuinsseg/human_lung_07` -> `human_lung`).
fn group_of(name: &str) -> String {
    let stem = name.rsplit('/').next().unwrap_or(name);
    if stem.starts_with("TCGA-") {
        return stem.split('-').take(3).collect::<Vec<_>>().join("-");
    }
    stem.trim_end_matches(|c: char| !c.is_alphabetic())
        .to_string()
}

/// Scores of each group of images: one patient, or names that differ only in their number. Empty if
/// there is one group only, or one per image.
pub fn score_groups(set: &SetScores, names: &[String]) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut groups: BTreeMap<String, Vec<&ImageScores>> = BTreeMap::new();
    for image in &set.images {
        groups.entry(group_of(&image.name)).or_default().push(image);
    }
    if groups.len() < 2 || groups.len() == set.images.len() {
        return BTreeMap::new();
    }
    groups
        .into_iter()
        .map(|(group, images)| (group, score_images(&images, names)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, truth: &[u32], pred: &[u32], types: [&[u8]; 2]) -> ImageScores {
        let [t, p] = [(truth, types[0]), (pred, types[1])]
            .map(|(ids, types)| Annotation::of_map(ids.to_vec(), types.to_vec(), ids.len()));
        score_image(name, &t, &p, 3, 12.0)
    }

    #[test]
    fn pooled_and_mean_pq_by_hand() {
        // Image a: one perfect nucleus. Image b: one of two nuclei found, with IoU 2/3 and the
        // wrong type.
        let names = ["background", "x", "y"].map(String::from);
        let a = image("a", &[0, 1, 1, 0], &[0, 1, 1, 0], [&[0, 1], &[0, 1]]);
        let b = image(
            "b",
            &[1, 1, 1, 0, 2, 2, 0, 0],
            &[1, 1, 0, 0, 0, 0, 0, 0],
            [&[0, 1, 2], &[0, 2]],
        );
        let set = SetScores::of(vec![a, b], &names);
        let near = |name: &str, wanted: f64| {
            let v = set.value(name).unwrap();
            assert!((v - wanted).abs() < 1e-12, "{name} {v} {wanted}");
        };
        let pq_b = 2.0 / 3.0 / 1.5;
        near("pq", (1.0 + pq_b) / 2.0);
        near("pq_pooled", (1.0 + 2.0 / 3.0) / 2.5);
        // Type x: one pair, one miss. Type y: its prediction lies on an x, its truth is missed.
        near("pq_x", 1.0 / 1.5);
        near("pq_y", 0.0);
        near("mpq", 1.0 / 3.0);
        near("f1d", 4.0 / 5.0);
        let s = set.scores["pq"];
        assert!(
            s.low == pq_b && s.high == 1.0,
            "two images: the ends are the images"
        );
    }

    #[test]
    fn predictions_without_types_have_no_score_of_types() {
        let names = ["background", "x"].map(String::from);
        let of = |pred_types: &[u8]| {
            let one = image("a", &[0, 1, 1, 0], &[0, 1, 1, 0], [&[0, 1], pred_types]);
            SetScores::of(vec![one], &names)
        };
        for name in ["pq_x", "mpq", "f1_x"] {
            assert_eq!(of(&[0, 1]).value(name), Some(1.0), "{name}");
            assert_eq!(of(&[]).value(name), None, "{name}");
        }
        assert_eq!(of(&[]).value("pq"), Some(1.0));
        // Nothing found is no lack of types.
        let none = image("a", &[0, 1, 1, 0], &[0; 4], [&[0, 1], &[]]);
        assert_eq!(SetScores::of(vec![none], &names).value("f1_x"), Some(0.0));
    }

    #[test]
    fn the_group_is_the_patient_or_the_name_without_its_number() {
        assert_eq!(group_of("nuinsseg/human_lung_07"), "human_lung");
        assert_eq!(
            group_of("brca_m2c/TCGA-A7-A13E-01Z-00-DX1_18001"),
            "TCGA-A7-A13E"
        );
    }
}
