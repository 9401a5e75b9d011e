//! `hovernet [globals] tile|wsi …`: run_infer.py's flags as they are, the same files in the same places.
//!
//! In: hover_net's command line, flags before or after the command word. Out: its folders (json/, mat/, overlay/,
//! qupath/, thumb/, mask/), written by this program's own pipeline. What differs: docs/migrate-from-hover_net.md.

use std::path::{Path, PathBuf};

use crate::import::type_info;
use crate::model::{Architecture, DeviceChoice, Library, ModelFolder, TypeInfo, device};
use crate::nuclei::PostprocRules;
use crate::run::children::{self, run_in_children};
use crate::run::ending::Cause;
use crate::run::hovernet::{TileFiles, UM_AT_1X, WsiFiles, run_tile, run_wsi};
use crate::run::{self, Attempts, Models, RunConfig, RunEvent, inputs};
use crate::tissue::MaskChoice;
use clap::{Args, ValueEnum};

use super::progress::Progress;
use super::run::{command_for, keep_only, report_to_parent};
use super::settings::{self, Auto, Count, Mpp, Settings, TerminalConfig};
use super::{Failure, outcome, signals};

/// hover_net's command word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Word {
    /// Images: json/, mat/, overlay/ and, asked, qupath/
    Tile,
    /// Slides: json/ and, asked, thumb/ and mask/
    Wsi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeFlag {
    Fast,
    Original,
}

/// run_tile.sh and run_wsi.sh as they are: hover_net's flags in, hover_net's files out.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case", args_override_self = true)]
pub struct HovernetArgs {
    /// tile: images; wsi: slides
    #[arg(value_enum)]
    word: Word,
    /// GPUs; where there is none, the CPU works
    #[arg(long, value_name = "LIST", default_value = "0")]
    gpu: String,
    /// Types, background counted; 0 for none [default: the model's]
    #[arg(long, value_name = "N")]
    nr_types: Option<usize>,
    /// JSON of names and colours, for the model's own types: {"0": ["nolabe", [0, 0, 0]], …}
    #[arg(long, value_name = "JSON")]
    type_info_path: Option<PathBuf>,
    /// Checkpoint (.tar, .pth) or model folder
    #[arg(long, value_name = "PATH", default_value = "default")]
    model_path: String,
    /// fast or original; found from the checkpoint, and compared
    #[arg(long, value_enum)]
    model_mode: Option<ModeFlag>,
    /// No effect
    #[arg(long, value_name = "N")]
    nr_inference_workers: Option<u32>,
    /// No effect
    #[arg(long, value_name = "N")]
    nr_post_proc_workers: Option<u32>,
    /// Patches a batch on a GPU
    #[arg(long, value_name = "N")]
    batch_size: Option<u32>,
    /// Folder of images or slides
    #[arg(long, value_name = "FOLDER")]
    input_dir: PathBuf,
    /// Folder for the results
    #[arg(long, value_name = "FOLDER")]
    output_dir: PathBuf,
    /// tile: no effect
    #[arg(long, value_name = "SHARE")]
    mem_usage: Option<f64>,
    /// tile: draw a dot at each centroid
    #[arg(long)]
    draw_dot: bool,
    /// tile: write qupath/
    #[arg(long)]
    save_qupath: bool,
    /// tile: keep the prediction map in mat/
    #[arg(long)]
    save_raw_map: bool,
    /// wsi: no effect, the checkpoint lies in the output folder
    #[arg(long, value_name = "FOLDER")]
    cache_path: Option<PathBuf>,
    /// wsi: folder of masks, a PNG of the slide's stem, above 0 is tissue
    #[arg(long, value_name = "FOLDER", alias = "mask_dir")]
    input_mask_dir: Option<PathBuf>,
    /// wsi: magnification that the network sees and the JSON counts in
    #[arg(long, value_name = "POWER", default_value_t = 40.0)]
    proc_mag: f64,
    /// wsi: no effect
    #[arg(long, value_name = "PX")]
    ambiguous_size: Option<u32>,
    /// wsi: no effect
    #[arg(long, value_name = "PX")]
    chunk_shape: Option<u32>,
    /// wsi: no effect
    #[arg(long, value_name = "PX")]
    tile_shape: Option<u32>,
    /// wsi: write thumb/
    #[arg(long)]
    save_thumb: bool,
    /// wsi: write mask/
    #[arg(long)]
    save_mask: bool,
    /// Post-processing; hover_net's per-map rules exist for images alone [default: reference for tile with a HoVer-Net]
    #[arg(long, value_enum)]
    postproc: Option<PostprocRules>,
    /// µm a pixel of the images or slides, where their files do not say it
    #[arg(long, value_name = "UM")]
    mpp: Option<Mpp>,
    /// wsi: run slides of more than 2 µm a pixel too, on which nuclei can hardly be seen
    #[arg(long, alias = "force-scale")]
    force_scale: bool,
    /// The one slide, by its stem, that this process runs for a parent
    #[arg(long, value_name = "STEM", hide = true)]
    only: Option<String>,
}

