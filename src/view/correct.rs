//! Corrections made on the page, as a picture with its nuclei that `train` reads.
//!
//! In: a box of the slide in which every nucleus has been looked at, and what was wrong there: nuclei that are none,
//! nuclei of another type, nuclei that were missed. Out: `STEM_xX_yY.png`, the box's pixels at the model's µm/px, and
//! `STEM_xX_yY.geojson` beside it, its nuclei as they should be, in px of that picture (X, Y: the box's corner, level-0
//! px). Never changes the results themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Scene;
use crate::geometry::Rect;
use crate::nuclei::outline_on_edges;
use crate::output::pictures;
use crate::result::{Record, SlideResult, round2};
use crate::slide::blocks::ProcImage;
use crate::slide::{SlideError, level};
use crate::store::atomic;

/// Shorter boxes teach nothing, longer ones have not been looked at nucleus by nucleus; proc px.
const SIDE_PX: std::ops::RangeInclusive<i32> = 32..=4096;
/// Blocks of the slide that are kept while a box is read, bytes: none is needed twice.
const CACHE_BYTES: usize = 16 << 20;

/// What the page sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// Left, top, right, bottom, level-0 px, edge frame.
    #[serde(rename = "box")]
    pub level0_px: [f64; 4],
    /// Ids of nuclei that are none.
    #[serde(default)]
    pub wrong: BTreeSet<u64>,
    /// The right type by id of the nucleus.
    #[serde(default)]
    pub types: BTreeMap<u64, usize>,
    /// Nuclei that were missed.
    #[serde(default)]
    pub drawn: Vec<Drawn>,
}

/// An outline drawn by hand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// `None` where the model has no types.
    #[serde(rename = "type")]
    pub type_id: Option<usize>,
    /// Corners, level-0 px; the last is joined to the first.
    pub ring: Vec<[f64; 2]>,
}

/// What was saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The picture; the outlines lie beside it.
    pub picture: PathBuf,
    /// Nuclei in it now.
    pub nuclei: usize,
    /// µm per px of the picture.
    pub mpp: f64,
}

