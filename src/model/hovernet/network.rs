//! HoVer-Net's layers and how data flows through them.
//!
//! In: checked tensors, u8 RGB. Out: raw maps. Every 3 x 3 convolution of the encoder is padded as
//! TensorFlow's "same"; those of the decoders are valid (not padded), except u1. Widths come from
//! the tensors.

use tch::{Device, Kind, Tensor};

use super::Mode;
use crate::model::error::ModelError;
use crate::model::network::{Network, RawMaps, gpu_convolution};
use crate::model::precision::Precision;
use crate::model::weights::Tensors;

type Result<T> = std::result::Result<T, ModelError>;

/// Added to a variance before its root.
const BN_EPS: f64 = 1e-5;
/// Units of the encoder's blocks d0..d3.
pub(super) const ENCODER_UNITS: [usize; 4] = [3, 4, 6, 3];
/// Units of the dense blocks of u3 and u2.
pub(super) const DENSE_UNITS: [usize; 2] = [8, 4];
/// Groups of a dense unit's k x k convolution.
pub(super) const DENSE_GROUPS: i64 = 4;

impl Mode {
    /// Side of the decoders' kernels, px.
    pub(crate) const fn kernel_px(self) -> i64 {
        match self {
            Mode::Fast => 3,
            Mode::Original => 5,
        }
    }

    /// Px cut off the skips d0 and d1, both sides together.
    pub(crate) const fn skip_crops_px(self) -> [i64; 2] {
        match self {
            Mode::Fast => [92, 36],
            Mode::Original => [184, 72],
        }
    }
}

/// The network, ready to run. Batch norms are not folded into the convolutions before them: folded,
/// they round differently, and after fifty layers the output differs from the reference by 1.5e-4
/// of its largest value.
pub struct HoverNet {
    mode: Mode,
    conv0: NormedConv,
    blocks: Vec<ResidualBlock>,
    conv_bot: Conv,
    np: Decoder,
    hv: Decoder,
    tp: Option<Decoder>,
}

impl HoverNet {
    /// Builds the network on `device` from tensors checked against [`super::parameters`].
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], or what libtorch says.
    pub fn from_tensors(mode: Mode, tensors: &Tensors, device: Device) -> Result<Self> {
        Self::in_precision(mode, tensors, device, Precision::F32)
    }

    /// [`HoverNet::from_tensors`] that computes in `precision`.
    ///
    /// # Errors
    /// Those of [`HoverNet::from_tensors`].
    pub(crate) fn in_precision(
        mode: Mode,
        tensors: &Tensors,
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        let source = Source {
            tensors,
            device,
            precision,
        };
        let blocks = ENCODER_UNITS
            .iter()
            .enumerate()
            .map(|(level, &units)| {
                ResidualBlock::load(
                    &source,
                    &format!("d{level}"),
                    units,
                    if level == 0 { 1 } else { 2 },
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let with_types = tensors.contains_key("decoder.tp.u0.conv.weight");
        Ok(Self {
            mode,
            conv0: source.normed("conv0./", "conv0.bn")?,
            blocks,
            conv_bot: source.conv("conv_bot")?,
            np: Decoder::load(&source, "decoder.np")?,
            hv: Decoder::load(&source, "decoder.hv")?,
            tp: with_types
                .then(|| Decoder::load(&source, "decoder.tp"))
                .transpose()?,
        })
    }

    /// The features that all branches share, from u8 RGB `[N, 3, H, W]`.
    fn encode(&self, rgb: &Tensor) -> Result<Features> {
        let image = rgb
            .f_to_kind(Kind::Float)?
            .f_div_scalar(255.0)?
            .f_to_kind(self.conv0.conv.weight.kind())?;
        let padding = match self.mode {
            Mode::Fast => 3,
            Mode::Original => 0,
        };
        let mut x = self.conv0.forward(&image, 1, padding)?;
        let mut skips = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            x = block.forward(x)?;
            skips.push(x.shallow_clone());
        }
        let bottom = self.conv_bot.forward(&x, 1, 0, 1)?;
        let [crop0, crop1] = self.mode.skip_crops_px();
        let [d0, d1, d2, _] = skips.as_slice() else {
            return Err(ModelError::output("the encoder has no four blocks"));
        };
        Ok(Features {
            d0: crop(d0, crop0)?,
            d1: crop(d1, crop1)?,
            // All branches start from the same sum.
            start: up2(&bottom)?.f_add_(d2)?,
        })
    }
}

impl Network for HoverNet {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps> {
        let features = self.encode(rgb)?;
        let kernel = self.mode.kernel_px();
        Ok(RawMaps {
            np: self.np.forward(&features, kernel)?,
            hv: self.hv.forward(&features, kernel)?,
            tp: self
                .tp
                .as_ref()
                .map(|tp| tp.forward(&features, kernel))
                .transpose()?,
        })
    }
}

/// What the encoder hands to each branch.
struct Features {
    /// Full size, cropped.
    d0: Tensor,
    /// Half size, cropped.
    d1: Tensor,
    /// Quarter size: d2 plus the bottleneck.
    start: Tensor,
}

/// The parameters from which a network's parts are built.
struct Source<'a> {
    tensors: &'a Tensors,
    device: Device,
    precision: Precision,
}

