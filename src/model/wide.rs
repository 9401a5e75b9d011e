//! HoVer-Net-wide: an EfficientNet-Lite2 encoder, a residual decoder down to single pixels, and a
//! branch of its own for types.
//!
//! In: RGB, float `[N, 3, H, W]`, H and W multiples of 32. Out: [`RawMaps`] of the same H and W, tp
//! without a background. About 637 kFLOP per px, 17 times hovernet-lite. Outlines are decoded at
//! every stride down to 1; types branch off at stride 4, where a nucleus is still seen as a whole.
//! Never holds a weight.

use tch::Tensor;

use super::efficientnet::{Features, LITE2, encode, encoder_layers};
use super::layer::{Activation, Convolve, Layer, Walk, centred, double, layer};
use super::network::RawMaps;

/// A stride of the decoder: its channels, those of the features that join it, residual blocks.
struct Level {
    stride: i64,
    channels: i64,
    skip: i64,
    blocks: usize,
}

const fn level(stride: i64, channels: i64, skip: i64, blocks: usize) -> Level {
    Level {
        stride,
        channels,
        skip,
        blocks,
    }
}

/// Channels of the encoder at stride 32.
const TOP: i64 = 208;
const D16: Level = level(16, 256, 120, 1);
const D8: Level = level(8, 192, 48, 2);
const D4: Level = level(4, 160, 24, 2);
const D2: Level = level(2, 112, 16, 2);
/// The features that join it are of the picture itself, not of the encoder.
const D1: Level = level(1, 48, PIXELS, 1);
/// Channels of the features of single pixels.
const PIXELS: i64 = 24;
/// Channels and residual blocks of the types' branch, at stride 4.
const TYPES: i64 = 128;
const TYPE_BLOCKS: usize = 2;

/// All layers of the network for `types` types of nuclei (background not counted), in the order in
/// which data flows through them.
pub fn layers(types: i64) -> Vec<Layer> {
    let mut all = encoder_layers(&LITE2);
    all.push(relu(layer("decoder.lateral32", D16.channels, TOP, 1)));
    push_level(&mut all, &D16);
    for (above, level) in [(&D16, &D8), (&D8, &D4)] {
        push_down(&mut all, above, level);
        push_level(&mut all, level);
    }
    if types > 0 {
        all.push(layer("types.lateral4", TYPES, D4.channels, 1));
        all.push(layer("types.down8", TYPES, D8.channels, 1));
        push_residual(&mut all, "types.res4", TYPES, TYPE_BLOCKS);
        // Types of 2 x 2 px each.
        all.push(layer("head.tp", 4 * types, TYPES, 1));
    }
    push_down(&mut all, &D4, &D2);
    push_level(&mut all, &D2);
    all.push(relu(layer("decoder.pixels.a", PIXELS, 3, 3)));
    all.push(relu(layer("decoder.pixels.b", PIXELS, PIXELS, 3)));
    push_down(&mut all, &D2, &D1);
    push_level(&mut all, &D1);
    let d1 = D1.channels;
    all.push(layer("head.np", 1, d1, 1));
    all.push(relu(layer("decoder.conv1hv", d1, d1, 3)));
    all.push(layer("head.hv", 2, d1, 1));
    all
}

fn relu(layer: Layer) -> Layer {
    Layer {
        activation: Activation::Relu,
        ..layer
    }
}

/// The 1 x 1 that brings the features of `above` to the channels of `level`.
fn push_down(all: &mut Vec<Layer>, above: &Level, level: &Level) {
    let name = format!("decoder.down{}", above.stride);
    all.push(layer(&name, level.channels, above.channels, 1));
}

/// The lateral 1 x 1 and the residual blocks of `level`.
fn push_level(all: &mut Vec<Layer>, level: &Level) {
    let Level {
        stride,
        channels,
        skip,
        blocks,
    } = *level;
    all.push(layer(
        &format!("decoder.lateral{stride}"),
        channels,
        skip,
        1,
    ));
    push_residual(all, &format!("decoder.res{stride}"), channels, blocks);
}

fn push_residual(all: &mut Vec<Layer>, name: &str, channels: i64, blocks: usize) {
    for block in 0..blocks {
        let conv = |part: &str| layer(&format!("{name}.{block}.{part}"), channels, channels, 3);
        all.push(relu(conv("a")));
        all.push(conv("b"));
    }
}

/// Runs the network with the weights of `with`.
///
/// `rgb` is float `[N, 3, H, W]`, 0..=255; `layers` come from [`layers`].
pub fn forward(layers: &[Layer], with: &dyn Convolve, rgb: &Tensor) -> RawMaps {
    let mut at = Walk::new(layers, with);
    let rgb = centred(rgb);
    let Features {
        skips: [c2, c4, c8, c16],
        top,
    } = encode(&mut at, &LITE2, &rgb);

    // Each tensor goes as soon as nothing needs it: at stride 1 they are large.
    let d16 = join(&mut at, &top, &c16, &D16);
    let d8 = join(&mut at, &d16, &c8, &D8);
    let d4 = join(&mut at, &d8, &c4, &D4);
    drop((top, c16, c8, c4, d16));
    let tp = at
        .is_at("types.lateral4")
        .then(|| forward_types(&mut at, &d4, &d8));
    let d2 = join(&mut at, &d4, &c2, &D2);
    drop((d8, d4, c2));
    let pixels = at.step(&rgb);
    let pixels = at.step(&pixels);
    let d1 = join(&mut at, &d2, &pixels, &D1);
    drop((d2, pixels, rgb));
    let np = at.step(&d1);
    let hv1 = at.step(&d1);
    drop(d1);
    let hv = at.step(&hv1);
    RawMaps { np, hv, tp }
}

