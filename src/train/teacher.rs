//! Targets beside the labels: what a teacher predicts for the same crops. The teacher is another
//! model, or the network's own averaged weights (mean teacher, Tarvainen and Valpola 2017).
//!
//! In: crops before their colours were varied, and a prediction function. Out: [`TeacherTargets`]
//! in the orientation of the crops. The teacher sees each batch under one of the eight symmetries
//! of the square, so over many steps the network learns the mean over all eight: the effect of
//! test-time augmentation at no cost at inference. Never carries a gradient.

use fastrand::Rng;
use tch::{Kind, Tensor};

use super::TrainError;
use super::config::TrainConfig;
use crate::model::layer::channels_last;
use crate::model::network::{Activated, RawMaps, Wanted, activate};
use crate::model::tta::Symmetry;
use crate::model::{Architecture, Device, ModelFolder, Network, Precision};

/// Largest difference between the scales of teacher and training.
const MAX_SCALE_DIFFERENCE: f64 = 0.05;

/// A model that teaches.
pub struct Teacher {
    network: Box<dyn Network>,
    /// Px that a crop is padded by on each side, because the network's maps are smaller.
    pad_px: i64,
    /// Side of the maps that are wanted, px.
    side: usize,
    /// Type channels of its maps, background included.
    channels: usize,
    /// Its channel of each type that is taught; `None`: it does not know them all.
    types: Option<Vec<i64>>,
}

impl Teacher {
    /// `model` as a teacher of the training `config`. Types are matched by name; a model that lacks
    /// one of them teaches outlines only.
    ///
    /// # Errors
    /// A model of another scale, one that is no network, or one that does not fit on the device.
    pub fn new(
        model: &ModelFolder,
        config: &TrainConfig,
        device: Device,
        bf16: bool,
    ) -> Result<Self, TrainError> {
        let spec = &model.spec;
        if (spec.mpp / config.mpp - 1.0).abs() > MAX_SCALE_DIFFERENCE {
            return Err(TrainError::Config(format!(
                "the teacher {} is for {} µm/px, the training for {}: take a teacher of the same scale",
                spec.name, spec.mpp, config.mpp
            )));
        }
        let precision = match bf16 {
            true => Precision::Bf16,
            false => Precision::Auto,
        };
        let network = model
            .network(device, precision)
            .map_err(|e| TrainError::Config(format!("the teacher {}: {e}", spec.name)))?;
        let channel_of = |name: &str| spec.types.iter().position(|t| t.name == name);
        let channels: Option<Vec<i64>> = config
            .types
            .iter()
            .map(|t| channel_of(&t.name).map(|at| at as i64))
            .collect();
        if channels.is_none() {
            tracing::warn!(
                "the teacher {} does not know all types: it teaches outlines only",
                spec.name
            );
        }
        Ok(Self {
            network: Box::new(network),
            pad_px: pad_px(model, config.crop_px as i64),
            side: config.crop_px,
            channels: spec.types.len(),
            types: channels.filter(|c| !c.is_empty()),
        })
    }

    /// What it says about u8 `[N, 3, H, W]`.
    pub fn predict(&self, rgb: &Tensor) -> Result<Answer, TrainError> {
        let failed = |e: crate::model::ModelError| TrainError::Config(format!("the teacher: {e}"));
        let raw = self
            .network
            .forward(&channels_last(&padded(rgb, self.pad_px)))
            .map_err(failed)?;
        let wanted = Wanted {
            height: self.side,
            width: self.side,
            types: self.channels,
        };
        let Activated { np, hv, tp } = activate(&raw, wanted).map_err(failed)?;
        let tp = self.types.as_ref().zip(tp).map(|(channels, tp)| {
            let own = tp.index_select(1, &Tensor::from_slice(channels).to_device(tp.device()));
            // Near an edge the background's share is large: what counts is which type it would be.
            let sum = own.sum_dim_intlist(&[1i64][..], true, Kind::Float);
            own / sum.clamp_min(1e-6)
        });
        Ok(Answer { np, hv, tp })
    }
}

/// HoVer-Net's maps are smaller than its input; every other network of ours gives maps as large.
fn pad_px(model: &ModelFolder, side: i64) -> i64 {
    let spec = &model.spec;
    let (least, fits): (i64, &dyn Fn(i64) -> bool) = match spec.architecture {
        // It takes its own input size and so many times 8 px more.
        Architecture::HovernetFast | Architecture::HovernetOriginal => {
            let natural = i64::from(spec.patch_in_px);
            (spec.margin_px().into(), &move |pad| {
                (side + 2 * pad - natural) % 8 == 0
            })
        }
        Architecture::Torchscript => (spec.margin_px().into(), &|_| true),
        _ => (0, &|_| true),
    };
    (least..least + 8).find(|&pad| fits(pad)).unwrap_or(least)
}

