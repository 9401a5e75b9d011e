//! The stain of the tissue around a nucleus, over a ring of [`RING_UM`].
//!
//! In: nuclei, and the pixels of any box. Out: the [`Ring`] of each nucleus, in their order. A ring
//! has every pixel of the slide that is in no nucleus and at most the ring's width away, centre to
//! centre, from a pixel of its nucleus. Sums are exact, so neither threads nor the order of reading
//! can change them. Never keeps a pixel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use image::RgbImage;
use rayon::prelude::*;

use super::stain::mean_and_std;
use crate::geometry::Rect;
use crate::nuclei::{Nucleus, Run, StainSums};

/// Width of a ring, µm.
pub const RING_UM: f64 = 2.0;
/// Width and height of a cell: the nuclei whose boxes begin in it are measured by one thread.
const CELL_PX: [i32; 2] = [5 * ROW_PX, 8 * ROW_PX];
/// Within a cell nuclei are measured row by row of this height, that of the blocks in which a slide is read: so the
/// blocks around a cell's width and three rows are all that a thread needs at a time.
const ROW_PX: i32 = 512;
/// Pixels around a nucleus that are in memory at a time.
const BAND_PX: i32 = 1 << 20;
/// Width of the strips of columns in which neighbours are looked up.
const STRIP_PX: i32 = 64;

/// Sums over the pixels of one ring, as [`StainSums`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ring {
    /// Pixels in the ring. 0 if all are in other nuclei, or if they cannot be read.
    pub area_px: u32,
    /// Sum of hematoxylin's optical densities.
    pub hematoxylin: i64,
    /// Sum of their squares.
    pub hematoxylin_sq: u64,
    /// Sum of eosin's optical densities.
    pub eosin: i64,
    /// Sum of their squares.
    pub eosin_sq: u64,
}

impl Ring {
    /// Mean and population standard deviation of hematoxylin's optical density; NaN without pixels.
    pub fn hematoxylin_od(&self) -> [f64; 2] {
        self.od(self.hematoxylin, self.hematoxylin_sq)
    }

    /// Mean and population standard deviation of eosin's optical density; NaN without pixels.
    pub fn eosin_od(&self) -> [f64; 2] {
        self.od(self.eosin, self.eosin_sq)
    }

    fn od(&self, sum: i64, sum_sq: u64) -> [f64; 2] {
        match self.area_px {
            0 => [f64::NAN; 2],
            n => mean_and_std(n, sum, sum_sq),
        }
    }
}

impl Ring {
    /// Adds another part of the same ring.
    fn add(&mut self, part: &Ring) {
        self.area_px += part.area_px;
        self.hematoxylin += part.hematoxylin;
        self.hematoxylin_sq += part.hematoxylin_sq;
        self.eosin += part.eosin;
        self.eosin_sq += part.eosin_sq;
    }
}

/// The slide that rings are measured on.
pub struct Around<P> {
    /// The whole slide, proc px.
    pub slide: Rect,
    /// µm per proc px, (x, y).
    pub mpp: [f64; 2],
    /// RGB of a box inside the slide, proc px, of which only the pixels need be right that the mask, row by row, says;
    /// `None` where they cannot be read.
    pub pixels: P,
}

/// The rings of those of `nuclei` whose places are `wanted`, each with its place, in any order. One whose pixels cannot
/// be read is left out. `None` if `stop` was set meanwhile.
pub fn rings<P>(
    nuclei: &[Nucleus],
    wanted: &[usize],
    around: &Around<P>,
    stop: &AtomicBool,
) -> Option<Vec<(usize, Ring)>>
where
    P: Fn(Rect, &[bool]) -> Option<RgbImage> + Sync,
{
    let reach = Reach::new(around.mpp);
    let all = ByTop::new(nuclei);
    let cell_of = |nucleus: &Nucleus| {
        let [width, height] = CELL_PX;
        // Neighbours above each other follow each other: they share blocks.
        (
            nucleus.bbox.x.div_euclid(width),
            nucleus.bbox.y.div_euclid(height),
        )
    };
    let mut in_cells: Vec<(usize, &Nucleus)> = wanted.iter().map(|&i| (i, &nuclei[i])).collect();
    in_cells.sort_by_key(|(_, nucleus)| {
        let bbox = nucleus.bbox;
        (cell_of(nucleus), bbox.y.div_euclid(ROW_PX), bbox.x)
    });
    let cells: Vec<&[(usize, &Nucleus)]> = in_cells
        .chunk_by(|(_, a), (_, b)| cell_of(a) == cell_of(b))
        .collect();
    let measured: Vec<Vec<(usize, Ring)>> = cells
        .par_iter()
        .with_max_len(1)
        .map(|cell| {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let near = Near::new(&all, cell, &reach);
            Some(measure_cell(cell, &near, around, &reach))
        })
        .collect::<Option<_>>()?;
    Some(measured.into_iter().flatten().collect())
}

