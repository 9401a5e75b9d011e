//! `hovernet tile`: images to json/, mat/, overlay/ and, asked, qupath/.

use std::path::Path;
use std::sync::Arc;

use wsi_nuclei::config::{PostprocRules, SlideConfig};
use wsi_nuclei::model::{Architecture, Model};
use wsi_nuclei::output::{self, SlideResult, mat5, nuclei_json, pictures, qupath_tsv};
use wsi_nuclei::pipeline::{self, PipelineError};
use wsi_nuclei::prediction::PredictionMap;
use wsi_nuclei::slide;

use super::super::progress::Progress;
use super::super::run::{Ending, SlideFailure, each, exit_code, writable};
use super::super::tile::{self, Image};
use super::super::{Failure, inputs, signals};
use super::{HovernetArgs, typed_by_pixels};

pub fn main(args: &HovernetArgs) -> Result<(), Failure> {
    let config = args.settings()?;
    let folder = std::slice::from_ref(&args.input_dir);
    let images = inputs::from_paths(folder, false, inputs::IMAGE_EXTENSIONS, &config)?;
    writable(&config.output)?;
    let (model, types) = args.model(None)?;
    let progress = Progress::new(&config)?;
    let stop = signals::stop_flag()?;
    let endings = each(&images, &progress, &stop, |image| {
        // hover_net shows the network the pixels as they are: images count as at the model's own scale.
        let image = SlideConfig {
            folder: args.output_dir.clone(),
            mpp: image.mpp.or(Some(model.spec.mpp)),
            ..image.clone()
        };
        let outcome = predict(args, &image, &model).and_then(|(mut result, map)| {
            result.meta.model.types.clone_from(&types);
            write(args, &image, &result, map.as_ref())?;
            Ok(Ending::Done {
                nuclei: result.nuclei.len(),
            })
        });
        outcome.unwrap_or_else(Ending::from)
    });
    match exit_code(&endings) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

fn predict(
    args: &HovernetArgs,
    image: &SlideConfig,
    model: &Arc<Model>,
) -> Result<(SlideResult, Option<PredictionMap>), SlideFailure> {
    let hovernet = matches!(
        model.spec.architecture,
        Architecture::HovernetFast | Architecture::HovernetOriginal
    );
    let reference = match args.postproc {
        Some(rules) => rules == PostprocRules::Reference,
        None => hovernet,
    };
    let opened = Image::open(image, model)?;
    let predicted =
        pipeline::image::predict(&opened.proc, model, None, reference || args.save_raw_map)?;
    let nuclei = opened.nuclei(&predicted, model, reference)?;
    let typed = nuclei.into_iter().map(|n| match hovernet {
        true => typed_by_pixels(n),
        false => n,
    });
    let result = tile::result_of(image, &opened, model, typed.collect(), predicted.done_px);
    Ok((result, predicted.map))
}

fn write(
    args: &HovernetArgs,
    image: &SlideConfig,
    result: &SlideResult,
    map: Option<&PredictionMap>,
) -> Result<(), SlideFailure> {
    let file = |folder: &str, ending: &str| -> Result<std::path::PathBuf, SlideFailure> {
        let folder = args.output_dir.join(folder);
        output::make_folder(&folder)?;
        Ok(folder.join(format!("{}.{ending}", image.stem)))
    };
    nuclei_json::write(result, &file("json", "json")?)?;
    let raw = map.filter(|_| args.save_raw_map);
    mat5::write(result, raw, &file("mat", "mat")?)?;
    if args.save_qupath {
        qupath_tsv::write(result, &file("qupath", "tsv")?)?;
    }
    overlay(args, &image.path, result, &file("overlay", "png")?)
}

fn overlay(
    args: &HovernetArgs,
    image: &Path,
    result: &SlideResult,
    path: &Path,
) -> Result<(), SlideFailure> {
    let reader = slide::open(image).map_err(PipelineError::from)?;
    let mut picture =
        slide::thumb::thumb(reader.as_ref(), u32::MAX).map_err(PipelineError::from)?;
    pictures::draw_outlines(&mut picture, result);
    if args.draw_dot {
        pictures::draw_dots(&mut picture, result);
    }
    pictures::write_png(&picture.into(), path)?;
    Ok(())
}
