//! Batches of crops with their targets.
//!
//! In: the [`Atlas`] of images, the [`Pool`] of places, the configuration, the batch's number. Out:
//! a [`Batch`] on the atlas's device, without the teacher's targets: a pure function of the
//! configuration's seed and the batch's number.

use fastrand::Rng;
use tch::{Device, Kind, Tensor};

use super::atlas::Atlas;
use super::augment::{Variation, vary_colours};
use super::config::TrainConfig;
use super::crops::{Place, Pool};
use super::losses::Batch;
use super::targets::compute_targets;

/// Draws batch number `index`.
pub fn draw_batch(atlas: &Atlas, pool: &Pool, config: &TrainConfig, index: u64) -> Batch {
    let _guard = tch::no_grad_guard();
    let crops: Vec<_> = (0..config.batch as u64)
        .map(|i| draw_crop(pool, config, index.wrapping_mul(1_000_003).wrapping_add(i)))
        .collect();
    // One crop stays in a core's cache; a GPU wants many at once.
    let at_once = match atlas.device() {
        Device::Cpu => 1,
        _ => crops.len(),
    };
    let parts: Vec<Batch> = crops
        .chunks(at_once)
        .map(|some| make_batch(atlas, config, some))
        .collect();
    Batch::concatenate(&parts)
}

/// Where crop number `number` lies, and what happens to its colours.
fn draw_crop(pool: &Pool, config: &TrainConfig, number: u64) -> (Place, Variation) {
    let mut rng = Rng::with_seed(config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
    let resampled = config.augment.then_some(config.resampled);
    let place = pool.draw_place(&mut rng, config.crop_px, resampled);
    let coloured = config.augment && rng.f64() < config.coloured;
    let variation = coloured.then(|| Variation::draw(&mut rng));
    (place, variation.unwrap_or_default())
}

fn make_batch(atlas: &Atlas, config: &TrainConfig, crops: &[(Place, Variation)]) -> Batch {
    let (places, variations): (Vec<_>, Vec<_>) = crops.iter().cloned().unzip();
    let (plain, labels) = atlas.cut(&places, config.crop_px);
    let bytes = |t: &Tensor| t.to_kind(Kind::Uint8);
    Batch {
        plain: (config.taught > 0.0).then(|| bytes(&plain)),
        rgb: bytes(&vary_colours(plain, &variations)),
        targets: compute_targets(&labels),
        teacher: None,
    }
}
