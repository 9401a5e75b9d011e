//! The trainable form of HoVer-Net, `fast` and `original` (Graham et al. 2019).
//!
//! In: tensors under hover_net's names. Out: the same tensors after learning, as
//! [`crate::model::hovernet`] runs them. Batch norms use the statistics of the batch and update the
//! running ones; while the encoder is frozen (the first phase) its norms use the statistics that
//! they came with.

use std::collections::BTreeMap;

use fastrand::Rng;
use tch::{Kind, Tensor};

use super::initial;
use super::learner::Learner;
use super::losses::{self, Batch, Loss};
use crate::model::hovernet::{self, Mode};
use crate::model::network::RawMaps;
use crate::model::weights::Tensors;

const BN_EPS: f64 = 1e-5;
/// Share of a running statistic that each batch replaces (PyTorch's default).
const BN_MOMENTUM: f64 = 0.1;
const ENCODER_UNITS: [usize; 4] = [3, 4, 6, 3];
const DENSE_UNITS: [(&str, usize); 2] = [("u3", 8), ("u2", 4)];
const DENSE_GROUPS: i64 = 4;

/// A HoVer-Net in training.
pub struct HoverNet {
    mode: Mode,
    tensors: BTreeMap<String, Tensor>,
    /// Number of first steps in which the encoder does not learn.
    frozen_steps: u64,
}

impl HoverNet {
    /// Takes the tensors of `found` that fit by name and shape, and initialises the others.
    /// `types`: number of types, the background not counted.
    pub fn new(mode: Mode, types: usize, found: &Tensors, seed: u64, frozen_steps: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let channels = if types == 0 { 0 } else { types as i64 + 1 };
        let width = hovernet::width_of(found);
        let tensors = hovernet::parameters(mode, channels, width)
            .into_iter()
            .map(|(name, shape)| {
                let given = found.get(&name).filter(|t| t.size() == shape);
                let tensor = match given {
                    Some(tensor) => tensor.to_kind(Kind::Float),
                    None => init_tensor(&name, &shape, &mut rng),
                };
                (name, tensor)
            })
            .collect();
        Self {
            mode,
            tensors,
            frozen_steps,
        }
    }

    fn pass(&self, fixed: [bool; 2]) -> Pass<'_> {
        Pass {
            tensors: &self.tensors,
            mode: self.mode,
            fixed,
        }
    }
}

/// Random weights (He et al. 2015) for a convolution, the identity for a norm.
fn init_tensor(name: &str, shape: &[i64], rng: &mut Rng) -> Tensor {
    let options = (Kind::Float, tch::Device::Cpu);
    match shape {
        [_, rest @ ..] if rest.len() == 3 => {
            let fan_in: i64 = rest.iter().product();
            initial::draw_normal(shape, (2.0 / fan_in as f64).sqrt(), rng)
        }
        _ if name.ends_with("running_var") || (name.ends_with("weight")) => {
            Tensor::ones(shape, options)
        }
        _ => Tensor::zeros(shape, options),
    }
}

fn is_in_encoder(name: &str) -> bool {
    !name.starts_with("decoder.")
}

impl Learner for HoverNet {
    fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    fn tensors_mut(&mut self) -> &mut BTreeMap<String, Tensor> {
        &mut self.tensors
    }

    fn learning_names(&self, step: u64) -> Vec<String> {
        let frozen = step < self.frozen_steps;
        let fixed = |name: &str| name.contains("running_") || (frozen && is_in_encoder(name));
        self.tensors.keys().filter(|n| !fixed(n)).cloned().collect()
    }

    fn forward(&self, rgb: &Tensor, step: u64) -> RawMaps {
        self.pass([step < self.frozen_steps, false]).run(rgb)
    }

    fn loss(&self, raw: &RawMaps, batch: &Batch) -> Loss {
        losses::hovernet_loss(raw, batch)
    }

    fn forward_averaged(&self, _: &BTreeMap<String, Tensor>, _: &Tensor) -> Option<RawMaps> {
        None
    }

