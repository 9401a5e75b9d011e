//! crops/: fields at full resolution with their nuclei outlined, chosen by rule and never by hand.
//!
//! In: a [`SlideResult`], the tissue mask, and the fields' pixels, read by someone else. Out: the choice, then
//! `<rule>-<rank>.png` (outlines), `<rule>-<rank>-pixels.png` (none) and crops.json. Only what was examined and lies in
//! the region asked for is shown, and no field twice. The random ones follow from the run's identity: the same result
//! gives the same fields.

use std::collections::HashSet;
use std::path::Path;

use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{OutputError, pictures, write_file};
use crate::features::type_entropy;
use crate::geometry::Rect;
use crate::report::slide::Crop;
use crate::result::SlideResult;
use crate::store::identity;
use crate::tissue::{Area, TissueMask};

/// Side of a field, µm.
pub const FIELD_UM: f64 = 128.0;
/// Fields that each rule chooses.
const FIELDS_PER_RULE: usize = 3;
/// With fewer nuclei a field's mean says little.
const LEAST_NUCLEI: usize = 10;
/// A field is wholly in the region from this share on: areas along outlines are not exact to the last digit.
const WHOLE: f64 = 0.9999;
/// µm per px of the pictures, or finer: outlines of 2 px stay thin.
const PICTURE_MPP: f64 = 0.25;
const LIST: &str = "crops.json";

/// Why a field was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Most nuclei.
    Densest,
    /// Highest mean entropy of the types (lowest mean probability of a nucleus, for a model without types) where there
    /// are at least 10 nuclei.
    Uncertain,
    /// Drawn among the fields that are at least half tissue.
    Random,
}

impl Rule {
    const ALL: [Self; 3] = [Self::Densest, Self::Uncertain, Self::Random];

    fn name(self) -> &'static str {
        match self {
            Self::Densest => "densest",
            Self::Uncertain => "uncertain",
            Self::Random => "random",
        }
    }
}

/// One chosen field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    pub rule: Rule,
    /// From 1.
    pub rank: usize,
    /// Left, top, width, height, level-0 px.
    pub level0_px: [u64; 4],
    /// Width on the slide.
    #[serde(default)]
    pub width_um: Option<f64>,
    pub nuclei: usize,
    /// Share of the field that lies in the region asked for; what lies outside is pale.
    #[serde(default = "whole")]
    pub region_share: f64,
    /// Mean over the field's nuclei: entropy in nats, or 1 less the probability of a nucleus. None without nuclei.
    pub uncertainty: Option<f64>,
}

fn whole() -> f64 {
    1.0
}

impl Field {
    fn file(&self, suffix: &str) -> String {
        format!("{}-{}{suffix}.png", self.rule.name(), self.rank)
    }

    fn caption(&self) -> String {
        let rule = match self.rule {
            Rule::Densest => "Densest field",
            Rule::Uncertain => "Most uncertain field",
            Rule::Random => "Random field",
        };
        let nuclei = match self.nuclei {
            1 => "1 nucleus".to_owned(),
            n => format!("{n} nuclei"),
        };
        let uncertainty = self
            .uncertainty
            .map_or(String::new(), |u| format!(", mean uncertainty {u:.2}"));
        let outside = match self.region_share < WHOLE {
            true => " Pale: outside the region asked for.",
            false => "",
        };
        let [x, y, ..] = self.level0_px;
        format!(
            "{rule}, no. {}: {nuclei}{uncertainty}. At x {x}, y {y} px.{outside}",
            self.rank
        )
    }
}

/// What is known of one cell of the grid of fields.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    nuclei: usize,
    doubt: f64,
}

/// A grid of whole fields from the upper left corner of what was asked for; where that is smaller than a field, it is
/// one field.
struct Grid {
    origin_px: [u64; 2],
    cells: [u64; 2],
    side_px: [u64; 2],
}

