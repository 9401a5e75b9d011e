//! Which patches run.
//!
//! In: the tissue mask, regions of interest, a level-0 box. Out: whether a patch runs, and mm² of
//! tissue ([`measure`]). A patch runs if its box has a point that is in the tissue, in the regions and in the
//! level-0 box, each widened by 16 µm: a nucleus whose centroid is inside is predicted whole. Never
//! changes the mask, and never decides which nuclei are reported: [`super::Region`] does.

mod measure;

use super::TissueMask;
use super::region::Region;
use super::regions::{Coverage, Regions};

/// Tissue and regions are widened by this much on every side (by Chebyshev distance: a cell stays a rectangle),
/// µm, so that nuclei at its edge are whole.
pub const DILATION_UM: f64 = 16.0;

/// Where to look on one slide.
#[derive(Debug, Clone)]
pub struct Area {
    mask: TissueMask,
    level0_size_px: [u64; 2],
    level0_mpp: [f64; 2],
    /// `[height + 1, width + 1]`: number of tissue cells above and to the left of each corner.
    sums: Vec<u32>,
    regions: Option<Regions>,
    level0_box: Option<[f64; 4]>,
}

impl Area {
    /// The tissue of `mask` alone.
    pub fn new(mask: TissueMask, level0_size_px: [u64; 2], level0_mpp: [f64; 2]) -> Self {
        Self {
            sums: sum_table(&mask),
            mask,
            level0_size_px,
            level0_mpp,
            regions: None,
            level0_box: None,
        }
    }

    /// The same, restricted to the regions.
    pub fn within(mut self, regions: Regions) -> Self {
        self.regions = Some(regions);
        self
    }

    /// The same, restricted to a box: left, top, right, bottom, level-0 px.
    pub fn within_box(mut self, level0_box: [f64; 4]) -> Self {
        self.level0_box = Some(level0_box);
        self
    }

    /// The part of the slide whose nuclei are reported; `None`: everything that is predicted. The
    /// mask restricts it if somebody drew it (`mask_is_drawn`).
    pub fn region(&self, mask_is_drawn: bool) -> Option<Region> {
        if self.regions.is_none() && self.level0_box.is_none() && !mask_is_drawn {
            return None;
        }
        let tissue_mm2 = self.tissue_mm2();
        Some(Region {
            polygons: self.regions.as_ref().map(|r| r.polygons().clone()),
            level0_box: self.level0_box,
            by_mask: mask_is_drawn,
            mm2: match mask_is_drawn {
                true => tissue_mm2,
                false => self.region_mm2(),
            },
            tissue_mm2,
        })
    }

    /// The tissue of `mask` in the polygons and the box of `region`, where there is one.
    pub fn of_region(
        mask: TissueMask,
        region: Option<&Region>,
        level0_size_px: [u64; 2],
        level0_mpp: [f64; 2],
    ) -> Self {
        let mut area = Self::new(mask, level0_size_px, level0_mpp);
        if let Some(polygons) = region.and_then(|region| region.polygons.as_deref()) {
            area = area.within(Regions::from_polygons(polygons));
        }
        match region.and_then(|region| region.level0_box) {
            Some(level0_box) => area.within_box(level0_box),
            None => area,
        }
    }

    pub fn mask(&self) -> &TissueMask {
        &self.mask
    }

    /// Whether a patch with this box (left, top, right, bottom, level-0 px, edge frame) runs.
    pub fn meets(&self, rect_level0: [f64; 4]) -> bool {
        let rect = match self.level0_box {
            Some(limit) => intersect(rect_level0, self.widen(limit)),
            None => rect_level0,
        };
        if !(rect[0] < rect[2] && rect[1] < rect[3]) {
            return false;
        }
        let range = self.cells_in_reach(rect);
        let tissue_cells = self.count_tissue(range);
        if tissue_cells == 0 {
            return false;
        }
        let Some(regions) = &self.regions else {
            return true;
        };
        match regions.coverage(self.widen(rect)) {
            Coverage::Outside => false,
            Coverage::Inside => true,
            // If only part of the box is widened tissue, that part must meet the regions.
            Coverage::Partly => {
                tissue_cells as usize == range.cells() || self.meets_cellwise(regions, rect, range)
            }
        }
    }

