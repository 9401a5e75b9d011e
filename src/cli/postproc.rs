//! `postproc RAW.npy -o OUT`: a prediction map to instances, without a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use image::{Rgb, RgbImage};
use wsi_nuclei::config::{Format, GeojsonFrame, PostprocRules, Units};
use wsi_nuclei::geometry::Rect;
use wsi_nuclei::model::{Architecture, Library, ModelSpec, TypeInfo};
use wsi_nuclei::nuclei::{Foreground, PostprocParams, reference};
use wsi_nuclei::output::{self, Choice, Pictures, SlideResult, labels, raw_map};
use wsi_nuclei::pipeline;
use wsi_nuclei::prediction::PredictionMap;
use wsi_nuclei::slide::frames::Frames;
use wsi_nuclei::slide::{self, Level, SlideInfo};
use wsi_nuclei::store::StoreMeta;
use wsi_nuclei::tissue::TissueMask;

use super::run::writable;
use super::{Failure, inputs, print};

/// A prediction map to instances: H x W x C float32, [np, h, v], [tp, np, h, v], or class probabilities, np, h, v.
#[derive(Debug, Args)]
pub struct PostprocArgs {
    /// The map, as `tile --save-raw` or hover_net's --save_raw_map keep it
    #[arg(value_name = "RAW.npy")]
    raw: PathBuf,
    /// Folder for the results: OUT/<stem>/
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// µm a pixel of the map
    #[arg(long, value_name = "UM", default_value = "0.25")]
    mpp: wsi_nuclei::config::Mpp,
    /// Take constants and names of types from this model
    #[arg(long, value_name = "NAME|FOLDER")]
    model: Option<String>,
    /// reference: hover_net's rules, scaled over the whole map
    #[arg(long, value_enum, default_value = "default")]
    postproc: PostprocRules,
    /// The picture that the map was made from, of the same size: for colours and the overlay
    #[arg(long, value_name = "PNG")]
    image: Option<PathBuf>,
    /// Unit of lengths and areas in tables
    #[arg(long, value_enum, default_value = "um")]
    units: Units,
}

pub fn main(args: &PostprocArgs) -> Result<(), Failure> {
    let model = match &args.model {
        Some(name) => Some(Library::from_env().open(name).map_err(Failure::usage)?.spec),
        None => None,
    };
    let types = model
        .as_ref()
        .map(|spec| spec.types.len())
        .filter(|n| *n > 0);
    let map = raw_map::read(&args.raw, types)?;
    if let Some(types) = types.filter(|types| *types != map.types) {
        return Err(Failure::usage(format!(
            "{}: has {} types, the model {types}: give the model that made the map",
            args.raw.display(),
            map.types
        )));
    }
    let picture = match &args.image {
        Some(path) => picture(path, &map)?,
        None => RgbImage::from_pixel(map.width as u32, map.height as u32, Rgb([255; 3])),
    };
    writable(&args.output)?;
    let stem = inputs::stem_of(&args.raw);
    let folder = args.output.join(&stem);
    let spec = model.unwrap_or_else(|| unnamed(&map, args.mpp.0));
    let nuclei = match args.postproc {
        PostprocRules::Reference => reference::segment_map(&map, &picture).0,
        PostprocRules::Default => {
            let clip = Rect::new(0, 0, map.width as i32, map.height as i32);
            let np_threshold = spec.postproc.np_threshold;
            let foreground = Foreground::from_patch(&map, &picture, (0, 0), clip, np_threshold);
            pipeline::image::nuclei(&foreground, &spec.postproc, [args.mpp.0; 2])
        }
    };
    let count = nuclei.len();
    let meta = meta(&args.raw, stem, args.mpp.0, &map, spec);
    let result = SlideResult {
        done_px: meta.frames.proc_rect().area(),
        meta,
        nuclei,
        unreadable_px: 0,
        outside_px: 0,
        missing_tiles: 0,
        read_errors: Vec::new(),
        rings: None,
        imported: None,
    };
    let frames = result.frames();
    let pictures = Pictures {
        mask: TissueMask::all(frames.level0_size_px, frames.level0_mpp),
        thumb: picture,
        overlay: None,
        crops: Vec::new(),
        legend: false,
    };
    let formats = [Format::Json, Format::Csv, Format::Overlay];
    let choice = Choice {
        formats: &formats,
        units: args.units,
        geojson_frame: GeojsonFrame::Qupath,
    };
    output::write_all(&result, pictures, choice, &folder)?;
    labels::write(&result, &folder)?;
    print(&format!(
        "{count} nuclei, written to {}\n",
        folder.display()
    ))
}

fn picture(path: &Path, map: &PredictionMap) -> Result<RgbImage, Failure> {
    let reader = slide::open(path).map_err(Failure::usage)?;
    let picture = slide::thumb::thumb(reader.as_ref(), u32::MAX).map_err(Failure::usage)?;
    if (picture.width() as usize, picture.height() as usize) != (map.width, map.height) {
        return Err(Failure::usage(format!(
            "{}: is {} x {} px, the map {} x {}: give the picture that it was made from",
            path.display(),
            picture.width(),
            picture.height(),
            map.width,
            map.height
        )));
    }
    Ok(picture)
}

/// A description for a map that nobody describes: default constants, numbered types.
fn unnamed(map: &PredictionMap, mpp: f64) -> ModelSpec {
    let kind = |id: usize| TypeInfo {
        name: if id == 0 {
            "background".into()
        } else {
            format!("type_{id}")
        },
        color: [0; 3],
    };
    ModelSpec {
        name: "raw map".into(),
        architecture: Architecture::Analytic,
        mpp,
        patch_in_px: map.width.max(map.height).max(1) as i32,
        patch_out_px: map.width.max(map.height).max(1) as i32,
        types: (0..map.types).map(kind).collect(),
        postproc: PostprocParams::default(),
        weights: None,
        sha256: None,
        licence: String::new(),
        citation: String::new(),
        training_data: String::new(),
        scores: toml::Table::new(),
    }
}

fn meta(raw: &Path, stem: String, mpp: f64, map: &PredictionMap, model: ModelSpec) -> StoreMeta {
    let size = [map.width as u64, map.height as u64];
    let frames = Frames {
        level0_size_px: size,
        level0_mpp: [mpp; 2],
        proc_size_px: size.map(|px| px as i32),
        proc_per_level0: [1.0; 2],
    };
    StoreMeta {
        identity: BTreeMap::new(),
        tile_patches: 1,
        tiles_xy: [1, 1],
        planned_tiles: vec![[0, 0]],
        patch_in_px: map.width.max(map.height).max(1) as i32,
        patch_out_px: map.width.max(map.height).max(1) as i32,
        stem,
        slide: SlideInfo {
            path: raw.to_owned(),
            vendor: "map".into(),
            levels: vec![Level {
                width_px: size[0],
                height_px: size[1],
                downsample: 1.0,
            }],
            mpp: None,
            objective_power: None,
            bounds_px: None,
            background: [255; 3],
            associated: Vec::new(),
            properties: BTreeMap::new(),
            file_bytes: 0,
            quickhash: String::new(),
        },
        mpp_from: "flag".into(),
        frames,
        model,
        tissue_mm2: frames.mm2(frames.proc_rect().area()),
        warnings: Vec::new(),
    }
}
