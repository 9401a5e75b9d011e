//! AdamW (Loshchilov and Hutter 2019), optionally with Muon, and an average of the weights.
//!
//! In: tensors with gradients. Out: the tensors one step later. All state is in named tensors, so
//! that a checkpoint is one file and a resumed training continues exactly.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::config::{Method, TrainConfig};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;
const MUON_BETA: f64 = 0.95;
/// Root mean square of an AdamW step at a rate of 1.
const MUON_RMS: f64 = 0.2;
const WARM_UP_STEPS: f64 = 200.0;
/// Share of the steps, at the end, in which the rate falls.
const DECAY_SHARE: f64 = 0.4;
/// Gradients longer than this are shortened to it.
const MAX_NORM: f64 = 5.0;

/// First moments, second moments and averaged weights of every tensor that learns.
pub struct Optimizer {
    /// Number of steps done.
    pub step: u64,
    pub m: BTreeMap<String, Tensor>,
    pub v: BTreeMap<String, Tensor>,
    pub average: BTreeMap<String, Tensor>,
}

impl Optimizer {
    /// The state before the first step. `learning`: names of the tensors that learn.
    pub fn new(tensors: &BTreeMap<String, Tensor>, learning: &[String]) -> Self {
        let state = |from: fn(&Tensor) -> Tensor| {
            let named = learning.iter().map(|n| (n.clone(), from(&tensors[n])));
            named.collect()
        };
        Self {
            step: 0,
            m: state(Tensor::zeros_like),
            v: state(Tensor::zeros_like),
            average: state(|t| t.detach().copy()),
        }
    }

    /// The same state on `device`.
    pub fn on_device(self, device: tch::Device) -> Self {
        let here = |tensors: BTreeMap<String, Tensor>| {
            let moved = tensors.into_iter().map(|(n, t)| (n, t.to_device(device)));
            moved.collect()
        };
        Self {
            step: self.step,
            m: here(self.m),
            v: here(self.v),
            average: here(self.average),
        }
    }

    /// Takes one of `steps` steps along the gradients of `tensors`, and clears the gradients.
    pub fn update(
        &mut self,
        tensors: &mut BTreeMap<String, Tensor>,
        config: &TrainConfig,
        steps: u64,
    ) {
        let _guard = tch::no_grad_guard();
        self.step += 1;
        let rate = rate_factor(self.step, steps);
        let clip = self.clip_factor(tensors);
        // The average starts quickly and settles at the configured decay.
        let decay = config
            .ema
            .min((1.0 + self.step as f64) / (10.0 + self.step as f64));
        let correct1 = 1.0 - BETA1.powf(self.step as f64);
        let correct2 = 1.0 - BETA2.powf(self.step as f64);
        for (name, m) in &mut self.m {
            let Some(tensor) = tensors.get_mut(name) else {
                continue;
            };
            let grad = tensor.grad();
            if grad.defined() {
                let lr = match name.starts_with("encoder.") {
                    true => rate * config.encoder_lr,
                    false => rate * config.lr,
                };
                let grad = grad * &clip;
                if name.ends_with(".weight") {
                    *tensor *= 1.0 - lr * config.weight_decay;
                }
                let change = if config.optimizer == Method::Muon && is_matrix(name, tensor) {
                    muon_step(m, &grad)
                } else {
                    let v = self.v.entry(name.clone()).or_insert_with(|| m.zeros_like());
                    *m *= BETA1;
                    *m += &grad * (1.0 - BETA1);
                    *v *= BETA2;
                    *v += grad.square() * (1.0 - BETA2);
                    (&*m / correct1) / ((&*v / correct2).sqrt() + EPS)
                };
                *tensor -= change * lr;
                tensor.zero_grad();
            }
            if let Some(average) = self.average.get_mut(name) {
                *average *= decay;
                *average += &*tensor * (1.0 - decay);
            }
        }
    }

    /// Factor that shortens the gradient of all tensors to [`MAX_NORM`] at most, a scalar on their
    /// device: read here, it would make a GPU wait.
    fn clip_factor(&self, tensors: &BTreeMap<String, Tensor>) -> Tensor {
        let squared: Vec<Tensor> = self
            .m
            .keys()
            .filter_map(|n| tensors.get(n))
            .map(Tensor::grad)
            .filter(Tensor::defined)
            .map(|g| g.square().sum(Kind::Float))
            .collect();
        if squared.is_empty() {
            return Tensor::from(1.0f32);
        }
        let squared = Tensor::stack(&squared, 0).sum(Kind::Double);
        let factor = (squared.sqrt() + 1e-12).reciprocal() * MAX_NORM;
        factor.clamp_max(1.0).to_kind(Kind::Float)
    }
}

/// Whether Muon moves a tensor: the matrix of a convolution that mixes channels. AdamW moves the
/// heads, each of whose outputs has a meaning of its own.
fn is_matrix(name: &str, tensor: &Tensor) -> bool {
    match tensor.size().as_slice() {
        [out, input, ..] => *out > 1 && *input > 3 && !name.starts_with("head."),
        _ => false,
    }
}

/// The step at a rate of 1 by Muon (Jordan et al. 2024): Nesterov's momentum with all singular
/// values near 1, scaled to the size of AdamW's steps (Liu et al. 2025, equation 4), so that both
/// use the same rate. Updates `momentum`.
fn muon_step(momentum: &mut Tensor, grad: &Tensor) -> Tensor {
    *momentum *= MUON_BETA;
    *momentum += grad * (1.0 - MUON_BETA);
    let ahead = &*momentum * MUON_BETA + grad * (1.0 - MUON_BETA);
    let shape = ahead.size();
    let matrix = ahead.view([shape[0], -1]);
    let largest = matrix.size().into_iter().max().unwrap_or(1) as f64;
    orthogonalise(&matrix).reshape(&shape) * (MUON_RMS * largest.sqrt())
}

/// `matrix` with singular values near 1, by five quintic Newton-Schulz steps (Jordan et al. 2024).
fn orthogonalise(matrix: &Tensor) -> Tensor {
    let [rows, cols] = [matrix.size()[0], matrix.size()[1]];
    let tall = rows > cols;
    let mut x = if tall {
        matrix.tr()
    } else {
        matrix.shallow_clone()
    };
    x = &x / (x.norm() + 1e-12);
    let (a, b, c) = (3.4445, -4.7750, 2.0315);
    for _ in 0..5 {
        let gram = x.matmul(&x.tr());
        let polynomial = &gram * b + gram.matmul(&gram) * c;
        x = &x * a + polynomial.matmul(&x);
    }
    if tall { x.tr() } else { x }
}

/// The learning rate of step `step` as a factor of its peak: a linear warm-up, then 1, and over the
/// last 40 % of the `steps` a cosine down to 0.01. The flat part does not depend on `steps`: until
/// the rate begins to fall, a training may be made longer or shorter.
pub fn rate_factor(step: u64, steps: u64) -> f64 {
    let (step, steps) = (step as f64, steps.max(1) as f64);
    let warm = (step / WARM_UP_STEPS.min(steps / 10.0).max(1.0)).min(1.0);
    let falling = ((step / steps - (1.0 - DECAY_SHARE)) / DECAY_SHARE).clamp(0.0, 1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * falling).cos());
    warm * (0.01 + 0.99 * cosine)
}