    /// Whether a widened tissue cell of `range` meets the regions inside `rect`.
    fn meets_cellwise(&self, regions: &Regions, rect: [f64; 4], range: CellRange) -> bool {
        let [cell_w, cell_h] = self.mask.cell_level0_px;
        (range.rows[0]..range.rows[1]).any(|row| {
            (range.cols[0]..range.cols[1]).any(|col| {
                let cell = [
                    f64::from(col) * cell_w,
                    f64::from(row) * cell_h,
                    f64::from(col + 1) * cell_w,
                    f64::from(row + 1) * cell_h,
                ];
                let common = intersect(rect, self.widen(cell));
                self.mask.is_tissue(col, row)
                    && common[0] < common[2]
                    && common[1] < common[3]
                    && regions.meets(self.widen(common))
            })
        })
    }

    /// A box with the dilation added on every side.
    fn widen(&self, [left, top, right, bottom]: [f64; 4]) -> [f64; 4] {
        let [dx, dy] = self.dilation_level0_px();
        [left - dx, top - dy, right + dx, bottom + dy]
    }

    fn dilation_level0_px(&self) -> [f64; 2] {
        self.level0_mpp.map(|mpp| DILATION_UM / mpp)
    }

    /// The cells that meet the inside of `rect` when they are widened.
    fn cells_in_reach(&self, [left, top, right, bottom]: [f64; 4]) -> CellRange {
        let [dx, dy] = self.dilation_level0_px();
        let [cell_w, cell_h] = self.mask.cell_level0_px;
        let span = |low: f64, high: f64, cell: f64, cells: u32| {
            let last = f64::from(cells);
            let first = (low / cell).floor().clamp(0.0, last) as u32;
            [
                first,
                ((high / cell).ceil().clamp(0.0, last) as u32).max(first),
            ]
        };
        CellRange {
            cols: span(left - dx, right + dx, cell_w, self.mask.width),
            rows: span(top - dy, bottom + dy, cell_h, self.mask.height),
        }
    }

    fn count_tissue(&self, range: CellRange) -> u32 {
        let stride = self.mask.width as usize + 1;
        let at = |row: u32, col: u32| {
            let sum = self.sums.get(row as usize * stride + col as usize);
            u64::from(sum.copied().unwrap_or(0))
        };
        let ([top, bottom], [left, right]) = (range.rows, range.cols);
        let sum = at(bottom, right) + at(top, left) - at(top, right) - at(bottom, left);
        sum as u32
    }
}

/// Half-open ranges of cells.
#[derive(Debug, Clone, Copy)]
struct CellRange {
    cols: [u32; 2],
    rows: [u32; 2],
}

impl CellRange {
    fn cells(self) -> usize {
        (self.cols[1] - self.cols[0]) as usize * (self.rows[1] - self.rows[0]) as usize
    }
}

fn intersect(a: [f64; 4], b: [f64; 4]) -> [f64; 4] {
    [
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    ]
}

/// The summed-area table of the mask.
fn sum_table(mask: &TissueMask) -> Vec<u32> {
    let width = mask.width as usize;
    let stride = width + 1;
    let mut sums = vec![0u32; stride * (mask.height as usize + 1)];
    for (row, cells) in mask.tissue.chunks_exact(width.max(1)).enumerate() {
        let mut in_row = 0;
        for (col, &tissue) in cells.iter().enumerate() {
            in_row += u32::from(tissue);
            sums[(row + 1) * stride + col + 1] = sums[row * stride + col + 1] + in_row;
        }
    }
    sums
}

#[cfg(test)]
mod tests;
