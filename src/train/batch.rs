//! Batches of crops with their targets.
//!
//! In: the [`Pool`] of images, the configuration, the batch's number. Out: a [`Batch`] of tensors
//! on the CPU, without the teacher's targets: a pure function of the configuration's seed and the
//! batch's number.

use fastrand::Rng;
use image::RgbImage;
use tch::Tensor;

use super::augment;
use super::config::TrainConfig;
use super::crops::Pool;
use super::losses::Batch;
use super::targets::compute_targets;

/// Draws batch number `index`.
pub fn draw_batch(pool: &Pool, config: &TrainConfig, index: u64) -> Batch {
    let side = config.crop_px;
    let mut rgb = Vec::with_capacity(config.batch * 3 * side * side);
    let mut plain = Vec::new();
    let mut maps: [Vec<f32>; 6] = Default::default();
    let mut tp = Vec::with_capacity(config.batch * side * side);
    for i in 0..config.batch {
        let mut rng = Rng::with_seed(
            config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
                ^ index.wrapping_mul(1_000_003).wrapping_add(i as u64),
        );
        let mut crop = pool.draw_crop(&mut rng, side, config.augment.then_some(config.resampled));
        let t = compute_targets(&crop, side);
        if config.taught > 0.0 {
            append_planes(&mut plain, &crop.rgb);
        }
        if config.augment && rng.f64() < config.coloured {
            crop.rgb = augment::vary_colours(crop.rgb, &mut rng);
        }
        append_planes(&mut rgb, &crop.rgb);
        for (map, part) in
            maps.iter_mut()
                .zip([t.np, t.np_weight, t.h, t.v, t.hv_weight, t.tp_weight])
        {
            map.extend(part);
        }
        tp.extend(t.tp);
    }
    let (n, s) = (config.batch as i64, side as i64);
    let plane = |v: &[f32]| Tensor::from_slice(v).view([n, 1, s, s]);
    let [np, np_weight, h, v, hv_weight, tp_weight] = &maps;
    let pixels = |v: &[u8]| Tensor::from_slice(v).view([n, 3, s, s]);
    Batch {
        rgb: pixels(&rgb),
        plain: (!plain.is_empty()).then(|| pixels(&plain)),
        teacher: None,
        np: plane(np),
        np_weight: plane(np_weight),
        hv: Tensor::cat(&[plane(h), plane(v)], 1),
        hv_weight: plane(hv_weight),
        tp: Tensor::from_slice(&tp).view([n, s, s]),
        tp_weight: plane(tp_weight),
    }
}

/// Appends the red, the green and the blue plane of `image` to `to`.
fn append_planes(to: &mut Vec<u8>, image: &RgbImage) {
    for channel in 0..3 {
        to.extend(image.pixels().map(|p| p.0[channel]));
    }
}
