use std::collections::BTreeMap;

use super::super::{WIDTH, own_names, parameters, width_of};
use super::*;

/// Small deterministic values, so that a thin network neither dies nor explodes.
fn filled(mode: Mode, types: i64, width: i64) -> Tensors {
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    parameters(mode, types, width)
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<i64>() as usize;
            let fan_in = (count as i64 / shape[0]).max(1) as f32;
            let values: Vec<f32> = (0..count)
                .map(|_| match name.rsplit('.').next() {
                    Some("running_var") => 1.0 + next(),
                    Some("weight") if shape.len() == 1 => 1.0 + 0.5 * next(),
                    Some("weight") => next() * (12.0 / fan_in).sqrt(),
                    _ => 0.2 * next(),
                })
                .collect();
            (name, Tensor::from_slice(&values).reshape(&shape))
        })
        .collect()
}

/// u8 noise with some structure, `[1, 3, height, width]`.
fn noise(height: i64, width: i64) -> Tensor {
    let bytes: Vec<u8> = (0..3 * height * width)
        .map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    Tensor::from_slice(&bytes).reshape([1, 3, height, width])
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn parameters_are_those_of_the_checkpoints() {
    // Counted on hover-net 0.0.10's HoVerNet(...).state_dict(), without num_batches_tracked and
    // unpool_mat.
    let fast = parameters(Mode::Fast, 6, WIDTH);
    let names: BTreeMap<&str, &[i64]> = fast
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()))
        .collect();
    assert_eq!(names.len(), fast.len(), "no name stands twice");
    for (name, shape) in [
        ("conv0./.weight", vec![64, 3, 7, 7]),
        ("conv0.bn.running_var", vec![64]),
        ("d0.units.0.conv1.weight", vec![64, 64, 1, 1]),
        ("d0.units.0.conv1/bn.bias", vec![64]),
        ("d1.units.3.preact/bn.weight", vec![512]),
        ("d2.units.0.conv2.weight", vec![256, 256, 3, 3]),
        ("d3.shortcut.weight", vec![2048, 1024, 1, 1]),
        ("d3.blk_bna.bn.running_mean", vec![2048]),
        ("conv_bot.weight", vec![1024, 2048, 1, 1]),
        ("decoder.np.u3.conva.weight", vec![256, 1024, 3, 3]),
        (
            "decoder.np.u3.dense.units.0.preact_bna/bn.weight",
            vec![256],
        ),
        (
            "decoder.hv.u3.dense.units.7.conv1.weight",
            vec![128, 480, 1, 1],
        ),
        (
            "decoder.tp.u2.dense.units.3.conv2.weight",
            vec![32, 32, 3, 3],
        ),
        ("decoder.tp.u2.dense.blk_bna.bn.bias", vec![256]),
        ("decoder.tp.u3.convf.weight", vec![512, 512, 1, 1]),
        ("decoder.tp.u1.conva.weight", vec![64, 256, 3, 3]),
        ("decoder.tp.u0.bn.weight", vec![64]),
        ("decoder.tp.u0.conv.weight", vec![6, 64, 1, 1]),
        ("decoder.tp.u0.conv.bias", vec![6]),
    ] {
        assert_eq!(names.get(name), Some(&shape.as_slice()), "{name}");
    }
    assert!(
        !names.contains_key("d0.units.0.preact/bn.weight"),
        "a block's first unit has none"
    );
    let original = parameters(Mode::Original, 0, WIDTH);
    assert!(
        original
            .iter()
            .all(|(name, _)| !name.starts_with("decoder.tp"))
    );
    assert!(original.contains(&(
        "decoder.np.u2.conva.weight".to_string(),
        vec![128, 512, 5, 5]
    )));
}

#[test]
fn output_sides_are_164_and_80() {
    for (mode, input, output) in [(Mode::Fast, 256, 164), (Mode::Original, 270, 80)] {
        let network = HoverNet::from_tensors(mode, &filled(mode, 5, 8), Device::Cpu).unwrap();
        let raw = network.forward(&noise(input, input)).unwrap();
        assert_eq!(raw.np.size(), [1, 2, output, output]);
        assert_eq!(raw.hv.size(), [1, 2, output, output]);
        assert_eq!(raw.tp.unwrap().size(), [1, 5, output, output]);
        assert_eq!(
            (
                mode.patch_in_px() as i64,
                mode.output_px(input as i32) as i64
            ),
            (input, output)
        );
    }
}

