//! `train`: learns a model from labelled images and writes its folder.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::labels::data_set::name_apart;
use crate::labels::{DataSet, formats};
use crate::model::DeviceChoice;
use crate::model::device::keep_freed_memory;
use crate::model::library::Library;
use crate::model::{Architecture, ModelFolder, ModelSpec, TypesFile};
use crate::train::checkpoint;
use crate::train::config::TrainConfig;
use crate::train::learner::LEARNING;
use crate::train::run::{Ended, Progress, Start, TrainJob, run};
use crate::train::teacher::Teacher;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{EXIT_STOPPED, Failure, signals, timestamp};
use crate::run::models::first_device;

/// Lines of progress come no closer than this where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Learn a model from labelled images; goes on from its last checkpoint
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// With --config: the folder below which its data sets lie. Without: folders of labelled
    /// images, formats found out
    #[arg(long, value_name = "FOLDER", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// What to learn from and how; see config/train-default.toml
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// µm/px of the images, where there is no --config
    #[arg(
        long,
        value_name = "UM",
        default_value_t = 0.25,
        conflicts_with = "config"
    )]
    mpp: f64,
    /// Beginnings of the names of images to validate on, where there is no --config
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    hold_out: Vec<String>,
    /// What to train, where there is no --config and no --from: hovernet-lite, hovernet-wide,
    /// hovernet-fast or hovernet-original
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "from"])]
    arch: Option<String>,
    /// Steps in which a HoVer-Net's encoder does not learn yet (first phase)
    #[arg(long, value_name = "N")]
    frozen_steps: Option<u64>,
    /// Fine-tune this model (name or folder): its weights, types and post-processing
    #[arg(long, value_name = "MODEL", conflicts_with = "encoder")]
    from: Option<String>,
    /// ImageNet encoder to start from: scripts/fetch_encoder.sh fetches hovernet-lite's and -wide's; a
    /// HoVer-Net takes a pre-activation ResNet-50 under hover_net's names
    #[arg(long, value_name = "SAFETENSORS", required_unless_present = "from")]
    encoder: Option<PathBuf>,
    /// Model that teaches beside the labels and where there are none, at the training's scale; with it
    /// --data may name folders of pictures without labels [its weight: `taught`, 0.5]
    #[arg(long, value_name = "MODEL")]
    teacher: Option<String>,
    /// Model folder to write; holds the checkpoint, train.jsonl and train.html too
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Learn from this share of the images only (0.25: a quarter), for learning curves
    #[arg(long, value_name = "SHARE")]
    data_part: Option<f64>,
    /// Optimisation steps in all
    #[arg(long, default_value_t = 5000)]
    steps: u64,
    /// Crops at a time
    #[arg(long)]
    batch: Option<usize>,
    /// Batches a step
    #[arg(long)]
    accumulate: Option<usize>,
    /// Learning rate of the decoder; the encoder's keeps its ratio to it
    #[arg(long)]
    lr: Option<f64>,
    #[arg(long)]
    seed: Option<u64>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 100)]
    checkpoint_every: u64,
    /// Steps between validations on held-out images; 0: never  [default: a tenth of the steps]
    #[arg(long)]
    validate_every: Option<u64>,
    /// End after so many validations without a better PQ, and keep the best weights; 0: never
    #[arg(long, default_value_t = 0)]
    patience: u64,
    /// Drop the checkpoint in the output folder
    #[arg(long)]
    restart: bool,
    /// Convolutions in bf16: for GPUs, and CPUs that have it
    #[arg(long)]
    bf16: bool,
    /// auto, cpu, cuda or cuda:1; auto: a GPU where there is one
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// CPU threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
}

pub fn main(args: TrainArgs) -> Result<(), Failure> {
    let job = build_job(&args)?;
    if args.restart {
        checkpoint::remove(&job.out).map_err(Failure::slides)?;
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as i32);
    tch::set_num_threads(args.threads.unwrap_or(cores).max(1));
    keep_freed_memory();
    let stop = signals::stop_flag()?;
    let mut shown = Shown::new(&job)?;
    let ended = run(&job, &stop, &mut |p| shown.step(p)).map_err(Failure::slides)?;
    shown.finish();
    match ended {
        Ended::AllSteps => Ok(()),
        Ended::Early => {
            eprintln!("ended early: no better PQ in {} validations", args.patience);
            Ok(())
        }
        Ended::Stopped => Err(Failure {
            code: EXIT_STOPPED,
            message: "stopped; the same command goes on".into(),
        }),
    }
}

