//! The default rule: one blob -> its nuclei.
//!
//! In: a blob, the constants of post-processing, the µm/px. Out: nuclei ordered by first pixel in raster order. A blob
//! in which no two nuclei are told apart is one nucleus; pieces under the least area are merged by the watershed
//! itself, because too small a marker floods nothing. Never sees a pixel outside the blob.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Nucleus;
use super::blobs::components;
use super::confidence::{self, Traits};
use super::division::{Branch, branches, choose_markers};
use super::energy::ridge_energy;
use super::foreground::{Foreground, Run};
use super::gather::{Piece, gather};
use super::markers::find_markers;
use super::params::PostprocParams;
use super::plane::{Grid, Scratch, reset};
use super::watershed::{OUTSIDE, UNLABELLED, flood};

/// Which blobs are cut, and where.
#[derive(Debug, Clone, Copy)]
pub struct CutRule {
    /// A blob whose box has more pixels than this is cut: what bounds memory is the box, not the pixels inside.
    pub over_px: u64,
    /// Side of the fixed grid of absolute proc coordinates along which it is cut, proc px.
    pub grid_px: i32,
}

/// The rule of every run.
pub const CUT: CutRule = CutRule {
    over_px: 4096 * 4096,
    grid_px: 4096,
};

/// How much of a blob there is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// All that a larger blob, which [`CutRule`] cuts, has in one cell of the grid.
    Cell,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The nuclei of one blob, ordered by first pixel; `mpp` is µm a proc px, (x, y).
///
/// Nuclei are disjoint and inside the blob; those that `params.confidence` finds too unsure are left out. A blob above
/// [`CUT`]'s size is cut along its grid and each component of each cell is segmented alone, with [`Nucleus::cut`] set.
pub fn segment(blob: &Foreground, params: &PostprocParams, mpp: [f64; 2]) -> Vec<Nucleus> {
    segment_extent(blob, Extent::Whole, params, mpp)
}

/// [`segment`] of a blob, or of one cell of one that is cut.
pub fn segment_extent(
    blob: &Foreground,
    extent: Extent,
    params: &PostprocParams,
    mpp: [f64; 2],
) -> Vec<Nucleus> {
    segment_or_cut(blob, extent, params, mpp, CUT)
}

/// All nuclei of one blob with the traits by which `params.confidence` would judge them; for blobs that are not cut.
pub fn segment_with_traits(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
) -> Vec<(Nucleus, Traits)> {
    SCRATCH.with_borrow_mut(|scratch| described(blob, params, mpp, scratch).collect())
}

/// Every place where `thresholds` would divide a blob that is not cut.
pub fn divisions(
    blob: &Foreground,
    params: &PostprocParams,
    thresholds: &[f32],
    mpp: [f64; 2],
) -> Vec<Branch> {
    if (blob.len() as u64) < 2 * min_area_px(params.min_area_um2, mpp) {
        return Vec::new();
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let grid = energy(blob, params, scratch);
        let found = branches(blob, params, thresholds, (&grid, mpp), scratch);
        scratch.trim();
        found
    })
}

pub(super) fn segment_or_cut(
    blob: &Foreground,
    extent: Extent,
    params: &PostprocParams,
    mpp: [f64; 2],
    cut: CutRule,
) -> Vec<Nucleus> {
    SCRATCH.with_borrow_mut(|scratch| {
        if extent == Extent::Whole && blob.bounds().area() <= cut.over_px {
            return segment_whole(blob, params, mpp, scratch);
        }
        let of_part = |part: Foreground| segment_whole(&part, params, mpp, scratch);
        let mut nuclei: Vec<Nucleus> = match extent {
            Extent::Cell => components(blob).into_iter().flat_map(of_part).collect(),
            Extent::Whole => {
                let cells = cells(blob, cut.grid_px);
                cells
                    .values()
                    .flat_map(components)
                    .flat_map(of_part)
                    .collect()
            }
        };
        for nucleus in &mut nuclei {
            nucleus.cut = true;
        }
        nuclei.sort_by_key(Nucleus::first_pixel);
        nuclei
    })
}

/// Least whole number of px that covers `min_area_um2`, at least 1.
pub fn min_area_px(min_area_um2: f32, mpp: [f64; 2]) -> u64 {
    let pixels = f64::from(min_area_um2) / (mpp[0] * mpp[1]);
    // A whole number must not become the next one by a rounding error. NaN and infinity: `as` saturates.
    ((pixels - 1e-6).ceil() as u64).max(1)
}

