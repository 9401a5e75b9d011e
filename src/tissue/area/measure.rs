//! How much tissue lies in a box.
//!
//! In: an [`Area`] and a box. Out: mm² of tissue in the box, the regions and the level-0 box at once, not widened.
//! Exact for masks and boxes; along a polygon's outline to [`FINEST_PX`] where the outline is short. Never samples
//! away from an outline.

use super::{Area, intersect};
use crate::tissue::regions::{Coverage, Regions};

/// Squares along an outline are not divided further than this, level-0 px.
const FINEST_PX: f64 = 1.0 / 16.0;
/// Such squares along the outlines of one slide, about: longer outlines get larger squares.
const SQUARES: f64 = 1e5;

impl Area {
    /// mm² of tissue on the slide in the regions and the level-0 box.
    pub fn tissue_mm2(&self) -> f64 {
        self.tissue_mm2_in(self.slide_level0())
    }

    /// The same inside `rect_level0` (left, top, right, bottom, level-0 px).
    pub fn tissue_mm2_in(&self, rect_level0: [f64; 4]) -> f64 {
        self.mm2(self.px_in(rect_level0, &|rect| self.tissue_px(rect)))
    }

    /// The share of a box that lies on the slide, in the regions and in the level-0 box.
    pub fn share_asked(&self, rect_level0: [f64; 4]) -> f64 {
        let area = |[left, top, right, bottom]: [f64; 4]| (right - left) * (bottom - top);
        self.px_in(rect_level0, &area) / area(rect_level0).max(f64::MIN_POSITIVE)
    }

    /// The share of a box that is tissue as well.
    pub fn share_of_tissue(&self, rect_level0: [f64; 4]) -> f64 {
        let [left, top, right, bottom] = rect_level0;
        let px = self.px_in(rect_level0, &|rect| self.tissue_px(rect));
        px / ((right - left) * (bottom - top)).max(f64::MIN_POSITIVE)
    }

    /// mm² of the slide in the regions and the level-0 box, tissue or not.
    pub(super) fn region_mm2(&self) -> f64 {
        let [left, top, right, bottom] = self.slide_level0();
        self.mm2(self.px_in([left, top, right, bottom], &|[l, t, r, b]| {
            (r - l) * (b - t)
        }))
    }

    fn mm2(&self, px: f64) -> f64 {
        px * self.level0_mpp[0] * self.level0_mpp[1] / 1e6
    }

    fn slide_level0(&self) -> [f64; 4] {
        let [width, height] = self.level0_size_px.map(|px| px as f64);
        [0.0, 0.0, width, height]
    }

    /// The sum of `measure` over the part of `rect` that lies on the slide, in the box and in the regions.
    fn px_in(&self, rect: [f64; 4], measure: &impl Fn([f64; 4]) -> f64) -> f64 {
        let mut rect = intersect(rect, self.slide_level0());
        if let Some(limit) = self.level0_box {
            rect = intersect(rect, limit);
        }
        let Some(regions) = &self.regions else {
            return match is_empty(rect) {
                true => 0.0,
                false => measure(rect),
            };
        };
        divide(regions, finest_px(regions), rect, measure)
    }

    /// Level-0 px of tissue in a box on the slide.
    fn tissue_px(&self, [left, top, right, bottom]: [f64; 4]) -> f64 {
        let [cell_w, cell_h] = self.mask.cell_level0_px;
        let cells = self.cells_above(right, bottom) + self.cells_above(left, top)
            - self.cells_above(left, bottom)
            - self.cells_above(right, top);
        cells * cell_w * cell_h
    }

    /// Cells of tissue above and to the left of a point, with fractions. Between the corners of a cell this is
    /// bilinear, so interpolation of the summed-area table is exact.
    fn cells_above(&self, x: f64, y: f64) -> f64 {
        let [cell_w, cell_h] = self.mask.cell_level0_px;
        let place = |at: f64, cells: u32| {
            let at = at.clamp(0.0, f64::from(cells));
            let cell = at.floor().min(f64::from(cells.saturating_sub(1)));
            (cell as usize, at - cell)
        };
        let (col, dx) = place(x / cell_w, self.mask.width);
        let (row, dy) = place(y / cell_h, self.mask.height);
        let stride = self.mask.width as usize + 1;
        let sum = |row: usize, col: usize| {
            f64::from(self.sums.get(row * stride + col).copied().unwrap_or(0))
        };
        let (a, b) = (sum(row, col), sum(row, col + 1));
        let (c, d) = (sum(row + 1, col), sum(row + 1, col + 1));
        a + dx * (b - a) + dy * (c - a) + dx * dy * (d - b - c + a)
    }
}

fn is_empty([left, top, right, bottom]: [f64; 4]) -> bool {
    !(left < right && top < bottom)
}

/// Side of the smallest squares along the outlines of `regions`, level-0 px: a power of 2.
fn finest_px(regions: &Regions) -> f64 {
    let rings = regions.polygons().iter().flatten();
    let outline_px: f64 = rings
        .map(|ring| {
            let next = ring.iter().cycle().skip(1);
            let sides = ring.iter().zip(next);
            sides
                .map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1]))
                .sum::<f64>()
        })
        .sum();
    let side = (outline_px / SQUARES).max(FINEST_PX);
    2f64.powi(side.log2().ceil() as i32)
}

/// Quarters a box until an outline no longer crosses the parts; of the smallest, the centre decides.
fn divide(
    regions: &Regions,
    finest_px: f64,
    rect: [f64; 4],
    measure: &impl Fn([f64; 4]) -> f64,
) -> f64 {
    let [left, top, right, bottom] = rect;
    match regions.coverage(rect) {
        Coverage::Outside => 0.0,
        Coverage::Inside => measure(rect),
        Coverage::Partly if right - left <= finest_px && bottom - top <= finest_px => {
            match regions.contains([(left + right) / 2.0, (top + bottom) / 2.0]) {
                true => measure(rect),
                false => 0.0,
            }
        }
        Coverage::Partly => {
            let (x, y) = (
                middle(left, right, finest_px),
                middle(top, bottom, finest_px),
            );
            [
                [left, top, x, y],
                [x, top, right, y],
                [left, y, x, bottom],
                [x, y, right, bottom],
            ]
            .into_iter()
            .filter(|&part| !is_empty(part))
            .map(|part| divide(regions, finest_px, part, measure))
            .sum()
        }
    }
}

/// Near the middle, on the grid of the smallest squares: so that outlines on whole px are met exactly.
fn middle(low: f64, high: f64, finest_px: f64) -> f64 {
    let middle = ((low + high) / 2.0 / finest_px).round() * finest_px;
    match middle > low && middle < high {
        true => middle,
        // One smallest square wide: it stays whole.
        false => high,
    }
}