/// Logits of the types `[N, types, H, W]` of the features at strides 4 and 8.
fn forward_types(at: &mut Walk, d4: &Tensor, d8: &Tensor) -> Tensor {
    let mut t = at.step(d4);
    t += double(&at.step(d8));
    let t = residual(at, t.relu_(), TYPE_BLOCKS);
    let halves = at.step(&t).pixel_shuffle(2);
    halves.upsample_bilinear2d_vec(None::<&[i64]>, false, &[2.0, 2.0][..])
}

/// The features from above, doubled, and those of the encoder, through the residual blocks of
/// `level`.
fn join(at: &mut Walk, above: &Tensor, skip: &Tensor, level: &Level) -> Tensor {
    let above = at.step(above);
    let mut sum = at.step(skip);
    sum += double(&above);
    residual(at, sum.relu_(), level.blocks)
}

fn residual(at: &mut Walk, mut x: Tensor, blocks: usize) -> Tensor {
    for _ in 0..blocks {
        let y = at.step(&x);
        let mut y = at.step(&y);
        y += x;
        x = y.relu_();
    }
    x
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::{Device, Kind};

    use super::*;
    use crate::model::design::{Design, Folded};
    use crate::model::layer::parameters;
    use crate::model::network::Network;
    use crate::model::{Architecture, Precision, weights};

    /// `count` numbers in -0.5..0.5, as tests/fixtures/make_wide.py computes them.
    fn values(count: u32, name: &str) -> Vec<f32> {
        let fnv = |seed: u32, byte: u8| (seed ^ u32::from(byte)).wrapping_mul(16_777_619);
        let seed = name.bytes().fold(2_166_136_261, fnv);
        let value = |i: u32| {
            let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
            x ^= x >> 15;
            x = x.wrapping_mul(2_246_822_519);
            x ^= x >> 13;
            (x >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(value).collect()
    }

    fn network(types: i64) -> Folded {
        let tensor = |(name, shape): (String, Vec<i64>)| {
            let count: i64 = shape.iter().product();
            let scale = match shape.as_slice() {
                [_, rest @ ..] if !rest.is_empty() => {
                    (12.0 / rest.iter().product::<i64>() as f64).sqrt()
                }
                _ => 0.2,
            };
            let tensor = Tensor::from_slice(&values(count as u32, &name)).view(&shape[..]) * scale;
            (name, tensor)
        };
        let all: BTreeMap<_, _> = parameters(&layers(types)).into_iter().map(tensor).collect();
        let design = Design::of(Architecture::HovernetWide).unwrap();
        Folded::from_tensors(design, types, all, Precision::F32).unwrap()
    }

    /// u8 `[1, 3, 32, 64]`.
    fn picture() -> Tensor {
        let bytes = values(3 * 32 * 64, "rgb").into_iter();
        let bytes: Vec<u8> = bytes.map(|x| ((x + 0.5) * 255.0).round() as u8).collect();
        Tensor::from_slice(&bytes).view([1, 3, 32, 64])
    }

    #[test]
    fn maps_are_those_of_the_network_in_pytorch() {
        let bytes = include_bytes!("../../tests/fixtures/wide.safetensors");
        let wanted = weights::read_safetensors(bytes, "wide.safetensors".as_ref()).unwrap();
        let wanted: BTreeMap<_, _> = wanted.into_iter().collect();
        let found = network(4).forward(&picture()).unwrap();
        let tp = found.tp.unwrap();
        assert_eq!(tp.size(), [1, 5, 32, 64], "the background comes first");
        for (name, map) in [
            ("np", found.np),
            ("hv", found.hv),
            ("tp", tp.narrow(1, 1, 4)),
        ] {
            let apart = (&map - &wanted[name]).abs().max().double_value(&[]);
            let largest = wanted[name].abs().max().double_value(&[]);
            assert!(apart < 1e-5 * largest, "{name}: {apart} of {largest}");
        }
    }

    #[test]
    fn without_types_outlines_are_the_same() {
        let (with, without) = (network(4), network(0));
        let [with, without] = [with, without].map(|n| n.forward(&picture()).unwrap());
        assert!(without.tp.is_none());
        assert_eq!(with.np, without.np);
        assert_eq!(with.hv, without.hv);
        assert_eq!(
            (with.hv.kind(), with.hv.device()),
            (Kind::Float, Device::Cpu)
        );
    }

    #[test]
    fn it_has_eight_million_weights() {
        let count = |shape: &Vec<i64>| shape.iter().product::<i64>();
        let all: i64 = parameters(&layers(4))
            .iter()
            .map(|(_, shape)| count(shape))
            .sum();
        // Counted on the folded network in PyTorch (scripts/wide_weights.py).
        assert_eq!(all, 8_410_291);
    }
}
