//! How wrong a prediction is: BCE + dice (np), absolute error + MSE of gradients (h, v), cross-entropy + 0.6 dice
//! (types): the terms of Graham et al. 2019 with weights a pixel, but for the absolute error. Where the border between
//! two nuclei is uncertain a squared error asks for the mean of both sides, zero, and there is no ridge; an absolute one
//! asks for the likelier side.

use tch::{Kind, Reduction, Tensor};

use crate::model::network::RawMaps;

/// A batch of targets, each `[N, 1 or 2, H, W]` float; `tp` is `[N, H, W]` int64.
pub struct Batch {
    /// u8 [N, 3, H, W].
    pub rgb: Tensor,
    pub np: Tensor,
    pub np_weight: Tensor,
    pub hv: Tensor,
    pub hv_weight: Tensor,
    pub tp: Tensor,
    pub tp_weight: Tensor,
}

impl Batch {
    /// The same on `device`.
    pub fn on(&self, device: tch::Device) -> Self {
        let here = |t: &Tensor| t.to_device(device);
        Self {
            rgb: here(&self.rgb),
            np: here(&self.np),
            np_weight: here(&self.np_weight),
            hv: here(&self.hv),
            hv_weight: here(&self.hv_weight),
            tp: here(&self.tp),
            tp_weight: here(&self.tp_weight),
        }
    }
}

/// The loss and its parts (np, hv, tp), each a scalar.
pub struct Loss {
    pub total: Tensor,
    pub parts: [f64; 3],
}

pub fn of(raw: &RawMaps, batch: &Batch) -> Loss {
    let np = np_loss(&raw.np, batch);
    let hv = hv_loss(&raw.hv, batch);
    let tp = raw
        .tp
        .as_ref()
        .map_or_else(|| Tensor::from(0.0f32), |tp| tp_loss(tp, batch));
    let parts = [
        np.double_value(&[]),
        hv.double_value(&[]),
        tp.double_value(&[]),
    ];
    Loss {
        total: np + hv + tp,
        parts,
    }
}