/// What the user sees of a training: a bar on a terminal, plain lines elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    steps: u64,
    /// The first step of this process and its end: loading and scoring before it are no pace.
    first: Option<(u64, Instant)>,
    last_line: Option<Instant>,
    last: Option<Progress>,
    /// PQ of the start, where it has one.
    start_pq: Option<f64>,
}

impl Shown {
    fn new(job: &TrainJob) -> Result<Self, Failure> {
        let bar = match stderr().is_terminal() {
            true => {
                let bar = ProgressBar::new(job.steps);
                let template = "{bar:30} {pos}/{len} {msg} {per_sec} {eta} left";
                let style = ProgressStyle::with_template(template);
                bar.set_style(style.map_err(Failure::usage)?);
                Some(bar)
            }
            false => None,
        };
        let shown = Self {
            bar,
            steps: job.steps,
            first: None,
            last_line: None,
            last: None,
            start_pq: None,
        };
        shown.say(&format!(
            "{} steps of {} crops on {:?}, {} threads, into {}",
            job.steps,
            job.config.batch * job.config.accumulate,
            job.device,
            tch::get_num_threads(),
            job.out.display()
        ));
        Ok(shown)
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{} {text}", timestamp::now()),
        }
    }

    fn step(&mut self, p: &Progress) {
        let scored = p.pq != self.last.and_then(|last| last.pq);
        self.last = Some(*p);
        if p.step == 0 {
            self.start_pq = p.pq;
            self.say(&format!("the start: PQ {:.3}", p.pq.unwrap_or(f64::NAN)));
            return;
        }
        let (first, since) = *self.first.get_or_insert((p.step, Instant::now()));
        if let Some(bar) = &self.bar {
            bar.set_position(p.step);
            let pq = p.pq.map_or(String::new(), |pq| format!(" PQ {pq:.3}"));
            bar.set_message(format!("loss {:.3}{pq}", p.loss));
            return;
        }
        let due = self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if due || scored || p.step == self.steps {
            self.last_line = Some(Instant::now());
            let taken = p.step - first;
            let pace = since.elapsed().as_secs_f64() / taken.max(1) as f64;
            self.say(&step_line(p, self.steps, (taken > 0).then_some(pace)));
        }
    }

    /// Says what the best validation was, and whether the training has beaten its start.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
        let Some((pq, step)) = self.last.and_then(|last| last.best) else {
            return;
        };
        match (step, self.start_pq) {
            (0, _) => self.say(&format!(
                "no validation was better than the start (PQ {pq:.3}): the model that training began from is the better one"
            )),
            (_, Some(start)) => self.say(&format!(
                "best: PQ {pq:.3} after {step} steps; the start: {start:.3}"
            )),
            (_, None) => self.say(&format!("best: PQ {pq:.3} after {step} steps")),
        }
    }
}

/// `step 120 of 5000 (2 %), loss 0.532, PQ 0.611, 1.4 s/step, 2 h 3 min left`.
fn step_line(p: &Progress, steps: u64, seconds_per_step: Option<f64>) -> String {
    let pq = p.pq.map_or(String::new(), |pq| format!(", PQ {pq:.3}"));
    let pace = seconds_per_step.map_or(String::new(), |seconds| {
        let left_s = (steps.saturating_sub(p.step)) as f64 * seconds;
        let minutes = (left_s / 60.0).ceil() as u64;
        let left = match minutes {
            0..60 => format!("{minutes} min"),
            _ => format!("{} h {} min", minutes / 60, minutes % 60),
        };
        format!(", {seconds:.2} s/step, {left} left")
    });
    format!(
        "step {} of {steps} ({} %), loss {:.3}{pq}{pace}",
        p.step,
        100 * p.step / steps.max(1),
        p.loss
    )
}

