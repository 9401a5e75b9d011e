//! hover_net's folders of results, written by this program's own pipeline.
//!
//! In: an image or slide, what hover_net's command line asks for. Out: json/, mat/, overlay/, qupath/ of images; json/,
//! thumb/, mask/ of slides, in hover_net's pixels and with its types. What differs: docs/migrate-from-hover_net.md.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use image::imageops::FilterType;

use super::image::{AnalysedImage, analyse_image, tell_warnings};
use super::run_json::RunReport;
use super::slide::{AnalysedSlide, Hooks, analyse_slide};
use super::{Ending, Models, RunConfig, SlideConfig, SlideFailure, Watch};
use crate::model::{Architecture, TypeInfo};
use crate::nuclei::Nucleus;
use crate::output::nuclei_json::{self, HovernetPx};
use crate::output::{self, mat5, pictures, qupath_tsv};
use crate::pipeline::PipelineError;
use crate::result::SlideResult;
use crate::slide::{SlideReader, thumb};

/// µm per px of a hover_net patch at 1x: 0.25 at 40x.
pub const UM_AT_1X: f64 = 10.0;
/// hover_net's thumbnails and masks are at this power.
const THUMB_POWER: f64 = 1.25;

/// What is written of an image.
pub struct TileFiles {
    pub draw_dot: bool,
    pub save_qupath: bool,
    pub save_raw_map: bool,
}

/// What is written of a slide.
pub struct WsiFiles {
    /// Power of the objective in whose pixels the JSON counts.
    pub proc_mag: f64,
    pub save_thumb: bool,
    pub save_mask: bool,
}

impl WsiFiles {
    /// hover_net's own habit: JSON lies beside the other folders only where there are some.
    pub fn json_folder(&self) -> &'static str {
        match self.save_thumb || self.save_mask {
            true => "json",
            false => "",
        }
    }
}

/// hover_net's `tile` for one image; `types` are the names and colours to write.
///
/// # Errors
/// Why the image could not be done.
pub fn run_tile(
    image: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    types: &[TypeInfo],
    files: &TileFiles,
    watch: Watch<'_>,
    stop: &AtomicBool,
) -> Result<Ending, SlideFailure> {
    let pool = models.get(&image.model)?;
    // hover_net shows the network the pixels as they are: images count as at the model's own scale.
    let image = SlideConfig {
        mpp: image.mpp.or(Some(pool.model().spec.mpp)),
        ..image.clone()
    };
    let analysed = analyse_image(&image, config, &pool, files.save_raw_map, stop)?;
    let AnalysedImage {
        mut result,
        map,
        reader,
    } = analysed;
    take_hovernet_types(&mut result, pool.model().spec.architecture, types);
    let file = |folder: &str, ending: &str| file_in(&config.output, folder, &image.stem, ending);
    let px = HovernetPx {
        per_level0: [1.0; 2],
        level0_size_px: result.frames().level0_size_px,
    };
    nuclei_json::write_for_hovernet(&result, px, &file("json", "json")?)?;
    let raw = map.as_ref().filter(|_| files.save_raw_map);
    mat5::write(&result, raw, &file("mat", "mat")?)?;
    if files.save_qupath {
        qupath_tsv::write(&result, &file("qupath", "tsv")?)?;
    }
    let mut picture = thumb::thumb(reader.as_ref(), u32::MAX).map_err(PipelineError::from)?;
    pictures::draw_outlines(&mut picture, &result);
    if files.draw_dot {
        pictures::draw_dots(&mut picture, &result);
    }
    pictures::write_png(&picture.into(), &file("overlay", "png")?)?;
    tell_warnings(&result, watch);
    Ok(Ending::Done {
        nuclei: result.nuclei.len(),
    })
}