#[test]
fn sides_grow_in_steps_of_eight_and_need_not_be_square() {
    for mode in [Mode::Fast, Mode::Original] {
        let network = HoverNet::from_tensors(mode, &filled(mode, 0, 8), Device::Cpu).unwrap();
        let side = i64::from(mode.patch_in_px());
        let raw = network.forward(&noise(side + 8, side + 24)).unwrap();
        let out = |px: i64| i64::from(mode.output_px(px as i32));
        assert_eq!(raw.np.size(), [1, 2, out(side + 8), out(side + 24)]);
        assert!(raw.tp.is_none());
    }
}

#[test]
fn zero_weights_give_the_last_bias() {
    let mut tensors = filled(Mode::Fast, 3, 8);
    for (name, tensor) in &mut tensors {
        if name.ends_with("weight") {
            *tensor = tensor.zeros_like();
        }
    }
    tensors.insert(
        "decoder.hv.u0.conv.bias".into(),
        Tensor::from_slice(&[0.25f32, -0.5]),
    );
    let network = HoverNet::from_tensors(Mode::Fast, &tensors, Device::Cpu).unwrap();
    let hv = network.forward(&noise(256, 256)).unwrap().hv;
    let [h, v] = [0, 1].map(|channel| hv.select(1, channel));
    assert_eq!(
        (h.min().double_value(&[]), h.max().double_value(&[])),
        (0.25, 0.25)
    );
    assert_eq!(
        (v.min().double_value(&[]), v.max().double_value(&[])),
        (-0.5, -0.5)
    );
}

#[test]
fn a_shift_of_eight_px_shifts_the_output() {
    // The receptive field reaches the padded rim from everywhere: the agreement is not exact.
    let mode = Mode::Fast;
    let network = HoverNet::from_tensors(mode, &filled(mode, 0, 8), Device::Cpu).unwrap();
    let whole = noise(304, 304);
    let a = network
        .forward(&whole.narrow(2, 0, 296).narrow(3, 0, 296))
        .unwrap()
        .hv;
    let b = network
        .forward(&whole.narrow(2, 8, 296).narrow(3, 8, 296))
        .unwrap()
        .hv;
    let side = a.size()[2] - 8;
    let same = |x: &Tensor, at: i64| {
        x.narrow(2, at + 40, side - 80)
            .narrow(3, at + 40, side - 80)
    };
    let (a_same, b_same) = (same(&a, 8), same(&b, 0));
    let spread = a_same.std(true).double_value(&[]);
    let shifted = largest_difference(&a_same, &b_same);
    let not_shifted = largest_difference(&same(&a, 0), &b_same);
    assert!(spread > 1e-3, "the network says something: {spread}");
    assert!(
        shifted < 0.1 * not_shifted,
        "{shifted} against {not_shifted}"
    );
}

/// A block against its units and its end, written with every padding spelt out.
#[test]
fn a_block_matches_the_plain_form() {
    let tensors = filled(Mode::Fast, 0, 8);
    let source = Source {
        tensors: &tensors,
        device: Device::Cpu,
        precision: Precision::F32,
    };
    let block = ResidualBlock::load(&source, "d1", ENCODER_UNITS[1], 2).unwrap();
    let x = noise(20, 22)
        .to_kind(Kind::Float)
        .repeat([1, 11, 1, 1])
        .narrow(1, 0, 32)
        / 255.0;
    let get = |name: String| tensors.get(&name).unwrap_or_else(|| panic!("{name}"));
    let norm = |name: String, x: &Tensor| {
        let part = |part: &str| get(format!("{name}.{part}")).reshape([1, -1, 1, 1]);
        (x - part("running_mean")) / (part("running_var") + 1e-5).sqrt() * part("weight")
            + part("bias")
    };
    let conv = |name: String, x: &Tensor, stride: i64| {
        x.conv2d(
            get(format!("{name}.weight")),
            None::<Tensor>,
            stride,
            0,
            1,
            1,
        )
    };
    let mut sum = conv("d1.shortcut".into(), &x, 2);
    for unit in 0..4 {
        let at = |part: &str| format!("d1.units.{unit}.{part}");
        let input = if unit == 0 {
            x.shallow_clone()
        } else {
            norm(at("preact/bn"), &sum).relu()
        };
        let y = norm(at("conv1/bn"), &conv(at("conv1"), &input, 1)).relu();
        let (stride, before) = if unit == 0 { (2, 0) } else { (1, 1) };
        let y = conv(
            at("conv2"),
            &y.constant_pad_nd([before, 1, before, 1]),
            stride,
        );
        let y = conv(at("conv3"), &norm(at("conv2/bn"), &y).relu(), 1);
        sum += y;
    }
    let plain = norm("d1.blk_bna.bn".into(), &sum).relu();
    let found = block.forward(x).unwrap();
    assert_eq!(found.size(), plain.size());
    let scale = plain.abs().max().double_value(&[]);
    assert!(scale > 0.1 && largest_difference(&found, &plain) < 1e-5 * scale);
}

