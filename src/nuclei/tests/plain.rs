//! The fast kernels against simple versions of the same rules.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::nuclei::bit_plane::BitPlane;
use crate::nuclei::energy::ridge_energy;
use crate::nuclei::foreground::HV_SCALE;
use crate::nuclei::morphology::{Window, dilate, disc, erode, fill_holes};
use crate::nuclei::plane::{Grid, Scratch};
use crate::nuclei::sobel::SobelKernel;
use crate::nuclei::watershed::{
    OUTSIDE, UNLABELLED, flood_by_arrays, flood_by_lists, smooth_energy,
};

fn flood_fill(fg: &Foreground) -> Vec<Vec<(i32, i32)>> {
    let order = pixels(fg);
    let mut unseen: BTreeMap<(i32, i32), ()> = order.iter().map(|&p| (p, ())).collect();
    let mut parts = Vec::new();
    for first in order {
        if unseen.remove(&first).is_none() {
            continue;
        }
        let mut part = vec![first];
        let mut done = 0;
        while done < part.len() {
            let (y, x) = part[done];
            done += 1;
            for n in [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)] {
                if unseen.remove(&n).is_some() {
                    part.push(n);
                }
            }
        }
        part.sort();
        parts.push(part);
    }
    parts
}

#[test]
fn components_are_those_of_a_flood_fill() {
    for seed in 0..30 {
        let fg = foreground(seed, 40 + seed as usize, 70, (-20, -31));
        let blobs = components(&fg);
        let found: Vec<_> = blobs.iter().map(pixels).collect();
        assert_eq!(found, flood_fill(&fg), "seed {seed}");
        assert_eq!(Foreground::merge(&blobs), fg, "seed {seed}");
        assert_eq!(into_components(fg), blobs, "seed {seed}");
        let alone = blobs[0].clone();
        assert_eq!(into_components(alone), blobs[..1], "seed {seed}");
    }
    assert!(components(&Foreground::default()).is_empty());
    assert!(into_components(Foreground::default()).is_empty());
}

/// h or v at a pixel, 0 outside the blob.
type Field = BTreeMap<(i32, i32), f32>;

/// The slope at one pixel: the separable pair of kernels, columns first, with additions in the
/// order of the fast kernel.
fn slope(field: &Field, (y, x): (i32, i32), kernel: &SobelKernel, derive_down: bool) -> f32 {
    let at = |y, x| field.get(&(y, x)).copied().unwrap_or(0.0);
    let pass = |derive: bool, value: &dyn Fn(i32) -> f32| {
        let weights = if derive {
            &kernel.derive
        } else {
            &kernel.smooth
        };
        let sign = if derive { -1.0 } else { 1.0 };
        let start = if derive { 0.0 } else { value(0) * weights[0] };
        let pairs = weights.iter().zip(0..).skip(1);
        pairs.fold(start, |sum, (w, k)| sum + w * (value(k) + sign * value(-k)))
    };
    pass(!derive_down, &|dx| {
        pass(derive_down, &|dy| at(y + dy, x + dx))
    })
}

fn plain_energy(blob: &Foreground, params: &PostprocParams) -> Vec<u8> {
    let mut kernel = SobelKernel::default();
    kernel.set_side(params.sobel_px);
    let field = |values: &[i16]| -> Field {
        let scaled = values.iter().map(|&q| f32::from(q) / HV_SCALE);
        pixels(blob).into_iter().zip(scaled).collect()
    };
    let (h, v) = (field(&blob.h), field(&blob.v));
    let width = params.hv_hi - params.hv_lo;
    let energy = |p| {
        let (h_x, v_y) = (slope(&h, p, &kernel, false), slope(&v, p, &kernel, true));
        let s = match params.energy {
            EnergyRule::Axes => h_x.min(v_y),
            EnergyRule::Eigen => {
                let shear = slope(&h, p, &kernel, true) + slope(&v, p, &kernel, false);
                let spread = ((h_x - v_y) * (h_x - v_y) + shear * shear).sqrt();
                0.5 * (h_x + v_y - spread)
            }
        };
        (((params.hv_hi - s) * (255.0 / width)).clamp(0.0, 255.0) + 0.5) as u8
    };
    pixels(blob).into_iter().map(energy).collect()
}

