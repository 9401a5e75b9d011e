//! Ridge energy -> markers, one per nucleus.
//!
//! In: a blob and its energy. Out: labelled markers, numbered from 1 in raster order of their first
//! pixel. Only the blob's own markers are filled and opened, so a ring does not swallow another
//! blob inside it. Never decides where nuclei end.

use super::blobs::join_runs;
use super::foreground::{Foreground, Run};
use super::morphology::{DiscRow, Window, dilate, disc, erode, fill_holes};
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
    reset(&mut scratch.marker, grid.len, 0);
    for &run in &blob.runs {
        let at = grid.start(run);
        let energy = &scratch.energy[at..at + run.len()];
        for (marker, &e) in scratch.marker[at..at + run.len()].iter_mut().zip(energy) {
            *marker = u8::from(e < threshold);
        }
    }
    let window = Window {
        start: grid.start(blob.runs[0]) - (blob.runs[0].x0 - grid.bounds.x) as usize,
        stride: grid.stride,
        width: grid.bounds.w as usize,
        height: grid.bounds.h as usize,
    };
    fill_holes(
        &mut scratch.marker,
        window,
        &mut scratch.runs,
        &mut scratch.roots,
    );
    if params.open_px > 1 {
        open_markers(scratch, window, grid, &disc(params.open_px));
    }
    find_marker_runs(blob, grid, &scratch.marker, &mut scratch.runs);
    join_runs(&scratch.runs, &mut scratch.roots);
    number_markers(scratch, params.min_area_px(grid.mpp))
}

fn open_markers(scratch: &mut Scratch, window: Window, grid: &Grid, disc: &[DiscRow]) {
    reset(&mut scratch.eroded, grid.len, 0);
    erode(&scratch.marker, &mut scratch.eroded, window, disc);
    dilate(&scratch.eroded, &mut scratch.marker, window, disc);
}

/// Finds the runs of marker pixels in the blob. A filled hole that is not part of the blob is left
/// out.
fn find_marker_runs(blob: &Foreground, grid: &Grid, marker: &[u8], runs: &mut Vec<Run>) {
    runs.clear();
    for &run in &blob.runs {
        let at = grid.start(run);
        let row = &marker[at..at + run.len()];
        let mut x = 0;
        while let Some(skip) = row[x..].iter().position(|&m| m != 0) {
            let from = x + skip;
            x = row[from..]
                .iter()
                .position(|&m| m == 0)
                .map_or(row.len(), |n| from + n);
            runs.push(Run {
                y: run.y,
                x0: run.x0 + from as i32,
                x1: run.x0 + x as i32,
            });
        }
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
