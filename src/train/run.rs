//! The training loop: draw a batch, predict, compute the loss, take a step, validate, save.
//!
//! In: a [`TrainJob`]. Out: a model folder with its checkpoint and log. The images lie on the
//! device, and a thread of its own draws batches ahead there.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use tch::{Device, Kind, Tensor};

use super::atlas::Atlas;
use super::checkpoint::{self, Best};
use super::config::TrainConfig;
use super::crops::Pool;
use super::learner::{self, Learner};
use super::losses::Batch;
use super::optimizer::{self, Optimizer};
use super::teacher::{self, Answer, Teacher, TeacherTargets};
use super::{TrainError, batch, package, page, validate};
use crate::labels::LoadedSet;
use crate::model::network::RawMaps;
use crate::model::weights::Tensors;

/// Number of batches on which the encoder's batch-norm statistics are measured.
const RECALIBRATION_BATCHES: usize = 12;
/// Number of batches drawn ahead.
const PREFETCH: usize = 3;
/// Steps per line of the log.
const LOG_EVERY: u64 = 20;

/// The weights before the first step.
pub enum Start {
    /// An ImageNet encoder (safetensors, see scripts/imagenet_encoder.py) and a random decoder.
    Encoder(PathBuf),
    /// The weights of a model, batch norms folded. For other types, the type head is random.
    Model(Tensors),
}

/// A training: its configuration, its files, and when it ends.
pub struct TrainJob {
    pub config: TrainConfig,
    /// Folder below which the data sets lie.
    pub data_root: PathBuf,
    pub start: Start,
    /// Model folder to write, with checkpoint and log.
    pub out: PathBuf,
    pub steps: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between validations; 0: none.
    pub validate_every: u64,
    /// Validations without a better PQ that end the training; 0: never.
    pub patience: u64,
    /// Whether convolutions run in bf16 (our own networks).
    pub bf16: bool,
    pub device: Device,
    /// What teaches beside the labels; `None`: the averaged weights, if `config.taught` is not 0.
    pub teacher: Option<Teacher>,
}

/// How a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    AllSteps,
    /// Validation did not get better any more.
    Early,
    /// On request: the checkpoint is written.
    Stopped,
}

/// What a progress bar shows after a step.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub step: u64,
    pub loss: f64,
    /// PQ of the last validation.
    pub pq: Option<f64>,
    /// The greatest PQ so far, and the step that it was measured after; 0: the start's own.
    pub best: Option<(f64, u64)>,
}