impl Grid {
    fn of(result: &SlideResult) -> Self {
        let frames = result.frames();
        let size_px = frames.level0_size_px;
        let whole = [0.0, 0.0, size_px[0] as f64, size_px[1] as f64];
        let region = result.meta.region.as_ref();
        let [left, top, right, bottom] = region.map_or(whole, |region| region.bounds(size_px));
        let origin_px = [left, top].map(|at| at.max(0.0) as u64);
        let asked_px = [right - left, bottom - top].map(|px| px.max(1.0) as u64);
        let side_px = [0, 1].map(|axis| {
            let px = (FIELD_UM / frames.level0_mpp[axis]).round().max(1.0) as u64;
            px.min(asked_px[axis])
        });
        Self {
            origin_px,
            cells: [0, 1].map(|axis| (asked_px[axis] / side_px[axis]).max(1)),
            side_px,
        }
    }

    fn len(&self) -> usize {
        (self.cells[0] * self.cells[1]) as usize
    }

    /// The cell that holds a point (level-0 px), if it is in a whole field.
    fn cell_at(&self, [x, y]: [f64; 2]) -> Option<usize> {
        let column = (x.max(0.0) as u64).checked_sub(self.origin_px[0])? / self.side_px[0];
        let row = (y.max(0.0) as u64).checked_sub(self.origin_px[1])? / self.side_px[1];
        (column < self.cells[0] && row < self.cells[1])
            .then(|| (row * self.cells[0] + column) as usize)
    }

    fn level0_px(&self, cell: usize) -> [u64; 4] {
        let [column, row] = [cell as u64 % self.cells[0], cell as u64 / self.cells[0]];
        let [w, h] = self.side_px;
        let [left, top] = self.origin_px;
        [left + column * w, top + row * h, w, h]
    }

    fn rect(&self, cell: usize) -> [f64; 4] {
        let [x, y, w, h] = self.level0_px(cell).map(|px| px as f64);
        [x, y, x + w, y + h]
    }
}

/// The fields to show, rule after rule, none twice; ties go in raster order.
pub fn choose(result: &SlideResult, mask: &TissueMask) -> Vec<Field> {
    let grid = Grid::of(result);
    let cells = count_nuclei(result, &grid);
    let frames = result.frames();
    let area = Area::of_region(
        mask.clone(),
        result.meta.region.as_ref(),
        frames.level0_size_px,
        frames.level0_mpp,
    );
    let shares = region_shares(result, &grid, &area);
    let shown: Vec<usize> = (0..grid.len()).filter(|&at| shares[at] > 0.0).collect();
    let mean = |at: usize| cells[at].doubt / cells[at].nuclei.max(1) as f64;

    let with_at_least = |nuclei: usize| -> Vec<usize> {
        let fields = shown.iter().copied();
        fields.filter(|&at| cells[at].nuclei >= nuclei).collect()
    };
    let mut densest = with_at_least(1);
    densest.sort_by_key(|&at| std::cmp::Reverse(cells[at].nuclei));
    let mut uncertain = with_at_least(LEAST_NUCLEI);
    uncertain.sort_by(|&a, &b| mean(b).total_cmp(&mean(a)));
    let of_tissue = |at: &usize| area.share_of_tissue(grid.rect(*at)) >= 0.5 * shares[*at];
    let mut random: Vec<usize> = shown.iter().copied().filter(of_tissue).collect();
    if random.is_empty() {
        random.clone_from(&shown);
    }
    fastrand::Rng::with_seed(seed(result)).shuffle(&mut random);

    let mut fields: Vec<Field> = Vec::new();
    let mut taken = HashSet::new();
    for (rule, order) in [
        (Rule::Densest, densest),
        (Rule::Uncertain, uncertain),
        (Rule::Random, random),
    ] {
        let others = order.into_iter().filter(|at| !taken.contains(at));
        let chosen: Vec<usize> = others.take(FIELDS_PER_RULE).collect();
        taken.extend(chosen.iter().copied());
        fields.extend(chosen.into_iter().zip(1..).map(|(at, rank)| Field {
            rule,
            rank,
            level0_px: grid.level0_px(at),
            width_um: Some(grid.side_px[0] as f64 * frames.level0_mpp[0]),
            nuclei: cells[at].nuclei,
            region_share: shares[at],
            uncertainty: (cells[at].nuclei > 0).then(|| mean(at)),
        }));
    }
    fields
}

