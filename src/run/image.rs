//! One plain image, held whole: no tiles, no store.
//!
//! In: an image's [`SlideConfig`], the run's settings, models. Out: `OUT/<stem>/` as for a slide, with
//! labels.png and, if asked for, the prediction map as raw.npy.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use image::RgbImage;

use super::pictures::read_crops;
use super::run_json::{self, RunReport};
use super::{Ending, Models, RunConfig, RunEvent, SlideConfig, SlideFailure, Watch};
use crate::machine::peak_memory_bytes;
use crate::model::Pool;
use crate::nuclei::PostprocRules;
use crate::output::plausible::few_nuclei_warning;
use crate::output::raw_map::{self, MapCard};
use crate::output::{self, Pictures, labels};
use crate::pipeline::events::Event;
use crate::pipeline::image::ImageOptions;
use crate::pipeline::{self, PipelineError};
use crate::prediction::PredictionMap;
use crate::result::{Coverage, ModelCard, SlideMeta, SlideResult, SlideSource};
use crate::slide::blocks::ProcImage;
use crate::slide::frames::Frames;
use crate::slide::{self, SlideReader};
use crate::tissue::{TissueMask, TissueSource};

/// Longest side of thumb.png, px.
const THUMB_SIDE_PX: u32 = 2048;
/// Bytes of proc blocks kept: an image's patches overlap.
const CACHE_BYTES: usize = 128 << 20;

/// An image whose nuclei are known.
pub(super) struct AnalysedImage {
    pub result: SlideResult,
    /// The whole prediction map `[height, width]`, if it was to be kept.
    pub map: Option<PredictionMap>,
    pub reader: Arc<dyn SlideReader>,
}

/// Runs one image and writes its results, with run.json beside them also where it failed.
pub fn run_image(
    image: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    save_raw: bool,
    watch: Watch<'_>,
    stop: &AtomicBool,
) -> Ending {
    let clock = Instant::now();
    let mut report = RunReport {
        engine: models.engine(),
        ..RunReport::begin(image, config)
    };
    let outcome = write_image(image, config, models, save_raw, watch, stop, &mut report);
    let ending = outcome.unwrap_or_else(Ending::from);
    report.seconds = clock.elapsed().as_secs_f64();
    report.peak_memory_bytes = peak_memory_bytes();
    match ending {
        // Nothing was done, and nothing is kept of a half.
        Ending::Refused(_) | Ending::Stopped => ending,
        ending => run_json::finish(report, &image.folder.join("run.json"), ending),
    }
}

fn write_image(
    image: &SlideConfig,
    config: &RunConfig,
    models: &mut Models,
    save_raw: bool,
    watch: Watch<'_>,
    stop: &AtomicBool,
    report: &mut RunReport,
) -> Result<Ending, SlideFailure> {
    let pool = models.get(&image.model)?;
    report.engine.precision = pool.model().precision.name().into();
    report.model = pool.model().as_ref().into();
    let mut analysed = analyse_image(image, config, &pool, save_raw, stop)?;
    report.nuclei = analysed.result.nuclei.len();
    report.slide.quickhash = Some(analysed.result.meta.slide.quickhash.clone());
    report.slide.bytes = Some(analysed.reader.info().file_bytes);
    let thumb = picture(analysed.reader.as_ref(), THUMB_SIDE_PX)?;
    let mask = whole_mask(&analysed.result);
    let few_nuclei = few_nuclei_warning(&analysed.result, &thumb, &mask);
    analysed.result.meta.warnings.extend(few_nuclei);
    if let (true, Some(map)) = (save_raw, &analysed.map) {
        let path = image.folder.join("raw.npy");
        raw_map::write(map, &path)?;
        let card = MapCard {
            mpp: analysed.result.frames().proc_mpp(),
            model: pool.model().spec.clone(),
        };
        raw_map::write_card(&card, &path)?;
    }
    write_results(
        &analysed.result,
        analysed.reader.as_ref(),
        config,
        &image.folder,
        thumb,
    )?;
    tell_warnings(&analysed.result, watch);
    Ok(Ending::Done {
        nuclei: analysed.result.nuclei.len(),
    })
}