#[test]
fn energy_is_that_of_plain_convolution() {
    // The last are taller than the rows that are laid out at a time.
    for (seed, side, height) in [
        (0, 3, 48),
        (1, 5, 48),
        (2, 9, 48),
        (3, 11, 48),
        (4, 21, 48),
        (5, 9, 150),
        (6, 21, 129),
    ] {
        let fg = foreground(seed, 64, height, (-5, 7));
        for energy in BOTH {
            let params = PostprocParams {
                sobel_px: side,
                ..constants(energy)
            };
            let mut scratch = Scratch::default();
            scratch.kernel.set_side(side);
            let grid = Grid::new(fg.bounds(), scratch.kernel.radius().max(3), MPP);
            ridge_energy(&fg, &params, &grid, &mut scratch);
            let found: Vec<u8> = pixels(&fg)
                .iter()
                .map(|&(y, x)| scratch.energy[grid.at(x, y)])
                .collect();
            assert!(
                found == plain_energy(&fg, &params),
                "side {side} {energy:?}"
            );
            let outside = scratch.energy.iter().filter(|&&e| e < 255).count();
            assert!(outside <= fg.len(), "energy outside the blob is 255");
        }
    }
}

fn plane(seed: u64, side: usize, margin: usize, percent: u32) -> (Vec<u8>, Window) {
    let mut dice = Dice::new(seed);
    let stride = side + 2 * margin;
    let window = Window {
        start: margin * stride + margin,
        stride,
        width: side,
        height: side,
    };
    let mut image = vec![0; stride * stride];
    for y in 0..side {
        for x in 0..side {
            image[window.start + y * stride + x] = u8::from(dice.below(100) < percent);
        }
    }
    (image, window)
}

fn at(window: &Window, x: usize, y: usize) -> usize {
    window.start + y * window.stride + x
}

#[test]
fn opening_is_that_of_plain_sets() {
    for (seed, diameter) in (0..40).zip([1, 2, 3, 4, 5, 7].into_iter().cycle()) {
        let (image, window) = plane(seed, 30, 8, 80);
        let disc = disc(diameter);
        let offsets: Vec<(i32, i32)> = disc
            .iter()
            .flat_map(|row| (row.left..=row.right).map(|dx| (dx, row.dy)))
            .collect();
        let mut eroded = vec![0; image.len()];
        erode(&image, &mut eroded, window, &disc);
        let mut opened = image.clone();
        dilate(&eroded, &mut opened, window, &disc);
        // The union of all discs that fit.
        let mut expected = vec![0; image.len()];
        for y in 0..30 {
            for x in 0..30 {
                let place = |&(dx, dy): &(i32, i32)| {
                    at(&window, x, y)
                        .wrapping_add_signed(dy as isize * window.stride as isize + dx as isize)
                };
                if offsets.iter().all(|o| image[place(o)] == 1) {
                    offsets.iter().for_each(|o| expected[place(o)] = 1);
                }
            }
        }
        assert!(opened == expected, "seed {seed} diameter {diameter}");
    }
}

#[test]
fn holes_are_what_a_flood_from_outside_does_not_reach() {
    for seed in 0..40 {
        let (mut image, window) = plane(seed, 25, 1, 45 + seed as u32 % 30);
        let mut outside = vec![false; image.len()];
        let mut queue = VecDeque::from([0]);
        outside[0] = true;
        while let Some(p) = queue.pop_front() {
            let (x, y) = (p % window.stride, p / window.stride);
            let mut reach = |n: usize| {
                if image[n] == 0 && !outside[n] {
                    outside[n] = true;
                    queue.push_back(n);
                }
            };
            if x > 0 {
                reach(p - 1);
            }
            if y > 0 {
                reach(p - window.stride);
            }
            if x + 1 < window.stride {
                reach(p + 1);
            }
            if y + 1 < window.stride {
                reach(p + window.stride);
            }
        }
        fill_holes(&mut image, window, &mut Vec::new(), &mut Vec::new());
        let expected: Vec<u8> = outside.iter().map(|&o| u8::from(!o)).collect();
        assert!(image == expected, "seed {seed}");
    }
}

/// 16 times the mean under the kernel [1 2 1] x [1 2 1] / 16.
fn smoothed(energy: &[u8], pixel: usize, stride: usize) -> usize {
    let row = |at: usize| {
        let row = &energy[at - 1..at + 2];
        usize::from(row[0]) + 2 * usize::from(row[1]) + usize::from(row[2])
    };
    row(pixel - stride) + 2 * row(pixel) + row(pixel + stride)
}

