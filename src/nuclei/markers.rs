//! Ridge energy -> markers, one per nucleus.
//!
//! In: a blob and its energy. Out: labelled markers, numbered from 1 in raster order of their first
//! pixel. Only the blob's own markers are filled and opened, so a ring does not swallow another
//! blob inside it. Never decides where nuclei end.

use super::bit_plane::BitPlane;
use super::blobs::join_runs;
use super::foreground::{Foreground, Run};
use super::morphology::disc;
use super::params::PostprocParams;
use super::plane::{Grid, Scratch, reset};

/// Finds the blob's markers: components of the pixels whose energy is below the threshold, filled
/// and opened.
///
/// Puts their runs into `scratch.runs`, in raster order, and the label of each run, from 1, into
/// `scratch.roots`. Returns the number of markers.
pub(super) fn find_markers(
    blob: &Foreground,
    params: &PostprocParams,
    energy_threshold: f32,
    grid: &Grid,
    scratch: &mut Scratch,
) -> u32 {
    let threshold = (energy_threshold * 255.0 + 0.5) as u8;
    let corner = [grid.bounds.x, grid.bounds.y];
    let marker = &mut scratch.marker;
    marker.reset(grid.bounds.w as usize, grid.bounds.h as usize);
    for &run in &blob.runs {
        let energy = &scratch.energy[grid.start(run)..][..run.len()];
        let (x, y) = (run.x0 - corner[0], run.y - corner[1]);
        marker.set_below(x as usize, y as usize, energy, threshold);
    }
    marker.fill_holes(&mut scratch.runs, &mut scratch.roots);
    if params.open_px > 1 {
        let disc = disc(params.open_px);
        let Scratch { eroded, wide, .. } = scratch;
        scratch.marker.erode(&disc, eroded, wide);
        eroded.dilate(&disc, &mut scratch.marker, wide);
    }
    find_marker_runs(blob, corner, &scratch.marker, &mut scratch.runs);
    join_runs(&scratch.runs, &mut scratch.roots);
    number_markers(scratch, params.min_area_px(grid.mpp))
}

/// Finds the runs of marker pixels in the blob. A filled hole that is not part of the blob is left
/// out. `corner`: column and row of the marker plane's first pixel, proc px.
fn find_marker_runs(blob: &Foreground, corner: [i32; 2], marker: &BitPlane, runs: &mut Vec<Run>) {
    runs.clear();
    for &run in &blob.runs {
        let [x0, x1, y] =
            [run.x0 - corner[0], run.x1 - corner[0], run.y - corner[1]].map(|at| at as usize);
        marker.runs_within(x0, x1, y, |from, to| {
            runs.push(Run {
                y: run.y,
                x0: corner[0] + from as i32,
                x1: corner[0] + to as i32,
            });
        });
    }
}

/// Drops markers of fewer than `min_px` pixels and numbers the others; `roots` become labels.
fn number_markers(scratch: &mut Scratch, min_px: u64) -> u32 {
    let Scratch {
        runs,
        roots,
        counts,
        ..
    } = scratch;
    reset(counts, runs.len(), 0);
    for (run, &root) in runs.iter().zip(roots.iter()) {
        counts[root as usize] += run.len() as u32;
    }
    let mut labels = 0;
    for i in 0..roots.len() {
        let root = roots[i] as usize;
        if root == i {
            // The count is not needed again: it becomes the label, 0 for a dropped marker.
            let keep = u64::from(counts[i]) >= min_px;
            labels += u32::from(keep);
            counts[i] = if keep { labels } else { 0 };
        }
        roots[i] = counts[root];
    }
    let mut kept = 0;
    for i in 0..runs.len() {
        if roots[i] != 0 {
            runs[kept] = runs[i];
            roots[kept] = roots[i];
            kept += 1;
        }
    }
    runs.truncate(kept);
    roots.truncate(kept);
    labels
}
