//! A second opinion beside the labels: what the averaged weights say of the same crops (mean teacher, Tarvainen and
//! Valpola 2017).
//!
//! In: crops before their colours were varied, and who answers. Out: a [`Lesson`] (none where nobody answers), maps in the
//! crops' own orientation. The teacher sees every batch under another symmetry of the square, so over many steps its pupil learns the mean of all
//! eight: test-time augmentation without its price. Never carries a gradient.

use fastrand::Rng;
use tch::{Kind, Tensor};

use crate::model::network::RawMaps;
use crate::model::tta::Symmetry;

/// What the teacher says of a batch, and how much it counts beside the labels (0..=1).
pub struct Lesson {
    pub share: f64,
    /// Probability of a nucleus, `[N, 1, H, W]`.
    pub np: Tensor,
    /// h and v, `[N, 2, H, W]`.
    pub hv: Tensor,
    /// Probabilities of the types, background not among them, `[N, types, H, W]`; `None` without types.
    pub tp: Option<Tensor>,
}

/// The teacher's view of `plain` (u8 `[N, 3, H, W]`) in step `step`, under a symmetry that `seed` and `step` choose.
pub fn ask(
    plain: &Tensor,
    share: f64,
    [seed, step]: [u64; 2],
    answer: impl Fn(&Tensor) -> Option<RawMaps>,
) -> Option<Lesson> {
    let _guard = tch::no_grad_guard();
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step);
    through(Symmetry::of(rng.u8(0..8)), plain, share, answer)
}

/// Dimensions of `[N, C, H, W]` that `symmetry` mirrors.
fn mirrored(symmetry: Symmetry) -> Vec<i64> {
    let dims = [(symmetry.flip_x, 3), (symmetry.flip_y, 2)];
    let of = dims.into_iter().filter(|(flips, _)| *flips);
    of.map(|(_, dim)| dim).collect()
}

fn transposed(symmetry: Symmetry, x: &Tensor) -> Tensor {
    if symmetry.transpose {
        x.transpose(2, 3)
    } else {
        x.shallow_clone()
    }
}

fn view(symmetry: Symmetry, x: &Tensor) -> Tensor {
    transposed(symmetry, x).flip(mirrored(symmetry))
}

fn back(symmetry: Symmetry, x: &Tensor) -> Tensor {
    transposed(symmetry, &x.flip(mirrored(symmetry)))
}

/// h and v point the other way where their axis is mirrored, and change places with the axes.
fn back_hv(symmetry: Symmetry, hv: &Tensor) -> Tensor {
    let signs = [symmetry.flip_x, symmetry.flip_y].map(|flips| if flips { -1.0f32 } else { 1.0 });
    let signs = Tensor::from_slice(&signs).view([1, 2, 1, 1]);
    let hv = back(symmetry, &(hv * signs.to_device(hv.device())));
    if symmetry.transpose { hv.flip([1]) } else { hv }
}

fn through(
    symmetry: Symmetry,
    plain: &Tensor,
    share: f64,
    answer: impl Fn(&Tensor) -> Option<RawMaps>,
) -> Option<Lesson> {
    let raw = answer(&view(symmetry, plain).contiguous())?;
    Some(Lesson {
        share,
        np: back(symmetry, &raw.np.sigmoid()),
        hv: back_hv(symmetry, &raw.hv),
        tp: raw.tp.map(|tp| back(symmetry, &tp.softmax(1, Kind::Float))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slopes of the red channel for h and v, brightness for np, colours for types: turned pictures have turned answers.
    fn slopes(rgb: &Tensor) -> Option<RawMaps> {
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
    fn a_teacher_that_turns_with_the_picture_says_the_same_under_every_symmetry() {
        let mut rng = Rng::with_seed(8);
        let pixels: Vec<u8> = (0..2 * 3 * 6 * 6).map(|_| rng.u8(..)).collect();
        let rgb = Tensor::from_slice(&pixels).view([2, 3, 6, 6]);
        let plain = through(Symmetry::of(0), &rgb, 0.5, slopes).unwrap();
        assert!(plain.hv.abs().max().double_value(&[]) > 10.0);
        for bits in 1..8 {
            let turned = through(Symmetry::of(bits), &rgb, 0.5, slopes).unwrap();
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
    fn every_symmetry_has_its_turn() {
        let rgb = Tensor::zeros([1, 3, 4, 4], (Kind::Uint8, tch::Device::Cpu));
        // The second px of the first row: no two symmetries show it at one place.
        let _ = rgb.get(0).get(0).get(0).get(1).fill_(255);
        let places = std::cell::RefCell::new(std::collections::BTreeSet::new());
        for step in 0..200 {
            ask(&rgb, 0.5, [3, step], |view| {
                let lit = view.narrow(1, 0, 1).flatten(0, 3).argmax(0, false);
                places.borrow_mut().insert(lit.int64_value(&[]));
                slopes(view)
            });
        }
        assert_eq!(places.borrow().len(), 8);
    }
}
