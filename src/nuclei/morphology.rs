//! Binary images as bytes (0 or 1): discs, opening, holes.
//!
//! In: planes of 0 and 1 with their stride. Out: the same. Nothing outside the plane is looked at. Never labels nuclei.

use super::blobs::join_runs;
use super::foreground::Run;

/// Columns of one row of a structuring element, relative to its centre: `left..=right`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiscRow {
    pub dy: i32,
    pub left: i32,
    pub right: i32,
}

/// The ellipse that OpenCV's `getStructuringElement(MORPH_ELLIPSE, (d, d))` draws, row by row; its centre is pixel
/// `d / 2`. For 5: rows of 1, 5, 5, 5, 1.
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
pub(super) struct Area {
    /// Index of the first pixel.
    pub start: usize,
    pub stride: usize,
    pub width: usize,
    pub height: usize,
}

/// 1 where the whole disc fits: `out[p] = AND of image[p + d]`. The image has the disc's radius of margin around `area`.
pub(super) fn erode(image: &[u8], out: &mut [u8], area: Area, disc: &[DiscRow]) {
    combine(image, out, area, disc, 1, |a, b| a & b);
}

/// 1 where the disc's mirror image meets the picture: `out[p] = OR of image[p - d]`; undoes the shift of an even disc.
pub(super) fn dilate(image: &[u8], out: &mut [u8], area: Area, disc: &[DiscRow]) {
    let mirrored: Vec<DiscRow> = disc
        .iter()
        .map(|row| DiscRow {
            dy: -row.dy,
            left: -row.right,
            right: -row.left,
        })
        .collect();
    combine(image, out, area, &mirrored, 0, |a, b| a | b);
}

fn combine(
    image: &[u8],
    out: &mut [u8],
    area: Area,
    disc: &[DiscRow],
    neutral: u8,
    join: impl Fn(u8, u8) -> u8,
) {
    for y in 0..area.height {
        let start = area.start + y * area.stride;
        let to = &mut out[start..start + area.width];
        to.fill(neutral);
        for row in disc {
            for dx in row.left..=row.right {
                let shift = row.dy as isize * area.stride as isize + dx as isize;
                let from = start.wrapping_add_signed(shift);
                for (t, &f) in to.iter_mut().zip(&image[from..from + area.width]) {
                    *t = join(*t, f);
                }
            }
        }
    }
}

/// Sets to 1 every 0 that is not 4-connected to the area's outside. `runs` and `roots` are buffers.
///
/// The pixels just around `area` must exist in the plane; they are taken for outside and not looked at.
pub(super) fn fill_holes(image: &mut [u8], area: Area, runs: &mut Vec<Run>, roots: &mut Vec<u32>) {
    runs.clear();
    let width = area.width as i32;
    let whole = |y| Run {
        y,
        x0: -1,
        x1: width + 1,
    };
    runs.push(whole(-1));
    for y in 0..area.height {
        let start = area.start + y * area.stride;
        zero_runs(&image[start..start + area.width], y as i32, runs);
    }
    runs.push(whole(area.height as i32));
    join_runs(runs, roots);
    for (run, &root) in runs.iter().zip(roots.iter()) {
        if root != 0 {
            let at = area.start + run.y as usize * area.stride + run.x0 as usize;
            image[at..at + run.len()].fill(1);
        }
    }
}

/// The runs of zeros of one row that has a 0 on either side.
fn zero_runs(row: &[u8], y: i32, runs: &mut Vec<Run>) {
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