    fn export(&self, averaged: &BTreeMap<String, Tensor>) -> Vec<(String, Tensor)> {
        let newest = |(name, t): (&String, &Tensor)| {
            let tensor = averaged.get(name).unwrap_or(t);
            (name.clone(), tensor.detach())
        };
        self.tensors.iter().map(newest).collect()
    }

    fn measure_norms(&mut self, _: &[Tensor]) {}
}

/// A forward pass.
struct Pass<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    mode: Mode,
    /// Whether the norms of encoder and decoders use their running statistics.
    fixed: [bool; 2],
}

impl Pass<'_> {
    fn conv(&self, name: &str, x: &Tensor, stride: i64, padding: i64, groups: i64) -> Tensor {
        let bias = self.tensors.get(&format!("{name}.bias"));
        let weight = &self.tensors[&format!("{name}.weight")];
        x.conv2d(
            weight,
            bias,
            [stride, stride],
            [padding, padding],
            [1, 1],
            groups,
        )
    }

    fn norm_relu(&self, name: &str, x: &Tensor) -> Tensor {
        let get = |part: &str| Some(&self.tensors[&format!("{name}.{part}")]);
        let own_statistics = !self.fixed[usize::from(!is_in_encoder(name))];
        x.batch_norm(
            get("weight"),
            get("bias"),
            get("running_mean"),
            get("running_var"),
            own_statistics,
            BN_MOMENTUM,
            BN_EPS,
            true,
        )
        .relu()
    }

    fn run(&self, rgb: &Tensor) -> RawMaps {
        let image = rgb.to_kind(Kind::Float) / 255.0;
        let padding = match self.mode {
            Mode::Fast => 3,
            Mode::Original => 0,
        };
        let mut x = self.norm_relu("conv0.bn", &self.conv("conv0./", &image, 1, padding, 1));
        let mut skips = Vec::with_capacity(4);
        for (level, units) in ENCODER_UNITS.into_iter().enumerate() {
            x = self.residual_block(&format!("d{level}"), &x, units, level);
            skips.push(x.shallow_clone());
        }
        let bottom = self.conv("conv_bot", &x, 1, 0, 1);
        let [crop0, crop1] = self.mode.skip_crops_px();
        let start = upsample(&bottom) + &skips[2];
        let (d0, d1) = (crop(&skips[0], crop0), crop(&skips[1], crop1));
        let branch = |name: &str| self.decoder(name, &start, &d1, &d0);
        let typed = self.tensors.contains_key("decoder.tp.u0.conv.weight");
        RawMaps {
            np: branch("np"),
            hv: branch("hv"),
            tp: typed.then(|| branch("tp")),
        }
    }

    fn residual_block(&self, name: &str, x: &Tensor, units: usize, level: usize) -> Tensor {
        let stride = if level == 0 { 1 } else { 2 };
        let mut sum = self.conv(&format!("{name}.shortcut"), x, stride, 0, 1);
        let mut input = x.shallow_clone();
        for unit in 0..units {
            let at = format!("{name}.units.{unit}");
            if unit > 0 {
                input = self.norm_relu(&format!("{at}.preact/bn"), &sum);
            }
            let y = self.conv(&format!("{at}.conv1"), &input, 1, 0, 1);
            let y = self.norm_relu(&format!("{at}.conv1/bn"), &y);
            let y = self.conv_same(
                &format!("{at}.conv2"),
                &y,
                if unit == 0 { stride } else { 1 },
            );
            let y = self.norm_relu(&format!("{at}.conv2/bn"), &y);
            // Not in place: the norm of the next unit keeps its input for the gradient.
            sum = self.conv(&format!("{at}.conv3"), &y, 1, 0, 1).g_add(&sum);
        }
        self.norm_relu(&format!("{name}.blk_bna.bn"), &sum)
    }

    /// 3 x 3 convolution, padded as TensorFlow's "same": an odd pixel goes to the bottom and right.
    fn conv_same(&self, name: &str, x: &Tensor, stride: i64) -> Tensor {
        let size = x.size();
        let pads = |side: i64| {
            let (before, after) = hovernet::same_padding(side, 3, stride);
            [before, after]
        };
        let ([top, bottom], [left, right]) = (pads(size[2]), pads(size[3]));
        let padded = x.constant_pad_nd([left, right, top, bottom]);
        self.conv(name, &padded, stride, 0, 1)
    }

    fn decoder(&self, branch: &str, start: &Tensor, d1: &Tensor, d0: &Tensor) -> Tensor {
        let kernel = self.mode.kernel_px();
        let mut x = start.shallow_clone();
        for ((stage, units), skip) in DENSE_UNITS.into_iter().zip([d1, d0]) {
            let name = format!("decoder.{branch}.{stage}");
            x = self.conv(&format!("{name}.conva"), &x, 1, 0, 1);
            x = self.dense_block(&format!("{name}.dense"), x, units, kernel);
            x = upsample(&self.conv(&format!("{name}.convf"), &x, 1, 0, 1)) + skip;
        }
        let name = format!("decoder.{branch}");
        let x = self.conv(&format!("{name}.u1.conva"), &x, 1, kernel / 2, 1);
        let x = self.norm_relu(&format!("{name}.u0.bn"), &x);
        self.conv(&format!("{name}.u0.conv"), &x, 1, 0, 1)
    }

    fn dense_block(&self, name: &str, x: Tensor, units: usize, kernel: i64) -> Tensor {
        let mut features = x;
        for unit in 0..units {
            let at = format!("{name}.units.{unit}");
            let y = self.norm_relu(&format!("{at}.preact_bna/bn"), &features);
            let y = self.conv(&format!("{at}.conv1"), &y, 1, 0, 1);
            let y = self.norm_relu(&format!("{at}.conv1/bn"), &y);
            let y = self.conv(&format!("{at}.conv2"), &y, 1, 0, DENSE_GROUPS);
            features = Tensor::cat(&[crop(&features, kernel - 1), y], 1);
        }
        self.norm_relu(&format!("{name}.blk_bna.bn"), &features)
    }
}

