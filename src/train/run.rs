//! The training loop: draw, predict, compare, learn, validate, checkpoint.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use tch::{Device, Tensor};

use super::checkpoint::{self, Best};
use super::config::TrainConfig;
use super::crops::Pool;
use super::data::{self, LoadedSet};
use super::learner::{self, Learner};
use super::losses::Batch;
use super::optimizer::{self, Optimizer};
use super::{TrainError, batch, package, page, teacher, validate};
use crate::model::network::RawMaps;
use crate::model::weights::Tensors;

/// Batches that measure the encoder's batch-norm statistics.
const RECALIBRATION_BATCHES: usize = 12;
/// Batches prepared ahead.
const PREFETCH: usize = 3;
/// Steps a line of the log.
const LOG_EVERY: u64 = 20;

/// What the weights are before the first step.
pub enum Start {
    /// An ImageNet encoder (safetensors, see scripts/imagenet_encoder.py) and a fresh decoder.
    Encoder(PathBuf),
    /// Weights of a model, batch norms folded. Another number of types gets a fresh type head.
    Model(Tensors),
}

/// Where things are and how long to go on.
pub struct TrainJob {
    pub config: TrainConfig,
    /// The data sets' folders lie below this.
    pub data_root: PathBuf,
    pub start: Start,
    /// Checkpoint, log and weights go here.
    pub out: PathBuf,
    pub steps: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between validations; 0: none.
    pub validate_every: u64,
    /// Validations without a better PQ that end the training; 0: never.
    pub patience: u64,
    pub bf16: bool,
    pub device: Device,
}

/// How a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    AllSteps,
    /// Validation stopped getting better.
    Early,
    /// On request: the checkpoint is written.
    Stopped,
}

/// What a progress bar shows after a step.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub step: u64,
    pub loss: f64,
    /// Of the last validation.
    pub pq: Option<f64>,
}

/// Trains to the end, from the checkpoint in `out` if there is one. Writes `train.safetensors` (checkpoint), a model
/// folder's files (averaged weights, batch norms folded), `train.jsonl` and, with validation, `train.html`.
///
/// # Errors
/// Data that cannot be used, a checkpoint of another configuration, a loss that is not a number, too little memory.
pub fn run(
    job: &TrainJob,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Ended, TrainError> {
    // Settles this thread's number of threads: asked for later, it would be what another thread has set since, and
    // sums over another number of threads differ.
    tch::get_num_threads();
    std::fs::create_dir_all(&job.out).map_err(|e| TrainError::file(&job.out, e))?;
    checkpoint::claim(&job.out, &job.config)?;
    let sets = data::load(&job.config, &job.data_root)?;
    report_sets(&sets);
    let types = job.config.types.len();
    let (learner, optimizer, best) = begin(job, &sets)?;
    let first = optimizer.step;
    let validation = match job.validate_every {
        0 => Vec::new(),
        _ => validate::sample(&sets, job.config.validation_images),
    };
    std::thread::scope(|scope| {
        let (send, receive) = bounded(PREFETCH);
        let (sets, config, steps) = (&sets, &job.config, job.steps);
        scope.spawn(move || {
            let pool = Pool::new(sets, types);
            let parts = config.accumulate as u64;
            for index in first * parts..steps * parts {
                // The trainer is gone: nobody needs another batch.
                if send.send(batch::draw(&pool, config, index)).is_err() {
                    return;
                }
            }
        });
        let mut training = Training {
            job,
            learner,
            optimizer,
            best,
            validation,
            last_pq: None,
        };
        training.learn(receive, stop, tell)
    })
}

type Begun = (Box<dyn Learner>, Optimizer, Best);

/// Weights and optimizer as the last checkpoint left them, or as a training begins.
fn begin(job: &TrainJob, sets: &[LoadedSet]) -> Result<Begun, TrainError> {
    let types = job.config.types.len();
    let config = &job.config;
    let (mut learner, measured) = learner::begin(
        config.model.architecture,
        types,
        config.seed,
        config.frozen_steps,
        &job.start,
        job.bf16,
    )?;
    // All that ever learns has its place in the optimizer from the beginning.
    let learning = learner.learning(u64::MAX);
    let (optimizer, best) = if checkpoint::exists(&job.out) {
        let fresh = Optimizer::new(learner.tensors(), &learning);
        checkpoint::resume(&job.out, learner.tensors_mut(), fresh)?
    } else {
        if !measured {
            let pool = Pool::new(sets, types);
            let batches: Vec<Tensor> = (0..RECALIBRATION_BATCHES)
                .map(|i| batch::draw(&pool, &job.config, u64::MAX - i as u64).rgb)
                .collect();
            learner.measure(&batches);
        }
        let fresh = Optimizer::new(learner.tensors(), &learning);
        (fresh, Best::default())
    };
    learner::place(learner.as_mut(), job.device, optimizer.step);
    Ok((learner, optimizer.on(job.device), best))
}

/// A training under way.
struct Training<'a> {
    job: &'a TrainJob,
    learner: Box<dyn Learner>,
    optimizer: Optimizer,
    best: Best,
    validation: Vec<LoadedSet>,
    last_pq: Option<f64>,
}

