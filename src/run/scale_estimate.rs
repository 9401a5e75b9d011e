//! The µm/px of a slide whose scale is unknown or doubted, from the size of its nuclei.
//!
//! In: an open slide and a model. Out: a [`ScaleEstimate`]. A few fields full of hematoxylin are predicted as if they
//! had each of a series of scales. At a coarse scale nuclei come out too large in µm, at a fine one too small: the
//! estimate is the scale at which the large ones have the usual diameter. Never changes what a run uses.

use std::sync::Arc;

use image::RgbImage;
use image::imageops::crop_imm;

use super::SlideFailure;
use crate::model::Model;
use crate::pipeline::PipelineError;
use crate::pipeline::image::{ImageOptions, predict};
use crate::slide::blocks::ProcImage;
use crate::slide::frames::Frames;
use crate::slide::plain::PlainReader;
use crate::slide::{SlideError, SlideReader, thumb};
use crate::tissue::optical_density;

/// µm/px that are tried: steps of a quarter, from 100x to 5x.
const SCALES_UM: [f64; 14] = [
    0.1, 0.125, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.63, 0.8, 1.0, 1.26, 1.6, 2.0,
];
/// Fields that are looked at, and their longest side, level-0 px.
const FIELDS: usize = 6;
const FIELD_SIDE_PX: u32 = 512;
/// Longest side of a field at the model's scale, px: bounds the work at coarse scales.
const MODEL_SIDE_PX: f64 = 1200.0;
/// Longest side of the picture in which fields are chosen, px.
const THUMB_SIDE_PX: u32 = 1024;
/// Share of all nuclear area that lies in nuclei up to the one whose diameter is looked at.
const AREA_SHARE: f64 = 0.85;
/// That diameter where the scale is right, µm: 5.9 to 8.0 on six sources of known scale (docs/accuracy.md).
const USUAL_DIAMETER_UM: f64 = 6.8;
/// Fewer nuclei than this say nothing.
const FEWEST_NUCLEI: usize = 30;

/// What the nuclei say about the scale.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleEstimate {
    /// µm per level-0 px; `None` where no scale gives nuclei of the usual size.
    pub um_per_px: Option<f64>,
    /// Nuclei at the tried scale next to the estimate.
    pub nuclei: usize,
    /// Number of fields.
    pub fields: usize,
}

/// Estimates the µm/px of a slide.
///
/// # Errors
/// Fields that cannot be read, or a model that fails.
pub fn estimate_mpp(
    reader: &dyn SlideReader,
    model: &Model,
) -> Result<ScaleEstimate, SlideFailure> {
    let fields = read_fields(reader).map_err(PipelineError::from)?;
    let mut curve = Vec::new();
    for um_per_px in SCALES_UM {
        let (mut diameters_um, mut field_um2) = (Vec::new(), 0.0);
        for field in &fields {
            let middle = middle_of(field, MODEL_SIDE_PX * model.spec.mpp / um_per_px);
            field_um2 += f64::from(middle.width() * middle.height()) * um_per_px * um_per_px;
            diameters_um.extend(nuclear_diameters_um(middle, um_per_px, model)?);
        }
        if let Some(large_um) = large_diameter(&mut diameters_um) {
            let nuclear_um2: f64 = diameters_um.iter().map(|d| d * d).sum();
            curve.push(TriedScale {
                um_per_px,
                large_um,
                nuclei: diameters_um.len(),
                covered: nuclear_um2 / field_um2,
            });
        }
    }
    let found = crossing(&curve);
    Ok(ScaleEstimate {
        um_per_px: found.map(|(scale, _)| scale),
        nuclei: found.map_or(0, |(_, nuclei)| nuclei),
        fields: fields.len(),
    })
}

/// What the fields look like at one scale.
struct TriedScale {
    um_per_px: f64,
    /// Diameter of a large nucleus.
    large_um: f64,
    nuclei: usize,
    /// Share of the fields that nuclei cover, up to a constant factor.
    covered: f64,
}

/// The scale at which large nuclei grow through the usual diameter, on logarithmic axes, and the nuclei there. At wrong
/// scales speckles and folds may do so as well: where nuclei cover most counts.
fn crossing(curve: &[TriedScale]) -> Option<(f64, usize)> {
    let usual = USUAL_DIAMETER_UM;
    let rises = curve
        .windows(2)
        .filter(|pair| pair[0].large_um <= usual && usual < pair[1].large_um);
    let best = rises.max_by(|a, b| a[0].covered.total_cmp(&b[0].covered))?;
    let (fine, coarse) = (&best[0], &best[1]);
    let part = (usual / fine.large_um).ln() / (coarse.large_um / fine.large_um).ln();
    let step = (coarse.um_per_px / fine.um_per_px).ln();
    let nuclei = fine.nuclei.max(coarse.nuclei);
    Some((fine.um_per_px * (part * step).exp(), nuclei))
}

/// The diameter up to which nuclei hold [`AREA_SHARE`] of the nuclear area; `None` for too few nuclei.
fn large_diameter(diameters_um: &mut [f64]) -> Option<f64> {
    if diameters_um.len() < FEWEST_NUCLEI {
        return None;
    }
    diameters_um.sort_by(f64::total_cmp);
    let all: f64 = diameters_um.iter().map(|d| d * d).sum();
    let mut sum = 0.0;
    let large = diameters_um.iter().find(|d| {
        sum += **d * **d;
        sum >= AREA_SHARE * all
    });
    large.copied()
}

