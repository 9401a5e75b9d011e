//! crops/: fields at full resolution with their nuclei outlined, chosen by rule and never by hand.
//!
//! In: a [`SlideResult`], the tissue mask, and the fields' pixels, read by someone else. Out: the choice, then
//! `<rule>-<rank>.png` (outlines), `<rule>-<rank>-pixels.png` (none) and crops.json. The random ones follow from the
//! run's identity: the same result gives the same fields.

use std::path::Path;

use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{OutputError, pictures, write_file};
use crate::features::type_entropy;
use crate::report::slide::Crop;
use crate::result::SlideResult;
use crate::store::identity;
use crate::tissue::TissueMask;

/// Side of a field, µm.
pub const FIELD_UM: f64 = 128.0;
/// Fields that each rule chooses.
const FIELDS_PER_RULE: usize = 3;
/// With fewer nuclei a field's mean says little.
const LEAST_NUCLEI: usize = 10;
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
    pub nuclei: usize,
    /// Mean over the field's nuclei: entropy in nats, or 1 less the probability of a nucleus. None without nuclei.
    pub uncertainty: Option<f64>,
}

impl Field {
    fn file(&self, suffix: &str) -> String {
        format!("{}-{}{suffix}.png", self.rule.name(), self.rank)
    }

    fn caption(&self) -> String {
        let uncertainty = self
            .uncertainty
            .map_or(String::new(), |u| format!(", uncertainty {u:.2}"));
        format!(
            "{} {}: {} nuclei{uncertainty}; x {}, y {}",
            self.rule.name(),
            self.rank,
            self.nuclei,
            self.level0_px[0],
            self.level0_px[1]
        )
    }
}

/// What is known of one cell of the grid of fields.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    nuclei: usize,
    doubt: f64,
}

/// A grid of whole fields from the slide's origin; a slide smaller than a field is one field.
struct Grid {
    cells: [u64; 2],
    side_px: [u64; 2],
}

impl Grid {
    fn of(result: &SlideResult) -> Self {
        let frames = result.frames();
        let side_px = [0, 1].map(|axis| {
            let px = (FIELD_UM / frames.level0_mpp[axis]).round().max(1.0) as u64;
            px.min(frames.level0_size_px[axis].max(1))
        });
        Self {
            cells: [0, 1].map(|axis| (frames.level0_size_px[axis] / side_px[axis]).max(1)),
            side_px,
        }
    }

    fn len(&self) -> usize {
        (self.cells[0] * self.cells[1]) as usize
    }

    /// The cell that holds a point (level-0 px), if it is in a whole field.
    fn cell_at(&self, [x, y]: [f64; 2]) -> Option<usize> {
        let column = (x.max(0.0) as u64) / self.side_px[0];
        let row = (y.max(0.0) as u64) / self.side_px[1];
        (column < self.cells[0] && row < self.cells[1])
            .then(|| (row * self.cells[0] + column) as usize)
    }

    fn level0_px(&self, cell: usize) -> [u64; 4] {
        let [column, row] = [cell as u64 % self.cells[0], cell as u64 / self.cells[0]];
        let [w, h] = self.side_px;
        [column * w, row * h, w, h]
    }
}

/// The fields to show, rule after rule; ties go in raster order.
pub fn choose(result: &SlideResult, mask: &TissueMask) -> Vec<Field> {
    let grid = Grid::of(result);
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
    let mean = |at: usize| cells[at].doubt / cells[at].nuclei.max(1) as f64;
    let field = |rule: Rule, (rank, at): (usize, usize)| Field {
        rule,
        rank: rank + 1,
        level0_px: grid.level0_px(at),
        nuclei: cells[at].nuclei,
        uncertainty: (cells[at].nuclei > 0).then(|| mean(at)),
    };
    let mut densest: Vec<usize> = (0..cells.len())
        .filter(|&at| cells[at].nuclei > 0)
        .collect();
    densest.sort_by_key(|&at| std::cmp::Reverse(cells[at].nuclei));
    let mut uncertain: Vec<usize> = (0..cells.len())
        .filter(|&at| cells[at].nuclei >= LEAST_NUCLEI)
        .collect();
    uncertain.sort_by(|&a, &b| mean(b).total_cmp(&mean(a)));
    let mut random = tissue_cells(&grid, mask);
    fastrand::Rng::with_seed(seed(result)).shuffle(&mut random);
    [
        (Rule::Densest, densest),
        (Rule::Uncertain, uncertain),
        (Rule::Random, random),
    ]
    .into_iter()
    .flat_map(|(rule, chosen)| {
        let chosen = chosen.into_iter().take(FIELDS_PER_RULE).enumerate();
        chosen.map(move |one| (rule, one))
    })
    .map(|(rule, one)| field(rule, one))
    .collect()
}

