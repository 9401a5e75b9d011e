//! h and v of a blob -> ridge energy.
//!
//! In: a blob and the constants of post-processing. Out: for every pixel of the blob an energy of
//! `0..=255`, high where two nuclei meet. Outside the blob h and v count as 0 and the energy is
//! 255. The additions for each pixel have one fixed order, so vector width and threads change no
//! bit.

use super::foreground::{Foreground, HV_SCALE, Run};
use super::params::{EnergyRule, PostprocParams};
use super::plane::{Grid, LANES, Scratch, reset, spans};
use crate::geometry::Rect;

/// Energy of a ridge, and of every pixel outside the blob.
pub(super) const RIDGE: u8 = 255;

/// Rows of a blob whose h and v are laid out at a time. They stay in a cache, however tall the blob
/// is.
const BAND_ROWS: i32 = 64;

/// Fills `scratch.energy` for the blob; `scratch.kernel` must have the side `params.sobel_px`.
///
/// energy = clamp((hv_hi - s) / (hv_hi - hv_lo), 0, 1) * 255, rounded. For `axes` the slope s is
/// the smaller of dh/dx and dv/dy (Graham et al. 2019, HoVer-Net, section 3.2), for `eigen` the
/// least eigenvalue of the symmetric part of the Jacobian of (h, v); in map units per px.
pub(super) fn ridge_energy(
    blob: &Foreground,
    params: &PostprocParams,
    grid: &Grid,
    scratch: &mut Scratch,
) {
    reset(&mut scratch.energy, grid.len, RIDGE);
    let radius = scratch.kernel.radius() as i32;
    let bounds = grid.bounds;
    // The first run that the band's kernels reach, and the index of its first pixel.
    let (mut first, mut first_at) = (0, 0);
    for top in (bounds.y..bounds.bottom()).step_by(BAND_ROWS as usize) {
        let rows = BAND_ROWS.min(bounds.bottom() - top);
        let band = Grid::new(
            Rect::new(bounds.x, top, bounds.w, rows),
            grid.margin,
            grid.mpp,
        );
        while blob.runs[first].y < top - radius {
            first_at += blob.runs[first].len();
            first += 1;
        }
        fill_band(blob, params, (first, first_at), grid, &band, scratch);
    }
    close_gaps(blob, grid, &mut scratch.energy);
}

/// [`fill_band_with`] in the widest vectors that the processor has.
fn fill_band(
    blob: &Foreground,
    params: &PostprocParams,
    first: (usize, usize),
    grid: &Grid,
    band: &Grid,
    scratch: &mut Scratch,
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn with_avx2(
            blob: &Foreground,
            params: &PostprocParams,
            first: (usize, usize),
            grid: &Grid,
            band: &Grid,
            scratch: &mut Scratch,
        ) {
            fill_band_with(blob, params, first, grid, band, scratch);
        }
        // SAFETY: the processor has AVX2.
        return unsafe { with_avx2(blob, params, first, grid, band, scratch) };
    }
    fill_band_with(blob, params, first, grid, band, scratch);
}

/// Fills the rows of `band` in `scratch.energy`, a plane of `grid`. `first`: the first run that the
/// band's kernels reach, and the index of its first pixel.
///
/// Every operation is done lane by lane, none is fused: the vectors' width changes no bit.
#[inline(always)]
fn fill_band_with(
    blob: &Foreground,
    params: &PostprocParams,
    first: (usize, usize),
    grid: &Grid,
    band: &Grid,
    scratch: &mut Scratch,
) {
    let kernel = std::mem::take(&mut scratch.kernel);
    let scale = EnergyScale::new(params);
    let radius = kernel.radius() as i32;
    lay_out_band(blob, first, band, radius, scratch);
    let from = blob.runs.partition_point(|run| run.y < band.bounds.y);
    let to = blob
        .runs
        .partition_point(|run| run.y < band.bounds.bottom());
    // Runs nearer to each other than the kernel is wide would filter the same columns twice.
    let spans = spans(&blob.runs[from..to], 2 * radius);
    match (
        <&[f32; 5]>::try_from(&kernel.smooth[..]),
        <&[f32; 5]>::try_from(&kernel.derive[..]),
    ) {
        // The side that models have: loops over so many weights are unrolled.
        (Ok(smooth), Ok(derive)) => {
            let taps = Taps { smooth, derive };
            // A closure would not get this function's vectors.
            for span in spans {
                fill_span(span, grid, band, taps, params.energy, scale, scratch);
            }
        }
        _ => {
            let taps = Taps {
                smooth: &kernel.smooth,
                derive: &kernel.derive,
            };
            for span in spans {
                fill_span(span, grid, band, taps, params.energy, scale, scratch);
            }
        }
    }
    scratch.kernel = kernel;
}