/// hover_net's `wsi` for one slide; `types` are the names and colours to write.
///
/// # Errors
/// Why the slide could not be done.
pub fn run_wsi(
    slide: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    types: &[TypeInfo],
    files: &WsiFiles,
    watch: Watch<'_>,
    stop: &AtomicBool,
) -> Result<Ending, SlideFailure> {
    let mut unwritten = RunReport::default();
    let analysed = analyse_slide(
        slide,
        config,
        models,
        watch,
        stop,
        &mut unwritten,
        Hooks::default(),
    )?;
    let ending = Ending::of_result(&analysed.result);
    let architecture = models.get(&slide.model)?.model().spec.architecture;
    let AnalysedSlide {
        result,
        mask,
        reader,
        ..
    } = analysed;
    let (mut result, px) = at_power(result, files.proc_mag);
    take_hovernet_types(&mut result, architecture, types);
    let file = |folder: &str, ending: &str| file_in(&config.output, folder, &slide.stem, ending);
    if files.save_thumb || files.save_mask {
        let picture = thumb_at_power(reader.as_ref(), &result, files.proc_mag)?;
        if files.save_mask {
            let (width, height) = picture.dimensions();
            let small = pictures::mask_picture(&mask);
            let mask = image::imageops::resize(&small, width, height, FilterType::Nearest);
            pictures::write_png(&mask.into(), &file("mask", "png")?)?;
        }
        if files.save_thumb {
            pictures::write_png(&picture.into(), &file("thumb", "png")?)?;
        }
    }
    nuclei_json::write_for_hovernet(&result, px, &file(files.json_folder(), "json")?)?;
    Ok(ending)
}

fn thumb_at_power(
    reader: &dyn SlideReader,
    result: &SlideResult,
    power: f64,
) -> Result<image::RgbImage, SlideFailure> {
    let sides = result.frames().level0_size_px.into_iter();
    let longest_px = sides.max().unwrap_or(1) as f64;
    let side = (longest_px * THUMB_POWER / power).round().max(1.0) as u32;
    Ok(thumb::thumb(reader, side).map_err(PipelineError::from)?)
}

fn file_in(
    output: &Path,
    folder: &str,
    stem: &str,
    ending: &str,
) -> Result<PathBuf, output::OutputError> {
    let folder = output.join(folder);
    output::make_folder(&folder)?;
    Ok(folder.join(format!("{stem}.{ending}")))
}

/// Gives the result the names and colours of `types` and, for a HoVer-Net, its way of counting types.
fn take_hovernet_types(result: &mut SlideResult, architecture: Architecture, types: &[TypeInfo]) {
    result.meta.model.types = types.to_vec();
    if matches!(
        architecture,
        Architecture::HovernetFast | Architecture::HovernetOriginal
    ) {
        result.nuclei.iter_mut().for_each(count_types_by_pixels);
    }
}

/// Gives a nucleus hover_net's type and `type_prob` (the share of its pixels), for every writer alike. Where no pixel
/// has a type, hover_net answers 0, "no label": there the most probable type and its mean probability stay.
fn count_types_by_pixels(nucleus: &mut Nucleus) {
    if nucleus.reference_type().is_some_and(|(id, _)| id > 0) {
        let counts = nucleus.type_counts.iter();
        nucleus.prob_sums = counts.map(|n| n.saturating_mul(255)).collect();
    }
}

/// The same nuclei, counted in px of `power`: level-0 px times `power` over the objective's power.
fn at_power(mut result: SlideResult, power: f64) -> (SlideResult, HovernetPx) {
    let frames = &mut result.meta.frames;
    let level0_size_px = frames.level0_size_px;
    let objective = result.meta.slide.objective_power;
    let scale = [0, 1].map(|axis| match objective {
        Some(objective) => power / objective,
        None => power * frames.level0_mpp[axis] / UM_AT_1X,
    });
    for (axis, scale) in scale.iter().enumerate() {
        let size = frames.level0_size_px[axis] as f64 * scale;
        frames.level0_size_px[axis] = size.round().max(1.0) as u64;
        frames.level0_mpp[axis] /= scale;
        frames.proc_per_level0[axis] /= scale;
    }
    result.meta.slide.objective_power = Some(power);
    let px = HovernetPx {
        per_level0: scale,
        level0_size_px,
    };
    (result, px)
}