/// Nearest-neighbour up-sampling by two.
fn upsample(x: &Tensor) -> Tensor {
    x.upsample_nearest2d_vec(None::<&[i64]>, &[2.0, 2.0][..])
}

/// Removes `px` from each axis: half at the start (rounded down), the rest at the end.
fn crop(x: &Tensor, px: i64) -> Tensor {
    let size = x.size();
    x.narrow(2, px / 2, size[2] - px)
        .narrow(3, px / 2, size[3] - px)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::Network;

    /// HoVer-Net with an eighth of the channels.
    fn thin_network(mode: Mode, types: usize) -> HoverNet {
        let width = BTreeMap::from([(
            "conv0./.weight".to_string(),
            initial::draw_normal(&[8, 3, 7, 7], 0.1, &mut Rng::with_seed(1)),
        )]);
        HoverNet::new(mode, types, &width, 7, 2)
    }

    fn patch(side: i64) -> Tensor {
        let mut rng = Rng::with_seed(2);
        let values: Vec<u8> = (0..2 * 3 * side * side).map(|_| rng.u8(..)).collect();
        Tensor::from_slice(&values).view([2, 3, side, side])
    }

    #[test]
    fn an_exported_network_predicts_as_the_one_in_training() {
        for (mode, side) in [(Mode::Fast, 256), (Mode::Original, 270)] {
            let network = thin_network(mode, 2);
            let rgb = patch(side);
            // A batch with its own statistics moves the running ones away from 0 and 1.
            network.forward(&rgb, 2);
            let exported: Tensors = network.export(&BTreeMap::new()).into_iter().collect();
            let model =
                hovernet::HoverNet::from_tensors(mode, &exported, tch::Device::Cpu).unwrap();
            let wanted = model.forward(&rgb).unwrap();
            let raw = tch::no_grad(|| network.pass([true, true]).run(&rgb));
            for (ours, theirs) in [
                (&raw.np, &wanted.np),
                (&raw.hv, &wanted.hv),
                (raw.tp.as_ref().unwrap(), wanted.tp.as_ref().unwrap()),
            ] {
                assert_eq!(ours.size(), theirs.size());
                let largest = theirs.abs().max().double_value(&[]);
                let difference = (ours - theirs).abs().max().double_value(&[]);
                assert!(
                    difference <= 1e-4 * largest,
                    "{mode:?}: {difference} of {largest}"
                );
            }
        }
    }
}
