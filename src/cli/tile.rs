//! `tile IMAGE… -o OUT`: plain images to nuclei, each held whole: no tiles, no store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use wsi_nuclei::config::{Format, Origin, PostprocRules, RunConfig, Settings, SlideConfig};
use wsi_nuclei::model::Model;
use wsi_nuclei::nuclei::Nucleus;
use wsi_nuclei::output::{self, Pictures, SlideResult, labels, raw_map};
use wsi_nuclei::pipeline::image::ImagePrediction;
use wsi_nuclei::pipeline::{self, PipelineError};
use wsi_nuclei::slide::blocks::ProcImage;
use wsi_nuclei::slide::frames::Frames;
use wsi_nuclei::slide::mpp::Mpp;
use wsi_nuclei::slide::{self, SlideReader};
use wsi_nuclei::store::StoreMeta;
use wsi_nuclei::tissue::TissueMask;

use super::models::Models;
use super::progress::Progress;
use super::run::{Ending, SlideFailure, crops_of, each, exit_code, writable};
use super::{Failure, inputs, signals};

/// Settings that only make sense on a slide with its store.
const FOR_RUN_ONLY: [&str; 8] = [
    "mask",
    "roi",
    "level0_box",
    "restart",
    "shard",
    "mix_devices",
    "tile_size",
    "memory",
];
/// Longest side of thumb.png, px.
const THUMB_SIDE_PX: u32 = 2048;
/// Bytes of proc blocks kept: an image's patches overlap.
const CACHE_BYTES: usize = 128 << 20;

/// Plain images (PNG, JPEG, TIFF) to nuclei: writes OUT/<stem>/ for each.
#[derive(Debug, Args)]
#[command(
    mut_arg("mask", |arg| arg.hide(true)),
    mut_arg("roi", |arg| arg.hide(true)),
    mut_arg("level0_box", |arg| arg.hide(true)),
    mut_arg("restart", |arg| arg.hide(true)),
    mut_arg("mix_devices", |arg| arg.hide(true)),
    mut_arg("tile_size", |arg| arg.hide(true)),
    mut_arg("memory", |arg| arg.hide(true))
)]
pub struct TileArgs {
    /// Images, or folders of images; --mpp says their scale
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Look into folders of folders
    #[arg(short, long)]
    recursive: bool,
    /// Keep the prediction map as raw.npy
    #[arg(long)]
    save_raw: bool,
    /// TOML file of settings; `config/default.toml` lists them all
    #[arg(long, value_name = "FILE", env = "WSI_NUCLEI_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub fn main(args: TileArgs) -> Result<(), Failure> {
    if let Some(field) = FOR_RUN_ONLY.iter().find(|field| args.settings.has(field)) {
        return Err(Failure::usage(format!(
            "--{} is for `run`: an image is held whole, so leave it out here",
            field.replace('_', "-")
        )));
    }
    let config = RunConfig::resolve(args.settings, args.config.as_deref(), |name| {
        std::env::var_os(name)
    })?;
    let images = inputs::from_paths(
        &args.images,
        args.recursive,
        inputs::IMAGE_EXTENSIONS,
        &config,
    )?;
    writable(&config.output)?;
    let progress = Progress::new(&config)?;
    let stop = signals::stop_flag()?;
    let mut models = Models::new(&config)?;
    let endings = each(&images, &progress, &stop, |image| {
        let model = match models.get(&image.model) {
            Ok(model) => model,
            Err(error) => return SlideFailure::from(error).into(),
        };
        one(image, &config, &model, args.save_raw).unwrap_or_else(Ending::from)
    });
    match exit_code(&endings) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

/// An image that is ready to be predicted.
pub struct Image {
    pub reader: Arc<dyn SlideReader>,
    pub proc: ProcImage,
    pub frames: Frames,
    mpp: Mpp,
}

impl Image {
    /// Opens the file and settles its µm/px and frames.
    pub fn open(image: &SlideConfig, model: &Model) -> Result<Self, SlideFailure> {
        let reader: Arc<dyn SlideReader> = slide::open(&image.path)
            .map_err(PipelineError::from)?
            .into();
        let info = reader.info();
        let mpp = slide::mpp::resolve_mpp(info, image.mpp).map_err(PipelineError::from)?;
        let (frames, level) =
            Frames::for_slide(info, mpp.mpp, model.spec.mpp).map_err(PipelineError::from)?;
        Ok(Self {
            proc: ProcImage::new(reader.clone(), frames, level, CACHE_BYTES),
            reader,
            frames,
            mpp,
        })
    }

