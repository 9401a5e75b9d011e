//! Binary images as bytes (0 or 1): discs, opening, holes.
//!
//! In: planes of 0 and 1, and a [`Window`] in them. Out: the same planes, changed in the window.
//! Never labels nuclei.

use super::blobs::join_runs;
use super::foreground::Run;

/// Columns of one row of a structuring element, relative to its centre: `left..=right`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiscRow {
    pub dy: i32,
    pub left: i32,
    pub right: i32,
}

impl DiscRow {
    /// The row of the disc turned by half a turn.
    pub fn mirrored(&self) -> DiscRow {
        DiscRow {
            dy: -self.dy,
            left: -self.right,
            right: -self.left,
        }
    }
}

/// The ellipse of OpenCV's `getStructuringElement(MORPH_ELLIPSE, (d, d))`, row by row; its centre
/// is pixel `d / 2`. A diameter of 5 gives rows of 1, 5, 5, 5, 1.
pub(super) fn disc(diameter: u32) -> Vec<DiscRow> {
    let d = diameter.max(1) as i32;
    let centre = d / 2;
    (0..d)
        .map(|row| {
            let dy = row - centre;
            let square = f64::from(centre * centre - dy * dy);
            let half = square.max(0.0).sqrt().round_ties_even() as i32;
            DiscRow {
                dy,
                left: -half.min(centre),
                right: half.min(d - 1 - centre),
            }
        })
        .collect()
}

/// A box inside a plane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Index of the first pixel.
    pub start: usize,
    pub stride: usize,
    pub width: usize,
    pub height: usize,
}

/// 1 where the whole disc fits: `out[p] = AND of image[p + d]`. The plane has a margin of the
/// disc's radius around `window`.
pub(super) fn erode(image: &[u8], out: &mut [u8], window: Window, disc: &[DiscRow]) {
    combine(image, out, window, disc, 1, |a, b| a & b);
}

/// 1 where the mirrored disc meets the image: `out[p] = OR of image[p - d]`. Mirroring undoes the
/// shift of a disc of even diameter.
pub(super) fn dilate(image: &[u8], out: &mut [u8], window: Window, disc: &[DiscRow]) {
    let mirrored: Vec<DiscRow> = disc.iter().map(DiscRow::mirrored).collect();
    combine(image, out, window, &mirrored, 0, |a, b| a | b);
}

fn combine(
    image: &[u8],
    out: &mut [u8],
    window: Window,
    disc: &[DiscRow],
    neutral: u8,
    join: impl Fn(u8, u8) -> u8,
) {
    for y in 0..window.height {
        let start = window.start + y * window.stride;
        let to = &mut out[start..start + window.width];
        to.fill(neutral);
        for row in disc {
            for dx in row.left..=row.right {
                let shift = row.dy as isize * window.stride as isize + dx as isize;
                let from = start.wrapping_add_signed(shift);
                for (t, &f) in to.iter_mut().zip(&image[from..from + window.width]) {
                    *t = join(*t, f);
                }
            }
        }
    }
}

/// Sets to 1 every 0 that is not 4-connected to the outside of the window. `runs` and `roots` are
/// buffers.
///
/// The pixels just around `window` count as outside, whatever they hold.
pub(super) fn fill_holes(
    image: &mut [u8],
    window: Window,
    runs: &mut Vec<Run>,
    roots: &mut Vec<u32>,
) {
    runs.clear();
    let width = window.width as i32;
    let full_row = |y| Run {
        y,
        x0: -1,
        x1: width + 1,
    };
    runs.push(full_row(-1));
    for y in 0..window.height {
        let start = window.start + y * window.stride;
        push_zero_runs(&image[start..start + window.width], y as i32, runs);
    }
    runs.push(full_row(window.height as i32));
    join_runs(runs, roots);
    for (run, &root) in runs.iter().zip(roots.iter()) {
        if root != 0 {
            let at = window.start + run.y as usize * window.stride + run.x0 as usize;
            image[at..at + run.len()].fill(1);
        }
    }
}

/// Appends the runs of zeros of one row, taking the pixels on either side of it as 0.
fn push_zero_runs(row: &[u8], y: i32, runs: &mut Vec<Run>) {
    let mut x0 = -1;
    let mut x = 0;
    while let Some(skip) = row[x..].iter().position(|&b| b != 0) {
        let x1 = (x + skip) as i32;
        if x1 > x0 {
            runs.push(Run { y, x0, x1 });
        }
        x = row[x + skip..]
            .iter()
            .position(|&b| b == 0)
            .map_or(row.len(), |n| x + skip + n);
        x0 = x as i32;
    }
    runs.push(Run {
        y,
        x0,
        x1: row.len() as i32 + 1,
    });
}
