//! The one place where a network's raw output becomes a map.
//!
//! In: u8 RGB batches on the network's device, raw np, hv and tp maps. Out: probabilities cut to the wanted centre, as
//! [`PredictionMap`]s or, rounded on the device, as [`QuantisedMap`]s. Never decides which patches run or what a
//! nucleus is.

use tch::{Device, Kind, Tensor};

use super::error::ModelError;
use super::precision::Precision;
use crate::prediction::{HV_SCALE, PredictionMap, QuantisedMap};
use crate::prediction::{quantise_distance, quantise_probability};

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

/// Side of the square that is kept of each map, and the type channels of the model.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Rows of the centre.
    pub height: usize,
    /// Columns of the centre.
    pub width: usize,
    /// Type channels, background included.
    pub types: usize,
}

impl Wanted {
    const fn pixels(&self) -> usize {
        self.height * self.width
    }
}

/// A batch after its activations, f32, the centre alone, on the network's device.
pub struct Activated {
    /// `[N, 1, h, w]`, 0..=1.
    pub np: Tensor,
    /// `[N, 2, h, w]`.
    pub hv: Tensor,
    /// `[N, types, h, w]`, 0..=1, background first.
    pub tp: Option<Tensor>,
}

/// The centre of raw maps as probabilities.
///
/// # Errors
/// [`ModelError::Output`] for maps of other shapes.
pub fn activate(raw: &RawMaps, wanted: Wanted) -> Result<Activated, ModelError> {
    let size = [wanted.height as i64, wanted.width as i64];
    let np = match raw.np.size4()?.1 {
        1 => centre(&raw.np, "np", 1, size)?
            .f_to_kind(Kind::Float)?
            .f_sigmoid()?,
        _ => centre(&raw.np, "np", 2, size)?
            .f_to_kind(Kind::Float)?
            .f_softmax(1, Kind::Float)?
            .f_narrow(1, 1, 1)?,
    };
    let hv = centre(&raw.hv, "hv", 2, size)?.f_to_kind(Kind::Float)?;
    let tp = match (&raw.tp, wanted.types) {
        (_, 0) => None,
        (Some(tp), types) => Some(
            centre(tp, "tp", types as i64, size)?
                .f_to_kind(Kind::Float)?
                .f_softmax(1, Kind::Float)?,
        ),
        (None, types) => {
            return Err(ModelError::output(format!(
                "it has no tp map, but model.toml names {types} types"
            )));
        }
    };
    let batch = np.size4()?.0;
    let others = [Some(&hv), tp.as_ref()];
    if wanted.pixels() == 0
        || others
            .into_iter()
            .flatten()
            .any(|map| map.size().first() != Some(&batch))
    {
        return Err(ModelError::output("its maps are of different batch sizes"));
    }
    Ok(Activated { np, hv, tp })
}

fn not_finite() -> ModelError {
    ModelError::output(
        "it holds NaN or infinity: the weights are damaged, or the precision is too low (try --precision f32)",
    )
}

