//! The names and shapes of HoVer-Net's parameters, as hover_net's checkpoints have them.
//!
//! In: mode, types, width; or a checkpoint's tensors. Out: the list that a checkpoint must match,
//! its width, and its tensors under hover_net's own names.

use tch::Tensor;

use super::Mode;
use super::network::{DENSE_GROUPS, DENSE_UNITS, ENCODER_UNITS};
use crate::model::weights::Tensors;

/// Output channels of conv0 in published checkpoints; all other widths are multiples of it.
pub const WIDTH: i64 = 64;

/// Every parameter of the network and its shape, for `types` type channels (0: no tp branch) and
/// `width` channels after conv0 ([`WIDTH`] in published checkpoints; a multiple of 8).
pub fn parameters(mode: Mode, types: i64, width: i64) -> Vec<(String, Vec<i64>)> {
    let mut list = Vec::new();
    conv(&mut list, "conv0./", width, 3, 7);
    norm(&mut list, "conv0.bn", width);
    let mut input = width;
    for (level, &units) in ENCODER_UNITS.iter().enumerate() {
        let inner = width << level;
        residual_block(&mut list, &format!("d{level}"), units, input, inner);
        input = 4 * inner;
    }
    conv(&mut list, "conv_bot", 16 * width, input, 1);
    for (branch, channels) in [("tp", types), ("np", 2), ("hv", 2)] {
        if channels > 0 {
            decoder(
                &mut list,
                &format!("decoder.{branch}"),
                mode.kernel_px(),
                width,
                channels,
            );
        }
    }
    list
}

type List = Vec<(String, Vec<i64>)>;

fn conv(list: &mut List, name: &str, out: i64, input: i64, kernel: i64) {
    list.push((format!("{name}.weight"), vec![out, input, kernel, kernel]));
}

fn norm(list: &mut List, name: &str, channels: i64) {
    for part in ["weight", "bias", "running_mean", "running_var"] {
        list.push((format!("{name}.{part}"), vec![channels]));
    }
}

fn residual_block(list: &mut List, name: &str, units: usize, input: i64, inner: i64) {
    let out = 4 * inner;
    for unit in 0..units {
        let at = format!("{name}.units.{unit}");
        if unit > 0 {
            norm(list, &format!("{at}.preact/bn"), out);
        }
        conv(
            list,
            &format!("{at}.conv1"),
            inner,
            if unit == 0 { input } else { out },
            1,
        );
        norm(list, &format!("{at}.conv1/bn"), inner);
        conv(list, &format!("{at}.conv2"), inner, inner, 3);
        norm(list, &format!("{at}.conv2/bn"), inner);
        conv(list, &format!("{at}.conv3"), out, inner, 1);
    }
    conv(list, &format!("{name}.shortcut"), out, input, 1);
    norm(list, &format!("{name}.blk_bna.bn"), out);
}

fn decoder(list: &mut List, name: &str, kernel: i64, width: i64, channels: i64) {
    let mut input = 16 * width;
    for (stage, units) in [("u3", DENSE_UNITS[0]), ("u2", DENSE_UNITS[1])] {
        let out = input / 4;
        conv(list, &format!("{name}.{stage}.conva"), out, input, kernel);
        let grown = dense_block(
            list,
            &format!("{name}.{stage}.dense"),
            units,
            out,
            width,
            kernel,
        );
        conv(list, &format!("{name}.{stage}.convf"), grown, grown, 1);
        input = grown;
    }
    conv(list, &format!("{name}.u1.conva"), width, input, kernel);
    norm(list, &format!("{name}.u0.bn"), width);
    conv(list, &format!("{name}.u0.conv"), channels, width, 1);
    list.push((format!("{name}.u0.conv.bias"), vec![channels]));
}

/// Lists a dense block's parameters and returns its output channels.
fn dense_block(
    list: &mut List,
    name: &str,
    units: usize,
    input: i64,
    width: i64,
    kernel: i64,
) -> i64 {
    let (inner, growth) = (2 * width, width / 2);
    let mut channels = input;
    for unit in 0..units {
        let at = format!("{name}.units.{unit}");
        norm(list, &format!("{at}.preact_bna/bn"), channels);
        conv(list, &format!("{at}.conv1"), inner, channels, 1);
        norm(list, &format!("{at}.conv1/bn"), inner);
        list.push((
            format!("{at}.conv2.weight"),
            vec![growth, inner / DENSE_GROUPS, kernel, kernel],
        ));
        channels += growth;
    }
    norm(list, &format!("{name}.blk_bna.bn"), channels);
    channels
}

/// The width of a checkpoint's conv0; [`WIDTH`] where it has none that can be built.
pub fn width_of(tensors: &Tensors) -> i64 {
    tensors
        .get("conv0./.weight")
        .and_then(|weight| weight.size().first().copied())
        .filter(|&width| width > 0 && width <= WIDTH && width % 8 == 0)
        .unwrap_or(WIDTH)
}

/// A checkpoint's tensors under hover_net's own names: without the `module.` that data-parallel
/// training puts before them, and without the constant of the up-sampling layer.
pub fn own_names(tensors: Vec<(String, Tensor)>) -> Tensors {
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            (
                name.strip_prefix("module.").unwrap_or(&name).to_string(),
                tensor,
            )
        })
        .filter(|(name, _)| name != "upsample2x.unpool_mat")
        .collect()
}