/// As [`rings`], on the calling thread alone: for nuclei that lie near each other.
pub fn rings_of_tile<P>(
    nuclei: &[Nucleus],
    wanted: &[usize],
    around: &Around<P>,
) -> Vec<(usize, Ring)>
where
    P: Fn(Rect, &[bool]) -> Option<RgbImage>,
{
    let reach = Reach::new(around.mpp);
    let cell: Vec<(usize, &Nucleus)> = wanted.iter().map(|&i| (i, &nuclei[i])).collect();
    let near = Near::new(&ByTop::new(nuclei), &cell, &reach);
    measure_cell(&cell, &near, around, &reach)
}

/// The rings of one cell, with the places of their nuclei. A ring whose pixels cannot be read is left out.
fn measure_cell<P>(
    cell: &[(usize, &Nucleus)],
    near: &Near<'_>,
    around: &Around<P>,
    reach: &Reach,
) -> Vec<(usize, Ring)>
where
    P: Fn(Rect, &[bool]) -> Option<RgbImage>,
{
    cell.iter()
        .filter_map(|&(place, nucleus)| {
            let field = reach.around(nucleus.bbox).intersect(&around.slide);
            let mut ring = Ring::default();
            // A nucleus may be as large as a cell of a blob that is cut.
            for band in bands_of(field) {
                let inside = ring_mask(nucleus, near.meeting(band), band, reach);
                let pixels = (around.pixels)(band, &inside)?;
                ring.add(&sum_up(&inside, &pixels));
            }
            Some((place, ring))
        })
        .collect()
}

/// The box in parts of whole rows, of about [`BAND_PX`] at most.
fn bands_of(field: Rect) -> impl Iterator<Item = Rect> {
    let rows = (BAND_PX / field.w.max(1)).max(1);
    let tops = (field.y..field.bottom()).step_by(rows as usize);
    tops.map(move |y| Rect::new(field.x, y, field.w, rows.min(field.bottom() - y)))
}

/// Whether each pixel of `field`, row by row, is in the ring of a nucleus.
fn ring_mask<'a>(
    nucleus: &Nucleus,
    others: impl Iterator<Item = &'a Nucleus>,
    field: Rect,
    reach: &Reach,
) -> Vec<bool> {
    let width = field.w.max(0) as usize;
    let mut inside = vec![false; field.area() as usize];
    let mut paint = |y: i32, left: i32, right: i32, value: bool| {
        let (left, right) = (left.max(field.x), right.min(field.right()));
        if y >= field.y && y < field.bottom() && left < right {
            let row = (y - field.y) as usize * width;
            let span = (left - field.x) as usize..(right - field.x) as usize;
            inside[row + span.start..row + span.end].fill(value);
        }
    };
    let near_rows = field.y - reach.rows_px..field.bottom() + reach.rows_px;
    let runs: Vec<Run> = nucleus.runs_in_rows(near_rows).collect();
    let mut first = 0;
    for y in field.y..field.bottom() {
        while runs.get(first).is_some_and(|r| r.y < y - reach.rows_px) {
            first += 1;
        }
        // Nearly all that the runs reach in a row is one stretch, which is painted once.
        let mut stretch: Option<[i32; 2]> = None;
        let near = runs[first..].iter();
        for run in near.take_while(|run| run.y <= y + reach.rows_px) {
            let dx = reach.to_the_side_px[(y - run.y + reach.rows_px) as usize];
            let (left, right) = (run.x0 - dx, run.x1 + dx);
            match &mut stretch {
                Some([from, to]) if left <= *to && right >= *from => {
                    (*from, *to) = (left.min(*from), right.max(*to));
                }
                Some(_) => paint(y, left, right, true),
                None => stretch = Some([left, right]),
            }
        }
        if let Some([left, right]) = stretch {
            paint(y, left, right, true);
        }
    }
    let rows = field.y..field.bottom();
    for run in others.flat_map(|other| other.runs_in_rows(rows.clone())) {
        paint(run.y, run.x0, run.x1, false);
    }
    inside
}

fn sum_up(inside: &[bool], pixels: &RgbImage) -> Ring {
    let width = (pixels.width() as usize).max(1);
    let mut sums = StainSums::default();
    let mut area_px = 0;
    for (row, colours) in inside
        .chunks_exact(width)
        .zip(pixels.as_raw().chunks_exact(3 * width))
    {
        let mut at = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] {
                sums.add(&colours[3 * at..3 * (at + run.len())]);
                area_px += run.len() as u32;
            }
            at += run.len();
        }
    }
    Ring {
        area_px,
        hematoxylin: sums.hematoxylin,
        hematoxylin_sq: sums.hematoxylin_sq,
        eosin: sums.eosin,
        eosin_sq: sums.eosin_sq,
    }
}

