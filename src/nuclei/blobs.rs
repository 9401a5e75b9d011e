//! Foreground -> blobs, by union-find on runs.
//!
//! In: a [`Foreground`] of any extent. Out: its 4-connected components, each a `Foreground`,
//! ordered by first pixel in raster order. Works on runs, never on single pixels. Never joins
//! pixels that meet only at a corner.

use super::foreground::{Foreground, Run};

/// The 4-connected components of `fg`, ordered by first pixel in raster order.
pub fn components(fg: &Foreground) -> Vec<Foreground> {
    let (blob_of_run, pixels) = number_blobs(fg);
    copy_components(fg, &blob_of_run, &pixels)
}

fn copy_components(fg: &Foreground, blob_of_run: &[u32], pixels: &[usize]) -> Vec<Foreground> {
    let mut blobs: Vec<Foreground> = pixels
        .iter()
        .map(|&n| Foreground::with_capacity(fg.types, n))
        .collect();
    for ((run, at), &blob) in fg.runs_with_offsets().zip(blob_of_run) {
        blobs[blob as usize].push_run(run, fg, at);
    }
    blobs
}

/// As [`components`]. A component that has most of the pixels stays in the memory of `fg`, and only
/// the others are copied.
pub fn into_components(mut fg: Foreground) -> Vec<Foreground> {
    let (blob_of_run, pixels) = number_blobs(&fg);
    if pixels.len() == 1 {
        return vec![fg];
    }
    let Some(largest) = (0..pixels.len()).find(|&blob| 2 * pixels[blob] > fg.len()) else {
        return copy_components(&fg, &blob_of_run, &pixels);
    };
    let room = |(blob, &n): (usize, &usize)| match blob == largest {
        true => Foreground::default(),
        false => Foreground::with_capacity(fg.types, n),
    };
    let mut blobs: Vec<Foreground> = pixels.iter().enumerate().map(room).collect();
    for ((run, at), &blob) in fg.runs_with_offsets().zip(&blob_of_run) {
        if blob as usize != largest {
            blobs[blob as usize].push_run(run, &fg, at);
        }
    }
    let mut blob_of_run = blob_of_run.iter();
    fg.retain_runs(|_| blob_of_run.next().is_some_and(|&b| b as usize == largest));
    blobs[largest] = fg;
    blobs
}

/// For each run the number of its component, from 0 in the order of first pixels, and the pixels of
/// each component.
fn number_blobs(fg: &Foreground) -> (Vec<u32>, Vec<usize>) {
    let mut roots = Vec::new();
    join_runs(&fg.runs, &mut roots);
    let mut blob_of_run = vec![0u32; roots.len()];
    let mut pixels: Vec<usize> = Vec::new();
    for (i, (&root, run)) in roots.iter().zip(&fg.runs).enumerate() {
        // A root is the first run of its component, so it comes before the others.
        if root as usize == i {
            blob_of_run[i] = pixels.len() as u32;
            pixels.push(0);
        } else {
            blob_of_run[i] = blob_of_run[root as usize];
        }
        pixels[blob_of_run[i] as usize] += run.len();
    }
    (blob_of_run, pixels)
}

/// Puts into `roots`, for each run, the index of the first run of its 4-connected component.
///
/// `runs` are sorted by (y, x0) and do not overlap.
pub(super) fn join_runs(runs: &[Run], roots: &mut Vec<u32>) {
    roots.clear();
    roots.extend(0..runs.len() as u32);
    let mut above = 0; // first run of the row above that may still meet the current run
    let mut row_start = 0;
    for i in 0..runs.len() {
        let run = runs[i];
        if i == 0 || runs[i - 1].y != run.y {
            above = if i > 0 && runs[i - 1].y + 1 == run.y {
                row_start
            } else {
                i
            };
            row_start = i;
        }
        while above < row_start && runs[above].x1 <= run.x0 {
            above += 1;
        }
        let mut j = above;
        while j < row_start && runs[j].x0 < run.x1 {
            join_sets(roots, i as u32, j as u32);
            j += 1;
        }
    }
    flatten_sets(roots);
}

/// Makes every entry the root of its set, which is the smallest member.
pub(crate) fn flatten_sets(parents: &mut [u32]) {
    // A parent never comes after its child, so one pass in order is enough.
    for i in 0..parents.len() {
        parents[i] = parents[parents[i] as usize];
    }
}

/// Joins the sets of `a` and `b`. At first each entry of `parents` is its own place.
pub(crate) fn join_sets(parents: &mut [u32], a: u32, b: u32) {
    let (a, b) = (find_root(parents, a), find_root(parents, b));
    let (low, high) = (a.min(b), a.max(b));
    parents[high as usize] = low;
}

fn find_root(parents: &mut [u32], mut i: u32) -> u32 {
    while parents[i as usize] != i {
        let grandparent = parents[parents[i as usize] as usize];
        parents[i as usize] = grandparent;
        i = grandparent;
    }
    i
}
