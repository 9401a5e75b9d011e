//! The training loop: draw, predict, compare, learn, checkpoint.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use fastrand::Rng;
use tch::{Kind, Tensor};

use super::config::TrainConfig;
use super::crops::Pool;
use super::data::{self, LoadedSet};
use super::losses::{self, Batch};
use super::optimizer::Optimizer;
use super::weights::Weights;
use super::{TrainError, augment, package, targets};
use crate::model::lite;

/// Batches that measure the encoder's batch-norm statistics.
const RECALIBRATION_BATCHES: usize = 12;
/// Batches prepared ahead.
const PREFETCH: usize = 3;

/// Where things are and how long to go on.
pub struct TrainJob {
    pub config: TrainConfig,
    /// The data sets' folders lie below this.
    pub data_root: PathBuf,
    /// ImageNet encoder (safetensors).
    pub encoder: PathBuf,
    /// Checkpoint, log and weights go here.
    pub out: PathBuf,
    pub steps: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    pub bf16: bool,
}

/// Trains to the end, from the checkpoint in `out` if there is one. Writes `train.safetensors` (checkpoint),
/// a model folder's files (averaged weights, batch norms folded) and `train.jsonl` (a line every 20 steps).
pub fn run(job: &TrainJob) -> Result<(), TrainError> {
    std::fs::create_dir_all(&job.out).map_err(|e| TrainError::file(&job.out, e))?;
    let sets = data::load(&job.config, &job.data_root)?;
    report_sets(&sets);
    let types = job.config.types.len();
    let (mut weights, mut optimizer) = begin(job, &sets)?;
    let first = optimizer.step;
    std::thread::scope(|scope| {
        let (send, receive) = bounded(PREFETCH);
        let (sets, config) = (&sets, &job.config);
        scope.spawn(move || {
            let pool = Pool::new(sets, types);
            for step in first..job.steps {
                // The trainer is gone: nobody needs another batch.
                if send.send(draw_batch(&pool, config, step)).is_err() {
                    return;
                }
            }
        });
        learn(job, &mut weights, &mut optimizer, &receive)
    })
}

/// Weights and optimizer as the last checkpoint left them, or as a training begins.
fn begin(job: &TrainJob, sets: &[LoadedSet]) -> Result<(Weights, Optimizer), TrainError> {
    let types = job.config.types.len();
    let mut weights = Weights::from_imagenet(&job.encoder, types as i64, job.config.seed)?;
    let checkpoint = job.out.join("train.safetensors");
    let optimizer = if checkpoint.exists() {
        resume(&checkpoint, &mut weights)?
    } else {
        let pool = Pool::new(sets, types);
        let batches: Vec<Tensor> = (0..RECALIBRATION_BATCHES)
            .map(|i| draw_batch(&pool, &job.config, u64::MAX - i as u64).rgb)
            .collect();
        weights.recalibrate(&batches);
        Optimizer::new(&weights.tensors, &weights.learning())
    };
    weights.bf16 = job.bf16;
    for name in weights.learning() {
        if let Some(t) = weights.tensors.get_mut(&name) {
            *t = t.detach().copy().set_requires_grad(true);
        }
    }
    Ok((weights, optimizer))
}

fn learn(
    job: &TrainJob,
    weights: &mut Weights,
    optimizer: &mut Optimizer,
    batches: &Receiver<Batch>,
) -> Result<(), TrainError> {
    let log_path = job.out.join("train.jsonl");
    let mut log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|e| TrainError::file(&log_path, e))?;
    let mut sums = [0.0; 4];
    let mut since = Instant::now();
    while let Ok(batch) = batches.recv() {
        let raw = lite::forward(&weights.layers, weights, &batch.rgb.to_kind(Kind::Float));
        let float = |t: Tensor| t.to_kind(Kind::Float);
        let raw = crate::model::network::RawMaps {
            np: float(raw.np),
            hv: float(raw.hv),
            tp: raw.tp.map(float),
        };
        let loss = losses::of(&raw, &batch);
        let total = loss.total.double_value(&[]);
        if !total.is_finite() {
            return Err(TrainError::NotANumber {
                step: optimizer.step,
            });
        }
        loss.total.backward();
        optimizer.update(&mut weights.tensors, &job.config, job.steps);
        for (sum, v) in sums.iter_mut().zip([total].iter().chain(&loss.parts)) {
            *sum += v;
        }
        if optimizer.step.is_multiple_of(20) {
            let mean = sums.map(|s| s / 20.0);
            let line = serde_json::json!({
                "step": optimizer.step, "loss": mean[0], "np": mean[1], "hv": mean[2], "tp": mean[3],
                "seconds_a_step": since.elapsed().as_secs_f64() / 20.0,
            });
            writeln!(log, "{line}").map_err(|e| TrainError::file(&log_path, e))?;
            (sums, since) = ([0.0; 4], Instant::now());
        }
        if optimizer.step.is_multiple_of(job.checkpoint_every) || optimizer.step == job.steps {
            save(job, weights, optimizer)?;
        }
    }
    Ok(())
}