/// Cells of which at least half is tissue; all where none is.
fn tissue_cells(grid: &Grid, mask: &TissueMask) -> Vec<usize> {
    let tissue_share = |at: usize| {
        let [x, y, w, h] = grid.level0_px(at).map(|v| v as f64);
        let span = |from: f64, length: f64, cell: f64| {
            let first = (from / cell).floor() as u32;
            first..((from + length) / cell).ceil().max(f64::from(first) + 1.0) as u32
        };
        let columns = span(x, w, mask.cell_level0_px[0]);
        let rows = span(y, h, mask.cell_level0_px[1]);
        let all = columns.len() * rows.len();
        let tissue = rows
            .flat_map(|row| columns.clone().map(move |column| (column, row)))
            .filter(|&(column, row)| mask.is_tissue(column, row))
            .count();
        tissue as f64 / all.max(1) as f64
    };
    let cells: Vec<usize> = (0..grid.len())
        .filter(|&at| tissue_share(at) >= 0.5)
        .collect();
    if cells.is_empty() {
        return (0..grid.len()).collect();
    }
    cells
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
    fields: &[(Field, RgbImage)],
    folder: &Path,
) -> Result<Vec<Crop>, OutputError> {
    let folder = folder.join("crops");
    super::make_folder(&folder)?;
    remove_older(&folder, fields.len());
    let mut crops = Vec::with_capacity(fields.len());
    for (field, pixels) in fields {
        let picture = outlined(result, field, pixels);
        pictures::write_png(&pixels.clone().into(), &folder.join(field.file("-pixels")))?;
        pictures::write_png(&picture.clone().into(), &folder.join(field.file("")))?;
        crops.push(Crop {
            picture,
            caption: field.caption(),
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
fn outlined(result: &SlideResult, field: &Field, pixels: &RgbImage) -> RgbImage {
    let frames = result.frames();
    let [mpp, _] = frames.level0_mpp;
    let factor = (mpp / PICTURE_MPP).round().clamp(1.0, 8.0) as u32;
    let (w, h) = (pixels.width() * factor, pixels.height() * factor);
    let mut picture = if factor > 1 {
        image::imageops::resize(pixels, w, h, FilterType::Triangle)
    } else {
        pixels.clone()
    };
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
            pictures::draw_ring(&mut picture, &record, scale, origin_px, colour);
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Rect;
    use crate::result::fixture;

    /// A slide of 4 x 1 fields with 12, 0, 3 and 20 nuclei; those of the first field are unsure of their type.
    fn result() -> SlideResult {
        let mut result = fixture::result(1.0);
        result.meta.frames.level0_size_px = [2048, 512];
        result.meta.frames.proc_size_px = [2048, 512];
        let one = result.nuclei[0].clone();
        result.nuclei.clear();
        for (field, count) in [(0, 12), (2, 3), (3, 20)] {
            for i in 0..count {
                let mut nucleus = one.clone();
                nucleus.bbox = Rect::new(field * 512 + 20 * i + 8, 100, one.bbox.w, one.bbox.h);
                if field == 0 {
                    nucleus.prob_sums = vec![2550, 2550, 2550];
                }
                result.nuclei.push(nucleus);
            }
        }
        result
    }

    #[test]
    fn rules_choose_what_they_say() {
        let result = result();
        let mut mask = TissueMask::all([2048, 512], [0.25; 2]);
        // Tissue in the two middle fields alone.
        for (i, tissue) in mask.tissue.iter_mut().enumerate() {
            let x = f64::from(i as u32 % mask.width) * mask.cell_level0_px[0];
            *tissue = (512.0..1536.0).contains(&x);
        }
        let fields = choose(&result, &mask);
        let of = |rule: Rule| -> Vec<(u64, usize)> {
            fields
                .iter()
                .filter(|f| f.rule == rule)
                .map(|f| (f.level0_px[0], f.nuclei))
                .collect()
        };
        assert_eq!(of(Rule::Densest), [(1536, 20), (0, 12), (1024, 3)]);
        assert_eq!(of(Rule::Uncertain), [(0, 12), (1536, 20)]);
        let mut random = of(Rule::Random);
        random.sort_unstable();
        assert_eq!(random, [(512, 0), (1024, 3)]);
        assert_eq!(choose(&result, &mask), fields);
        let mut other = result.clone();
        other.meta.slide.quickhash = "another slide".into();
        assert_ne!(seed(&other), seed(&result));
    }

    #[test]
    fn crops_are_read_back_as_they_were_written() {
        let result = result();
        let mask = TissueMask::all([2048, 512], [0.25; 2]);
        let white = RgbImage::from_pixel(512, 512, Rgb([255; 3]));
        let mut fields: Vec<_> = choose(&result, &mask)
            .into_iter()
            .map(|field| (field, white.clone()))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_empty());
        let written = write(&result, &fields, folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), written);
        // The densest field's first nucleus: its upper left corner at (8, 100).
        let densest = &written[0].picture;
        assert_ne!(densest.get_pixel(8, 100), white.get_pixel(0, 0));
        assert_eq!(densest.get_pixel(6, 98), white.get_pixel(0, 0));
        fields.truncate(1);
        write(&result, &fields, folder.path()).unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path().join("crops"))
                .unwrap()
                .count(),
            3
        );
    }

    #[test]
    fn an_image_smaller_than_a_field_is_one_field() {
        let result = fixture::result(1.0);
        let fields = choose(&result, &TissueMask::all([60, 40], [0.25; 2]));
        assert!(fields.iter().all(|f| f.level0_px == [0, 0, 60, 40]));
        assert_eq!(fields.len(), 2, "too few nuclei for the uncertain one");
    }
}