impl Source<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| ModelError::MissingTensor(name.to_string()))?;
        Ok(tensor.f_to_device(self.device)?)
    }

    fn conv(&self, name: &str) -> Result<Conv> {
        let weight = self.tensor(&format!("{name}.weight"))?;
        Ok(Conv {
            weight: weight.f_to_kind(self.precision.kind())?,
            bias: None,
            precision: self.precision,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm {
            weight: self.tensor(&format!("{name}.weight"))?,
            bias: self.tensor(&format!("{name}.bias"))?,
            mean: self.tensor(&format!("{name}.running_mean"))?,
            var: self.tensor(&format!("{name}.running_var"))?,
        })
    }

    fn normed(&self, conv: &str, norm: &str) -> Result<NormedConv> {
        Ok(NormedConv {
            conv: self.conv(conv)?,
            norm: self.norm(norm)?,
        })
    }
}

struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    precision: Precision,
}

impl Conv {
    fn forward(&self, x: &Tensor, stride: i64, padding: i64, groups: i64) -> Result<Tensor> {
        if x.device() != Device::Cpu {
            let steps = [stride, padding, groups];
            let (weight, bias) = (&self.weight, self.bias.as_ref());
            return Ok(gpu_convolution(x, weight, bias, steps, self.precision));
        }
        Ok(x.f_conv2d(&self.weight, self.bias.as_ref(), stride, padding, 1, groups)?)
    }
}

/// A convolution, its batch norm and a ReLU.
struct NormedConv {
    conv: Conv,
    norm: Norm,
}

impl NormedConv {
    fn forward(&self, x: &Tensor, stride: i64, padding: i64) -> Result<Tensor> {
        self.norm.relu(&self.conv.forward(x, stride, padding, 1)?)
    }
}

/// A batch norm that a ReLU follows.
struct Norm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
}

impl Norm {
    fn relu(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let (mean, var) = (Some(&self.mean), Some(&self.var));
        Ok(
            x.f_batch_norm(weight, bias, mean, var, false, 0.0, BN_EPS, true)?
                .f_relu_()?,
        )
    }
}

struct ResidualUnit {
    before: Option<Norm>,
    conv1: NormedConv,
    conv2: NormedConv,
    conv3: Conv,
}

struct ResidualBlock {
    units: Vec<ResidualUnit>,
    shortcut: Conv,
    after: Norm,
    stride: i64,
}