/// The weights of a [`super::sobel::SobelKernel`].
#[derive(Clone, Copy)]
struct Taps<'a> {
    smooth: &'a [f32],
    derive: &'a [f32],
}

impl Taps<'_> {
    /// Pixels on either side of the centre.
    #[inline(always)]
    fn radius(&self) -> usize {
        self.smooth.len() - 1
    }
}

#[inline(always)]
fn fill_span(
    span: Run,
    grid: &Grid,
    band: &Grid,
    taps: Taps,
    rule: EnergyRule,
    scale: EnergyScale,
    scratch: &mut Scratch,
) {
    match rule {
        EnergyRule::Eigen => eigen_span(span, grid, band, taps, scale, scratch),
        EnergyRule::Axes => axes_span(span, grid, band, taps, scale, scratch),
    }
}

/// Fills `scratch.h` and `scratch.v` with the rows of `band` and `radius` more above and below.
/// `first`: a run in the topmost of these rows or further down, and the index of its first pixel.
#[inline(always)]
fn lay_out_band(
    blob: &Foreground,
    first: (usize, usize),
    band: &Grid,
    radius: i32,
    scratch: &mut Scratch,
) {
    reset(&mut scratch.h, band.len, 0.0);
    reset(&mut scratch.v, band.len, 0.0);
    let (first, mut at) = first;
    let end = band.bounds.bottom() + radius;
    for run in blob.runs[first..].iter().take_while(|run| run.y < end) {
        let to = band.start(*run);
        let (pixels, place) = (at..at + run.len(), to..to + run.len());
        dequantise(&mut scratch.h[place.clone()], &blob.h[pixels.clone()]);
        dequantise(&mut scratch.v[place], &blob.v[pixels]);
        at += run.len();
    }
}

#[inline(always)]
fn dequantise(to: &mut [f32], from: &[i16]) {
    for (t, &f) in to.iter_mut().zip(from) {
        // Exact, because HV_SCALE is a power of two.
        *t = f32::from(f) * (1.0 / HV_SCALE);
    }
}

/// Sets the energy back to [`RIDGE`] in the gaps between runs, which the spans cover too.
fn close_gaps(blob: &Foreground, grid: &Grid, energy: &mut [u8]) {
    for pair in blob.runs.windows(2) {
        if pair[0].y == pair[1].y {
            energy[grid.at(pair[0].x1, pair[0].y)..grid.start(pair[1])].fill(RIDGE);
        }
    }
}

/// The linear map from a slope to an energy.
#[derive(Clone, Copy)]
struct EnergyScale {
    hi: f32,
    per_slope: f32,
}

impl EnergyScale {
    fn new(params: &PostprocParams) -> EnergyScale {
        let width = (params.hv_hi - params.hv_lo).max(f32::MIN_POSITIVE);
        EnergyScale {
            hi: params.hv_hi,
            per_slope: (f32::from(RIDGE) / width).min(f32::MAX),
        }
    }

    #[inline(always)]
    fn energy(self, slope: f32) -> u8 {
        // `max` first, so that a NaN (0 times infinity, from odd constants) becomes 0.
        let energy = ((self.hi - slope) * self.per_slope)
            .max(0.0)
            .min(f32::from(RIDGE));
        // SAFETY: within 0.5..=255.5, and not NaN.
        unsafe { (energy + 0.5).to_int_unchecked::<i32>() as u8 }
    }
}

type Lanes = [f32; LANES];

/// Computes the energy of one span, a plane of `grid`, from the least eigenvalue of h and v, planes
/// of `band`.
#[inline(always)]
fn eigen_span(
    span: Run,
    grid: &Grid,
    band: &Grid,
    taps: Taps,
    scale: EnergyScale,
    scratch: &mut Scratch,
) {
    let radius = taps.radius();
    let [h_smooth, h_derive, v_smooth, v_derive] = &mut scratch.rows;
    let (h, v) = (&scratch.h, &scratch.v);
    filter_columns(span, band, h, taps, h_smooth, h_derive);
    filter_columns(span, band, v, taps, v_smooth, v_derive);
    let energy = &mut scratch.energy[grid.start(span)..][..span.len()];
    for (chunk, out) in energy.chunks_mut(LANES).enumerate() {
        let centre = chunk * LANES + radius;
        let dh_dx = derive(h_smooth, centre, 1, taps.derive);
        let dv_dy = smooth(v_derive, centre, 1, taps.smooth);
        let dh_dy = smooth(h_derive, centre, 1, taps.smooth);
        let dv_dx = derive(v_smooth, centre, 1, taps.derive);
        let mut ridge = [0; LANES];
        for l in 0..LANES {
            let difference = dh_dx[l] - dv_dy[l];
            let shear = dh_dy[l] + dv_dx[l];
            let spread = (difference * difference + shear * shear).sqrt();
            ridge[l] = scale.energy(0.5 * (dh_dx[l] + dv_dy[l] - spread));
        }
        out.copy_from_slice(&ridge[..out.len()]);
    }
}

