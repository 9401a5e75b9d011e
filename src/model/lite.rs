//! HoVer-Net-lite: an EfficientNet-Lite0 encoder and a small top-down decoder with np, hv and tp
//! heads.
//!
//! In: RGB, float `[N, 3, H, W]`, H and W multiples of 32. Out: [`RawMaps`] of the same H and W, tp
//! without a background. About 37 kFLOP per px: 13 in the encoder, 24 in the decoder. Never holds a
//! weight.

use tch::Tensor;

use super::efficientnet::{Features, LITE0, encode, encoder_layers};
use super::layer::{Activation, Convolve, Layer, Walk, centred, double, layer};
use super::network::RawMaps;

/// Decoder channels at strides 16 and 8.
const D8: i64 = 96;
/// At stride 4.
const D4: i64 = 64;
/// At stride 2.
const D2: i64 = 32;
/// Of the hv branch at stride 2.
const DHV: i64 = 32;

/// All layers of the network for `types` types of nuclei (background not counted), in the order in
/// which data flows through them.
pub fn layers(types: i64) -> Vec<Layer> {
    let mut all = encoder_layers(&LITE0);
    let lateral = |name: &str, out, input| layer(&format!("decoder.lateral{name}"), out, input, 1);
    let conv = |name: &str, out, input| Layer {
        activation: Activation::Relu,
        ..layer(&format!("decoder.{name}"), out, input, 3)
    };
    all.extend([
        lateral("32", D8, 192),
        lateral("16", D8, 112),
        conv("conv16", D8, D8),
        lateral("8", D8, 40),
        conv("conv8", D8, D8),
        layer("decoder.down8", D4, D8, 1),
        lateral("4", D4, 24),
        conv("conv4a", D4, D4),
        conv("conv4b", D4, D4),
        layer("decoder.down4", D2, D4, 1),
        lateral("2", D2, 16),
        conv("conv2", D2, D2),
        conv("conv2hv", DHV, D2),
        layer("head.np", 4, D2, 1),
        layer("head.hv", 8, DHV, 1),
    ]);
    if types > 0 {
        all.push(layer("head.tp", types, D4, 1));
    }
    all
}

/// Runs the network with the weights of `with`.
///
/// `rgb` is float `[N, 3, H, W]`, 0..=255; `layers` come from [`layers`].
pub fn forward(layers: &[Layer], with: &dyn Convolve, rgb: &Tensor) -> RawMaps {
    let mut at = Walk::new(layers, with);
    let Features { skips, top } = encode(&mut at, &LITE0, &centred(rgb));
    let [c2, c4, c8, c16] = &skips;

    let top = double(&at.step(&top));
    let d16 = add_then_conv(&mut at, c16, top);
    let d8 = add_then_conv(&mut at, c8, double(&d16));
    let d8 = at.step(&d8);
    let d4 = add_then_conv(&mut at, c4, double(&d8));
    let d4 = at.step(&d4);
    let down4 = at.step(&d4);
    let d2 = add_then_conv(&mut at, c2, double(&down4));
    let hv2 = at.step(&d2);
    let np = at.step(&d2).pixel_shuffle(2);
    let hv = at.step(&hv2).pixel_shuffle(2);
    let tp = at.is_at("head.tp").then(|| {
        at.step(&d4)
            .upsample_bilinear2d_vec(None::<&[i64]>, false, &[4.0, 4.0][..])
    });
    RawMaps { np, hv, tp }
}

/// The lateral 1 x 1 of the encoder's features, plus the features from above, through a 3 x 3.
fn add_then_conv(at: &mut Walk, skip: &Tensor, above: Tensor) -> Tensor {
    let sum = at.step(skip) + above;
    at.step(&sum)
}