/// How far a ring extends: pixels to either side, for each row above and below.
pub struct Reach {
    rows_px: i32,
    /// From `-rows_px` to `rows_px`.
    to_the_side_px: Vec<i32>,
}

impl Reach {
    /// `mpp`: µm per proc px, (x, y).
    pub fn new(mpp: [f64; 2]) -> Self {
        // A distance that exceeds the width by a rounding error only is within.
        let [x_px, y_px] = mpp.map(|mpp| RING_UM / mpp + 1e-9);
        let rows_px = y_px as i32;
        let at = |row: i32| {
            let part = 1.0 - (f64::from(row) / y_px).powi(2);
            (x_px * part.max(0.0).sqrt() + 1e-9) as i32
        };
        Self {
            rows_px,
            to_the_side_px: (-rows_px..=rows_px).map(at).collect(),
        }
    }

    /// (rows down, pixels to either side) of each row.
    pub fn spans(&self) -> impl Iterator<Item = (i32, i32)> + '_ {
        (-self.rows_px..).zip(self.to_the_side_px.iter().copied())
    }

    /// The smallest box with every pixel that is within reach of `bbox`.
    pub fn around(&self, bbox: Rect) -> Rect {
        let dx = self.to_the_side_px.iter().max().copied().unwrap_or(0);
        let dy = self.rows_px;
        Rect::new(bbox.x - dx, bbox.y - dy, bbox.w + 2 * dx, bbox.h + 2 * dy)
    }
}

/// The nuclei whose pixels may lie in a ring of one cell, by strips of columns.
struct Near<'a> {
    strips: HashMap<i32, Vec<&'a Nucleus>>,
}

/// All nuclei, sorted by the upper sides of their boxes.
struct ByTop<'a> {
    sorted: Vec<&'a Nucleus>,
    /// Height of the tallest box.
    tallest_px: i32,
}

impl<'a> ByTop<'a> {
    fn new(nuclei: &'a [Nucleus]) -> Self {
        let mut sorted: Vec<&Nucleus> = nuclei.iter().collect();
        sorted.sort_by_key(|nucleus| nucleus.bbox.y);
        Self {
            sorted,
            tallest_px: nuclei.iter().map(|n| n.bbox.h).max().unwrap_or(0),
        }
    }
}

impl<'a> Near<'a> {
    fn new(all: &ByTop<'a>, cell: &[(usize, &Nucleus)], reach: &Reach) -> Self {
        let boxes = || cell.iter().map(|(_, nucleus)| reach.around(nucleus.bbox));
        let top = boxes().map(|field| field.y).min().unwrap_or(0);
        let bottom = boxes().map(|field| field.bottom()).max().unwrap_or(0);
        let left = boxes().map(|field| field.x).min().unwrap_or(0);
        let right = boxes().map(|field| field.right()).max().unwrap_or(0);
        let sorted = &all.sorted;
        let from = sorted.partition_point(|n| n.bbox.y < top - all.tallest_px);
        let to = sorted.partition_point(|n| n.bbox.y < bottom);
        let mut strips: HashMap<i32, Vec<&Nucleus>> = HashMap::new();
        let near = sorted[from..to].iter().copied();
        let is_near =
            |n: &&Nucleus| n.bbox.bottom() > top && n.bbox.right() > left && n.bbox.x < right;
        for nucleus in near.filter(is_near) {
            for strip in strips_of(nucleus.bbox) {
                strips.entry(strip).or_default().push(nucleus);
            }
        }
        Self { strips }
    }

    /// The nuclei whose boxes meet `field`, each once.
    fn meeting(&self, field: Rect) -> impl Iterator<Item = &'a Nucleus> {
        let first = *strips_of(field).start();
        let lists = strips_of(field).filter_map(|strip| Some((strip, self.strips.get(&strip)?)));
        lists.flat_map(move |(strip, nuclei)| {
            // A nucleus that lies in strips before this one was met there.
            let is_new = move |n: &&Nucleus| strip == first.max(*strips_of(n.bbox).start());
            let nuclei = nuclei.iter().copied();
            nuclei.filter(move |n| is_new(n) && n.bbox.meets(&field))
        })
    }
}

fn strips_of(rect: Rect) -> std::ops::RangeInclusive<i32> {
    rect.x.div_euclid(STRIP_PX)..=(rect.right() - 1).div_euclid(STRIP_PX)
}

#[cfg(test)]
mod tests;