/// Computes the energy of one span, a plane of `grid`, from the smaller of dh/dx and dv/dy of h and
/// v, planes of `band`.
#[inline(always)]
fn axes_span(
    span: Run,
    grid: &Grid,
    band: &Grid,
    taps: Taps,
    scale: EnergyScale,
    scratch: &mut Scratch,
) {
    let radius = taps.radius();
    let [h_smooth, h_derive, v_smooth, v_derive] = &mut scratch.rows;
    let (h, v) = (&scratch.h, &scratch.v);
    filter_columns(span, band, h, taps, h_smooth, h_derive);
    filter_columns(span, band, v, taps, v_smooth, v_derive);
    let energy = &mut scratch.energy[grid.start(span)..][..span.len()];
    for (chunk, out) in energy.chunks_mut(LANES).enumerate() {
        let centre = chunk * LANES + radius;
        let dh_dx = derive(h_smooth, centre, 1, taps.derive);
        let dv_dy = smooth(v_derive, centre, 1, taps.smooth);
        let mut ridge = [0; LANES];
        for l in 0..LANES {
            ridge[l] = scale.energy(dh_dx[l].min(dv_dy[l]));
        }
        out.copy_from_slice(&ridge[..out.len()]);
    }
}

/// Smooths and derives the columns of a span, and the kernel's radius more on either side, each into
/// a row of its own. Entry 0 of a row is column `span.x0 - radius`.
#[inline(always)]
fn filter_columns(
    span: Run,
    band: &Grid,
    plane: &[f32],
    taps: Taps,
    smoothed: &mut Vec<f32>,
    derived: &mut Vec<f32>,
) {
    let (first, columns) = make_room(span, band, taps.radius(), smoothed);
    make_room(span, band, taps.radius(), derived);
    let smoothed = smoothed[..columns].chunks_exact_mut(LANES);
    let derived = derived[..columns].chunks_exact_mut(LANES);
    for (chunk, (smoothed, derived)) in smoothed.zip(derived).enumerate() {
        let at = first + chunk * LANES;
        // Both read the same pixels: the compiler loads them once.
        smoothed.copy_from_slice(&smooth(plane, at, band.stride, taps.smooth));
        derived.copy_from_slice(&derive(plane, at, band.stride, taps.derive));
    }
}

/// Makes `row` long enough for the columns of a span and `radius` more on either side. Returns the
/// place of the first of them in a plane of `band`, and how many they are in whole chunks.
#[inline(always)]
fn make_room(span: Run, band: &Grid, radius: usize, row: &mut Vec<f32>) -> (usize, usize) {
    let columns = (span.len() + 2 * radius).next_multiple_of(LANES);
    // The pass along the row reads whole chunks, so it may read this much further; it uses none of
    // it.
    row.resize(columns + 2 * LANES, 0.0);
    (band.start(span) - radius, columns)
}

/// Smooths `LANES` neighbouring values of `plane`, each over pixels `step` apart.
#[inline(always)]
fn smooth(plane: &[f32], at: usize, step: usize, kernel: &[f32]) -> Lanes {
    let centre = lanes(plane, at);
    let mut sum: Lanes = std::array::from_fn(|l| kernel[0] * centre[l]);
    let (mut before, mut after) = (at, at);
    for &weight in &kernel[1..] {
        (before, after) = (before - step, after + step);
        let (b, a) = (lanes(plane, before), lanes(plane, after));
        sum = std::array::from_fn(|l| sum[l] + weight * (a[l] + b[l]));
    }
    sum
}

/// Derives `LANES` neighbouring values of `plane`, each over pixels `step` apart.
#[inline(always)]
fn derive(plane: &[f32], at: usize, step: usize, kernel: &[f32]) -> Lanes {
    let mut sum = [0.0; LANES];
    let (mut before, mut after) = (at, at);
    for &weight in &kernel[1..] {
        (before, after) = (before - step, after + step);
        let (b, a) = (lanes(plane, before), lanes(plane, after));
        sum = std::array::from_fn(|l| sum[l] + weight * (a[l] - b[l]));
    }
    sum
}

#[inline(always)]
fn lanes(plane: &[f32], at: usize) -> &Lanes {
    // The margin and the tail of a plane make room for every kernel, so the zeros are never used.
    plane[at..].first_chunk().unwrap_or(&[0.0; LANES])
}