/// u8 `[N, 3, H, W]`, mirrored outside.
fn padded(rgb: &Tensor, pad: i64) -> Tensor {
    if pad == 0 {
        return rgb.shallow_clone();
    }
    let mirrored = rgb.to_kind(Kind::Float).reflection_pad2d([pad; 4]);
    mirrored.to_kind(Kind::Uint8)
}

/// What a teacher says about a batch.
pub struct Answer {
    /// Probability of a nucleus, `[N, 1, H, W]`.
    pub np: Tensor,
    /// h and v, `[N, 2, H, W]`.
    pub hv: Tensor,
    /// Probabilities of the types without the background, `[N, types, H, W]`; `None` without types.
    pub tp: Option<Tensor>,
}

impl Answer {
    /// Of the raw maps of a network in training, whose types have no background.
    pub fn of_own(raw: &RawMaps) -> Self {
        Self {
            np: raw.np.sigmoid(),
            hv: raw.hv.shallow_clone(),
            tp: raw.tp.as_ref().map(|tp| tp.softmax(1, Kind::Float)),
        }
    }
}

/// A teacher's predictions for a batch, and how much they count.
pub struct TeacherTargets {
    /// Weight beside the labels, 0..=1.
    pub share: f64,
    /// Whether h, v and types are also taught where no label tells them, as far as the teacher sees
    /// a nucleus. A network must not teach itself so: it would believe its own errors.
    pub fills_gaps: bool,
    pub answer: Answer,
}

/// The teacher's answer for `plain` (u8 `[N, 3, H, W]`), predicted under a symmetry that `seed`
/// and `step` choose.
///
/// # Errors
/// What `predict` says.
pub fn predict_targets(
    plain: &Tensor,
    [seed, step]: [u64; 2],
    predict: impl Fn(&Tensor) -> Result<Answer, TrainError>,
) -> Result<Answer, TrainError> {
    let _guard = tch::no_grad_guard();
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step);
    predict_under(Symmetry::of(rng.u8(0..8)), plain, predict)
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

