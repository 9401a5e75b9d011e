//! The one place where a network's raw output becomes a [`PredictionMap`].
//!
//! In: u8 RGB batches on the network's device, raw np, hv and tp maps. Out: probabilities, channel
//! last, cut to the wanted centre. Never decides which patches run or what a nucleus is.

use tch::{Device, Kind, Tensor};

use super::error::ModelError;
use crate::prediction::PredictionMap;

/// A network as plain tensors: one batch in, raw maps out.
///
/// `forward` only reads the network's tensors, which nobody changes after construction: workers
/// share one network and call it from several threads at once.
pub trait Network: Send {
    /// `rgb` is u8 `[N, 3, H, W]` on the network's device, in channels-last memory.
    ///
    /// # Errors
    /// What libtorch says, or sides that the network does not take.
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError>;
}

/// A network's output for one batch, before any activation. All maps have one height and width.
pub struct RawMaps {
    /// Logits: `[N, 1, h, w]` (sigmoid) or `[N, 2, h, w]` (softmax, channel 1 is nucleus).
    pub np: Tensor,
    /// `[N, 2, h, w]`: horizontal, then vertical.
    pub hv: Tensor,
    /// Logits `[N, types, h, w]`, background first.
    pub tp: Option<Tensor>,
}

/// Turns raw maps into one [`PredictionMap`] per patch: the centre of `height` x `width` px, with
/// `types` type channels.
///
/// # Errors
/// [`ModelError::Output`] for maps of other shapes, or values that are not finite.
pub fn to_maps(
    raw: &RawMaps,
    types: usize,
    height: usize,
    width: usize,
) -> Result<Vec<PredictionMap>, ModelError> {
    let size = [height as i64, width as i64];
    let np_channels = raw.np.size4()?.1;
    let np = match np_channels {
        1 => centre(&raw.np, "np", 1, size)?
            .f_to_kind(Kind::Float)?
            .f_sigmoid()?,
        _ => centre(&raw.np, "np", 2, size)?
            .f_to_kind(Kind::Float)?
            .f_softmax(1, Kind::Float)?
            .f_narrow(1, 1, 1)?,
    };
    let np = planes(&np)?;
    let hv = planes(&centre(&raw.hv, "hv", 2, size)?)?;
    let tp = match (&raw.tp, types) {
        (_, 0) => vec![],
        (Some(tp), _) => channel_last(
            &centre(tp, "tp", types as i64, size)?
                .f_to_kind(Kind::Float)?
                .f_softmax(1, Kind::Float)?,
        )?,
        (None, _) => {
            return Err(ModelError::output(format!(
                "it has no tp map, but model.toml names {types} types"
            )));
        }
    };
    if !np
        .iter()
        .chain(&hv)
        .chain(&tp)
        .all(|value| value.is_finite())
    {
        return Err(ModelError::output(
            "it holds NaN or infinity: the weights are damaged, or the precision is too low (try f32)",
        ));
    }
    split(&np, &hv, &tp, types, height, width)
}

/// Cuts dense batches into one map per patch.
fn split(
    np: &[f32],
    hv: &[f32],
    tp: &[f32],
    types: usize,
    height: usize,
    width: usize,
) -> Result<Vec<PredictionMap>, ModelError> {
    let pixels = height * width;
    if pixels == 0 || hv.len() != 2 * np.len() || tp.len() != types * np.len() {
        return Err(ModelError::output("its maps are of different batch sizes"));
    }
    let maps = np
        .chunks_exact(pixels)
        .zip(hv.chunks_exact(2 * pixels))
        .enumerate();
    Ok(maps
        .map(|(patch, (np, hv))| {
            let (h, v) = hv.split_at(pixels);
            let start = patch * pixels * types;
            PredictionMap {
                width,
                height,
                np: np.to_vec(),
                h: h.to_vec(),
                v: v.to_vec(),
                types,
                tp: tp
                    .get(start..start + pixels * types)
                    .unwrap_or_default()
                    .to_vec(),
            }
        })
        .collect())
}

