//! A prediction map to instances, without a network.
//!
//! In: raw.npy as `tile --save-raw` or hover_net's --save_raw_map keep it, and what is known of it. Out:
//! `OUT/<stem>/` with nuclei.json, nuclei.csv, overlay.jpg and labels.png.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

use super::{RunError, SlideFailure, check_writable, inputs};
use crate::model::{ModelSpec, TypeInfo};
use crate::nuclei::{PostprocParams, PostprocRules, reference};
use crate::output::{self, Choice, Format, GeojsonFrame, Pictures, Units, labels, raw_map};
use crate::prediction::PredictionMap;
use crate::result::{Coverage, ModelCard, SlideMeta, SlideResult, SlideSource};
use crate::slide;
use crate::slide::frames::Frames;
use crate::tissue::{TissueMask, TissueSource};

/// µm per px of a map that nobody knows the scale of: 40x.
const MPP_AT_40X: f64 = 0.25;

/// What is known of a prediction map beside its numbers.
pub struct MapRequest<'a> {
    /// The map: [np, h, v], [tp, np, h, v], or class probabilities, np, h, v.
    pub path: &'a Path,
    /// Folder of the results.
    pub output: &'a Path,
    /// µm per px of the map, over what its card says; 0.25 where nobody says.
    pub mpp: Option<f64>,
    /// The model that made the map: its constants and names of types. `None`: the one that its card names.
    pub model: Option<ModelSpec>,
    pub rules: PostprocRules,
    /// The picture that the map was made from, of the same size.
    pub image: Option<&'a Path>,
    pub units: Units,
}

/// What [`segment_map`] wrote.
pub struct SegmentedMap {
    pub nuclei: usize,
    pub folder: PathBuf,
    /// The model whose constants were used; `None`: nobody named one.
    pub model: Option<String>,
}

/// Why a map could not be segmented.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error(transparent)]
    Refused(#[from] RunError),
    #[error(transparent)]
    Failed(#[from] SlideFailure),
}

impl From<output::OutputError> for MapError {
    fn from(error: output::OutputError) -> Self {
        Self::Failed(error.into())
    }
}

/// Finds the nuclei of a prediction map and writes them into a folder named after the map.
///
/// # Errors
/// A map, model or picture that do not fit together, or a file that cannot be read or written.
pub fn segment_map(request: MapRequest<'_>) -> Result<SegmentedMap, MapError> {
    // With both said, a card is not needed, and a damaged one does no harm.
    let card = match (request.mpp, &request.model) {
        (Some(_), Some(_)) => None,
        _ => raw_map::read_card(request.path)?,
    };
    let card_mpp = card.as_ref().map(|card| card.mpp);
    let mpp = request.mpp.map(|mpp| [mpp; 2]).or(card_mpp);
    let mpp = mpp.unwrap_or([MPP_AT_40X; 2]);
    let request = MapRequest {
        model: request.model.or(card.map(|card| card.model)),
        ..request
    };
    let types = request.model.as_ref().map(|spec| spec.types.len());
    let types = types.filter(|n| *n > 0);
    let map = raw_map::read(request.path, types)?;
    if let Some(types) = types.filter(|types| *types != map.types) {
        return Err(RunError::Usage(format!(
            "{}: has {} types, the model {types}: give the model that made the map",
            request.path.display(),
            map.types
        ))
        .into());
    }
    let picture = match request.image {
        Some(path) => read_picture(path, &map)?,
        None => RgbImage::from_pixel(map.width as u32, map.height as u32, Rgb([255; 3])),
    };
    check_writable(request.output)?;
    let stem = inputs::stem_of(request.path);
    let folder = request.output.join(&stem);
    let (card, params) = match &request.model {
        Some(spec) => (ModelCard::from(spec), spec.postproc.clone()),
        None => (unnamed_card(&map, mpp[0]), PostprocParams::default()),
    };
    let nuclei = match request.rules {
        PostprocRules::Reference => reference::segment_map(&map, &picture).0,
        PostprocRules::Default => crate::nuclei::segment_map(&map, &picture, &params, mpp),
    };
    let count = nuclei.len();
    let meta = meta(&request, mpp, stem, &map, card);
    let frames = meta.frames;
    let result = SlideResult {
        coverage: Coverage::whole(frames.proc_rect().area()),
        meta,
        nuclei,
        read_errors: Vec::new(),
        rings: None,
        imported: None,
        examined: None,
    };
    let mask = TissueMask::all(frames.level0_size_px, frames.level0_mpp);
    let pictures = Pictures {
        legend: false,
        ..Pictures::new(picture, mask)
    };
    let choice = Choice {
        formats: &[Format::Json, Format::Csv, Format::Overlay],
        units: request.units,
        geojson_frame: GeojsonFrame::Qupath,
    };
    output::write_all(&result, pictures, choice, &folder)?;
    labels::write(&result, &folder)?;
    Ok(SegmentedMap {
        nuclei: count,
        folder,
        model: request.model.map(|spec| spec.name),
    })
}

fn read_picture(path: &Path, map: &PredictionMap) -> Result<RgbImage, RunError> {
    let wrong = |error: slide::SlideError| RunError::Usage(error.to_string());
    let reader = slide::open(path).map_err(wrong)?;
    let picture = slide::thumb::thumb(reader.as_ref(), u32::MAX).map_err(wrong)?;
    if (picture.width() as usize, picture.height() as usize) != (map.width, map.height) {
        return Err(RunError::Usage(format!(
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

/// A card for a map whose model nobody names: numbered types.
fn unnamed_card(map: &PredictionMap, mpp: f64) -> ModelCard {
    let kind = |id: usize| TypeInfo {
        name: match id {
            0 => "background".into(),
            _ => format!("type_{id}"),
        },
        color: [0; 3],
    };
    ModelCard {
        name: "raw map".into(),
        mpp,
        types: (0..map.types).map(kind).collect(),
        ..ModelCard::default()
    }
}

fn meta(
    request: &MapRequest<'_>,
    mpp: [f64; 2],
    stem: String,
    map: &PredictionMap,
    model: ModelCard,
) -> SlideMeta {
    let size = [map.width as u64, map.height as u64];
    let frames = Frames {
        level0_size_px: size,
        level0_mpp: mpp,
        proc_size_px: size.map(|px| px as i32),
        proc_per_level0: [1.0; 2],
    };
    SlideMeta {
        identity: BTreeMap::new(),
        stem,
        slide: SlideSource {
            path: request.path.to_owned(),
            ..SlideSource::default()
        },
        manifest: Vec::new(),
        mpp_from: "flag".into(),
        frames,
        model,
        tissue_mm2: frames.mm2(frames.proc_rect().area()),
        tissue_from: TissueSource::Image,
        region: None,
        warnings: Vec::new(),
    }
}
