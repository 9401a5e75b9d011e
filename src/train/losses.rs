//! Losses: how wrong a prediction is.
//!
//! In: raw maps and a [`Batch`] of targets. Out: a [`Loss`]. Our own networks' is BCE + dice (np),
//! absolute error + MSE of gradients (h, v), cross-entropy + 0.6 dice (types): the terms of Graham
//! et al. 2019 with a weight per pixel, except for the absolute error. Where the border between two
//! nuclei is uncertain, a squared error is least at the mean of both sides, which is zero and
//! leaves no ridge; an absolute error is least at the likelier side.

use tch::{Kind, Reduction, Tensor};

use super::targets::Targets;
use super::teacher::TeacherTargets;
use crate::model::network::RawMaps;

/// A batch of crops and their targets.
pub struct Batch {
    /// u8 `[N, 3, H, W]`.
    pub rgb: Tensor,
    /// The same before colours were varied, for the teacher.
    pub plain: Option<Tensor>,
    /// By the labels.
    pub targets: Targets,
    /// Targets that the teacher adds to them.
    pub teacher: Option<TeacherTargets>,
}

impl Batch {
    /// All crops of `parts`, whose teacher's targets are not there yet.
    pub fn concatenate(parts: &[Self]) -> Self {
        let all = |part: fn(&Self) -> &Tensor| {
            let tensors: Vec<&Tensor> = parts.iter().map(part).collect();
            Tensor::cat(&tensors, 0)
        };
        let plain: Option<Vec<&Tensor>> = parts.iter().map(|p| p.plain.as_ref()).collect();
        Self {
            rgb: all(|p| &p.rgb),
            plain: plain.map(|plain| Tensor::cat(&plain, 0)),
            targets: Targets {
                np: all(|p| &p.targets.np),
                np_weight: all(|p| &p.targets.np_weight),
                hv: all(|p| &p.targets.hv),
                hv_weight: all(|p| &p.targets.hv_weight),
                tp: all(|p| &p.targets.tp),
                tp_weight: all(|p| &p.targets.tp_weight),
            },
            teacher: None,
        }
    }
}

/// A loss.
pub struct Loss {
    /// A scalar with its gradient.
    pub total: Tensor,
    /// The terms of np, hv and tp: `[3]`, without their gradient.
    pub parts: Tensor,
}

impl Loss {
    /// The sum of the terms.
    fn of(np: Tensor, hv: Tensor, tp: Option<Tensor>) -> Self {
        let tp = tp.unwrap_or_else(|| np.zeros_like());
        Self {
            parts: Tensor::stack(&[&np, &hv, &tp], 0).detach(),
            total: np + hv + tp,
        }
    }
}

/// The loss of the networks of our own.
pub fn own_loss(raw: &RawMaps, batch: &Batch) -> Loss {
    let np = np_loss(&raw.np, batch);
    let hv = hv_loss(&raw.hv, batch);
    Loss::of(np, hv, raw.tp.as_ref().map(|tp| tp_loss(tp, batch)))
}

/// hover_net's loss: cross-entropy and dice (np, and tp with its background), MSE and MSE of
/// gradients inside nuclei (h, v). Only the centre that the network predicts counts; pixels of
/// which nothing is known have no weight.
pub fn hovernet_loss(raw: &RawMaps, batch: &Batch) -> Loss {
    let size = raw.np.size();
    let at = |t: &Tensor, dim: i64| {
        let full = t.size();
        let axis = |t: &Tensor, d: i64, n: i64| t.narrow(d, (full[d as usize] - n) / 2, n);
        axis(&axis(t, dim, size[2]), dim + 1, size[3])
    };
    let [truth, np_weight, hv, hv_weight, tp_weight] = [
        &batch.targets.np,
        &batch.targets.np_weight,
        &batch.targets.hv,
        &batch.targets.hv_weight,
        &batch.targets.tp_weight,
    ]
    .map(|t| at(t, 2));
    let known = np_weight.gt(0.0).to_kind(Kind::Float);
    let np = classes_loss(&raw.np, &truth.squeeze_dim(1).to_kind(Kind::Int64), &known);
    let inside = hv_weight.gt(0.0).to_kind(Kind::Float);
    let n = inside.sum(Kind::Float).clamp_min(1.0);
    let error = (&raw.hv - &hv) * &inside;
    let gradient = (slope(&error, 0).square() + slope(&error, 1).square()) * &inside;
    let hv = error.square().sum(Kind::Float) / (&n * 2.0)
        + gradient.sum(Kind::Float) / (&n * 2.0) * HOVERNET_GRADIENT_GAIN;
    let tp = raw.tp.as_ref().map(|tp| {
        let typed = tp_weight.gt(0.0).to_kind(Kind::Float);
        let background = (1.0 - &truth) * &known;
        let class = (at(&batch.targets.tp, 1) + 1) * typed.squeeze_dim(1).to_kind(Kind::Int64);
        classes_loss(tp, &class, &(typed + background))
    });
    Loss::of(np, hv, tp)
}

