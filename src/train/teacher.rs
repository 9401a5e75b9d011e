//! Targets beside the labels: what the averaged weights predict for the same crops (mean teacher,
//! Tarvainen and Valpola 2017).
//!
//! In: crops before their colours were varied, and a prediction function. Out: [`TeacherTargets`]
//! in the orientation of the crops. The teacher sees each batch under one of the eight symmetries
//! of the square, so over many steps the network learns the mean over all eight: the effect of
//! test-time augmentation at no cost at inference. Never carries a gradient.

use fastrand::Rng;
use tch::{Kind, Tensor};

use crate::model::network::RawMaps;
use crate::model::tta::Symmetry;

/// The teacher's predictions for a batch.
pub struct TeacherTargets {
    /// Weight beside the labels, 0..=1.
    pub share: f64,
    /// Probability of a nucleus, `[N, 1, H, W]`.
    pub np: Tensor,
    /// h and v, `[N, 2, H, W]`.
    pub hv: Tensor,
    /// Probabilities of the types without the background, `[N, types, H, W]`; `None` without types.
    pub tp: Option<Tensor>,
}

/// The teacher's targets for `plain` (u8 `[N, 3, H, W]`), predicted under a symmetry that `seed`
/// and `step` choose. `None` if `predict` gives none.
pub fn predict_targets(
    plain: &Tensor,
    share: f64,
    [seed, step]: [u64; 2],
    predict: impl Fn(&Tensor) -> Option<RawMaps>,
) -> Option<TeacherTargets> {
    let _guard = tch::no_grad_guard();
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step);
    predict_under(Symmetry::of(rng.u8(0..8)), plain, share, predict)
}

/// Dimensions of `[N, C, H, W]` that `symmetry` mirrors.
fn mirrored_dims(symmetry: Symmetry) -> Vec<i64> {
    let dims = [(symmetry.flip_x, 3), (symmetry.flip_y, 2)].into_iter();
    let mirrored = dims.filter(|(flips, _)| *flips);
    mirrored.map(|(_, dim)| dim).collect()
}

fn transpose(symmetry: Symmetry, x: &Tensor) -> Tensor {
    if symmetry.transpose {
        x.transpose(2, 3)
    } else {
        x.shallow_clone()
    }
}

fn apply(symmetry: Symmetry, x: &Tensor) -> Tensor {
    transpose(symmetry, x).flip(mirrored_dims(symmetry))
}

fn undo(symmetry: Symmetry, x: &Tensor) -> Tensor {
    transpose(symmetry, &x.flip(mirrored_dims(symmetry)))
}

/// As [`undo`]; h and v also change their sign where their axis is mirrored, and are exchanged
/// where the axes are.
fn undo_hv(symmetry: Symmetry, hv: &Tensor) -> Tensor {
    let signs = [symmetry.flip_x, symmetry.flip_y].map(|flips| if flips { -1.0f32 } else { 1.0 });
    let signs = Tensor::from_slice(&signs).view([1, 2, 1, 1]);
    let hv = undo(symmetry, &(hv * signs.to_device(hv.device())));
    if symmetry.transpose { hv.flip([1]) } else { hv }
}

/// The targets for `plain`, predicted under `symmetry`.
fn predict_under(
    symmetry: Symmetry,
    plain: &Tensor,
    share: f64,
    predict: impl Fn(&Tensor) -> Option<RawMaps>,
) -> Option<TeacherTargets> {
    let raw = predict(&apply(symmetry, plain).contiguous())?;
    Some(TeacherTargets {
        share,
        np: undo(symmetry, &raw.np.sigmoid()),
        hv: undo_hv(symmetry, &raw.hv),
        tp: raw.tp.map(|tp| undo(symmetry, &tp.softmax(1, Kind::Float))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prediction that turns with its picture: brightness as np, slopes of the red channel as h
    /// and v, colours as types.
    fn predict_slopes(rgb: &Tensor) -> Option<RawMaps> {
        let x = rgb.to_kind(Kind::Float);
        let red = x.narrow(1, 0, 1);
        let slope = |dim: i64| red.roll([-1], [dim]) - red.roll([1], [dim]);
        Some(RawMaps {
            np: x.mean_dim(&[1i64][..], true, Kind::Float) / 255.0,
            hv: Tensor::cat(&[slope(3), slope(2)], 1),
            tp: Some(x / 50.0),
        })
    }

    #[test]
    fn targets_do_not_depend_on_the_symmetry() {
        let mut rng = Rng::with_seed(8);
        let pixels: Vec<u8> = (0..2 * 3 * 6 * 6).map(|_| rng.u8(..)).collect();
        let rgb = Tensor::from_slice(&pixels).view([2, 3, 6, 6]);
        let plain = predict_under(Symmetry::of(0), &rgb, 0.5, predict_slopes).unwrap();
        assert!(plain.hv.abs().max().double_value(&[]) > 10.0);
        for bits in 1..8 {
            let turned = predict_under(Symmetry::of(bits), &rgb, 0.5, predict_slopes).unwrap();
            let pairs = [
                (&plain.np, &turned.np),
                (&plain.hv, &turned.hv),
                (plain.tp.as_ref().unwrap(), turned.tp.as_ref().unwrap()),
            ];
            for (a, b) in pairs {
                let apart = (a - b).abs().max().double_value(&[]);
                assert!(apart < 1e-6, "symmetry {bits}: {apart}");
            }
        }
    }

    #[test]
    fn every_symmetry_is_drawn() {
        let rgb = Tensor::zeros([1, 3, 4, 4], (Kind::Uint8, tch::Device::Cpu));
        // The second px of the first row: it has another place under each symmetry.
        let _ = rgb.get(0).get(0).get(0).get(1).fill_(255);
        let places = std::cell::RefCell::new(std::collections::BTreeSet::new());
        for step in 0..200 {
            predict_targets(&rgb, 0.5, [3, step], |view| {
                let lit = view.narrow(1, 0, 1).flatten(0, 3).argmax(0, false);
                places.borrow_mut().insert(lit.int64_value(&[]));
                predict_slopes(view)
            });
        }
        assert_eq!(places.borrow().len(), 8);
    }
}