fn count_nuclei(result: &SlideResult, grid: &Grid) -> Vec<Cell> {
    let mut cells = vec![Cell::default(); grid.len()];
    let typed = result.meta.model.types.len() > 1;
    for record in result.records() {
        let place = grid.cell_at(record.to_edge(record.centroid_proc_px()));
        if let Some(cell) = place.and_then(|at| cells.get_mut(at)) {
            cell.nuclei += 1;
            cell.doubt += match typed {
                true => type_entropy(record.nucleus),
                false => 1.0 - record.nucleus.mean_np(),
            };
        }
    }
    cells
}

/// The share of each field that lies in the region; 0 for a field that is not to be shown, because part of it was not
/// examined or lies outside. Where no field lies wholly in the region, those that lie in it the most may be shown.
fn region_shares(result: &SlideResult, grid: &Grid, area: &Area) -> Vec<f64> {
    let by_mask = result.meta.region.as_ref().is_some_and(|r| r.by_mask);
    let share = |at: usize| match by_mask {
        true => area.share_of_tissue(grid.rect(at)),
        false => area.share_asked(grid.rect(at)),
    };
    let mut shares: Vec<f64> = (0..grid.len()).map(share).collect();
    let is_whole =
        |at: usize, shares: &[f64]| shares[at] >= WHOLE && is_examined(result, grid.rect(at));
    let whole: Vec<bool> = (0..grid.len()).map(|at| is_whole(at, &shares)).collect();
    if whole.contains(&true) {
        for (share, whole) in shares.iter_mut().zip(whole) {
            *share *= f64::from(u8::from(whole));
        }
        return shares;
    }
    // Nothing is shown of a field whose middle was not examined.
    for (at, share) in shares.iter_mut().enumerate() {
        let [left, top, right, bottom] = grid.rect(at);
        let middle = [(left + right) / 2.0, (top + bottom) / 2.0].map(f64::floor);
        if !is_examined(
            result,
            [middle[0], middle[1], middle[0] + 1.0, middle[1] + 1.0],
        ) {
            *share = 0.0;
        }
    }
    let most = shares.iter().copied().fold(0.0, f64::max);
    for share in &mut shares {
        if *share < 0.5 * most {
            *share = 0.0;
        }
    }
    shares
}

/// Whether every pixel of a box (left, top, right, bottom, level-0 px) was predicted.
fn is_examined(result: &SlideResult, [left, top, right, bottom]: [f64; 4]) -> bool {
    let Some(examined) = &result.examined else {
        return true;
    };
    let [x0, y0] = result.frames().to_proc(left, top).map(f64::floor);
    let [x1, y1] = result.frames().to_proc(right, bottom).map(f64::ceil);
    examined.covers(Rect::new(
        x0 as i32,
        y0 as i32,
        (x1 - x0) as i32,
        (y1 - y0) as i32,
    ))
}

fn seed(result: &SlideResult) -> u64 {
    let all = json!([result.meta.identity, result.meta.slide.quickhash]);
    let hash = identity::hash_hex(&all);
    hash.get(..16)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or(0)
}

/// Writes the fields with their level-0 pixels into `folder/crops` and returns the outlined pictures.
pub fn write(
    result: &SlideResult,
    mask: &TissueMask,
    fields: &[(Field, RgbImage)],
    folder: &Path,
) -> Result<Vec<Crop>, OutputError> {
    let folder = folder.join("crops");
    super::make_folder(&folder)?;
    remove_older(&folder, fields.len());
    let mut crops = Vec::with_capacity(fields.len());
    for (field, pixels) in fields {
        let picture = outlined(result, mask, field, pixels);
        pictures::write_png(&pixels.clone().into(), &folder.join(field.file("-pixels")))?;
        pictures::write_png(&picture.clone().into(), &folder.join(field.file("")))?;
        crops.push(Crop {
            picture,
            caption: field.caption(),
            width_um: field.width_um,
        });
    }
    let list: Vec<&Field> = fields.iter().map(|(field, _)| field).collect();
    write_file(&folder.join(LIST), |out| {
        serde_json::to_writer_pretty(&mut *out, &list)?;
        out.write_all(b"\n")
    })?;
    Ok(crops)
}