/// hover_net's gradient kernel gives 12 for a slope of 1, and its error is squared.
const HOVERNET_GRADIENT_GAIN: f64 = 144.0;

/// Cross-entropy and the sum of the classes' dice, over pixels of weight 1. `class`: `[N, H, W]`.
fn classes_loss(logits: &Tensor, class: &Tensor, weight: &Tensor) -> Tensor {
    let log_p = logits.log_softmax(1, Kind::Float);
    let chosen = log_p.gather(1, &class.unsqueeze(1), false);
    let ce = -(chosen * weight).sum(Kind::Float) / weight.sum(Kind::Float).clamp_min(1.0);
    let one_hot = class.one_hot(logits.size()[1]).permute([0, 3, 1, 2]);
    let truth = one_hot.to_kind(Kind::Float);
    ce + dice(&log_p.exp(), &truth, weight, &[0, 2, 3]).sum(Kind::Float)
}

fn np_loss(logits: &Tensor, batch: &Batch) -> Tensor {
    let (truth, weight) = np_targets(batch);
    let bce = logits.binary_cross_entropy_with_logits(
        &truth,
        None::<&Tensor>,
        None::<&Tensor>,
        Reduction::None,
    );
    let bce = (bce * &weight).sum(Kind::Float) / weight.sum(Kind::Float).clamp_min(1.0);
    let known = batch.targets.np_weight.gt(0.0).to_kind(Kind::Float);
    bce + dice(&logits.sigmoid(), &batch.targets.np, &known, &[0, 1, 2, 3])
}

/// Targets of np and their weights: the labels, or with a teacher the mean of both where labels
/// exist and the teacher's prediction elsewhere.
fn np_targets(batch: &Batch) -> (Tensor, Tensor) {
    let (truth, weight) = (&batch.targets.np, &batch.targets.np_weight);
    match &batch.teacher {
        None => (truth.shallow_clone(), weight.shallow_clone()),
        Some(teacher) => {
            let unknown = weight.eq(0.0);
            let np = &teacher.answer.np;
            let both = mix(truth, np, teacher.share);
            (
                np.where_self(&unknown, &both),
                weight.masked_fill(&unknown, teacher.share * UNLABELLED_WEIGHT),
            )
        }
    }
}

/// Weight of a pixel without a label, times the teacher's share.
const UNLABELLED_WEIGHT: f64 = 0.5;

fn mix(labels: &Tensor, teacher: &Tensor, share: f64) -> Tensor {
    labels * (1.0 - share) + teacher * share
}

/// 1 - 2 |w p t| / (|w p| + |w t|), summed over `dims`. Each px is weighed once: with p and t weighed before, the
/// overlap carries the square of the weight and is above 1 for weights above 1.
fn dice(p: &Tensor, t: &Tensor, weight: &Tensor, dims: &[i64]) -> Tensor {
    let sum = |x: Tensor| x.sum_dim_intlist(dims, false, Kind::Float);
    let (p, weighed) = (p * weight, t * weight);
    let overlap: Tensor = (sum(&p * t) * 2.0 + 1e-3) / (sum(p) + sum(weighed) + 1e-3);
    1.0 - overlap
}

/// `weight` with the teacher's own where the labels give none, but the teacher sees a nucleus and
/// no label says background.
fn with_gaps_filled(weight: &Tensor, batch: &Batch, teacher: &TeacherTargets) -> Tensor {
    if !teacher.fills_gaps {
        return weight.shallow_clone();
    }
    let possible = batch
        .targets
        .np_weight
        .eq(0.0)
        .logical_or(&batch.targets.np.gt(0.5));
    let seen = teacher.answer.np.gt(0.5).logical_and(&possible);
    let gaps = weight.eq(0.0).logical_and(&seen);
    weight + gaps.to_kind(Kind::Float) * (teacher.share * UNLABELLED_WEIGHT)
}