pub fn main(args: &HovernetArgs) -> Result<(), Failure> {
    for flag in args.without_effect() {
        args.note(&format!("--{flag} has no effect here"));
    }
    if !args.input_dir.is_dir() {
        return Err(Failure::usage(format!(
            "--input_dir {}: no such folder: check the path",
            args.input_dir.display()
        )));
    }
    if !(args.proc_mag.is_finite() && args.proc_mag > 0.0) {
        return Err(Failure::usage(format!(
            "--proc_mag {}: give the objective's power, as 40",
            args.proc_mag
        )));
    }
    match args.word {
        Word::Tile => run_images(args),
        Word::Wsi => run_slides(args),
    }
}

fn run_images(args: &HovernetArgs) -> Result<(), Failure> {
    let (mut config, terminal) = args.settings()?;
    let folder = std::slice::from_ref(&args.input_dir);
    let mut images = inputs::from_paths(folder, false, inputs::IMAGE_EXTENSIONS, &config)?;
    for image in &mut images {
        // hover_net's files lie in folders by kind, not by image.
        image.folder = args.output_dir.clone();
        image.results = Some(args.json_of("json", &image.stem));
    }
    run::check_writable(&config.output)?;
    let (model, types) = args.checked_model()?;
    config.device = args.device()?;
    config.postproc = match args.postproc {
        Some(rules) => rules,
        None if mode_of(model.spec.architecture).is_some() => PostprocRules::Reference,
        None => PostprocRules::Default,
    };
    let files = TileFiles {
        draw_dot: args.draw_dot,
        save_qupath: args.save_qupath,
        save_raw_map: args.save_raw_map,
    };
    let mut models = Models::new(&config)?;
    models.get(&config.model).map_err(Failure::usage)?;
    let progress = Progress::new(&terminal)?.of_slides(&images);
    let stop = signals::stop_flag()?;
    let watch = |event: RunEvent<'_>| progress.show(event);
    let endings = run::run_in_turn(&images, &watch, &stop, |image| {
        run_tile(image, &config, &mut models, &types, &files, &watch, &stop)
    });
    if images.len() > 1 {
        progress.batch_ended(&images, &endings);
    }
    outcome(&endings)
}

fn run_slides(args: &HovernetArgs) -> Result<(), Failure> {
    if args.postproc == Some(PostprocRules::Reference) {
        return Err(Failure::usage(
            "--postproc reference scales each map by itself, so on a slide its answer would depend on the tiling: \
             it is for `hovernet tile`; leave it out here",
        ));
    }
    let (mut config, terminal) = args.settings()?;
    let folder = std::slice::from_ref(&args.input_dir);
    let mut slides = inputs::from_paths(folder, false, inputs::slide_extensions(), &config)?;
    let among = args.input_dir.display().to_string();
    let place = match &args.only {
        Some(stem) => {
            children::die_with_parent();
            Some(keep_only(&mut slides, stem, &among)?)
        }
        None => None,
    };
    let files = WsiFiles {
        proc_mag: args.proc_mag,
        save_thumb: args.save_thumb,
        save_mask: args.save_mask,
    };
    for slide in &mut slides {
        slide.folder = args.output_dir.join("store").join(&slide.stem);
        slide.results = Some(args.json_of(files.json_folder(), &slide.stem));
        if let Some(masks) = &args.input_mask_dir {
            slide.mask = args.mask_of(masks, &slide.stem);
        }
    }
    run::check_writable(&config.output)?;
    let progress = Progress::new(&terminal)?;
    let progress = match place {
        Some((place, of)) => progress.of_batch(place, of),
        None => progress.of_slides(&slides),
    };
    let stop = signals::stop_flag()?;
    let watch = |event: RunEvent<'_>| progress.show(event);
    // What is wrong with all slides is said once, before the first.
    let (_, types) = args.checked_model()?;
    config.device = args.device()?;
    config.postproc = PostprocRules::Default;
    config.hovernet_mpp = Some(UM_AT_1X / args.proc_mag);
    config.mask_is_region = false;
    // Also a lone slide: a C library that dies on it must leave somebody to say so.
    let endings = if args.only.is_none() {
        let attempts = Attempts::once(&stop);
        let endings = run_in_children(&slides, attempts, &watch, command_for)?;
        progress.batch_ended(&slides, &endings);
        endings
    } else {
        let mut models = Models::new(&config)?;
        models.get(&config.model).map_err(Failure::usage)?;
        run::run_in_turn(&slides, &watch, &stop, |slide| {
            run_wsi(slide, &config, &mut models, &types, &files, &watch, &stop)
        })
    };
    report_to_parent(args.only.as_deref(), &endings, Cause::Lasting)?;
    outcome(&endings)
}