/// The outlined pictures of an earlier [`write`], in its order; none where there are none.
pub fn read(folder: &Path) -> Result<Vec<Crop>, OutputError> {
    let folder = folder.join("crops");
    let path = folder.join(LIST);
    let Ok(text) = std::fs::read(&path) else {
        return Ok(Vec::new());
    };
    let damaged = |path: &Path, reason: String| OutputError::Content {
        path: path.to_owned(),
        reason: format!("{reason}: remove the folder, or run again with --format crops"),
    };
    let fields: Vec<Field> =
        serde_json::from_slice(&text).map_err(|error| damaged(&path, error.to_string()))?;
    fields
        .iter()
        .map(|field| {
            let path = folder.join(field.file(""));
            let picture = image::open(&path).map_err(|error| damaged(&path, error.to_string()))?;
            Ok(Crop {
                picture: picture.into_rgb8(),
                caption: field.caption(),
                width_um: field.width_um,
            })
        })
        .collect()
}

/// What an earlier run left beyond what this one writes.
fn remove_older(folder: &Path, now: usize) {
    if now == Rule::ALL.len() * FIELDS_PER_RULE {
        return;
    }
    for rule in Rule::ALL {
        for rank in 1..=FIELDS_PER_RULE {
            for suffix in ["", "-pixels"] {
                let _ = std::fs::remove_file(
                    folder.join(format!("{}-{rank}{suffix}.png", rule.name())),
                );
            }
        }
    }
}

/// The field enlarged to [`PICTURE_MPP`] where level 0 is coarser, with the outlines of all nuclei that reach into it.
/// What was not asked for or not examined is pale.
fn outlined(result: &SlideResult, mask: &TissueMask, field: &Field, pixels: &RgbImage) -> RgbImage {
    let frames = result.frames();
    let [mpp, _] = frames.level0_mpp;
    let factor = (mpp / PICTURE_MPP).round().clamp(1.0, 8.0) as u32;
    let (w, h) = (pixels.width() * factor, pixels.height() * factor);
    let mut picture = if factor > 1 {
        image::imageops::resize(pixels, w, h, FilterType::Triangle)
    } else {
        pixels.clone()
    };
    fade_outside(&mut picture, result, mask, field, factor);
    let [left, top, ..] = field.level0_px.map(|v| v as f64);
    let scale = frames
        .proc_per_level0
        .map(|ratio| f64::from(factor) / ratio);
    let origin_px = [left * f64::from(factor), top * f64::from(factor)];
    let [x0, y0] = frames.to_proc(left, top);
    let [x1, y1] = frames.to_proc(
        left + f64::from(pixels.width()),
        top + f64::from(pixels.height()),
    );
    for record in result.records() {
        let b = record.nucleus.bbox;
        let apart = f64::from(b.right()) < x0
            || f64::from(b.x) > x1
            || f64::from(b.bottom()) < y0
            || f64::from(b.y) > y1;
        if !apart {
            let colour: Rgb<u8> = pictures::colour_of(result, record.type_id);
            pictures::draw_ring(&mut picture, &record, scale, origin_px, 2, colour);
        }
    }
    picture
}

/// Makes pale what of a field (enlarged by `factor`) lies outside the region or was not examined.
fn fade_outside(
    picture: &mut RgbImage,
    result: &SlideResult,
    mask: &TissueMask,
    field: &Field,
    factor: u32,
) {
    let [left, top, w, h] = field.level0_px.map(|px| px as f64);
    if field.region_share >= WHOLE && is_examined(result, [left, top, left + w, top + h]) {
        return;
    }
    let region = result.meta.region.as_ref();
    let is_asked = region.map(|region| region.test(mask));
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let x = left + f64::from(x / factor);
        let y = top + f64::from(y / factor);
        let shown = is_asked
            .as_ref()
            .is_none_or(|test| test([x + 0.5, y + 0.5]))
            && is_examined(result, [x, y, x + 1.0, y + 1.0]);
        if !shown {
            *pixel = Rgb(pixel.0.map(|value| 191 + value / 4));
        }
    }
}

#[cfg(test)]
mod tests;