fn hv_loss(hv: &Tensor, batch: &Batch) -> Tensor {
    let labelled = hv_error(hv, &batch.targets.hv, &batch.targets.hv_weight);
    match &batch.teacher {
        None => labelled,
        // Not the error of the mean: between two ridges the mean has no ridge.
        Some(teacher) => {
            let weight = with_gaps_filled(&batch.targets.hv_weight, batch, teacher);
            let taught = hv_error(hv, &teacher.answer.hv, &weight);
            mix(&labelled, &taught, teacher.share)
        }
    }
}

fn hv_error(hv: &Tensor, truth: &Tensor, weight: &Tensor) -> Tensor {
    let weight_sum = weight.sum(Kind::Float).clamp_min(1.0);
    // Only errors inside nuclei count, in the gradient too: post-processing reads nothing outside.
    let known = weight.gt(0.0).to_kind(Kind::Float);
    let error = (hv - truth) * known;
    let absolute = (error.abs() * weight).sum(Kind::Float) / &weight_sum;
    // The gradient is linear, so the gradient of the error is the error of the gradient.
    let gradient = (slope(&error, 0).square() + slope(&error, 1).square()) * weight;
    absolute * HV_GAIN + gradient.sum(Kind::Float) / &weight_sum * GRADIENT_GAIN
}

/// Weight of the absolute error of h and v.
const HV_GAIN: f64 = 1.0;
/// Weight of the error of gradients. The kernel of [`slope_kernel`] gives 1 for a slope of 1.
/// hover_net's gives 12, so its squared error has a weight of 144, which would drown the other
/// terms.
const GRADIENT_GAIN: f64 = 12.0;

/// The slope of one channel (0: h along x, 1: v along y) of `[N, 2, H, W]`.
fn slope(hv: &Tensor, channel: i64) -> Tensor {
    let kernel = slope_kernel(channel, hv.device());
    hv.narrow(1, channel, 1)
        .conv2d(&kernel, None::<&Tensor>, [1, 1], [2, 2], [1, 1], 1)
}

/// 5 x 5 derivative along x (channel 0, for h) or y (1, for v): weights x / (x² + y²) as in
/// hover_net, scaled so that a slope of 1 gives 1.
fn slope_kernel(channel: i64, device: tch::Device) -> Tensor {
    let place = |i: usize| ((i % 5) as f32 - 2.0, (i / 5) as f32 - 2.0);
    let along = |i: usize| if channel == 0 { place(i).0 } else { place(i).1 };
    let k: [f32; 25] = std::array::from_fn(|i| {
        let (x, y) = place(i);
        along(i) / (x * x + y * y + 1e-9)
    });
    let gain: f32 = k.iter().enumerate().map(|(i, w)| w * along(i)).sum();
    Tensor::from_slice(&k.map(|w| w / gain))
        .view([1, 1, 5, 5])
        .to_device(device)
}

