//! Whole-map filters of the reference rules, in OpenCV's arithmetic.
//!
//! In: dense maps, row by row. Out: maps of the same size. Borders are reflected without repeating
//! the edge (reflect-101). The order of every addition and the type of every constant are OpenCV's,
//! so results agree to the last bit. Simple and slow; the default rule uses [`super::energy`].

/// Applies a separable filter: first along rows, tap after tap, then down columns, in pairs from
/// the centre outwards.
///
/// `across` and `down` have odd lengths and are centred; `down` is symmetric or antisymmetric.
pub(super) fn filter_separable(
    image: &[f64],
    width: usize,
    across: &[f64],
    down: &[f64],
) -> Vec<f64> {
    let height = image.len() / width;
    let radius = across.len() / 2;
    let mut rows = vec![0.0; image.len()];
    for (from, to) in image.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
        let padded: Vec<f64> = (0..width + 2 * radius)
            .map(|x| from[reflect(x as isize - radius as isize, width)])
            .collect();
        for (k, weight) in across.iter().enumerate() {
            for (t, f) in to.iter_mut().zip(&padded[k..]) {
                *t += weight * f;
            }
        }
    }
    let centre = down.len() / 2;
    let parity = if down[0] == down[2 * centre] {
        1.0
    } else {
        -1.0
    };
    let row = |y: usize, k: isize| {
        let y = reflect(y as isize + k, height);
        &rows[y * width..(y + 1) * width]
    };
    let mut out = vec![0.0; image.len()];
    for (y, to) in out.chunks_exact_mut(width).enumerate() {
        for (t, f) in to.iter_mut().zip(row(y, 0)) {
            *t = down[centre] * f;
        }
        for k in 1..=centre {
            let (above, below) = (row(y, -(k as isize)), row(y, k as isize));
            for ((t, a), b) in to.iter_mut().zip(above).zip(below) {
                *t += down[centre + k] * (b + parity * a);
            }
        }
    }
    out
}

/// Position `i` mirrored into `0..len` without repeating the ends.
fn reflect(i: isize, len: usize) -> usize {
    if len == 1 {
        return 0;
    }
    let last = len as isize - 1;
    let period = i.rem_euclid(2 * last);
    period.min(2 * last - period) as usize
}

/// Least and greatest value.
fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| {
        (least.min(x), most.max(x))
    })
}

/// Factor and offset, rounded to `f32`, that map `least..=most` to 0..=1. A constant map becomes 0.
fn min_max_scale(least: f64, most: f64) -> (f32, f32) {
    let range = most - least;
    let scale = if range > f64::EPSILON {
        1.0 / range
    } else {
        0.0
    } as f32;
    (scale, -((least * f64::from(scale)) as f32))
}

/// OpenCV's `normalize(x, 0, 1, NORM_MINMAX, CV_32F)` of a float map: one fused multiply-add per
/// value.
pub(super) fn normalise_f32(map: &[f32]) -> Vec<f32> {
    let (least, most) = extremes(map.iter().copied().map(f64::from));
    let (scale, offset) = min_max_scale(least, most);
    map.iter().map(|x| x.mul_add(scale, offset)).collect()
}

/// [`normalise_f32`] of a double map: computed in `f64`, then rounded to `f32`.
pub(super) fn normalise_f64(map: &[f64]) -> Vec<f32> {
    let (least, most) = extremes(map.iter().copied());
    let (scale, offset) = min_max_scale(least, most);
    let (scale, offset) = (f64::from(scale), f64::from(offset));
    map.iter()
        .map(|x| x.mul_add(scale, offset) as f32)
        .collect()
}