/// Trains to the end, from the checkpoint in `out` if there is one, or until `stop` is set; calls
/// `report` after each step. Writes `train.safetensors` (checkpoint), a model folder's files
/// (averaged weights, batch norms folded), `train.jsonl` and, with validation, `train.html`.
///
/// # Errors
/// Data that cannot be used, a checkpoint of another configuration, a loss that is not a number,
/// too little memory.
pub fn run(
    job: &TrainJob,
    stop: &AtomicBool,
    report: &mut dyn FnMut(&Progress),
) -> Result<Ended, TrainError> {
    // Fixes the number of threads that libtorch uses on this thread. Asked for later, it would be
    // what another thread has set in the meantime, and sums over another number of threads differ.
    tch::get_num_threads();
    if job.device.is_cuda() {
        // Every batch has the same size: the fastest convolutions are worth being looked for.
        tch::Cuda::cudnn_set_benchmark(true);
    }
    std::fs::create_dir_all(&job.out).map_err(|e| TrainError::file(&job.out, e))?;
    checkpoint::claim(&job.out, &job.config)?;
    let mut sets = job.config.load_data(&job.data_root)?;
    log_sets(&sets);
    let pool = Pool::new(&sets, job.config.types.len())?;
    let atlas = Atlas::new(&sets, job.device)?;
    // The atlas has the others.
    sets.iter_mut()
        .for_each(|set| set.images.retain(|i| i.held_out));
    let (learner, optimizer, best) = begin(job, &atlas, &pool)?;
    let first = optimizer.step;
    let validation = match job.validate_every {
        0 => Vec::new(),
        _ => validate::sample_held_out(&sets, job.config.validation_images),
    };
    std::thread::scope(|scope| {
        let (send, receive) = bounded(PREFETCH);
        let (config, steps) = (&job.config, job.steps);
        scope.spawn(move || {
            // On a CPU the steps have the cores; so no sum depends on their number either.
            tch::set_num_threads(1);
            let parts = config.accumulate as u64;
            for index in first * parts..steps * parts {
                let drawn = guarded(config.batch, || {
                    batch::draw_batch(&atlas, &pool, config, index)
                });
                let failed = drawn.is_err();
                // The receiver is gone: the training has ended.
                if send.send(drawn).is_err() || failed {
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
            best_step: None,
        };
        training.run_steps(receive, stop, report)
    })
}

/// Network and optimizer at the last checkpoint, or before the first step.
fn begin(
    job: &TrainJob,
    atlas: &Atlas,
    pool: &Pool,
) -> Result<(Box<dyn Learner>, Optimizer, Best), TrainError> {
    let config = &job.config;
    let (mut learner, has_statistics) = learner::build_learner(config, &job.start, job.bf16)?;
    // The optimizer has room from the start for every tensor that will ever learn.
    let learning = learner.learning_names(u64::MAX);
    let (optimizer, best) = if checkpoint::exists(&job.out) {
        let fresh = Optimizer::new(learner.tensors(), &learning);
        checkpoint::resume(&job.out, learner.tensors_mut(), fresh)?
    } else {
        if !has_statistics {
            let drawn = (0..RECALIBRATION_BATCHES)
                .map(|i| batch::draw_batch(atlas, pool, config, u64::MAX - i as u64));
            let batches: Vec<Tensor> = drawn.map(|b| b.rgb.to_device(Device::Cpu)).collect();
            learner.measure_norms(&batches);
        }
        let fresh = Optimizer::new(learner.tensors(), &learning);
        (fresh, Best::default())
    };
    learner::prepare_tensors(learner.as_mut(), job.device, optimizer.step);
    Ok((learner, optimizer.on_device(job.device), best))
}

/// A training under way.
struct Training<'a> {
    job: &'a TrainJob,
    learner: Box<dyn Learner>,
    optimizer: Optimizer,
    best: Best,
    validation: Vec<LoadedSet>,
    last_pq: Option<f64>,
    /// Step of the best validation of this process.
    best_step: Option<u64>,
}

impl Training<'_> {
    /// The best PQ, where this process measured it.
    fn best_scored(&self) -> Option<(f64, u64)> {
        self.best.pq.zip(self.best_step)
    }

    fn run_steps(
        &mut self,
        batches: Receiver<Result<Batch, TrainError>>,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&Progress),
    ) -> Result<Ended, TrainError> {
        let job = self.job;
        let log_path = job.out.join("train.jsonl");
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|e| TrainError::file(&log_path, e))?;
        let mut write_line = |value: serde_json::Value| {
            writeln!(log, "{value}").map_err(|e| TrainError::file(&log_path, e))
        };
        // A model to start from has a score of its own: only what is better than it is a gain.
        let known = matches!(job.start, Start::Model(_)) && job.validate_every > 0;
        if known && self.optimizer.step == 0 && !self.validation.is_empty() {
            write_line(self.validate(0)?)?;
            report(&Progress {
                step: 0,
                loss: f64::NAN,
                pq: self.last_pq,
                best: self.best_scored(),
            });
        }
        let mut sums = [0.0; 4];
        let mut since = Instant::now();
        while let Some(parts) = self.take_step(&batches)? {
            let step = self.optimizer.step;
            sums.iter_mut().zip(parts).for_each(|(sum, v)| *sum += v);
            report(&Progress {
                step,
                loss: parts[0],
                pq: self.last_pq,
                best: self.best_scored(),
            });
            if step.is_multiple_of(LOG_EVERY) {
                let mean = sums.map(|s| s / LOG_EVERY as f64);
                write_line(serde_json::json!({
                    "step": step, "loss": mean[0], "np": mean[1], "hv": mean[2], "tp": mean[3],
                    "rate": optimizer::rate_factor(step, job.steps),
                    "seconds_a_step": since.elapsed().as_secs_f64() / LOG_EVERY as f64,
                }))?;
                (sums, since) = ([0.0; 4], Instant::now());
            }
            let mut ended = (step == job.steps).then_some(Ended::AllSteps);
            let due = job.validate_every > 0
                && (step.is_multiple_of(job.validate_every) || ended.is_some());
            if due && !self.validation.is_empty() {
                write_line(self.validate(step)?)?;
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
                // Where validation decides when to end, the best weights are the result.
                if job.patience > 0 && ended != Ended::Stopped {
                    package::copy_model(&job.out.join("best"), &job.out)?;
                }
                return Ok(ended);
            }
        }
        Ok(Ended::AllSteps)
    }

    /// Takes one step. Returns the loss and its terms (total, np, hv, tp); `None` after the last.
    fn take_step(
        &mut self,
        batches: &Receiver<Result<Batch, TrainError>>,
    ) -> Result<Option<[f64; 4]>, TrainError> {
        let parts = self.job.config.accumulate;
        let mut terms = Vec::with_capacity(parts);
        for _ in 0..parts {
            let Ok(batch) = batches.recv() else {
                return Ok(None);
            };
            let batch = self.add_teacher(batch?)?;
            terms.push(self.add_gradients(&batch)?);
        }
        let config = &self.job.config;
        self.optimizer
            .update(self.learner.tensors_mut(), config, self.job.steps);
        let losses = self.read_losses(&terms)?;
        // The second phase begins: from here on the encoder learns.
        if self.optimizer.step == config.frozen_steps {
            learner::prepare_tensors(self.learner.as_mut(), self.job.device, self.optimizer.step);
        }
        Ok(Some(losses))
    }

    /// The mean loss of the batches of a step and its terms. They are read when all work of the step
    /// is on its way: a GPU would stand still at each reading.
    fn read_losses(&self, terms: &[Tensor]) -> Result<[f64; 4], TrainError> {
        let mean = Tensor::stack(terms, 0).mean_dim(&[0i64][..], false, Kind::Double);
        let mean = Vec::<f64>::try_from(&mean.to_device(Device::Cpu))?;
        let total: f64 = mean.iter().sum();
        if !total.is_finite() {
            return Err(TrainError::NotANumber {
                step: self.optimizer.step,
            });
        }
        let term = |n: usize| mean.get(n).copied().unwrap_or_default();
        Ok([total, term(0), term(1), term(2)])
    }

    /// `batch` with the teacher's predictions as targets, if the configuration wants them.
    fn add_teacher(&self, batch: Batch) -> Result<Batch, TrainError> {
        let config = &self.job.config;
        let Some(plain) = &batch.plain else {
            return Ok(batch);
        };
        let seeds = [config.seed, self.optimizer.step];
        let answer = teacher::predict_targets(plain, seeds, |rgb| match &self.job.teacher {
            Some(teacher) => teacher.predict(rgb),
            None => {
                let averaged = &self.optimizer.average;
                let raw = self.learner.forward_averaged(averaged, rgb);
                let raw = raw.ok_or_else(|| {
                    TrainError::Config("this architecture cannot teach itself".into())
                })?;
                Ok(Answer::of_own(&raw))
            }
        })?;
        let targets = TeacherTargets {
            share: config.taught,
            fills_gaps: self.job.teacher.is_some(),
            answer,
        };
        Ok(Batch {
            teacher: Some(targets),
            ..batch
        })
    }

    /// Adds the gradients of one batch, over the batches per step. Returns the terms of the loss, on
    /// their device.
    fn add_gradients(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let raw = self.forward(&batch.rgb)?;
        let loss = self.learner.loss(&raw, batch);
        let parts = self.job.config.accumulate;
        let share = match parts {
            1 => loss.total,
            _ => loss.total / parts as f64,
        };
        share
            .f_backward()
            .map_err(|e| convert_error(e, self.job.config.batch))?;
        Ok(loss.parts)
    }

    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, TrainError> {
        let step = self.optimizer.step;
        guarded(self.job.config.batch, || self.learner.forward(rgb, step))
    }

    /// The averaged weights with batch norms folded.
    fn averaged(&self) -> Vec<(String, Tensor)> {
        self.learner.export(&self.optimizer.average)
    }

    /// Scores the averaged weights, keeps the best, rewrites train.html; returns the log's line.
    fn validate(&mut self, step: u64) -> Result<serde_json::Value, TrainError> {
        let job = self.job;
        let folded = self.averaged();
        let model = validate::load_model(&job.config, &folded, &job.out)?;
        let scores = validate::score_model(&model, &self.validation)?;
        self.last_pq = Some(scores.pq);
        if self.best.pq.is_none_or(|best| scores.pq > best) {
            self.best = Best {
                pq: Some(scores.pq),
                stale: 0,
            };
            self.best_step = Some(step);
            if job.patience > 0 {
                package::write_model(&job.out.join("best"), &job.config, &folded)?;
            }
        } else {
            self.best.stale += 1;
        }
        page::write_page(&job.out, &validate::draw_panel(&model, &self.validation)?)?;
        Ok(serde_json::json!({
            "step": step, "val_pq": scores.pq, "val_dice": scores.dice, "val_f1d": scores.f1d,
        }))
    }

    /// Writes the checkpoint, then the model with the averaged weights.
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

/// What `work` gives. libtorch panics when memory is short; that becomes an error with its cure.
fn guarded<T>(batch: usize, work: impl FnOnce() -> T) -> Result<T, TrainError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        convert_error(tch::TchError::Torch(text), batch)
    })
}

/// An error of libtorch; "out of memory" becomes an error with its cure.
fn convert_error(error: tch::TchError, batch: usize) -> TrainError {
    let text = error.to_string();
    if text.contains("out of memory") || text.contains("allocate memory") {
        return TrainError::Memory {
            batch,
            fits: (batch / 2).max(1),
        };
    }
    TrainError::Torch(error)
}

fn log_sets(sets: &[LoadedSet]) {
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