/// hover_net's losses: cross-entropy and dice (np, and tp with its background), MSE and MSE of gradients inside nuclei
/// (h, v). Only the centre that the network predicts counts; pixels of which nothing is known weigh nothing.
pub fn hovernet(raw: &RawMaps, batch: &Batch) -> Loss {
    let size = raw.np.size();
    let at = |t: &Tensor, dim: i64| {
        let full = t.size();
        let axis = |t: &Tensor, d: i64, n: i64| t.narrow(d, (full[d as usize] - n) / 2, n);
        axis(&axis(t, dim, size[2]), dim + 1, size[3])
    };
    let [truth, np_weight, hv, hv_weight, tp_weight] = [
        &batch.np,
        &batch.np_weight,
        &batch.hv,
        &batch.hv_weight,
        &batch.tp_weight,
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
    let tp = raw.tp.as_ref().map_or_else(
        || Tensor::from(0.0f32),
        |tp| {
            let typed = tp_weight.gt(0.0).to_kind(Kind::Float);
            let background = (1.0 - &truth) * &known;
            let class = (at(&batch.tp, 1) + 1) * typed.squeeze_dim(1).to_kind(Kind::Int64);
            classes_loss(tp, &class, &(typed + background))
        },
    );
    let parts = [&np, &hv, &tp].map(|t| t.double_value(&[]));
    Loss {
        total: np + hv + tp,
        parts,
    }
}

/// Its gradient kernel answers a unit slope with 12.
const HOVERNET_GRADIENT_GAIN: f64 = 144.0;

/// Cross-entropy and the sum of the classes' dice, over pixels of weight 1. `class`: `[N, H, W]`.
fn classes_loss(logits: &Tensor, class: &Tensor, weight: &Tensor) -> Tensor {
    let log_p = logits.log_softmax(1, Kind::Float);
    let chosen = log_p.gather(1, &class.unsqueeze(1), false);
    let ce = -(chosen * weight).sum(Kind::Float) / weight.sum(Kind::Float).clamp_min(1.0);
    let one_hot = class.one_hot(logits.size()[1]).permute([0, 3, 1, 2]);
    let truth = one_hot.to_kind(Kind::Float) * weight;
    ce + dice(&(log_p.exp() * weight), &truth, &[0, 2, 3]).sum(Kind::Float)
}

fn np_loss(logits: &Tensor, batch: &Batch) -> Tensor {
    let weight_sum = batch.np_weight.sum(Kind::Float).clamp_min(1.0);
    let bce = logits.binary_cross_entropy_with_logits(
        &batch.np,
        None::<&Tensor>,
        None::<&Tensor>,
        Reduction::None,
    );
    let bce = (bce * &batch.np_weight).sum(Kind::Float) / &weight_sum;
    let known = batch.np_weight.gt(0.0).to_kind(Kind::Float);
    let p = logits.sigmoid() * &known;
    let t = &batch.np * &known;
    bce + dice(&p, &t, &[0, 1, 2, 3])
}

/// 1 - 2 |p t| / (|p| + |t|), summed over `dims`.
fn dice(p: &Tensor, t: &Tensor, dims: &[i64]) -> Tensor {
    let sum = |x: &Tensor| x.sum_dim_intlist(dims, false, Kind::Float);
    let overlap: Tensor = (sum(&(p * t)) * 2.0 + 1e-3) / (sum(p) + sum(t) + 1e-3);
    1.0 - overlap
}

fn hv_loss(hv: &Tensor, batch: &Batch) -> Tensor {
    let weight_sum = batch.hv_weight.sum(Kind::Float).clamp_min(1.0);
    // Only errors inside nuclei count, in the gradient too: outside, post-processing does not look.
    let known = batch.hv_weight.gt(0.0).to_kind(Kind::Float);
    let error = (hv - &batch.hv) * known;
    let absolute = (error.abs() * &batch.hv_weight).sum(Kind::Float) / &weight_sum;
    // The gradient is linear, so the gradient of the error is the error of the gradient.
    let gradient = (slope(&error, 0).square() + slope(&error, 1).square()) * &batch.hv_weight;
    absolute * HV_GAIN + gradient.sum(Kind::Float) / &weight_sum * GRADIENT_GAIN
}

/// Weight of the absolute error of h and v.
const HV_GAIN: f64 = 1.0;
/// The kernel below answers a unit slope with 1; hover_net's answers with 12, so its squared error weighs 144: that much
/// drowns the other terms.
const GRADIENT_GAIN: f64 = 12.0;

/// The slope of one channel (0: h along x, 1: v along y) of `[N, 2, H, W]`.
fn slope(hv: &Tensor, channel: i64) -> Tensor {
    let kernel = slope_kernel(channel, hv.device());
    hv.narrow(1, channel, 1)
        .conv2d(&kernel, None::<&Tensor>, [1, 1], [2, 2], [1, 1], 1)
}

/// 5 x 5 derivative along x (channel 0, for h) or y (1, for v): weight x / (x² + y²) as in hover_net, scaled so that a
/// ramp of slope 1 answers 1.
fn slope_kernel(channel: i64, device: tch::Device) -> Tensor {
    let mut k = [0.0f32; 25];
    for (i, w) in k.iter_mut().enumerate() {
        let (x, y) = ((i % 5) as f32 - 2.0, (i / 5) as f32 - 2.0);
        let along = if channel == 0 { x } else { y };
        *w = along / (x * x + y * y + 1e-9);
    }
    let gain: f32 = k
        .iter()
        .enumerate()
        .map(|(i, w)| {
            w * if channel == 0 {
                (i % 5) as f32 - 2.0
            } else {
                (i / 5) as f32 - 2.0
            }
        })
        .sum();
    Tensor::from_slice(&k.map(|w| w / gain))
        .view([1, 1, 5, 5])
        .to_device(device)
}

fn tp_loss(logits: &Tensor, batch: &Batch) -> Tensor {
    let weight_sum = batch.tp_weight.sum(Kind::Float).clamp_min(1.0);
    let log_p = logits.log_softmax(1, Kind::Float);
    let chosen = log_p.gather(1, &batch.tp.unsqueeze(1), false);
    let ce = -(chosen * &batch.tp_weight).sum(Kind::Float) / &weight_sum;
    let types = logits.size()[1];
    let one_hot = batch
        .tp
        .one_hot(types)
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
        * &batch.tp_weight;
    let p = log_p.exp() * &batch.tp_weight;
    // Only types that are in the batch count: an absent one has no overlap to speak of.
    let present = one_hot
        .sum_dim_intlist(&[0i64, 2, 3][..], false, Kind::Float)
        .gt(0.0)
        .to_kind(Kind::Float);
    let per_type = dice(&p, &one_hot, &[0, 2, 3]) * &present;
    let dice = per_type.sum(Kind::Float) / present.sum(Kind::Float).clamp_min(1.0);
    ce + dice * 0.6
}