    /// The nuclei of what was predicted, by hover_net's per-map rules where `reference` and the whole map was kept.
    pub fn nuclei(
        &self,
        predicted: &ImagePrediction,
        model: &Model,
        reference: bool,
    ) -> Result<Vec<Nucleus>, SlideFailure> {
        Ok(match &predicted.map {
            Some(map) if reference => pipeline::image::reference_nuclei(map, &self.proc)?,
            _ => pipeline::image::nuclei(
                &predicted.foreground,
                &model.spec.postproc,
                self.frames.proc_mpp(),
            ),
        })
    }
}

fn one(
    image: &SlideConfig,
    config: &RunConfig,
    model: &Arc<Model>,
    save_raw: bool,
) -> Result<Ending, SlideFailure> {
    let opened = Image::open(image, model)?;
    let reference = config.postproc == PostprocRules::Reference;
    let predicted = pipeline::image::predict(
        &opened.proc,
        model,
        config.patch_size_px,
        save_raw || reference,
    )?;
    let nuclei = opened.nuclei(&predicted, model, reference)?;
    let result = result_of(image, &opened, model, nuclei, predicted.done_px);
    if let (true, Some(map)) = (save_raw, &predicted.map) {
        raw_map::write(map, &image.folder.join("raw.npy"))?;
    }
    write(&result, opened.reader.as_ref(), config, &image.folder)?;
    Ok(Ending::Done {
        nuclei: result.nuclei.len(),
    })
}

/// An image's nuclei as every writer takes them.
pub fn result_of(
    image: &SlideConfig,
    opened: &Image,
    model: &Model,
    nuclei: Vec<Nucleus>,
    done_px: u64,
) -> SlideResult {
    let mut meta = meta(
        image,
        opened.reader.info(),
        &opened.mpp,
        opened.frames,
        model,
    );
    let rings = pipeline::rings::measure(&nuclei, &opened.proc, &AtomicBool::new(false));
    let rings = rings.map(|(rings, unread)| {
        meta.warnings
            .extend(pipeline::rings::unread_warning(unread));
        rings
    });
    SlideResult {
        meta,
        done_px,
        unreadable_px: 0,
        outside_px: 0,
        missing_tiles: 0,
        read_errors: Vec::new(),
        rings,
        nuclei,
        imported: None,
    }
}

fn write(
    result: &SlideResult,
    reader: &dyn SlideReader,
    config: &RunConfig,
    folder: &Path,
) -> Result<(), SlideFailure> {
    let frames = result.frames();
    let whole = slide::thumb::thumb(reader, u32::MAX).map_err(PipelineError::from)?;
    let mask = TissueMask::all(frames.level0_size_px, frames.level0_mpp);
    // A page for each of a thousand small images is nothing that anybody asked for.
    let mut formats = config.formats.clone();
    if config
        .settings
        .get("format")
        .is_none_or(|setting| setting.from == Origin::Default)
    {
        formats.retain(|format| !matches!(format, Format::Crops | Format::Report));
    }
    let pictures = Pictures {
        thumb: slide::thumb::thumb(reader, THUMB_SIDE_PX).map_err(PipelineError::from)?,
        crops: crops_of(result, reader, &mask, &formats),
        mask,
        overlay: Some(whole),
        // An image's overlay keeps the image's size.
        legend: false,
    };
    let choice = output::Choice {
        formats: &formats,
        ..config.choice()
    };
    output::write_all(result, pictures, choice, folder)?;
    labels::write(result, folder)?;
    Ok(())
}

/// What a store would say about the image: one tile that holds it whole.
fn meta(
    image: &SlideConfig,
    info: &slide::SlideInfo,
    mpp: &Mpp,
    frames: Frames,
    model: &Model,
) -> StoreMeta {
    let [width, height] = frames.proc_size_px;
    let warnings = mpp
        .warning
        .clone()
        .into_iter()
        .chain(frames.scale_warning(model.spec.mpp));
    StoreMeta {
        identity: std::collections::BTreeMap::new(),
        tile_patches: width.max(height).div_euclid(model.spec.patch_out_px.max(1)) + 1,
        tiles_xy: [1, 1],
        planned_tiles: vec![[0, 0]],
        patch_in_px: model.spec.patch_in_px,
        patch_out_px: model.spec.patch_out_px,
        stem: image.stem.clone(),
        slide: info.clone(),
        mpp_from: image.mpp_from.unwrap_or(mpp.from).to_owned(),
        frames,
        model: model.spec.clone(),
        tissue_mm2: frames.mm2(frames.proc_rect().area()),
        warnings: warnings.collect(),
    }
}