/// Why nothing was saved.
#[derive(Debug, thiserror::Error)]
pub enum CorrectionError {
    #[error("corrections need the slide's own pixels: start view with --slide FILE")]
    NoSlide,
    #[error("the results do not say what a px measures: run again with --mpp")]
    NoScale,
    #[error("the area in view has {width} x {height} px of the model: it needs {} to {} a side", SIDE_PX.start(), SIDE_PX.end())]
    Size { width: i32, height: i32 },
    #[error("there is no nucleus {0} in the area")]
    NoNucleus(u64),
    #[error("the model has no type {0}")]
    NoType(usize),
    #[error("a drawn outline has fewer than three corners, or one that is no number")]
    Outline,
    #[error(transparent)]
    Slide(#[from] SlideError),
    #[error("{}: cannot be written: {reason}", path.display())]
    Write { path: PathBuf, reason: String },
}

/// Writes the pair into `folder`, over an earlier one of the same corner.
///
/// # Errors
/// [`CorrectionError`]; the outlines are written last, so a picture without outlines is an unfinished pair.
pub fn save(scene: &Scene, asked: &Correction, folder: &Path) -> Result<Saved, CorrectionError> {
    let result = scene.result();
    let rect = proc_box(result, asked.level0_px)?;
    let features = features(scene, asked, rect)?;
    let pixels = read_box(scene, rect)?;
    let [x, y] = result
        .frames()
        .to_level0(rect.x.into(), rect.y.into())
        .map(|v| v.round() as i64);
    let stem = format!("{}_x{x}_y{y}", result.meta.stem);
    let picture = folder.join(format!("{stem}.png"));
    write(&picture, |out| {
        let encoder = image::codecs::png::PngEncoder::new(out);
        pixels.write_with_encoder(encoder).map_err(io::Error::other)
    })?;
    let nuclei = features.len();
    let text = json!({"type": "FeatureCollection", "features": features}).to_string();
    write(&folder.join(format!("{stem}.geojson")), |out| {
        out.write_all(text.as_bytes())
    })?;
    let mpp = result.frames().proc_mpp();
    Ok(Saved {
        picture,
        nuclei,
        mpp: (mpp[0] + mpp[1]) / 2.0,
    })
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> Result<(), CorrectionError> {
    atomic::write(path, content).map_err(|error| CorrectionError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The proc px that the box touches, inside the slide.
fn proc_box(result: &SlideResult, [x0, y0, x1, y1]: [f64; 4]) -> Result<Rect, CorrectionError> {
    if !result.scale_known() {
        return Err(CorrectionError::NoScale);
    }
    let frames = result.frames();
    // `as` turns NaN into 0 and what is too large into the largest: the size is checked below.
    let [left, top] = frames.to_proc(x0, y0).map(|v| v.floor().max(0.0) as i32);
    let [right, bottom] = frames.to_proc(x1, y1).map(|v| v.ceil().max(0.0) as i32);
    let (width, height) = (right.saturating_sub(left), bottom.saturating_sub(top));
    let rect = Rect::new(left, top, width.max(0), height.max(0)).intersect(&frames.proc_rect());
    match SIDE_PX.contains(&rect.w) && SIDE_PX.contains(&rect.h) {
        true => Ok(rect),
        false => Err(CorrectionError::Size {
            width: rect.w,
            height: rect.h,
        }),
    }
}

/// The same pixels as the model saw.
fn read_box(scene: &Scene, rect: Rect) -> Result<image::RgbImage, CorrectionError> {
    let reader = scene.tiles().slide().ok_or(CorrectionError::NoSlide)?;
    let frames = *scene.result().frames();
    let level0_per_proc = frames.proc_per_level0.map(|v| 1.0 / v);
    let level = level::coarsest_fine_enough(&reader.info().levels, level0_per_proc);
    let slide = ProcImage::new(reader.clone(), frames, level, CACHE_BYTES);
    Ok(slide.region(rect)?)
}

/// The nuclei of the box as they should be. What was drawn comes first: where two overlap, training gives the pixel to
/// the first.
fn features(scene: &Scene, asked: &Correction, rect: Rect) -> Result<Vec<Value>, CorrectionError> {
    let result = scene.result();
    let here: BTreeSet<u64> = nuclei_in(scene, rect).map(|(id, _)| id).collect();
    let mut marked = asked.wrong.iter().chain(asked.types.keys());
    if let Some(&id) = marked.find(|id| !here.contains(id)) {
        return Err(CorrectionError::NoNucleus(id));
    }
    let drawn = asked.drawn.iter().map(|drawn| {
        let wrong = drawn.ring.len() < 3 || drawn.ring.iter().flatten().any(|v| !v.is_finite());
        if wrong {
            return Err(CorrectionError::Outline);
        }
        let corner = |p: &[f64; 2]| {
            let [x, y] = result.frames().to_proc(p[0], p[1]);
            [round2(x - f64::from(rect.x)), round2(y - f64::from(rect.y))]
        };
        let ring = drawn.ring.iter().chain(drawn.ring.first()).map(corner);
        let polygons = vec![vec![ring.collect::<Vec<_>>()]];
        feature(result, drawn.type_id, polygons)
    });
    let found = nuclei_in(scene, rect).filter_map(|(id, record)| {
        let right = asked.types.get(&id).copied().or(record.type_id);
        (!asked.wrong.contains(&id)).then(|| {
            let polygons = outline_on_edges(record.nucleus).into_iter().map(|polygon| {
                let rings = std::iter::once(polygon.exterior).chain(polygon.holes);
                let moved = |[x, y]: [i32; 2]| [x - rect.x, y - rect.y].map(f64::from);
                rings
                    .map(|ring| ring.into_iter().map(moved).collect())
                    .collect()
            });
            feature(result, right, polygons.collect())
        })
    });
    drawn.chain(found).collect()
}

/// The nuclei whose box meets `rect`, in order.
fn nuclei_in(scene: &Scene, rect: Rect) -> impl Iterator<Item = (u64, Record<'_>)> {
    let nuclei = scene.result().nuclei.iter().enumerate();
    let near = nuclei.filter(move |(_, nucleus)| nucleus.bbox.meets(&rect));
    near.map(|(place, nucleus)| {
        let record = Record::new(place, nucleus, scene.result());
        (record.id, record)
    })
}

/// Polygons of rings of `[x, y]`, px of the picture.
fn feature(
    result: &SlideResult,
    type_id: Option<usize>,
    polygons: Vec<Vec<Vec<[f64; 2]>>>,
) -> Result<Value, CorrectionError> {
    let types = &result.meta.model.types;
    if let Some(id) = type_id.filter(|&id| id >= types.len()) {
        return Err(CorrectionError::NoType(id));
    }
    // Type 0 is background: a nucleus of it has no type.
    let classification = type_id.filter(|&id| id > 0).map(
        |id| json!({"name": result.type_name(id), "color": pictures::colour_of(result, Some(id)).0}),
    );
    Ok(json!({
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": polygons},
        "properties": {"objectType": "annotation", "classification": classification},
    }))
}

#[cfg(test)]
mod tests;