#[test]
fn same_padding_puts_the_odd_pixel_last() {
    // tf.nn.conv2d(padding="SAME"): total = max((ceil(n / s) - 1) * s + k - n, 0).
    for side in 1..40i64 {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (7, 1)] {
            let total = ((side + stride - 1) / stride - 1) * stride + kernel - side;
            assert_eq!(
                same_padding(side, kernel, stride),
                (total / 2, total - total / 2)
            );
        }
    }
}

#[test]
fn a_prefix_is_taken_off_and_the_width_is_seen() {
    let tensors = filled(Mode::Fast, 0, 16)
        .into_iter()
        .map(|(name, tensor)| (format!("module.{name}"), tensor))
        .chain([(
            "module.upsample2x.unpool_mat".to_string(),
            Tensor::from_slice(&[1f32]),
        )])
        .collect();
    let tensors = own_names(tensors);
    assert_eq!(width_of(&tensors), 16);
    assert!(
        tensors.keys().eq(parameters(Mode::Fast, 0, 16)
            .iter()
            .map(|(name, _)| name)
            .collect::<std::collections::BTreeSet<_>>())
    );
}

/// `hashed` of tests/parity/network.py: murmur3's finalizer of FNV-1a of the name plus the index,
/// in -0.5..0.5.
fn hashed(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0x811C_9DC5u32, |seed, byte| {
        (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (0..count as u32)
        .map(|i| {
            let mut x = i.wrapping_mul(0x9E37_79B9).wrapping_add(seed);
            x ^= x >> 16;
            x = x.wrapping_mul(0x85EB_CA6B);
            x ^= x >> 13;
            x = x.wrapping_mul(0xC2B2_AE35);
            x ^= x >> 16;
            (x >> 8) as f32 / (1 << 24) as f32 - 0.5
        })
        .collect()
}

/// The thin networks of tests/parity/network.py: hashed weights, stored statistics and heads.
fn thin(mode: Mode, types: i64, stored: &Tensors, prefix: &str) -> Tensors {
    let tensor = |(name, shape): (String, Vec<i64>)| {
        if let Some(found) = stored.get(&format!("{prefix}/{name}")) {
            return (name, found.shallow_clone());
        }
        let mut values = hashed(&name, shape.iter().product::<i64>() as usize);
        if shape.len() == 4 {
            let gain = (12.0 / shape[1..].iter().product::<i64>() as f64).sqrt() as f32;
            values.iter_mut().for_each(|v| *v *= gain);
        } else if name.ends_with("weight") {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        (name, Tensor::from_slice(&values).reshape(&shape))
    };
    parameters(mode, types, 8).into_iter().map(tensor).collect()
}

/// hover-net 0.0.10's network on a patch of a slide: all maps to 1e-4 of their largest value.
#[test]
fn thin_networks_answer_as_hover_nets() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let stored = Tensor::read_safetensors(fixtures.join("hovernet_thin.safetensors")).unwrap();
    let stored: Tensors = stored.into_iter().collect();
    let picture = image::open(fixtures.join("tissue_cmu1_270.png")).unwrap();
    for (mode, prefix, types) in [(Mode::Fast, "fast", 5), (Mode::Original, "original", 0)] {
        let side = mode.patch_in_px() as u32;
        let crop = picture.crop_imm(0, 0, side, side).to_rgb8();
        let rgb = Tensor::from_slice(&crop.into_raw())
            .reshape([1, i64::from(side), i64::from(side), 3])
            .permute([0, 3, 1, 2]);
        let tensors = thin(mode, types, &stored, prefix);
        let network = HoverNet::from_tensors(mode, &tensors, Device::Cpu).unwrap();
        let raw = network.forward(&rgb).unwrap();
        let mut maps = vec![("np", raw.np), ("hv", raw.hv)];
        maps.extend(raw.tp.map(|tp| ("tp", tp)));
        assert_eq!(maps.len(), if types > 0 { 3 } else { 2 });
        for (branch, ours) in maps {
            let theirs = &stored[&format!("{prefix}/{branch}")];
            let ours = ours
                .squeeze_dim(0)
                .slice(1, 0, None, 4)
                .slice(2, 0, None, 4);
            assert_eq!(ours.size(), theirs.size());
            let largest = theirs.abs().max().double_value(&[]);
            assert!(largest > 0.5, "{prefix} {branch} says something");
            let difference = largest_difference(&ours, theirs) / largest;
            assert!(difference < 1e-4, "{prefix} {branch}: {difference:e}");
        }
    }
}
