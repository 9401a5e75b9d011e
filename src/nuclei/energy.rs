//! h and v of a blob -> ridge energy.
//!
//! In: a blob and the constants of post-processing. Out: for every pixel of the blob an energy of `0..=255`, high
//! where two nuclei meet. Outside the blob h and v count as 0 and the energy is 255: nothing else is looked at.
//! All arithmetic on single pixels has one fixed order, so vector width and threads change no bit.

use super::foreground::{Foreground, HV_SCALE, Run};
use super::params::{EnergyRule, PostprocParams};
use super::plane::{Grid, LANES, Scratch, reset, spans};
use super::sobel::SobelKernel;

/// Energy of a ridge, and of every pixel outside the blob.
pub(super) const RIDGE: u8 = 255;

/// Fills `scratch.energy` for the blob; `scratch.kernel` is that of `params.sobel_px`.
///
/// energy = clamp((hv_hi - s) / (hv_hi - hv_lo), 0, 1) * 255, rounded, where s is the smaller of dh/dx and dv/dy
/// (`axes`, Graham et al. 2019, HoVer-Net, section 3.2) or the least eigenvalue of the symmetric part of the Jacobian
/// of (h, v) (`eigen`), in map units a px.
pub(super) fn ridge_energy(
    blob: &Foreground,
    params: &PostprocParams,
    grid: &Grid,
    scratch: &mut Scratch,
) {
    reset(&mut scratch.h, grid.len, 0.0);
    reset(&mut scratch.v, grid.len, 0.0);
    reset(&mut scratch.energy, grid.len, RIDGE);
    for (run, at) in blob.runs_with_offsets() {
        let to = grid.start(run);
        let (pixels, place) = (at..at + run.len(), to..to + run.len());
        scatter(&mut scratch.h[place.clone()], &blob.h[pixels.clone()]);
        scatter(&mut scratch.v[place], &blob.v[pixels]);
    }
    let ramp = Ramp::new(params);
    let kernel = std::mem::take(&mut scratch.kernel);
    // Runs nearer to each other than the kernel is wide would compute the same columns twice.
    for span in spans(blob, 2 * kernel.radius() as i32) {
        match params.energy {
            EnergyRule::Eigen => eigen_span(span, grid, &kernel, ramp, scratch),
            EnergyRule::Axes => axes_span(span, grid, &kernel, ramp, scratch),
        }
    }
    scratch.kernel = kernel;
    wall(blob, grid, &mut scratch.energy);
}

fn scatter(to: &mut [f32], from: &[i16]) {
    for (t, &f) in to.iter_mut().zip(from) {
        // HV_SCALE is a power of two: exact.
        *t = f32::from(f) * (1.0 / HV_SCALE);
    }
}

/// The spans cover gaps between runs too: those pixels are outside the blob.
fn wall(blob: &Foreground, grid: &Grid, energy: &mut [u8]) {
    for pair in blob.runs.windows(2) {
        if pair[0].y == pair[1].y {
            energy[grid.at(pair[0].x1, pair[0].y)..grid.start(pair[1])].fill(RIDGE);
        }
    }
}

/// From a slope to an energy.
#[derive(Clone, Copy)]
struct Ramp {
    hi: f32,
    per_slope: f32,
}

impl Ramp {
    fn new(params: &PostprocParams) -> Ramp {
        let width = (params.hv_hi - params.hv_lo).max(f32::MIN_POSITIVE);
        Ramp {
            hi: params.hv_hi,
            per_slope: (f32::from(RIDGE) / width).min(f32::MAX),
        }
    }

    #[inline(always)]
    fn energy(self, slope: f32) -> u8 {
        let energy = ((self.hi - slope) * self.per_slope).clamp(0.0, f32::from(RIDGE));
        (energy + 0.5) as u8
    }
}

type Lanes = [f32; LANES];