impl Training<'_> {
    fn learn(
        &mut self,
        batches: Receiver<Batch>,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(&Progress),
    ) -> Result<Ended, TrainError> {
        let job = self.job;
        let log_path = job.out.join("train.jsonl");
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|e| TrainError::file(&log_path, e))?;
        let mut line = |value: serde_json::Value| {
            writeln!(log, "{value}").map_err(|e| TrainError::file(&log_path, e))
        };
        let mut sums = [0.0; 4];
        let mut since = Instant::now();
        while let Some(parts) = self.step(&batches)? {
            let step = self.optimizer.step;
            sums.iter_mut().zip(parts).for_each(|(sum, v)| *sum += v);
            tell(&Progress {
                step,
                loss: parts[0],
                pq: self.last_pq,
            });
            if step.is_multiple_of(LOG_EVERY) {
                let mean = sums.map(|s| s / LOG_EVERY as f64);
                line(serde_json::json!({
                    "step": step, "loss": mean[0], "np": mean[1], "hv": mean[2], "tp": mean[3],
                    "rate": optimizer::schedule(step, job.steps),
                    "seconds_a_step": since.elapsed().as_secs_f64() / LOG_EVERY as f64,
                }))?;
                (sums, since) = ([0.0; 4], Instant::now());
            }
            let mut ended = (step == job.steps).then_some(Ended::AllSteps);
            let due = job.validate_every > 0
                && (step.is_multiple_of(job.validate_every) || ended.is_some());
            if due && !self.validation.is_empty() {
                line(self.validated(step)?)?;
                if job.patience > 0 && self.best.stale >= job.patience {
                    ended = Some(Ended::Early);
                }
            }
            if stop.load(Ordering::Relaxed) {
                ended = ended.or(Some(Ended::Stopped));
            }
            if step.is_multiple_of(job.checkpoint_every) || ended.is_some() {
                self.save()?;
            }
            if let Some(ended) = ended {
                // The best weights ship where validation decides how long to go on.
                if job.patience > 0 && ended != Ended::Stopped {
                    package::promote(&job.out.join("best"), &job.out)?;
                }
                return Ok(ended);
            }
        }
        Ok(Ended::AllSteps)
    }

    /// One step: [loss, np, hv, tp]; `None` when all are done.
    fn step(&mut self, batches: &Receiver<Batch>) -> Result<Option<[f64; 4]>, TrainError> {
        let parts = self.job.config.accumulate;
        let mut sums = [0.0; 4];
        for _ in 0..parts {
            let Ok(batch) = batches.recv() else {
                return Ok(None);
            };
            let loss = self.backward(&self.taught(batch.on(self.job.device)))?;
            sums.iter_mut()
                .zip(loss)
                .for_each(|(sum, v)| *sum += v / parts as f64);
        }
        let config = &self.job.config;
        self.optimizer
            .update(self.learner.tensors_mut(), config, self.job.steps);
        // The second phase begins: the encoder learns from here on.
        if self.optimizer.step == config.frozen_steps {
            learner::place(self.learner.as_mut(), self.job.device, self.optimizer.step);
        }
        Ok(Some(sums))
    }

    /// `batch` with the lesson of the averaged weights, where the configuration wants it.
    fn taught(&self, batch: Batch) -> Batch {
        let config = &self.job.config;
        let Some(plain) = &batch.plain else {
            return batch;
        };
        let lesson = teacher::ask(
            plain,
            config.self_taught,
            [config.seed, self.optimizer.step],
            |view| self.learner.second_opinion(&self.optimizer.average, view),
        );
        Batch { lesson, ..batch }
    }

    /// Adds the gradients of one batch, over the number of batches a step.
    fn backward(&self, batch: &Batch) -> Result<[f64; 4], TrainError> {
        let raw = self.forward(&batch.rgb)?;
        let loss = self.learner.loss(&raw, batch);
        let total = loss.total.double_value(&[]);
        if !total.is_finite() {
            return Err(TrainError::NotANumber {
                step: self.optimizer.step,
            });
        }
        let parts = self.job.config.accumulate;
        let share = match parts {
            1 => loss.total,
            _ => loss.total / parts as f64,
        };
        share
            .f_backward()
            .map_err(|e| out_of_memory(e, self.job.config.batch))?;
        let [np, hv, tp] = loss.parts;
        Ok([total, np, hv, tp])
    }

    /// libtorch's plain calls panic when memory is short: here that becomes an error with its cure.
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, TrainError> {
        let guarded = AssertUnwindSafe(|| self.learner.forward(rgb, self.optimizer.step));
        catch_unwind(guarded).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            out_of_memory(tch::TchError::Torch(text), self.job.config.batch)
        })
    }

    /// The averaged weights with batch norms folded.
    fn averaged(&self) -> Vec<(String, Tensor)> {
        self.learner.export(&self.optimizer.average)
    }

    /// Validates, keeps the best weights, rewrites train.html; returns the line for the log.
    fn validated(&mut self, step: u64) -> Result<serde_json::Value, TrainError> {
        let job = self.job;
        let folded = self.averaged();
        let model = validate::model_of(&job.config, &folded, &job.out)?;
        let scores = validate::validate(&model, &self.validation)?;
        self.last_pq = Some(scores.pq);
        if self.best.pq.is_none_or(|best| scores.pq > best) {
            self.best = Best {
                pq: Some(scores.pq),
                stale: 0,
            };
            if job.patience > 0 {
                package::write_model(&job.out.join("best"), &job.config, &folded)?;
            }
        } else {
            self.best.stale += 1;
        }
        page::write(&job.out, &validate::panel(&model, &self.validation)?)?;
        Ok(serde_json::json!({
            "step": step, "val_pq": scores.pq, "val_dice": scores.dice, "val_f1d": scores.f1d,
        }))
    }

    /// Writes the checkpoint, then the model as it stands.
    fn save(&self) -> Result<(), TrainError> {
        checkpoint::save(
            &self.job.out,
            self.learner.tensors(),
            &self.optimizer,
            self.best,
        )?;
        package::write_model(&self.job.out, &self.job.config, &self.averaged())
    }
}

/// libtorch's "out of memory" with the cure; other errors as they are.
fn out_of_memory(error: tch::TchError, batch: usize) -> TrainError {
    let text = error.to_string();
    if text.contains("out of memory") || text.contains("allocate memory") {
        return TrainError::Memory {
            batch,
            fits: (batch / 2).max(1),
        };
    }
    TrainError::Torch(error)
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

#[cfg(test)]
mod tests;