/// Tells every warning of an image's summary.json.
pub(super) fn tell_warnings(result: &SlideResult, watch: Watch<'_>) {
    let late = output::summary_json::result_warnings(result);
    for warning in result.meta.warnings.iter().chain(&late) {
        watch(RunEvent::Slide(Event::Warning(warning.clone())));
    }
}

/// Predicts an image and finds its nuclei, by hover_net's per-map rules where the settings say so.
pub(super) fn analyse_image(
    image: &SlideConfig,
    config: &RunConfig,
    pool: &Pool,
    keep_map: bool,
    stop: &AtomicBool,
) -> Result<AnalysedImage, SlideFailure> {
    let spec = &pool.model().spec;
    let reader: Arc<dyn SlideReader> = slide::open_page(&image.path, config.page)
        .map_err(PipelineError::from)?
        .into();
    let info = reader.info();
    let mpp = slide::mpp::resolve_mpp(info, image.mpp).map_err(PipelineError::from)?;
    let (frames, level) =
        Frames::for_slide(info, mpp.mpp, spec.mpp).map_err(PipelineError::from)?;
    frames
        .refuse_coarse(&image.path, config.force_scale)
        .map_err(PipelineError::from)?;
    let proc = ProcImage::new(reader.clone(), frames, level, CACHE_BYTES);
    let by_reference = config.postproc == PostprocRules::Reference;
    let options = ImageOptions {
        patch_px: config.patch_size_px,
        batch: config.batch_size,
        keep_map: keep_map || by_reference,
        stop: Some(stop),
    };
    let predicted = pipeline::image::predict(&proc, pool.model(), options)?;
    let nuclei = match &predicted.map {
        Some(map) if by_reference => pipeline::image::reference_nuclei(map, &proc)?,
        _ => {
            let mpp = frames.proc_mpp();
            crate::nuclei::segment_foreground(&predicted.foreground, &spec.postproc, mpp)
        }
    };
    let mut meta = SlideMeta {
        identity: std::collections::BTreeMap::new(),
        stem: image.stem.clone(),
        slide: SlideSource::from(info),
        manifest: Vec::new(),
        mpp_from: image.mpp_from.unwrap_or(mpp.from).to_owned(),
        frames,
        model: ModelCard::from(spec),
        tissue_mm2: frames.mm2(frames.proc_rect().area()),
        tissue_from: TissueSource::Image,
        region: None,
        warnings: mpp
            .warning
            .into_iter()
            .chain(frames.scale_warning(spec.mpp))
            .collect(),
    };
    let (rings, unread) =
        pipeline::rings::measure(&nuclei, Vec::new(), &proc, stop).ok_or(PipelineError::Stopped)?;
    meta.warnings
        .extend(pipeline::rings::unread_warning(unread));
    let result = SlideResult {
        meta,
        coverage: Coverage::whole(predicted.done_px),
        read_errors: Vec::new(),
        rings: Some(rings),
        nuclei,
        imported: None,
        examined: None,
    };
    Ok(AnalysedImage {
        result,
        map: predicted.map,
        reader,
    })
}

fn picture(reader: &dyn SlideReader, side_px: u32) -> Result<RgbImage, PipelineError> {
    slide::thumb::thumb(reader, side_px).map_err(PipelineError::from)
}

/// Everything is tissue.
fn whole_mask(result: &SlideResult) -> TissueMask {
    let frames = result.frames();
    TissueMask::all(frames.level0_size_px, frames.level0_mpp)
}

fn write_results(
    result: &SlideResult,
    reader: &dyn SlideReader,
    config: &RunConfig,
    folder: &Path,
    thumb: RgbImage,
) -> Result<(), SlideFailure> {
    let formats = config.formats_of_images();
    let mask = whole_mask(result);
    let pictures = Pictures {
        crops: read_crops(result, reader, &mask, &formats),
        overlay: Some(picture(reader, u32::MAX)?),
        // An image's overlay keeps the image's size.
        legend: false,
        ..Pictures::new(thumb, mask)
    };
    output::write_all(result, pictures, config.choice(&formats), folder)?;
    labels::write(result, folder)?;
    Ok(())
}