fn report_sets(sets: &[LoadedSet]) {
    for set in sets {
        let held = set.images.iter().filter(|i| i.held_out).count();
        tracing::info!(
            "{}: {} images to learn from, {held} held out",
            set.name,
            set.images.len() - held
        );
    }
}

/// The batch of `step`: a pure function of the configuration's seed and the step.
fn draw_batch(pool: &Pool, config: &TrainConfig, step: u64) -> Batch {
    let side = config.crop_px;
    let mut rgb = Vec::with_capacity(config.batch * 3 * side * side);
    let mut maps: [Vec<f32>; 6] = Default::default();
    let mut tp = Vec::with_capacity(config.batch * side * side);
    for i in 0..config.batch {
        let mut rng = Rng::with_seed(
            config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
                ^ step.wrapping_mul(1_000_003).wrapping_add(i as u64),
        );
        let mut view = pool.draw(&mut rng, side);
        let t = targets::of(&view, side);
        view.rgb = augment::vary(view.rgb, &mut rng);
        for channel in 0..3 {
            rgb.extend(view.rgb.pixels().map(|p| p.0[channel]));
        }
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
    Batch {
        rgb: Tensor::from_slice(&rgb).view([n, 3, s, s]),
        np: plane(np),
        np_weight: plane(np_weight),
        hv: Tensor::cat(&[plane(h), plane(v)], 1),
        hv_weight: plane(hv_weight),
        tp: Tensor::from_slice(&tp).view([n, s, s]),
        tp_weight: plane(tp_weight),
    }
}

/// Writes the checkpoint, then the model as it stands.
fn save(job: &TrainJob, weights: &Weights, optimizer: &Optimizer) -> Result<(), TrainError> {
    let mut all: Vec<(String, Tensor)> = vec![("step".into(), Tensor::from(optimizer.step as i64))];
    let groups = [
        ("w", &weights.tensors),
        ("m", &optimizer.m),
        ("v", &optimizer.v),
        ("a", &optimizer.average),
    ];
    for (prefix, tensors) in groups {
        all.extend(
            tensors
                .iter()
                .map(|(n, t)| (format!("{prefix}:{n}"), t.detach())),
        );
    }
    write(&all, &job.out.join("train.safetensors"))?;
    let learnt = weights.tensors.iter().map(|(n, t)| (n.clone(), t.detach()));
    let mut averaged: std::collections::BTreeMap<_, _> = learnt.collect();
    averaged.extend(
        optimizer
            .average
            .iter()
            .map(|(n, t)| (n.clone(), t.shallow_clone())),
    );
    let averaged = Weights::new(weights.layers.clone(), averaged);
    package::write_model(&job.out, &job.config, &averaged.fold())
}

/// Writes tensors to `path`, whole or not at all.
pub(super) fn write(tensors: &[(String, Tensor)], path: &Path) -> Result<(), TrainError> {
    let part = path.with_extension("part");
    let contiguous: Vec<_> = tensors.iter().map(|(n, t)| (n, t.contiguous())).collect();
    Tensor::write_safetensors(&contiguous, &part)?;
    std::fs::rename(&part, path).map_err(|e| TrainError::file(path, e))
}

fn resume(checkpoint: &Path, weights: &mut Weights) -> Result<Optimizer, TrainError> {
    let mut optimizer = Optimizer::new(&weights.tensors, &weights.learning());
    let tensors =
        Tensor::read_safetensors(checkpoint).map_err(|e| TrainError::file(checkpoint, e))?;
    for (name, tensor) in tensors {
        match name.split_once(':') {
            None => optimizer.step = tensor.int64_value(&[]) as u64,
            Some(("w", n)) => drop(weights.tensors.insert(n.into(), tensor)),
            Some(("m", n)) => drop(optimizer.m.insert(n.into(), tensor)),
            Some(("v", n)) => drop(optimizer.v.insert(n.into(), tensor)),
            Some((_, n)) => drop(optimizer.average.insert(n.into(), tensor)),
        }
    }
    tracing::info!(
        "going on from step {} of {}",
        optimizer.step,
        checkpoint.display()
    );
    Ok(optimizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    /// Two images of discs with their ids, and an encoder of random weights.
    fn fixture(root: &Path) -> TrainConfig {
        for folder in ["set/images", "set/labels"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for name in ["a", "b"] {
            let inside =
                |x: u32, y: u32| (x % 24).abs_diff(12).pow(2) + (y % 24).abs_diff(12).pow(2) < 60;
            let rgb = RgbImage::from_fn(96, 96, |x, y| {
                if inside(x, y) {
                    Rgb([90, 60, 140])
                } else {
                    Rgb([230, 190, 215])
                }
            });
            let ids = GrayImage::from_fn(96, 96, |x, y| {
                Luma([if inside(x, y) {
                    (1 + x / 24 + 4 * (y / 24)) as u8
                } else {
                    0
                }])
            });
            rgb.save(root.join(format!("set/images/{name}.png")))
                .unwrap();
            ids.save(root.join(format!("set/labels/{name}.png")))
                .unwrap();
        }
        tch::manual_seed(3);
        let mut tensors = Vec::new();
        for l in lite::layers(0).iter().filter(|l| l.encoder) {
            let options = (Kind::Float, tch::Device::Cpu);
            tensors.push((
                format!("{}.weight", l.name),
                Tensor::randn(l.shape, options) * 0.1,
            ));
            for (part, value) in [("gain", 1.0), ("bias", 0.0), ("mean", 0.0), ("var", 1.0)] {
                tensors.push((
                    format!("{}.{part}", l.name),
                    Tensor::full([l.shape[0]], value, options),
                ));
            }
        }
        write(&tensors, &root.join("encoder.safetensors")).unwrap();
        let text = include_str!("../../config/train-default.toml");
        let mut config: TrainConfig = toml::from_str(text).unwrap();
        config.data.retain(|set| set.name == "nuinsseg");
        config.data[0].folder = "set".into();
        config.data[0].mpp = 0.25;
        (config.crop_px, config.batch) = (64, 1);
        config.types.clear();
        config
    }

    #[test]
    fn a_killed_training_goes_on_as_if_it_had_not_been() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture(root.path());
        let job = |out: &str, steps| TrainJob {
            config: config.clone(),
            data_root: root.path().to_path_buf(),
            encoder: root.path().join("encoder.safetensors"),
            out: root.path().join(out),
            steps,
            checkpoint_every: 2,
            bf16: false,
        };
        run(&job("whole", 4)).unwrap();
        // Killed after its first checkpoint: the log and the checkpoint of step 2 are what is left.
        let interrupted = job("killed", 4);
        stop_after(&interrupted, 2);
        run(&interrupted).unwrap();
        let weights =
            |out: &str| std::fs::read(root.path().join(out).join("model.safetensors")).unwrap();
        assert!(weights("whole") == weights("killed"), "the weights differ");
        let folder = crate::model::ModelFolder::open(&root.path().join("whole")).unwrap();
        assert_eq!(folder.spec.types.len(), 0);
    }

    /// Runs with the schedule of `job`, and drops everything after `steps`.
    fn stop_after(job: &TrainJob, steps: u64) {
        let sets = data::load(&job.config, &job.data_root).unwrap();
        std::fs::create_dir_all(&job.out).unwrap();
        let mut state = begin(job, &sets).unwrap();
        let pool = Pool::new(&sets, job.config.types.len());
        let (send, receive) = bounded(steps as usize);
        for step in 0..steps {
            send.send(draw_batch(&pool, &job.config, step)).unwrap();
        }
        drop(send);
        learn(job, &mut state.0, &mut state.1, &receive).unwrap();
    }
}