/// Turns raw maps into one [`PredictionMap`] per patch: the centre of `wanted`.
///
/// # Errors
/// [`ModelError::Output`] for maps of other shapes, or values that are not finite.
pub fn to_maps(raw: &RawMaps, wanted: Wanted) -> Result<Vec<PredictionMap>, ModelError> {
    let Activated { np, hv, tp } = activate(raw, wanted)?;
    let (np, hv) = (copied(&np)?, copied(&hv)?);
    let tp = match tp {
        Some(tp) => copied(&tp.f_permute([0, 2, 3, 1])?)?,
        None => vec![],
    };
    let mut values = np.iter().chain(&hv).chain(&tp);
    if !values.all(|value| value.is_finite()) {
        return Err(not_finite());
    }
    let (pixels, types) = (wanted.pixels(), wanted.types);
    let maps = np
        .chunks_exact(pixels)
        .zip(hv.chunks_exact(2 * pixels))
        .enumerate();
    Ok(maps
        .map(|(patch, (np, hv))| {
            let (h, v) = hv.split_at(pixels);
            let start = patch * pixels * types;
            PredictionMap {
                width: wanted.width,
                height: wanted.height,
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

/// [`to_maps`] rounded by the rule of [`crate::prediction`], on the CPU.
///
/// # Errors
/// Those of [`to_maps`].
pub fn to_quantised(raw: &RawMaps, wanted: Wanted) -> Result<Vec<QuantisedMap>, ModelError> {
    let Activated { np, hv, tp } = activate(raw, wanted)?;
    let on_cpu = |map: &Tensor| map.f_contiguous()?.f_to_device(Device::Cpu);
    let (np, hv) = (on_cpu(&np)?, on_cpu(&hv)?);
    let tp = tp.as_ref().map(on_cpu).transpose()?;
    let (np, hv) = (floats(&np)?, floats(&hv)?);
    let tp = tp.as_ref().map_or(Ok(&[][..]), floats)?;
    if ![np, hv, tp].into_iter().all(all_finite) {
        return Err(not_finite());
    }
    let pixels = wanted.pixels();
    let rounded = |plane: &[f32]| plane.iter().map(|&x| quantise_distance(x)).collect();
    let maps = np.chunks_exact(pixels).zip(hv.chunks_exact(2 * pixels));
    Ok(maps
        .enumerate()
        .map(|(patch, (np, hv))| {
            let types = patch * pixels * wanted.types..(patch + 1) * pixels * wanted.types;
            let tp = tp.get(types).unwrap_or_default();
            QuantisedMap {
                width: wanted.width,
                height: wanted.height,
                np: np.iter().map(|&p| quantise_probability(p)).collect(),
                h: rounded(&hv[..pixels]),
                v: rounded(&hv[pixels..]),
                types: wanted.types,
                tp: tp.iter().map(|&p| quantise_probability(p)).collect(),
            }
        })
        .collect())
}

/// [`to_quantised`] on the device of the maps, for the first `patches` of the batch: only the rounded integers cross
/// the bus, into pinned memory where the device is a GPU.
///
/// # Errors
/// Those of [`to_maps`].
pub fn quantise_on_device(
    raw: &RawMaps,
    wanted: Wanted,
    patches: usize,
) -> Result<Vec<QuantisedMap>, ModelError> {
    let all = activate(raw, wanted)?;
    let first = |map: &Tensor| map.f_narrow(0, 0, patches as i64);
    let (np, hv) = (first(&all.np)?, first(&all.hv)?);
    let tp = all.tp.as_ref().map(first).transpose()?;
    let finite = finite_on_device([Some(&np), Some(&hv), tp.as_ref()].into_iter().flatten())?;
    let np = to_host(&probabilities(&np)?)?;
    let hv = to_host(&distances(&hv)?)?;
    let tp = tp.map(|tp| to_host(&probabilities(&tp)?)).transpose()?;
    // The copies above are on their way; this one waits for them, because a device works in order.
    if finite.f_to_device(Device::Cpu)?.f_int64_value(&[])? == 0 {
        return Err(not_finite());
    }
    let pixels = wanted.pixels();
    let map = |patch: usize| -> Result<QuantisedMap, ModelError> {
        let at = patch as i64;
        let (h, v) = (hv.f_get(at)?.f_get(0)?, hv.f_get(at)?.f_get(1)?);
        let tp = tp.as_ref().map(|tp| tp.f_get(at)).transpose()?;
        Ok(QuantisedMap {
            width: wanted.width,
            height: wanted.height,
            np: values(&np.f_get(at)?, pixels)?,
            h: values(&h, pixels)?,
            v: values(&v, pixels)?,
            types: wanted.types,
            tp: tp.map_or(Ok(vec![]), |tp| values(&tp, wanted.types * pixels))?,
        })
    };
    (0..patches).map(map).collect()
}

/// [`quantise_probability`] of finite values, as tensor operations: each is one rounding of f32, as in Rust.
fn probabilities(map: &Tensor) -> Result<Tensor, ModelError> {
    let scaled = map.f_mul_scalar(255.0)?.f_add_scalar_(0.5)?;
    Ok(contiguous(
        &scaled.f_clamp(0.0, 255.5)?.f_to_kind(Kind::Uint8)?,
    )?)
}

/// [`quantise_distance`] of finite values, as tensor operations.
fn distances(map: &Tensor) -> Result<Tensor, ModelError> {
    let half = map.f_sign()?.f_mul_scalar_(0.5)?;
    let scaled = map.f_mul_scalar(f64::from(HV_SCALE))?.f_add_(&half)?;
    Ok(contiguous(
        &scaled.f_clamp(-32768.0, 32767.0)?.f_to_kind(Kind::Int16)?,
    )?)
}

fn contiguous(map: &Tensor) -> Result<Tensor, tch::TchError> {
    map.f_contiguous()
}

/// 1 where every value is finite, else 0: the least and the greatest are NaN if any value is.
fn finite_on_device<'a>(maps: impl Iterator<Item = &'a Tensor>) -> Result<Tensor, ModelError> {
    let mut ends = Vec::new();
    for map in maps {
        let (least, greatest) = map.f_aminmax(None, false)?;
        ends.extend([least, greatest]);
    }
    Ok(Tensor::f_stack(&ends, 0)?
        .f_isfinite()?
        .f_all()?
        .f_to_kind(Kind::Int64)?)
}

/// The tensor on the CPU: from a GPU into pinned memory, without waiting for it to be there.
fn to_host(map: &Tensor) -> Result<Tensor, ModelError> {
    match map.device() {
        Device::Cpu => Ok(map.shallow_clone()),
        _ => Ok(map.f_internal_to_copy((map.kind(), Device::Cpu), true)?),
    }
}

/// The `len` values of a contiguous CPU tensor.
fn values<T: tch::kind::Element + Copy + Default>(
    map: &Tensor,
    len: usize,
) -> Result<Vec<T>, ModelError> {
    let mut values = vec![T::default(); len];
    map.f_copy_data(&mut values, len)?;
    Ok(values)
}

/// The values of a contiguous f32 tensor on the CPU, where they lie.
fn floats(map: &Tensor) -> Result<&[f32], ModelError> {
    if map.device() != Device::Cpu || map.kind() != Kind::Float || !map.is_contiguous() {
        return Err(ModelError::output("a map did not arrive as f32 on the CPU"));
    }
    // SAFETY: checked above: numel() values of f32 lie there, in one piece. They live as long as `map`, which the
    // result borrows, and nobody writes to them.
    Ok(unsafe { std::slice::from_raw_parts(map.data_ptr().cast::<f32>(), map.numel()) })
}

/// Whether no value is NaN or infinite; without a branch per value.
fn all_finite(values: &[f32]) -> bool {
    let finite = |some: &[f32]| some.iter().fold(true, |all, value| all & value.is_finite());
    values.chunks(4096).all(finite)
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

/// One convolution on a GPU with `[stride, padding, groups]`. cuDNN measures its kernels once per shape and takes the
/// fastest; it rounds to TF32 only where that is `precision`, whatever libtorch's default.
///
/// # Panics
/// With libtorch's message, as tch does where no error is asked for.
pub fn gpu_convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [stride, padding, groups]: [i64; 3],
    precision: Precision,
) -> Tensor {
    let (benchmark, deterministic, cudnn, transposed) = (true, false, true, false);
    x.internal_convolution(
        weight,
        bias,
        [stride; 2],
        [padding; 2],
        [1, 1],
        transposed,
        [0, 0],
        groups,
        benchmark,
        deterministic,
        cudnn,
        precision == Precision::Tf32,
    )
}

/// f32 values in the order of the tensor's dimensions.
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

    fn wanted(height: usize, width: usize, types: usize) -> Wanted {
        Wanted {
            height,
            width,
            types,
        }
    }

    /// Values of every size, those at the borders of rounding included.
    fn values(shape: &[i64], seed: u64, scale: f32) -> Tensor {
        let mut random = fastrand::Rng::with_seed(seed);
        let count: i64 = shape.iter().product();
        let value = |i: i64| match i % 7 {
            0 => (random.i32(-40_000..40_000) as f32 + 0.5) / HV_SCALE,
            1 => 0.0,
            2 => -f32::MIN_POSITIVE,
            _ => (random.f32() * 2.0 - 1.0) * scale,
        };
        let all: Vec<f32> = (0..count).map(value).collect();
        Tensor::from_slice(&all).reshape(shape)
    }

    #[test]
    fn a_device_rounds_as_the_cpu_does() {
        for (np_channels, types) in [(1, 0), (2, 0), (1, 6), (2, 6)] {
            for scale in [1.0, 6.0, 50.0] {
                let raw = RawMaps {
                    np: values(&[3, np_channels, 40, 44], 1, scale),
                    hv: values(&[3, 2, 40, 44], 2, scale),
                    tp: (types > 0).then(|| values(&[3, types as i64, 40, 44], 3, scale)),
                };
                let wanted = wanted(32, 36, types);
                let maps = to_maps(&raw, wanted).unwrap();
                let rounded: Vec<_> = maps.iter().map(PredictionMap::quantised).collect();
                assert!(to_quantised(&raw, wanted).unwrap() == rounded);
                // Of a padded batch only the patches that are real are kept.
                for real in 1..=3 {
                    let found = quantise_on_device(&raw, wanted, real).unwrap();
                    assert!(
                        found == rounded[..real],
                        "{np_channels} {types} {scale} {real}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_step_of_rounding_is_the_same_on_a_device() {
        // All values that could be stored, half a step to both sides, and the neighbouring floats.
        let near = |x: f32| [x, x.next_up(), x.next_down()];
        let p: Vec<f32> = (0..=510).flat_map(|i| near(i as f32 / 510.0)).collect();
        let found = probabilities(&Tensor::from_slice(&p)).unwrap();
        let stored: Vec<u8> = Vec::try_from(&found).unwrap();
        let wanted: Vec<u8> = p.iter().map(|&p| quantise_probability(p)).collect();
        assert!(stored == wanted);
        let x: Vec<f32> = (-65_540..=65_540)
            .flat_map(|i| near(i as f32 / (2.0 * HV_SCALE)))
            .chain([1e30, -1e30, f32::MAX, f32::MIN])
            .collect();
        let found = distances(&Tensor::from_slice(&x)).unwrap();
        let stored: Vec<i16> = Vec::try_from(&found).unwrap();
        let wanted: Vec<i16> = x.iter().map(|&x| quantise_distance(x)).collect();
        assert!(stored == wanted);
    }

    #[test]
    fn padding_that_is_not_finite_is_nobodys() {
        let with = |value: f64, patch: i64| {
            let raw = RawMaps {
                np: values(&[2, 1, 8, 8], 1, 1.0),
                hv: values(&[2, 2, 8, 8], 2, 1.0),
                tp: None,
            };
            let _ = raw.hv.get(patch).get(1).get(5).get(5).fill_(value);
            raw
        };
        let wanted = wanted(8, 8, 0);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(quantise_on_device(&with(value, 1), wanted, 1).is_ok());
            let error = quantise_on_device(&with(value, 0), wanted, 1).unwrap_err();
            assert!(error.to_string().contains("NaN"), "{error}");
            assert!(to_quantised(&with(value, 1), wanted).is_err());
        }
    }

    #[test]
    fn two_channel_np_is_softmax_and_the_centre_is_kept() {
        let raw = RawMaps {
            np: ramp(&[2, 2, 4, 6]) * 0.1,
            hv: ramp(&[2, 2, 4, 6]),
            tp: Some(ramp(&[2, 3, 4, 6]) * 0.05),
        };
        let maps = to_maps(&raw, wanted(2, 4, 3)).unwrap();
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
        let maps = to_maps(&raw, wanted(2, 2, 0)).unwrap();
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
        let message = |raw: RawMaps, types, side| {
            let wanted = wanted(side, side, types);
            let errors = [
                to_maps(&raw, wanted).unwrap_err().to_string(),
                to_quantised(&raw, wanted).unwrap_err().to_string(),
                quantise_on_device(&raw, wanted, 1).unwrap_err().to_string(),
            ];
            assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
            errors[0].clone()
        };
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
