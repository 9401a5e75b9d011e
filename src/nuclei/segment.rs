//! The default rule: one blob -> its nuclei.
//!
//! In: a blob, the constants of post-processing, the µm per px. Out: nuclei ordered by first pixel
//! in raster order. A blob with fewer than two markers is one nucleus. Markers below the least area
//! are dropped before the watershed, so their pixels go to a neighbour and no piece is too small.
//! Never sees a pixel outside the blob.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Nucleus;
use super::blobs::into_components;
use super::confidence::{Traits, measure_nuclei};
use super::division::{Branch, choose_markers, find_branches};
use super::energy::ridge_energy;
use super::foreground::{Foreground, Run};
use super::markers::find_markers;
use super::params::PostprocParams;
use super::pieces::LabelledPieces;
use super::plane::{Grid, Scratch};
use super::watershed::label_pixels;

/// Which blobs are cut before they are segmented, and where.
#[derive(Debug, Clone, Copy)]
pub struct CutRule {
    /// A blob whose box has more pixels than this is cut. The box counts, not the blob's own
    /// pixels, because memory follows the box.
    pub over_px: u64,
    /// Side of the cells of a fixed grid, anchored at proc (0, 0), along which it is cut, proc px.
    pub grid_px: i32,
}

/// The rule that every run uses.
pub const CUT: CutRule = CutRule {
    over_px: 4096 * 4096,
    grid_px: 4096,
};

/// How much of a blob a [`Foreground`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// The part, in one cell of the grid, of a larger blob that [`CutRule`] cuts.
    CutCell,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The nuclei of one blob, ordered by first pixel. `mpp`: µm per proc px, (x, y).
///
/// Nuclei are disjoint and inside the blob. Nuclei that `params.confidence` finds too unlikely are
/// left out. A blob larger than [`CUT`] allows is cut along its grid; each component of each cell
/// is segmented alone, with [`Nucleus::cut`] set.
pub fn segment(blob: &Foreground, params: &PostprocParams, mpp: [f64; 2]) -> Vec<Nucleus> {
    segment_or_cut(blob, params, mpp, CUT)
}

/// [`segment`] of a whole blob, or of one cell of a blob that is cut. Takes the pixels, so that a
/// large cell is in memory once.
pub fn segment_extent(
    blob: Foreground,
    extent: Extent,
    params: &PostprocParams,
    mpp: [f64; 2],
) -> Vec<Nucleus> {
    match extent {
        Extent::Whole => segment(&blob, params, mpp),
        Extent::CutCell => segment_cells([blob], params, mpp),
    }
}

/// All nuclei of one blob, with the traits by which `params.confidence` would judge them. The blob
/// is not cut, however large.
pub fn segment_with_traits(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
) -> Vec<(Nucleus, Traits)> {
    SCRATCH.with_borrow_mut(|scratch| segment_and_measure(blob, params, mpp, scratch))
}

/// Every place where `thresholds`, falling, would divide a blob. The blob is not cut, however
/// large.
pub fn divisions(
    blob: &Foreground,
    params: &PostprocParams,
    thresholds: &[f32],
    mpp: [f64; 2],
) -> Vec<Branch> {
    if (blob.len() as u64) < 2 * params.min_area_px(mpp) {
        return Vec::new();
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let grid = fill_energy(blob, params, mpp, scratch);
        let found = find_branches(blob, params, thresholds, &grid, scratch);
        scratch.trim();
        found
    })
}

pub(super) fn segment_or_cut(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    cut: CutRule,
) -> Vec<Nucleus> {
    if blob.bounds().area() <= cut.over_px {
        return SCRATCH.with_borrow_mut(|scratch| segment_whole(blob, params, mpp, scratch));
    }
    segment_cells(cut_along_grid(blob, cut.grid_px).into_values(), params, mpp)
}

/// The nuclei of cells of a blob that is cut: each component of each cell is segmented alone.
fn segment_cells(
    cells: impl IntoIterator<Item = Foreground>,
    params: &PostprocParams,
    mpp: [f64; 2],
) -> Vec<Nucleus> {
    let mut nuclei: Vec<Nucleus> = SCRATCH.with_borrow_mut(|scratch| {
        cells
            .into_iter()
            .flat_map(into_components)
            .flat_map(|part| segment_whole(&part, params, mpp, scratch))
            .collect()
    });
    for nucleus in &mut nuclei {
        nucleus.cut = true;
    }
    nuclei.sort_by_key(Nucleus::first_pixel);
    nuclei
}