fn tp_loss(logits: &Tensor, batch: &Batch) -> Tensor {
    let log_p = logits.log_softmax(1, Kind::Float);
    let types = logits.size()[1];
    let one_hot = batch.targets.tp.one_hot(types).permute([0, 3, 1, 2]);
    let one_hot = one_hot.to_kind(Kind::Float);
    let taught = batch
        .teacher
        .as_ref()
        .and_then(|t| Some((t, t.answer.tp.as_ref()?)));
    let (truth, weight) = match taught {
        None => (
            one_hot.shallow_clone(),
            batch.targets.tp_weight.shallow_clone(),
        ),
        Some((teacher, tp)) => {
            let both = mix(&one_hot, tp, teacher.share);
            (
                tp.where_self(&batch.targets.tp_weight.eq(0.0), &both),
                with_gaps_filled(&batch.targets.tp_weight, batch, teacher),
            )
        }
    };
    let weight_sum = weight.sum(Kind::Float).clamp_min(1.0);
    let ce = -(truth * &log_p * weight).sum(Kind::Float) / weight_sum;
    // Only types that occur in the batch count: an absent type has no overlap.
    let present = (&one_hot * &batch.targets.tp_weight)
        .sum_dim_intlist(&[0i64, 2, 3][..], false, Kind::Float)
        .gt(0.0)
        .to_kind(Kind::Float);
    let per_type = dice(&log_p.exp(), &one_hot, &batch.targets.tp_weight, &[0, 2, 3]) * &present;
    let dice = per_type.sum(Kind::Float) / present.sum(Kind::Float).clamp_min(1.0);
    ce + dice * 0.6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::teacher::Answer;

    const LOGITS: [f32; 4] = [0.3, -1.2, 2.0, 0.1];
    const LABELS: [f32; 4] = [1.0, 0.0, 1.0, 0.0];
    const TAUGHT: [f32; 4] = [0.8, 0.3, 0.6, 0.9];
    /// The last px has no label.
    const WEIGHTS: [f32; 4] = [1.0, 2.0, 0.5, 0.0];

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([1, 1, 1, -1])
    }

    fn batch(teacher: Option<TeacherTargets>) -> Batch {
        let tp = Tensor::zeros([1, 1, 4], (Kind::Int64, tch::Device::Cpu));
        Batch {
            rgb: row(&[0.0; 4]),
            plain: None,
            targets: Targets {
                np: row(&LABELS),
                np_weight: row(&WEIGHTS),
                hv: Tensor::cat(&[row(&LABELS), row(&LABELS)], 1),
                hv_weight: row(&WEIGHTS),
                tp,
                tp_weight: row(&WEIGHTS),
            },
            teacher,
        }
    }

    fn teacher(share: f64) -> TeacherTargets {
        TeacherTargets {
            share,
            fills_gaps: false,
            answer: Answer {
                np: row(&TAUGHT),
                hv: Tensor::cat(&[row(&TAUGHT), row(&TAUGHT)], 1),
                tp: Some(Tensor::cat(&[row(&TAUGHT), 1.0 - row(&TAUGHT)], 1)),
            },
        }
    }

    /// Weighted mean over px of -t ln p - (1 - t) ln (1 - p).
    fn cross_entropy(truth: [f64; 4], weight: [f64; 4]) -> f64 {
        let term = |i: usize| {
            let p = 1.0 / (1.0 + (-f64::from(LOGITS[i])).exp());
            -weight[i] * (truth[i] * p.ln() + (1.0 - truth[i]) * (1.0 - p).ln())
        };
        (0..4).map(term).sum::<f64>() / weight.iter().sum::<f64>()
    }

    fn difference(teacher: TeacherTargets, loss: impl Fn(&Batch) -> Tensor) -> f64 {
        let [with, without] = [Some(teacher), None].map(|t| loss(&batch(t)).double_value(&[]));
        with - without
    }

    #[test]
    fn np_targets_are_the_mean_of_both_or_the_teachers_where_no_label_is() {
        let (labels, weights) = (LABELS.map(f64::from), WEIGHTS.map(f64::from));
        let before = cross_entropy(labels, weights);
        let mean = std::array::from_fn(|i| 0.6 * labels[i] + 0.4 * f64::from(TAUGHT[i]));
        let [a, b, c, _]: [f64; 4] = mean;
        let after = cross_entropy([a, b, c, 0.9], [1.0, 2.0, 0.5, 0.2]);
        let found = difference(teacher(0.4), |b| np_loss(&row(&LOGITS), b));
        assert!((found - (after - before)).abs() < 1e-6, "{found}");
    }

    #[test]
    fn the_hv_loss_is_the_mean_of_the_errors_to_labels_and_teacher() {
        let hv = Tensor::cat(&[row(&LOGITS), row(&LOGITS)], 1);
        let loss = |share: f64| hv_loss(&hv, &batch(Some(teacher(share)))).double_value(&[]);
        let labelled = hv_loss(&hv, &batch(None)).double_value(&[]);
        assert!((loss(0.0) - labelled).abs() < 1e-6);
        // A share of 1: as if the teacher's targets were the labels.
        let mut swapped = batch(None);
        swapped.targets.hv = teacher(1.0).answer.hv;
        let taught = hv_loss(&hv, &swapped).double_value(&[]);
        assert!((loss(1.0) - taught).abs() < 1e-6 && (taught - labelled).abs() > 0.01);
        assert!((loss(0.25) - (0.75 * labelled + 0.25 * taught)).abs() < 1e-6);
    }

    /// Dots have weight 2: by hand, with each px weighed once.
    #[test]
    fn a_weight_counts_once_in_the_dice_of_types() {
        let logits = Tensor::cat(&[row(&LOGITS), row(&[0.0; 4])], 1);
        let classes = [0i64, 1, 0, 0];
        let of = |weights: [f32; 4]| {
            let mut batch = batch(None);
            batch.targets.tp = Tensor::from_slice(&classes).view([1, 1, 4]);
            batch.targets.tp_weight = row(&weights);
            tp_loss(&logits, &batch).double_value(&[])
        };
        let by_hand = |weights: [f64; 4]| {
            let p0 = LOGITS.map(|x| 1.0 / (1.0 + (-f64::from(x)).exp()));
            let sum = |f: &dyn Fn(usize) -> f64| (0..4).map(|i| weights[i] * f(i)).sum::<f64>();
            let p = |class: i64, i: usize| if class == 0 { p0[i] } else { 1.0 - p0[i] };
            let t = |class: i64, i: usize| f64::from(u8::from(classes[i] == class));
            let ce = sum(&|i| -p(classes[i], i).ln()) / sum(&|_| 1.0);
            let dice = |class: i64| {
                let overlap = sum(&|i| p(class, i) * t(class, i)) * 2.0 + 1e-3;
                1.0 - overlap / (sum(&|i| p(class, i)) + sum(&|i| t(class, i)) + 1e-3)
            };
            ce + 0.6 * (dice(0) + dice(1)) / 2.0
        };
        for weights in [[1.0f32; 4], [2.0; 4], [1.0, 2.0, 0.5, 0.0]] {
            let (found, wanted) = (of(weights), by_hand(weights.map(f64::from)));
            assert!(
                (found - wanted).abs() < 1e-6,
                "{weights:?}: {found} {wanted}"
            );
        }
        // Sure and right, and as dots: nothing is lost, and nothing less than nothing.
        let sure = Tensor::cat(&[row(&[20.0; 4]), row(&[-20.0; 4])], 1);
        let mut dots = batch(None);
        dots.targets.tp_weight = row(&[2.0; 4]);
        let loss = tp_loss(&sure, &dots).double_value(&[]);
        assert!((0.0..1e-6).contains(&loss), "{loss}");
    }

    #[test]
    fn type_targets_are_the_mean_of_both_where_a_type_is_known() {
        let logits = Tensor::cat(&[row(&LOGITS), row(&[0.0; 4])], 1);
        // Two types whose logits are x and 0: the first's probability is the logistic of x. All px
        // are of the first type.
        let weights = WEIGHTS.map(f64::from);
        let before = cross_entropy([1.0; 4], weights);
        let mean = TAUGHT.map(|t| 0.6 + 0.4 * f64::from(t));
        let found = difference(teacher(0.4), |b| tp_loss(&logits, b));
        assert!(
            (found - (cross_entropy(mean, weights) - before)).abs() < 1e-6,
            "{found}"
        );
    }

    /// Two px without a label: the teacher sees a nucleus in one of them. A third is labelled as
    /// background, a fourth as a nucleus of no known type.
    #[test]
    fn a_teacher_fills_gaps_where_it_sees_a_nucleus_and_no_label_denies_it() {
        let answer = || Answer {
            np: row(&[0.9, 0.3, 0.8, 0.7]),
            hv: Tensor::cat(&[row(&TAUGHT), row(&TAUGHT)], 1),
            tp: Some(Tensor::cat(&[row(&TAUGHT), 1.0 - row(&TAUGHT)], 1)),
        };
        let taught = |fills_gaps: bool| Batch {
            targets: Targets {
                np: row(&[0.0, 0.0, 0.0, 1.0]),
                np_weight: row(&[0.0, 0.0, 1.0, 1.0]),
                hv_weight: row(&[0.0; 4]),
                tp_weight: row(&[0.0; 4]),
                ..batch(None).targets
            },
            teacher: Some(TeacherTargets {
                share: 0.4,
                fills_gaps,
                answer: answer(),
            }),
            ..batch(None)
        };
        let filled = taught(true);
        let teacher = filled.teacher.as_ref().unwrap();
        let weight = with_gaps_filled(&filled.targets.tp_weight, &filled, teacher);
        let found: Vec<f32> = Vec::try_from(weight.flatten(0, 3)).unwrap();
        assert_eq!(found, [0.2, 0.0, 0.0, 0.2]);
        // Types: the cross-entropy to the teacher's probabilities in the two px, with no label's.
        let logits = Tensor::cat(&[row(&LOGITS), row(&[0.0; 4])], 1);
        let truth = TAUGHT.map(f64::from);
        let wanted = cross_entropy(truth, [0.2, 0.0, 0.0, 0.2]) * 0.4;
        let found = tp_loss(&logits, &filled).double_value(&[]);
        // The weights' sum, 0.4, counts as 1: a batch with next to no types teaches next to nothing.
        assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        let hv = Tensor::cat(&[row(&LOGITS), row(&LOGITS)], 1);
        assert!(hv_loss(&hv, &filled).double_value(&[]) > 0.01);
        // The network's own average fills nothing.
        let own = taught(false);
        assert_eq!(tp_loss(&logits, &own).double_value(&[]), 0.0);
        assert_eq!(hv_loss(&hv, &own).double_value(&[]), 0.0);
    }
}