/// The parts of a blob in the cells of a fixed grid, by (row, column) of the cell.
pub fn cells(blob: &Foreground, grid_px: i32) -> BTreeMap<(i32, i32), Foreground> {
    let mut cells: BTreeMap<(i32, i32), Foreground> = BTreeMap::new();
    for (run, at) in blob.runs_with_offsets() {
        let row = run.y.div_euclid(grid_px);
        let mut x0 = run.x0;
        while x0 < run.x1 {
            let column = x0.div_euclid(grid_px);
            let x1 = run.x1.min((column + 1) * grid_px);
            cells
                .entry((row, column))
                .or_insert_with(|| Foreground::with_capacity(blob.types, 0))
                .push_run(Run { y: run.y, x0, x1 }, blob, at + (x0 - run.x0) as usize);
            x0 = x1;
        }
    }
    cells
}

fn segment_whole(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    scratch: &mut Scratch,
) -> Vec<Nucleus> {
    let Some(rule) = &params.confidence else {
        return gather(blob, &labelled_pieces(blob, params, mpp, scratch));
    };
    let sure = described(blob, params, mpp, scratch).filter(|(_, traits)| rule.keeps(traits));
    sure.map(|(nucleus, _)| nucleus).collect()
}

fn described(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    scratch: &mut Scratch,
) -> impl Iterator<Item = (Nucleus, Traits)> + use<> {
    let pieces = labelled_pieces(blob, params, mpp, scratch);
    let nuclei = gather(blob, &pieces);
    let traits = confidence::traits(blob, &pieces, &nuclei, mpp);
    nuclei.into_iter().zip(traits)
}

/// The blob's runs, each with the label of its nucleus, in raster order; none where the blob is too small.
fn labelled_pieces(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    scratch: &mut Scratch,
) -> Vec<Piece> {
    let min_px = min_area_px(params.min_area_um2, mpp);
    if blob.is_empty() || (blob.len() as u64) < min_px {
        return Vec::new();
    }
    // Two nuclei need two markers.
    if (blob.len() as u64) < 2 * min_px {
        return whole(blob);
    }
    let grid = energy(blob, params, scratch);
    let markers = match &params.division {
        Some(rule) => choose_markers(blob, params, rule, (&grid, mpp), scratch),
        None => find_markers(blob, params, params.energy_threshold, (&grid, mpp), scratch),
    };
    let pieces = if markers < 2 {
        whole(blob)
    } else {
        label_pixels(blob, &grid, scratch);
        pieces(blob, &grid, &scratch.label)
    };
    scratch.trim();
    pieces
}

/// The blob's planes, with its energy in `scratch`.
fn energy(blob: &Foreground, params: &PostprocParams, scratch: &mut Scratch) -> Grid {
    scratch.kernel.set_side(params.sobel_px);
    let margin = scratch.kernel.radius().max(params.open_px as usize / 2 + 1);
    let grid = Grid::new(blob.bounds(), margin);
    ridge_energy(blob, params, &grid, scratch);
    grid
}

/// The blob as one nucleus.
fn whole(blob: &Foreground) -> Vec<Piece> {
    let runs = blob.runs_with_offsets();
    runs.map(|(run, at)| Piece { run, at, label: 1 }).collect()
}

/// Watershed from the markers that `scratch` holds into `scratch.label`.
pub(super) fn label_pixels(blob: &Foreground, grid: &Grid, scratch: &mut Scratch) {
    reset(&mut scratch.label, grid.len, OUTSIDE);
    for &run in &blob.runs {
        let at = grid.start(run);
        scratch.label[at..at + run.len()].fill(UNLABELLED);
    }
    for (&run, &label) in scratch.runs.iter().zip(&scratch.roots) {
        let at = grid.start(run);
        scratch.label[at..at + run.len()].fill(label);
    }
    flood(
        &scratch.energy,
        &mut scratch.label,
        grid,
        &scratch.runs,
        &mut scratch.queue,
    );
}

/// The blob's runs, split where the label changes.
pub(super) fn pieces(blob: &Foreground, grid: &Grid, label: &[u32]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(2 * blob.runs.len());
    for (run, at) in blob.runs_with_offsets() {
        let row = &label[grid.start(run)..][..run.len()];
        let mut x = 0;
        for same in row.chunk_by(|a, b| a == b) {
            let x0 = run.x0 + x as i32;
            pieces.push(Piece {
                run: Run {
                    y: run.y,
                    x0,
                    x1: x0 + same.len() as i32,
                },
                at: at + x,
                label: same[0],
            });
            x += same.len();
        }
    }
    pieces
}