impl ResidualBlock {
    fn load(source: &Source, name: &str, units: usize, stride: i64) -> Result<Self> {
        let units = (0..units)
            .map(|unit| {
                let at = format!("{name}.units.{unit}");
                Ok(ResidualUnit {
                    before: (unit > 0)
                        .then(|| source.norm(&format!("{at}.preact/bn")))
                        .transpose()?,
                    conv1: source.normed(&format!("{at}.conv1"), &format!("{at}.conv1/bn"))?,
                    conv2: source.normed(&format!("{at}.conv2"), &format!("{at}.conv2/bn"))?,
                    conv3: source.conv(&format!("{at}.conv3"))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            units,
            shortcut: source.conv(&format!("{name}.shortcut"))?,
            after: source.norm(&format!("{name}.blk_bna.bn"))?,
            stride,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let mut sum = self.shortcut.forward(&x, self.stride, 0, 1)?;
        let mut input = x;
        for (index, unit) in self.units.iter().enumerate() {
            let stride = if index == 0 { self.stride } else { 1 };
            if let Some(before) = &unit.before {
                input = before.relu(&sum)?;
            }
            let y = unit.conv1.forward(&input, 1, 0)?;
            let y = conv_same(&unit.conv2.conv, &y, stride)?;
            let y = unit.conv2.norm.relu(&y)?;
            let y = unit.conv3.forward(&y, 1, 0, 1)?;
            sum = sum.f_add_(&y)?;
        }
        self.after.relu(&sum)
    }
}

struct DenseUnit {
    before: Norm,
    conv1: NormedConv,
    conv2: Conv,
}

struct DenseBlock {
    units: Vec<DenseUnit>,
    after: Norm,
}

impl DenseBlock {
    fn load(source: &Source, name: &str, units: usize) -> Result<Self> {
        let units = (0..units)
            .map(|unit| {
                let at = format!("{name}.units.{unit}");
                Ok(DenseUnit {
                    before: source.norm(&format!("{at}.preact_bna/bn"))?,
                    conv1: source.normed(&format!("{at}.conv1"), &format!("{at}.conv1/bn"))?,
                    conv2: source.conv(&format!("{at}.conv2"))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            units,
            after: source.norm(&format!("{name}.blk_bna.bn"))?,
        })
    }

    fn forward(&self, x: Tensor, kernel: i64) -> Result<Tensor> {
        let mut features = x;
        for unit in &self.units {
            let y = unit.before.relu(&features)?;
            let y = unit.conv1.forward(&y, 1, 0)?;
            let y = unit.conv2.forward(&y, 1, 0, DENSE_GROUPS)?;
            features = Tensor::f_cat(&[crop(&features, kernel - 1)?, y], 1)?;
        }
        self.after.relu(&features)
    }
}

struct Stage {
    conva: Conv,
    dense: DenseBlock,
    convf: Conv,
}

impl Stage {
    fn load(source: &Source, name: &str, units: usize) -> Result<Self> {
        Ok(Self {
            conva: source.conv(&format!("{name}.conva"))?,
            dense: DenseBlock::load(source, &format!("{name}.dense"), units)?,
            convf: source.conv(&format!("{name}.convf"))?,
        })
    }

    fn forward(&self, x: &Tensor, kernel: i64) -> Result<Tensor> {
        let y = self
            .dense
            .forward(self.conva.forward(x, 1, 0, 1)?, kernel)?;
        self.convf.forward(&y, 1, 0, 1)
    }
}

/// One branch from the shared features to its output channels.
struct Decoder {
    u3: Stage,
    u2: Stage,
    u1: Conv,
    u0_norm: Norm,
    u0: Conv,
}

impl Decoder {
    fn load(source: &Source, name: &str) -> Result<Self> {
        let mut u0 = source.conv(&format!("{name}.u0.conv"))?;
        let bias = source.tensor(&format!("{name}.u0.conv.bias"))?;
        u0.bias = Some(bias.f_to_kind(source.precision.kind())?);
        Ok(Self {
            u3: Stage::load(source, &format!("{name}.u3"), DENSE_UNITS[0])?,
            u2: Stage::load(source, &format!("{name}.u2"), DENSE_UNITS[1])?,
            u1: source.conv(&format!("{name}.u1.conva"))?,
            u0_norm: source.norm(&format!("{name}.u0.bn"))?,
            u0,
        })
    }

    fn forward(&self, features: &Features, kernel: i64) -> Result<Tensor> {
        let x = self.u3.forward(&features.start, kernel)?;
        let x = up2(&x)?.f_add_(&features.d1)?;
        let x = self.u2.forward(&x, kernel)?;
        let x = up2(&x)?.f_add_(&features.d0)?;
        let x = self.u1.forward(&x, 1, kernel / 2, 1)?;
        self.u0.forward(&self.u0_norm.relu(&x)?, 1, 0, 1)
    }
}

/// A 3 x 3 convolution padded as TensorFlow's "same": the odd pixel goes bottom and right.
fn conv_same(conv: &Conv, x: &Tensor, stride: i64) -> Result<Tensor> {
    let (_, _, height, width) = x.size4()?;
    let [(top, bottom), (left, right)] = [height, width].map(|side| same_padding(side, 3, stride));
    if top == bottom && left == right && top == left {
        return conv.forward(x, stride, top, 1);
    }
    let padded = x.f_constant_pad_nd([left, right, top, bottom])?;
    conv.forward(&padded, stride, 0, 1)
}

/// Number of zeros before and after one axis of `side` px under TensorFlow's "same" padding.
pub(crate) fn same_padding(side: i64, kernel: i64, stride: i64) -> (i64, i64) {
    let phase = side % stride;
    let total = (kernel - if phase == 0 { stride } else { phase }).max(0);
    (total / 2, total - total / 2)
}

/// Nearest-neighbour up-sampling by two.
fn up2(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.size4()?;
    Ok(x.f_upsample_nearest2d([2 * height, 2 * width], None, None)?)
}

/// Cuts `px` off each axis, half before (rounded down) and the rest after.
fn crop(x: &Tensor, px: i64) -> Result<Tensor> {
    let (_, _, height, width) = x.size4()?;
    if height <= px || width <= px {
        return Err(ModelError::input(format!(
            "a patch this small leaves no output: features of {width} x {height} px lose {px}"
        )));
    }
    Ok(x.f_narrow(2, px / 2, height - px)?
        .f_narrow(3, px / 2, width - px)?)
}

#[cfg(test)]
mod tests;