/// The energy of one span with the least eigenvalue.
fn eigen_span(span: Run, grid: &Grid, kernel: &SobelKernel, ramp: Ramp, scratch: &mut Scratch) {
    let radius = kernel.radius();
    let [h_smooth, h_derive, v_smooth, v_derive] = &mut scratch.rows;
    vertical(&scratch.h, span, grid, kernel, h_smooth, h_derive);
    vertical(&scratch.v, span, grid, kernel, v_smooth, v_derive);
    let energy = &mut scratch.energy[grid.start(span)..][..span.len()];
    for (chunk, out) in energy.chunks_mut(LANES).enumerate() {
        let centre = chunk * LANES + radius;
        let dh_dx = derive(h_smooth, centre, 1, &kernel.derive);
        let dv_dy = smooth(v_derive, centre, 1, &kernel.smooth);
        let dh_dy = smooth(h_derive, centre, 1, &kernel.smooth);
        let dv_dx = derive(v_smooth, centre, 1, &kernel.derive);
        let mut ridge = [0; LANES];
        for l in 0..LANES {
            let difference = dh_dx[l] - dv_dy[l];
            let shear = dh_dy[l] + dv_dx[l];
            let spread = (difference * difference + shear * shear).sqrt();
            ridge[l] = ramp.energy(0.5 * (dh_dx[l] + dv_dy[l] - spread));
        }
        out.copy_from_slice(&ridge[..out.len()]);
    }
}

/// The energy of one span with the smaller of dh/dx and dv/dy.
fn axes_span(span: Run, grid: &Grid, kernel: &SobelKernel, ramp: Ramp, scratch: &mut Scratch) {
    let radius = kernel.radius();
    let [h_smooth, h_derive, v_smooth, v_derive] = &mut scratch.rows;
    vertical(&scratch.h, span, grid, kernel, h_smooth, h_derive);
    vertical(&scratch.v, span, grid, kernel, v_smooth, v_derive);
    let energy = &mut scratch.energy[grid.start(span)..][..span.len()];
    for (chunk, out) in energy.chunks_mut(LANES).enumerate() {
        let centre = chunk * LANES + radius;
        let dh_dx = derive(h_smooth, centre, 1, &kernel.derive);
        let dv_dy = smooth(v_derive, centre, 1, &kernel.smooth);
        let mut ridge = [0; LANES];
        for l in 0..LANES {
            ridge[l] = ramp.energy(dh_dx[l].min(dv_dy[l]));
        }
        out.copy_from_slice(&ridge[..out.len()]);
    }
}

/// The columns of a span and `radius` more on either side, smoothed and derived downwards: entry 0 is column
/// `span.x0 - radius`.
fn vertical(
    plane: &[f32],
    span: Run,
    grid: &Grid,
    kernel: &SobelKernel,
    smoothed: &mut Vec<f32>,
    derived: &mut Vec<f32>,
) {
    let radius = kernel.radius();
    let columns = (span.len() + 2 * radius).next_multiple_of(LANES);
    // The horizontal pass works on whole chunks and may look this much further; what it finds there is not used.
    smoothed.resize(columns + 2 * LANES, 0.0);
    derived.resize(columns + 2 * LANES, 0.0);
    let first = grid.start(span) - radius;
    for column in (0..columns).step_by(LANES) {
        let at = first + column;
        smoothed[column..column + LANES].copy_from_slice(&smooth(
            plane,
            at,
            grid.stride,
            &kernel.smooth,
        ));
        derived[column..column + LANES].copy_from_slice(&derive(
            plane,
            at,
            grid.stride,
            &kernel.derive,
        ));
    }
}

/// `LANES` neighbouring values of `plane`, each smoothed over the pixels `step` apart.
#[inline(always)]
fn smooth(plane: &[f32], at: usize, step: usize, kernel: &[f32]) -> Lanes {
    let mut sum = lanes(plane, at);
    for value in &mut sum {
        *value *= kernel[0];
    }
    for (k, &weight) in kernel.iter().enumerate().skip(1) {
        let (before, after) = (lanes(plane, at - k * step), lanes(plane, at + k * step));
        for l in 0..LANES {
            sum[l] += weight * (after[l] + before[l]);
        }
    }
    sum
}

/// `LANES` neighbouring values of `plane`, each derived over the pixels `step` apart.
#[inline(always)]
fn derive(plane: &[f32], at: usize, step: usize, kernel: &[f32]) -> Lanes {
    let mut sum = [0.0; LANES];
    for (k, &weight) in kernel.iter().enumerate().skip(1) {
        let (before, after) = (lanes(plane, at - k * step), lanes(plane, at + k * step));
        for l in 0..LANES {
            sum[l] += weight * (after[l] - before[l]);
        }
    }
    sum
}

#[inline(always)]
fn lanes(plane: &[f32], at: usize) -> Lanes {
    let mut values = [0.0; LANES];
    values.copy_from_slice(&plane[at..at + LANES]);
    values
}