/// The parts of a blob in the cells of the grid of [`CutRule`], by (row, column) of the cell.
pub fn cut_along_grid(blob: &Foreground, grid_px: i32) -> BTreeMap<(i32, i32), Foreground> {
    let mut cells: BTreeMap<(i32, i32), Foreground> = BTreeMap::new();
    for (run, at) in blob.runs_with_offsets() {
        for (place, part) in cut_run(run, grid_px) {
            cells
                .entry(place)
                .or_insert_with(|| Foreground::with_capacity(blob.types, 0))
                .push_run(part, blob, at + (part.x0 - run.x0) as usize);
        }
    }
    cells
}

/// [`cut_along_grid`] of runs alone.
pub fn cut_runs_along_grid(runs: &[Run], grid_px: i32) -> BTreeMap<(i32, i32), Vec<Run>> {
    let mut cells: BTreeMap<(i32, i32), Vec<Run>> = BTreeMap::new();
    for (place, part) in runs.iter().flat_map(|&run| cut_run(run, grid_px)) {
        cells.entry(place).or_default().push(part);
    }
    cells
}

/// The parts of a run in the cells of the grid, with (row, column) of the cell.
fn cut_run(run: Run, grid_px: i32) -> impl Iterator<Item = ((i32, i32), Run)> {
    let row = run.y.div_euclid(grid_px);
    let columns = run.x0.div_euclid(grid_px)..=(run.x1 - 1).div_euclid(grid_px);
    columns.map(move |column| {
        let x0 = run.x0.max(column * grid_px);
        let x1 = run.x1.min((column + 1) * grid_px);
        ((row, column), Run { y: run.y, x0, x1 })
    })
}

/// The nuclei of a blob that is not cut, less those that `params.confidence` drops.
fn segment_whole(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    scratch: &mut Scratch,
) -> Vec<Nucleus> {
    let Some(rule) = &params.confidence else {
        return label_blob(blob, params, mpp, scratch).collect_nuclei(blob);
    };
    segment_and_measure(blob, params, mpp, scratch)
        .into_iter()
        .filter(|(_, traits)| rule.keeps(traits))
        .map(|(nucleus, _)| nucleus)
        .collect()
}

/// All nuclei of a blob that is not cut, with their traits.
fn segment_and_measure(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    scratch: &mut Scratch,
) -> Vec<(Nucleus, Traits)> {
    let labelled = label_blob(blob, params, mpp, scratch);
    measure_nuclei(blob, &labelled, mpp)
}

/// The blob's runs with the label of their nucleus; no run where the blob is too small.
fn label_blob(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    scratch: &mut Scratch,
) -> LabelledPieces {
    let min_px = params.min_area_px(mpp);
    if blob.is_empty() || (blob.len() as u64) < min_px {
        return LabelledPieces::new(Vec::new());
    }
    // Two nuclei need two markers of the least area.
    if (blob.len() as u64) < 2 * min_px {
        return LabelledPieces::whole(blob);
    }
    let grid = fill_energy(blob, params, mpp, scratch);
    let markers = match &params.division {
        Some(rule) => choose_markers(blob, params, rule, &grid, scratch),
        None => find_markers(blob, params, params.energy_threshold, &grid, scratch),
    };
    let labelled = if markers < 2 {
        LabelledPieces::whole(blob)
    } else {
        label_pixels(blob, &grid, scratch);
        LabelledPieces::split(blob, &grid, &scratch.label)
    };
    scratch.trim();
    labelled
}

/// Fills `scratch.energy` and returns the grid of the blob's planes.
fn fill_energy(
    blob: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
    scratch: &mut Scratch,
) -> Grid {
    scratch.kernel.set_side(params.sobel_px);
    let margin = scratch.kernel.radius().max(params.open_px as usize / 2 + 1);
    let grid = Grid::new(blob.bounds(), margin, mpp);
    ridge_energy(blob, params, &grid, scratch);
    grid
}