/// The same picture as bits, of rows of `width` pixels.
fn bit_plane(image: &[u8], window: Window) -> BitPlane {
    let mut bits = BitPlane::default();
    bits.reset(window.width, window.height);
    for y in 0..window.height {
        let from = window.start + y * window.stride;
        let unset: Vec<u8> = image[from..from + window.width]
            .iter()
            .map(|b| 1 - b)
            .collect();
        // In two parts, of which the second does not begin with a word.
        let (left, right) = unset.split_at(window.width / 3);
        bits.set_below(0, y, left, 1);
        bits.set_below(left.len(), y, right, 1);
    }
    bits
}

#[test]
fn bits_are_opened_and_filled_as_bytes_are() {
    let sides = [1, 2, 30, 63, 64, 65, 130].into_iter().cycle();
    let diameters = [2, 3, 4, 5, 7, 31].into_iter().cycle();
    for ((seed, side), diameter) in (0..84).zip(sides).zip(diameters) {
        let disc = disc(diameter);
        let (mut image, window) = plane(seed, side, 16, if seed % 2 == 0 { 90 } else { 55 });
        let (mut bits, mut wide) = (bit_plane(&image, window), BitPlane::default());
        let (mut eroded, mut eroded_bits) = (vec![0; image.len()], BitPlane::default());
        erode(&image, &mut eroded, window, &disc);
        bits.erode(&disc, &mut eroded_bits, &mut wide);
        assert!(eroded_bits == bit_plane(&eroded, window), "seed {seed}");
        let mut opened_bits = BitPlane::default();
        let mut opened = vec![0; image.len()];
        dilate(&eroded, &mut opened, window, &disc);
        eroded_bits.dilate(&disc, &mut opened_bits, &mut wide);
        assert!(opened_bits == bit_plane(&opened, window), "seed {seed}");
        fill_holes(&mut image, window, &mut vec![], &mut vec![]);
        bits.fill_holes(&mut vec![], &mut vec![]);
        assert!(bits == bit_plane(&image, window), "seed {seed}");
        let mut runs = vec![];
        let columns = side / 4..side - side / 5;
        for y in 0..side {
            bits.runs_within(columns.start, columns.end, y, |x0, x1| {
                runs.extend((x0..x1).map(|x| (y, x)));
            });
        }
        let pixels = (0..side).flat_map(|y| columns.clone().map(move |x| (y, x)));
        let set: Vec<_> = pixels
            .filter(|&(y, x)| image[at(&window, x, y)] == 1)
            .collect();
        assert_eq!(runs, set, "seed {seed}");
    }
}

#[test]
fn flood_takes_pixels_by_level_then_age() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let fg = foreground(seed, 30, 40, (3, -9));
        let grid = Grid::new(fg.bounds(), 2, MPP);
        let mut energy = vec![255u8; grid.len];
        let mut label = vec![OUTSIDE; grid.len];
        let levels = 2 + dice.below(30);
        for &(y, x) in &pixels(&fg) {
            // Mostly plateaus, where the order of the queue decides.
            energy[grid.at(x, y)] = if dice.below(12) == 0 {
                dice.below(levels) as u8
            } else {
                0
            };
            label[grid.at(x, y)] = UNLABELLED;
        }
        let mut markers = Vec::new();
        for &run in &fg.runs {
            if dice.below(6) == 0 {
                let x0 = run.x0 + dice.below(run.len() as u32) as i32;
                let run = Run {
                    x0,
                    x1: x0 + 1,
                    ..run
                };
                markers.push(run);
                let from = grid.start(run);
                label[from..from + run.len()].fill(markers.len() as u32);
            }
        }
        let mut expected = label.clone();
        let mut queue = BTreeMap::new();
        let mut age = 0;
        for run in &markers {
            for p in grid.start(*run)..grid.start(*run) + run.len() {
                queue.insert((smoothed(&energy, p, grid.stride), age), p);
                age += 1;
            }
        }
        while let Some(((level, _), p)) = queue.pop_first() {
            for n in [p - grid.stride, p - 1, p + 1, p + grid.stride] {
                if expected[n] == UNLABELLED {
                    expected[n] = expected[p];
                    let height = smoothed(&energy, n, grid.stride).max(level);
                    queue.insert((height, age), n);
                    age += 1;
                }
            }
        }
        for flood in [flood_by_lists, flood_by_arrays] {
            let mut scratch = Scratch {
                energy: energy.clone(),
                label: label.clone(),
                runs: markers.clone(),
                ..Scratch::default()
            };
            smooth_energy(&fg, &grid, &mut scratch);
            flood(&grid, &mut scratch);
            assert!(scratch.label == expected, "seed {seed}");
        }
    }
}
