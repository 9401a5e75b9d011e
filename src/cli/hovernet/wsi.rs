//! `hovernet wsi`: slides to JSON at --proc_mag and, asked, thumb/ and mask/. Checkpoints lie in OUT/store. Several slides
//! run in processes of their own, as `run`'s do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use image::imageops::FilterType;
use wsi_nuclei::config::{MaskChoice, PostprocRules, RunConfig, SlideConfig};
use wsi_nuclei::model::{Architecture, Model, TypeInfo};
use wsi_nuclei::nuclei::Nucleus;
use wsi_nuclei::output::{self, SlideResult, nuclei_json, pictures};
use wsi_nuclei::pipeline::{self, PipelineError};
use wsi_nuclei::slide;
use wsi_nuclei::tissue::TissueMask;

use super::super::progress::Progress;
use super::super::run::{Ending, SlideFailure, each, ending_of, exit_code, writable};
use super::super::{Failure, children, inputs, signals};
use super::{HovernetArgs, UM_AT_1X, typed_by_pixels};

/// hover_net's thumbnails and masks are at this power.
const THUMB_POWER: f64 = 1.25;

pub fn main(args: &HovernetArgs) -> Result<(), Failure> {
    if args.postproc == Some(PostprocRules::Reference) {
        return Err(Failure::usage(
            "--postproc reference scales each map by itself, so on a slide its answer would depend on the tiling: \
             it is for `hovernet tile`; leave it out here",
        ));
    }
    let config = args.settings()?;
    let folder = std::slice::from_ref(&args.input_dir);
    let mut slides = inputs::from_paths(folder, false, inputs::slide_extensions(), &config)?;
    if let Some(stem) = &args.only {
        children::die_with_parent();
        slides.retain(|slide| &slide.stem == stem);
        if slides.is_empty() {
            return Err(Failure::slides(format!(
                "{stem}: is no longer in {}",
                args.input_dir.display()
            )));
        }
    }
    for slide in &mut slides {
        slide.folder = args.output_dir.join("store").join(&slide.stem);
        if let Some(masks) = &args.input_mask_dir {
            slide.mask = mask_of(args, masks, &slide.stem);
        }
    }
    writable(&config.output)?;
    let progress = Progress::new(&config)?;
    let stop = signals::stop_flag()?;
    let endings = if slides.len() > 1 {
        // What is wrong with all slides is said once.
        args.checked_model()?;
        args.device()?;
        children::each(&slides, &progress, &stop)?
    } else {
        let (model, types) = args.model(Some(UM_AT_1X / args.proc_mag))?;
        let job = Job {
            args,
            config: &config,
            model,
            types,
        };
        each(&slides, &progress, &stop, |slide| {
            one(&job, slide, &progress, &stop).unwrap_or_else(Ending::from)
        })
    };
    match exit_code(&endings) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

/// The slide's mask, or our own search for tissue where there is none.
fn mask_of(args: &HovernetArgs, masks: &Path, stem: &str) -> MaskChoice {
    let path = masks.join(format!("{stem}.png"));
    if path.is_file() {
        return MaskChoice::File(path);
    }
    args.note(&format!("no {}: tissue is searched for", path.display()));
    MaskChoice::Otsu
}

/// What all slides share.
struct Job<'a> {
    args: &'a HovernetArgs,
    config: &'a RunConfig,
    model: Arc<Model>,
    types: Vec<TypeInfo>,
}

fn one(
    job: &Job,
    slide: &SlideConfig,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Ending, SlideFailure> {
    let mut prepared = pipeline::prepare(slide, job.config, &job.model)?;
    let store = prepared.open_store(&slide.folder.join("store.zarr"), job.config.restart)?;
    let mask = store.mask().map_err(PipelineError::from)?;
    let batch = job.config.batch_size.unwrap_or(1);
    let finished = pipeline::run(prepared, &store, job.model.clone(), batch, stop, &|event| {
        progress.event(event);
    })?;
    let ending = ending_of(&finished.loaded.slide);
    let mut result = at_power(finished.loaded.slide, job.args.proc_mag);
    result.meta.model.types.clone_from(&job.types);
    if matches!(
        job.model.spec.architecture,
        Architecture::HovernetFast | Architecture::HovernetOriginal
    ) {
        let nuclei: Vec<Nucleus> = std::mem::take(&mut result.nuclei);
        result.nuclei = nuclei.into_iter().map(typed_by_pixels).collect();
    }
    write(job.args, slide, &result, &mask)?;
    Ok(ending)
}

/// The same nuclei, counted in px of `power`: level-0 px times `power` over the objective's power.
fn at_power(mut result: SlideResult, power: f64) -> SlideResult {
    let frames = &mut result.meta.frames;
    let objective = result.meta.slide.objective_power;
    let scale = [0, 1].map(|axis| match objective {
        Some(objective) => power / objective,
        None => power * frames.level0_mpp[axis] / UM_AT_1X,
    });
    for (axis, scale) in scale.into_iter().enumerate() {
        let size = frames.level0_size_px[axis] as f64 * scale;
        frames.level0_size_px[axis] = size.round().max(1.0) as u64;
        frames.level0_mpp[axis] /= scale;
        frames.proc_per_level0[axis] /= scale;
    }
    result.meta.slide.objective_power = Some(power);
    result
}

fn write(
    args: &HovernetArgs,
    slide: &SlideConfig,
    result: &SlideResult,
    mask: &TissueMask,
) -> Result<(), SlideFailure> {
    let file = |folder: &str, ending: &str| -> Result<PathBuf, SlideFailure> {
        let folder = args.output_dir.join(folder);
        output::make_folder(&folder)?;
        Ok(folder.join(format!("{}.{ending}", slide.stem)))
    };
    // hover_net's own habit: JSON lies beside the other folders only where there are some.
    let json = if args.save_thumb || args.save_mask {
        "json"
    } else {
        ""
    };
    let longest_px = result
        .frames()
        .level0_size_px
        .into_iter()
        .max()
        .unwrap_or(1) as f64;
    let side = (longest_px * THUMB_POWER / args.proc_mag).round().max(1.0) as u32;
    if args.save_thumb || args.save_mask {
        let reader = slide::open(&slide.path).map_err(PipelineError::from)?;
        let thumb = slide::thumb::thumb(reader.as_ref(), side).map_err(PipelineError::from)?;
        if args.save_mask {
            let (width, height) = thumb.dimensions();
            let small = pictures::mask_picture(mask);
            let mask = image::imageops::resize(&small, width, height, FilterType::Nearest);
            pictures::write_png(&mask.into(), &file("mask", "png")?)?;
        }
        if args.save_thumb {
            pictures::write_png(&thumb.into(), &file("thumb", "png")?)?;
        }
    }
    nuclei_json::write(result, &file(json, "json")?)?;
    Ok(())
}