/// The training that the flags ask for.
fn build_job(args: &TrainArgs) -> Result<TrainJob, Failure> {
    let mut config = match &args.config {
        Some(path) => TrainConfig::read(path).map_err(Failure::usage)?,
        None => TrainConfig::embedded().map_err(Failure::usage)?,
    };
    if let Some(name) = &args.arch {
        choose_architecture(&mut config, name)?;
    }
    let start = match (&args.from, &args.encoder) {
        (Some(name), _) => {
            let folder = Library::from_env().open(name).map_err(Failure::usage)?;
            adopt_model(&mut config, &folder.spec, args.config.is_none())?;
            config.types_from = carried_types(&folder, &config);
            name_origin(&mut config, &folder.spec, args);
            let tensors = folder.tensors().into_iter().flatten();
            Start::Model(
                tensors
                    .map(|(n, t)| (n.clone(), t.shallow_clone()))
                    .collect(),
            )
        }
        (None, Some(encoder)) => {
            if args.config.is_none() {
                // Nothing of what the default configuration says of its own data is true of these.
                let card = &mut config.model;
                card.training_data = folder_names(&args.data);
                (card.licence, card.citation) = (OWN_LICENCE.into(), String::new());
            }
            Start::Encoder(encoder.clone())
        }
        (None, None) => return Err(Failure::usage("give --from MODEL or --encoder FILE")),
    };
    let data_root = match (&args.config, args.data.as_slice()) {
        (Some(_), [root]) => root.clone(),
        (Some(_), _) => return Err(Failure::usage("with --config, --data is one folder")),
        (None, folders) => {
            config.data = folders
                .iter()
                .map(|folder| describe_folder(folder, args, &config))
                .collect::<Result<_, _>>()?;
            name_apart(&mut config.data).map_err(Failure::usage)?;
            PathBuf::new()
        }
    };
    config.frozen_steps = args.frozen_steps.unwrap_or(config.frozen_steps);
    config.batch = args.batch.unwrap_or(config.batch);
    config.accumulate = args.accumulate.unwrap_or(config.accumulate);
    config.seed = args.seed.unwrap_or(config.seed);
    config.data_part = args.data_part.unwrap_or(config.data_part);
    if let Some(lr) = args.lr {
        config.encoder_lr *= lr / config.lr;
        config.lr = lr;
    }
    if let Some(name) = &args.teacher {
        config.teacher = Some(name.clone());
        if config.taught == 0.0 {
            config.taught = TAUGHT;
        }
    }
    config.check().map_err(Failure::usage)?;
    let device = first_device(&args.device)?;
    let teacher = match &config.teacher {
        None => None,
        Some(name) => {
            let folder = Library::from_env().open(name).map_err(Failure::usage)?;
            let card = &mut config.model;
            card.training_data = format!("{}; taught by {}", card.training_data, folder.spec.name);
            let teacher = Teacher::new(&folder, &config, device, args.bf16);
            Some(teacher.map_err(Failure::usage)?)
        }
    };
    Ok(TrainJob {
        start,
        data_root,
        config,
        out: args.output.clone(),
        steps: args.steps,
        checkpoint_every: args.checkpoint_every.max(1),
        validate_every: args.validate_every.unwrap_or((args.steps / 10).max(1)),
        patience: args.patience,
        bf16: args.bf16,
        device: device.into(),
        teacher,
    })
}

/// Weight of a teacher beside the labels where the configuration gives none.
const TAUGHT: f64 = 0.5;

/// Takes over the post-processing of the model to fine-tune, and with `types_too` (no configuration
/// gives them) its architecture, scale, types and name.
fn adopt_model(config: &mut TrainConfig, spec: &ModelSpec, types_too: bool) -> Result<(), Failure> {
    let before = config.model.architecture;
    if types_too {
        choose_architecture(config, spec.architecture.name())?;
    } else if before != spec.architecture {
        return Err(Failure::usage(format!(
            "--from {}: a {}, but the configuration trains a {}",
            spec.name,
            spec.architecture.name(),
            before.name()
        )));
    }
    config.postproc = spec.postproc.clone();
    if types_too {
        config.mpp = spec.mpp;
        config.types = spec.types.iter().skip(1).cloned().collect();
        config.model.name = format!("{}-tuned", spec.name);
    }
    Ok(())
}

/// The second network of the model that training starts from, if the new model has the same types: it stays as it is,
/// while the first learns outlines and types as ever.
fn carried_types(start: &ModelFolder, config: &TrainConfig) -> Option<TypesFile> {
    let file = start.types_file()?;
    let before = start.spec.types.iter().skip(1).map(|t| &t.name);
    if before.eq(config.types.iter().map(|t| &t.name)) {
        return Some(file.clone());
    }
    tracing::warn!(
        "{} has its types also from {}, which does not know the types of this training: the new model does without it",
        start.spec.name,
        file.said.model
    );
    None
}