/// The central `[height, width]` of a map that must have `channels` channels.
fn centre(
    map: &Tensor,
    name: &str,
    channels: i64,
    [height, width]: [i64; 2],
) -> Result<Tensor, ModelError> {
    let (_, has, full_height, full_width) = map.size4().map_err(|_| {
        let shape = map.size();
        ModelError::output(format!("{name} has the shape {shape:?}, not [N, C, H, W]"))
    })?;
    if has != channels {
        return Err(ModelError::output(format!(
            "{name} has {has} channels, wanted {channels}"
        )));
    }
    let (extra_rows, extra_columns) = (full_height - height, full_width - width);
    if extra_rows < 0 || extra_columns < 0 || extra_rows % 2 != 0 || extra_columns % 2 != 0 {
        return Err(ModelError::output(format!(
            "{name} is {full_width} x {full_height} px, wanted {width} x {height} and an equal margin"
        )));
    }
    Ok(map
        .f_narrow(2, extra_rows / 2, height)?
        .f_narrow(3, extra_columns / 2, width)?)
}

/// f32 values in `[N, C, H, W]` order.
fn planes(map: &Tensor) -> Result<Vec<f32>, ModelError> {
    copied(&map.f_to_kind(Kind::Float)?)
}

/// f32 values in `[N, H, W, C]` order.
fn channel_last(map: &Tensor) -> Result<Vec<f32>, ModelError> {
    copied(&map.f_permute([0, 2, 3, 1])?)
}

fn copied(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let tensor = tensor.f_contiguous()?.f_to_device(Device::Cpu)?;
    let mut values = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: &[i64]) -> Tensor {
        let count: i64 = shape.iter().product();
        Tensor::arange(count, (Kind::Float, Device::Cpu)).reshape(shape)
    }

    #[test]
    fn two_channel_np_is_softmax_and_the_centre_is_kept() {
        let raw = RawMaps {
            np: ramp(&[2, 2, 4, 6]) * 0.1,
            hv: ramp(&[2, 2, 4, 6]),
            tp: Some(ramp(&[2, 3, 4, 6]) * 0.05),
        };
        let maps = to_maps(&raw, 3, 2, 4).unwrap();
        assert_eq!(maps.len(), 2);
        let map = &maps[1];
        assert_eq!((map.width, map.height, map.types), (4, 2, 3));
        // Patch 1, row 1 of the crop is row 2 of the input, column 3 is column 4: index 48 + 2 * 6
        // + 4.
        let at = 4 + 3;
        assert_eq!(map.h[at], 64.0);
        assert_eq!(map.v[at], 88.0);
        // The two np logits differ by 24 * 0.1 everywhere.
        assert!((map.np[at] - 1.0 / (1.0 + (-2.4f32).exp())).abs() < 1e-6);
        // The three tp logits differ by 24 * 0.05 = 1.2 from one to the next.
        let weights = [1.0f32, 1.2f32.exp(), 2.4f32.exp()];
        let sum: f32 = weights.iter().sum();
        for (channel, weight) in weights.iter().enumerate() {
            assert!((map.tp[at * 3 + channel] - weight / sum).abs() < 1e-6);
        }
    }

    #[test]
    fn one_channel_np_is_sigmoid() {
        let raw = RawMaps {
            np: ramp(&[1, 1, 2, 2]) - 1.0,
            hv: ramp(&[1, 2, 2, 2]),
            tp: None,
        };
        let maps = to_maps(&raw, 0, 2, 2).unwrap();
        for (value, logit) in maps[0].np.iter().zip([-1.0f32, 0.0, 1.0, 2.0]) {
            assert!((value - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
        }
        assert!(maps[0].tp.is_empty());
    }

    #[test]
    fn misfits_are_named() {
        let raw = |np: &[i64], hv: &[i64]| RawMaps {
            np: ramp(np),
            hv: ramp(hv),
            tp: None,
        };
        let message =
            |raw: RawMaps, types, side| to_maps(&raw, types, side, side).unwrap_err().to_string();
        assert!(message(raw(&[1, 3, 4, 4], &[1, 2, 4, 4]), 0, 4).contains("np has 3 channels"));
        assert!(message(raw(&[1, 2, 4, 4], &[1, 2, 4, 4]), 0, 3).contains("equal margin"));
        assert!(message(raw(&[1, 2, 4, 4], &[1, 2, 4, 4]), 0, 6).contains("wanted 6 x 6"));
        assert!(message(raw(&[1, 2, 4, 4], &[1, 2, 4, 4]), 5, 4).contains("5 types"));
        assert!(message(raw(&[2, 2, 4, 4], &[1, 2, 4, 4]), 0, 4).contains("batch sizes"));
        let mut nan = raw(&[1, 2, 4, 4], &[1, 2, 4, 4]);
        nan.hv *= f64::NAN;
        assert!(message(nan, 0, 4).contains("NaN"));
    }
}