/// The answer for `plain`, predicted under `symmetry`.
fn predict_under(
    symmetry: Symmetry,
    plain: &Tensor,
    predict: impl Fn(&Tensor) -> Result<Answer, TrainError>,
) -> Result<Answer, TrainError> {
    let seen = predict(&apply(symmetry, plain).contiguous())?;
    Ok(Answer {
        np: undo(symmetry, &seen.np),
        hv: undo_hv(symmetry, &seen.hv),
        tp: seen.tp.map(|tp| undo(symmetry, &tp)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prediction that turns with its picture: brightness as np, slopes of the red channel as h
    /// and v, colours as types.
    fn predict_slopes(rgb: &Tensor) -> Result<Answer, TrainError> {
        let x = rgb.to_kind(Kind::Float);
        let red = x.narrow(1, 0, 1);
        let slope = |dim: i64| red.roll([-1], [dim]) - red.roll([1], [dim]);
        let raw = RawMaps {
            np: x.mean_dim(&[1i64][..], true, Kind::Float) / 255.0,
            hv: Tensor::cat(&[slope(3), slope(2)], 1),
            tp: Some(x / 50.0),
        };
        Ok(Answer::of_own(&raw))
    }

    #[test]
    fn targets_do_not_depend_on_the_symmetry() {
        let mut rng = Rng::with_seed(8);
        let pixels: Vec<u8> = (0..2 * 3 * 6 * 6).map(|_| rng.u8(..)).collect();
        let rgb = Tensor::from_slice(&pixels).view([2, 3, 6, 6]);
        let plain = predict_under(Symmetry::of(0), &rgb, predict_slopes).unwrap();
        assert!(plain.hv.abs().max().double_value(&[]) > 10.0);
        for bits in 1..8 {
            let turned = predict_under(Symmetry::of(bits), &rgb, predict_slopes).unwrap();
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
            let _ = predict_targets(&rgb, [3, step], |view| {
                let lit = view.narrow(1, 0, 1).flatten(0, 3).argmax(0, false);
                places.borrow_mut().insert(lit.int64_value(&[]));
                predict_slopes(view)
            });
        }
        assert_eq!(places.borrow().len(), 8);
    }

    fn folder_of(architecture: &str, patch: [i32; 2], types: &[&str]) -> ModelFolder {
        use crate::model::{design::Design, hovernet, layer};
        let scratch = tempfile::tempdir().unwrap();
        let listed: String = types
            .iter()
            .map(|name| format!("[[types]]\nname = \"{name}\"\ncolor = [1, 2, 3]\n"))
            .collect();
        let text = format!(
            "name = \"m\"\narchitecture = \"{architecture}\"\nmpp = 0.25\npatch_in_px = {}\n\
             patch_out_px = {}\nweights = \"model.safetensors\"\nsha256 = \"{}\"\n{listed}",
            patch[0],
            patch[1],
            "0".repeat(64)
        );
        let spec = crate::model::ModelSpec::parse(&text, scratch.path()).unwrap();
        let count = types.len() as i64;
        let parameters = match Design::of(spec.architecture) {
            Some(design) => layer::parameters(&(design.layers)(count - 1)),
            None => hovernet::parameters(hovernet::Mode::Fast, count, 8),
        };
        let mut rng = Rng::with_seed(11);
        let tensor = |(name, shape): (String, Vec<i64>)| {
            let spread = match name.ends_with("running_var") {
                true => 0.0,
                false => 0.1,
            };
            let drawn = crate::train::initial::draw_normal(&shape, spread, &mut rng);
            (name, drawn + if spread == 0.0 { 1.0 } else { 0.0 })
        };
        let tensors: Vec<_> = parameters.into_iter().map(tensor).collect();
        crate::train::package::write_folder(scratch.path(), spec, &tensors, Kind::Float).unwrap();
        ModelFolder::open(scratch.path()).unwrap()
    }

    fn config(crop_px: usize) -> TrainConfig {
        TrainConfig {
            crop_px,
            ..TrainConfig::embedded().unwrap()
        }
    }

    fn noise(side: i64) -> Tensor {
        Tensor::randint(256, [1, 3, side, side], (Kind::Uint8, tch::Device::Cpu))
    }

    #[test]
    fn types_are_matched_by_name_and_sum_to_one() {
        // In another order than the training's, with one more.
        let names = [
            "background",
            "spindle",
            "other",
            "odd",
            "epithelial",
            "inflammatory",
        ];
        let folder = folder_of("hovernet-lite", [64, 64], &names);
        let teacher = Teacher::new(&folder, &config(64), Device::Cpu, false).unwrap();
        assert_eq!(teacher.types, Some(vec![4, 5, 1, 2]));
        let answer = teacher.predict(&noise(64)).unwrap();
        assert_eq!(answer.np.size(), [1, 1, 64, 64]);
        let tp = answer.tp.unwrap();
        assert_eq!(tp.size(), [1, 4, 64, 64]);
        let sums = tp.sum_dim_intlist(&[1i64][..], false, Kind::Float);
        let apart = (sums - 1.0).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "{apart}");
    }

    #[test]
    fn a_teacher_without_the_types_teaches_outlines_only() {
        let folder = folder_of("hovernet-lite", [64, 64], &["background", "neoplastic"]);
        let teacher = Teacher::new(&folder, &config(64), Device::Cpu, false).unwrap();
        assert!(teacher.predict(&noise(64)).unwrap().tp.is_none());
    }

    #[test]
    fn a_hovernet_answers_for_the_whole_crop() {
        let folder = folder_of("hovernet-fast", [256, 164], &["background", "a"]);
        let teacher = Teacher::new(&folder, &config(256), Device::Cpu, false).unwrap();
        let answer = teacher.predict(&noise(256)).unwrap();
        assert_eq!(answer.np.size(), [1, 1, 256, 256]);
        assert_eq!(answer.hv.size(), [1, 2, 256, 256]);
    }

    #[test]
    fn a_teacher_of_another_scale_or_without_a_network_is_refused() {
        let error = |folder: &ModelFolder, mpp: f64| {
            let config = TrainConfig { mpp, ..config(64) };
            let refused = Teacher::new(folder, &config, Device::Cpu, false);
            refused.err().unwrap().to_string()
        };
        let folder = folder_of("hovernet-lite", [64, 64], &["background", "a"]);
        let text = error(&folder, 0.5);
        assert!(
            text.contains("0.25 µm/px") && text.contains("same scale"),
            "{text}"
        );
        let rule = ModelFolder::analytic(crate::model::analytic::Options::PLAIN);
        let text = error(&rule, rule.spec.mpp);
        assert!(text.contains("analytic"), "{text}");
    }
}