/// What is known of the licence of a model that was taught on the user's own data.
const OWN_LICENCE: &str = "that of the data it was trained on";

/// Says in the model's card what it began from and what it was taught since.
fn name_origin(config: &mut TrainConfig, start: &ModelSpec, args: &TrainArgs) {
    let since = match args.config {
        // The configuration says what its data are.
        Some(_) => config.model.training_data.clone(),
        None => folder_names(&args.data),
    };
    let before = match start.training_data.is_empty() {
        true => "unknown data",
        false => &start.training_data,
    };
    let card = &mut config.model;
    if before.contains(since.as_str()) {
        // The same data once more: what is known of the start holds, and says more.
        card.training_data.clone_from(&start.training_data);
        return;
    }
    card.training_data = format!("{since}; fine-tuned from {} ({before})", start.name);
    if args.config.is_none() {
        let own = match start.licence.is_empty() {
            true => "unknown",
            false => &start.licence,
        };
        card.licence = format!("{own} ({}); new data: {OWN_LICENCE}", start.name);
        card.citation = start.citation.clone();
    }
}

/// The folders' own names: the rest of a path says nothing elsewhere.
fn folder_names(folders: &[PathBuf]) -> String {
    let name = |folder: &PathBuf| {
        let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let name = whole
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| whole.display().to_string())
    };
    folders.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Input and output of hovernet-wide: smaller than hovernet-lite's, because it needs more memory per px.
const WIDE_PATCH_PX: (i32, i32) = (640, 576);

/// Learning rates of hovernet-wide's decoder and encoder. Its decoder has twice hovernet-lite's layers one after the
/// other and no norms: at hovernet-lite's rate the loss of a fine-tuning grew fourfold in five steps.
const WIDE_LR: (f64, f64) = (3e-4, 1.2e-4);

/// Changes the configuration to the defaults of an architecture. HoVer-Net's: Adam with 1e-4, no
/// average of the weights.
fn choose_architecture(config: &mut TrainConfig, name: &str) -> Result<(), Failure> {
    let (architecture, patch, out) = match name {
        "hovernet-lite" => return Ok(()),
        "hovernet-wide" => {
            let card = &mut config.model;
            card.architecture = Architecture::HovernetWide;
            (card.patch_in_px, card.patch_out_px) = WIDE_PATCH_PX;
            card.name = name.to_string();
            (config.lr, config.encoder_lr) = WIDE_LR;
            return Ok(());
        }
        "hovernet-fast" => (Architecture::HovernetFast, 256, 164),
        "hovernet-original" => (Architecture::HovernetOriginal, 270, 80),
        _ => {
            return Err(Failure::usage(format!(
                "{name} does not learn: {LEARNING} do"
            )));
        }
    };
    let card = &mut config.model;
    (card.architecture, card.patch_in_px, card.patch_out_px) = (architecture, patch, out);
    card.name = name.to_string();
    config.crop_px = patch as usize;
    (config.lr, config.encoder_lr) = (1e-4, 1e-4);
    (config.weight_decay, config.ema) = (0.0, 0.0);
    Ok(())
}

/// The data set of a folder that no configuration describes.
fn describe_folder(
    folder: &Path,
    args: &TrainArgs,
    config: &TrainConfig,
) -> Result<DataSet, Failure> {
    let set = match DataSet::from_folder(folder, args.mpp) {
        Err(_) if args.teacher.is_some() && formats::has_pictures(folder) => {
            return DataSet::of_pictures(folder, args.mpp).map_err(Failure::usage);
        }
        set => set.map_err(Failure::usage)?,
    };
    let ids = 1..=config.types.len() as u8;
    Ok(DataSet {
        folder: std::path::absolute(folder).map_err(Failure::usage)?,
        // Type numbers and names in the labels are taken to be the model's.
        type_ids: std::iter::once(0).chain(ids.clone()).collect(),
        types: config
            .types
            .iter()
            .map(|t| t.name.clone())
            .zip(ids)
            .collect(),
        hold_out: args.hold_out.clone(),
        ..set
    })
}