/// The middle of a field, at most `side_px` px a side.
fn middle_of(field: &RgbImage, side_px: f64) -> RgbImage {
    let (w, h) = (
        field.width().min(side_px as u32),
        field.height().min(side_px as u32),
    );
    let (x, y) = ((field.width() - w) / 2, (field.height() - h) / 2);
    crop_imm(field, x, y, w, h).to_image()
}

/// Diameters of discs as large as the nuclei of a field, if it has `scale` µm/px.
fn nuclear_diameters_um(
    field: RgbImage,
    scale: f64,
    model: &Model,
) -> Result<Vec<f64>, SlideFailure> {
    let spec = &model.spec;
    let reader: Arc<dyn SlideReader> = Arc::new(PlainReader::from_rgb("field", field));
    let (frames, level) =
        Frames::for_slide(reader.info(), [scale; 2], spec.mpp).map_err(PipelineError::from)?;
    let cache_bytes = frames.proc_rect().area() as usize * 4;
    let image = ProcImage::new(reader, frames, level, cache_bytes);
    let predicted = predict(&image, model, ImageOptions::default())?;
    let mpp = frames.proc_mpp();
    let nuclei = crate::nuclei::segment_foreground(&predicted.foreground, &spec.postproc, mpp);
    let um2_per_px = mpp[0] * mpp[1];
    let diameter =
        |area_px: u32| (4.0 * f64::from(area_px) * um2_per_px / std::f64::consts::PI).sqrt();
    Ok(nuclei.iter().map(|n| diameter(n.area_px)).collect())
}

/// Fields spread over the part of the slide that is richest in hematoxylin.
fn read_fields(reader: &dyn SlideReader) -> Result<Vec<RgbImage>, SlideError> {
    let [width, height] = reader
        .info()
        .levels
        .first()
        .map_or([1, 1], |level| [level.width_px, level.height_px]);
    let side = [width, height].map(|px| px.min(FIELD_SIDE_PX.into()).max(1));
    let picture = thumb::thumb(reader, THUMB_SIDE_PX)?;
    let thumb_per_px = f64::from(picture.width()) / width as f64;
    let mut places: Vec<(f64, u64, u64)> = Vec::new();
    for y in starts(height, side[1]) {
        for x in starts(width, side[0]) {
            let [left, top, w, h] =
                [x, y, side[0], side[1]].map(|px| (px as f64 * thumb_per_px) as u32);
            let part = crop_imm(&picture, left, top, w.max(1), h.max(1)).to_image();
            let red: Vec<f64> = part.pixels().map(|px| optical_density(px.0[0])).collect();
            places.push((red.iter().sum::<f64>() / red.len().max(1) as f64, x, y));
        }
    }
    places.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    // Not the darkest alone, which may be ink or a fold: every so many of the darker quarter.
    let darker = places.len().div_ceil(4).max(FIELDS).min(places.len());
    let step = (darker / FIELDS).max(1);
    let chosen = places[..darker].iter().step_by(step).take(FIELDS);
    chosen
        .map(|&(_, x, y)| reader.read_level(0, x, y, side[0] as u32, side[1] as u32))
        .collect()
}

/// Where fields of `side` px begin so that they cover `length` px evenly.
fn starts(length: u64, side: u64) -> impl Iterator<Item = u64> {
    let count = length.div_ceil(side).max(1);
    (0..count).map(move |i| i * (length - side) / (count - 1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_lies_where_large_nuclei_grow_through_the_usual_size() {
        let tried = |um_per_px, large_um, covered| TriedScale {
            um_per_px,
            large_um,
            nuclei: (1000.0 * um_per_px) as usize,
            covered,
        };
        let curve = [
            tried(0.2, 8.0, 0.1),
            tried(0.25, 3.4, 0.2),
            tried(0.5, 13.6, 0.2),
            tried(1.0, 6.0, 0.1),
            tried(2.0, 8.0, 0.3),
        ];
        let (scale, nuclei) = crossing(&curve).unwrap();
        // Half of the way between the logarithms of 3.4 and 13.6.
        assert!((scale - (0.25f64 * 0.5).sqrt()).abs() < 1e-12);
        assert_eq!(nuclei, 500);
        assert_eq!(crossing(&curve[2..4]), None);
    }

    #[test]
    fn large_nuclei_are_those_up_to_most_of_the_area() {
        // 36 px² in small ones and 9 in a large one: four fifths of the area are up to 1.
        let mut diameters = [vec![1.0; 36], vec![3.0]].concat();
        assert_eq!(large_diameter(&mut diameters), Some(3.0));
        assert_eq!(large_diameter(&mut [1.0; FEWEST_NUCLEI - 1]), None);
    }

    #[test]
    fn fields_lie_where_red_is_dark() {
        let picture = RgbImage::from_fn(2048, 1024, |x, y| match (x / 512, y / 512) {
            (2, 1) => image::Rgb([90, 60, 140]),
            (0, 0) => image::Rgb([200, 120, 180]),
            _ => image::Rgb([240; 3]),
        });
        let fields = read_fields(&PlainReader::from_rgb("x", picture)).unwrap();
        assert_eq!(fields.len(), FIELDS);
        assert_eq!(fields[0].get_pixel(5, 5).0, [90, 60, 140]);
        let small = PlainReader::from_rgb("x", RgbImage::new(40, 30));
        assert_eq!(read_fields(&small).unwrap()[0].dimensions(), (40, 30));
    }
}