impl HovernetArgs {
    /// The JSON of an image or slide.
    fn json_of(&self, folder: &str, stem: &str) -> PathBuf {
        self.output_dir.join(folder).join(format!("{stem}.json"))
    }

    /// A remark on standard error, once for all slides: results do not depend on it.
    fn note(&self, text: &str) {
        if self.only.is_none() {
            eprintln!("hovernet: {text}");
        }
    }

    /// Flags that were given and change nothing.
    fn without_effect(&self) -> Vec<&'static str> {
        let tile = self.word == Word::Tile;
        [
            ("nr_inference_workers", self.nr_inference_workers.is_some()),
            ("nr_post_proc_workers", self.nr_post_proc_workers.is_some()),
            ("mem_usage", self.mem_usage.is_some()),
            ("cache_path", self.cache_path.is_some()),
            ("ambiguous_size", self.ambiguous_size.is_some()),
            ("chunk_shape", self.chunk_shape.is_some()),
            ("tile_shape", self.tile_shape.is_some()),
            ("draw_dot", !tile && self.draw_dot),
            ("save_qupath", !tile && self.save_qupath),
            ("save_raw_map", !tile && self.save_raw_map),
            ("input_mask_dir", tile && self.input_mask_dir.is_some()),
            ("save_thumb", tile && self.save_thumb),
            ("save_mask", tile && self.save_mask),
        ]
        .into_iter()
        .filter_map(|(flag, idle)| idle.then_some(flag))
        .collect()
    }

    /// The run's settings, as `run` and `tile` know them.
    fn settings(&self) -> Result<(RunConfig, TerminalConfig), Failure> {
        let settings = Settings {
            output: Some(self.output_dir.clone()),
            model: Some(self.model_path.clone()),
            batch_size: self.batch_size.map(|n| Auto::Is(Count(n))),
            mask: Some(MaskChoice::Otsu),
            mpp: self.mpp.map(Auto::Is),
            force_scale: self.force_scale.then_some(true),
            ..Settings::default()
        };
        Ok(settings::resolve(settings, None)?)
    }

    /// The GPUs of the list if they are all there, else the CPU.
    fn device(&self) -> Result<DeviceChoice, Failure> {
        let ids: Result<Vec<usize>, _> = self.gpu.split(',').map(|id| id.trim().parse()).collect();
        let Ok(ids) = ids else {
            return Err(Failure::usage(format!(
                "--gpu {}: give numbers, as 0 or 0,1",
                self.gpu
            )));
        };
        let gpus = DeviceChoice::Cuda(ids);
        if device::resolve(&gpus).is_ok() {
            return Ok(gpus);
        }
        self.note(&format!("--gpu {}: not here: the CPU works", self.gpu));
        Ok(DeviceChoice::Cpu)
    }

    /// The slide's mask, or our own search for tissue where there is none.
    fn mask_of(&self, masks: &Path, stem: &str) -> MaskChoice {
        let path = masks.join(format!("{stem}.png"));
        if path.is_file() {
            return MaskChoice::File(path);
        }
        self.note(&format!("no {}: tissue is searched for", path.display()));
        MaskChoice::Otsu
    }

    /// The model, checked against --model_mode and --nr_types, with the names and colours of --type_info_path.
    fn checked_model(&self) -> Result<(ModelFolder, Vec<TypeInfo>), Failure> {
        let folder = Library::from_env()
            .open(&self.model_path)
            .map_err(Failure::usage)?;
        let has = folder.spec.types.len();
        let wrong = |reason: String| Failure::usage(format!("{}: {reason}", self.model_path));
        let mode = mode_of(folder.spec.architecture);
        if let (Some(asked), Some(found)) = (self.model_mode, mode)
            && asked != found
        {
            return Err(wrong(format!(
                "holds a HoVer-Net of the other mode: use --model_mode={}",
                if found == ModeFlag::Fast {
                    "fast"
                } else {
                    "original"
                }
            )));
        }
        if let Some(asked) = self.nr_types
            && asked != has
        {
            return Err(wrong(format!(
                "has {has} types, background counted: use --nr_types={has}"
            )));
        }
        let types = match &self.type_info_path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| e.to_string())
                .and_then(|text| type_info::parse_for(&text, &folder.spec.types))
                .map_err(|reason| {
                    Failure::usage(format!("--type_info_path {}: {reason}", path.display()))
                })?,
            None => folder.spec.types.clone(),
        };
        Ok((folder, types))
    }
}

/// hover_net's name of an architecture, if it is one of its own.
fn mode_of(architecture: Architecture) -> Option<ModeFlag> {
    match architecture {
        Architecture::HovernetFast => Some(ModeFlag::Fast),
        Architecture::HovernetOriginal => Some(ModeFlag::Original),
        _ => None,
    }
}
