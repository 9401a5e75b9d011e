//! Augmentation of colour and sharpness: crops as another scanner, another stain or another
//! laboratory would show them.
//!
//! In: crops on their device, and a [`Variation`] drawn for each. Out: the crops with other colours;
//! their geometry does not change. Stain is varied in optical density along Ruifrok and Johnston's
//! H, E and D vectors (the strongest augmentation for H&E in Tellez et al. 2019). All is tensor
//! operations; every random number comes from the variation, none from libtorch.

mod filters;
mod jpeg;

use fastrand::Rng;
use tch::{Device, Kind, Tensor};

use filters::{Kernel, blur_matrix, filter, resize_matrix};

/// Rows: optical density of hematoxylin, eosin and DAB in R, G and B (Ruifrok and Johnston 2001).
const STAINS: [[f32; 3]; 3] = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]];

/// What happens to one crop, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variation {
    low_power: Option<LowPower>,
    /// Blur of so many px.
    blur_px: Option<f32>,
    sharpen: Option<Sharpen>,
    stain: Option<Stain>,
    light: Option<Light>,
    noise: Option<Noise>,
    jpeg_quality: Option<u8>,
}

/// Unsharp mask, as scanners apply it, white rims included: adds `amount` times the difference from
/// a blur of `sigma_px`. A network that was trained without it misses half of the nuclei of an
/// Aperio 20x slide.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sharpen {
    sigma_px: f32,
    amount: f32,
}

/// A slide that was scanned at lower power (20x), sharpened there or not, and resampled.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LowPower {
    factor: f32,
    sharpen: Option<Sharpen>,
}

/// Factors of the amounts of the stains, and what is added to their densities.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stain {
    gain: [f32; 3],
    shift: [f32; 3],
}

/// Gamma, and the brightness of the lamp in red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Light {
    gamma: f32,
    gain: [f32; 3],
}

/// Noise of a standard deviation in grey levels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Noise {
    sigma: f32,
    seed: i64,
}

impl Variation {
    /// Draws what happens to one crop.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut v = Self::default();
        if rng.f32() < 0.25 {
            v.low_power = Some(LowPower {
                factor: draw_uniform(rng, 1.4, 2.3),
                sharpen: (rng.f32() < 0.6).then(|| Sharpen {
                    sigma_px: draw_uniform(rng, 0.5, 1.2),
                    amount: draw_uniform(rng, 0.3, 2.0),
                }),
            });
        }
        match rng.f32() {
            p if p < 0.15 => v.blur_px = Some(draw_uniform(rng, 0.4, 1.5)),
            p if p < 0.3 => {
                v.sharpen = Some(Sharpen {
                    sigma_px: draw_uniform(rng, 0.7, 2.0),
                    amount: draw_uniform(rng, 0.3, 1.5),
                });
            }
            _ => {}
        }
        if rng.f32() < 0.8 {
            v.stain = Some(Stain::draw(rng));
        }
        if rng.f32() < 0.5 {
            v.light = Some(Light::draw(rng));
        }
        if rng.f32() < 0.2 {
            let sigma = draw_uniform(rng, 1.0, 8.0);
            let seed = i64::from_ne_bytes(rng.u64(..).to_ne_bytes());
            v.noise = Some(Noise { sigma, seed });
        }
        if rng.f32() < 0.2 {
            v.jpeg_quality = Some(rng.u8(35..92));
        }
        v
    }
}

impl Stain {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            gain: [
                draw_uniform(rng, 0.65, 1.8),
                draw_uniform(rng, 0.5, 1.7),
                draw_uniform(rng, 0.6, 1.4),
            ],
            shift: [
                draw_uniform(rng, -0.04, 0.04),
                draw_uniform(rng, -0.04, 0.04),
                draw_uniform(rng, -0.02, 0.02),
            ],
        }
    }
}

impl Light {
    fn draw(rng: &mut Rng) -> Self {
        let lamp = draw_uniform(rng, 0.65, 1.1);
        let gamma = draw_uniform(rng, -0.3, 0.3).exp();
        let gain = std::array::from_fn(|_| lamp * draw_uniform(rng, 0.93, 1.07));
        Self { gamma, gain }
    }
}

fn draw_uniform(rng: &mut Rng, lo: f32, hi: f32) -> f32 {
    lo + rng.f32() * (hi - lo)
}

/// Varies each crop of `rgb` (float `[N, 3, side, side]`, 0 to 255) by its variation; whole numbers.
pub fn vary_colours(rgb: Tensor, variations: &[Variation]) -> Tensor {
    let rgb = vary_some(rgb, variations, |v| v.low_power, imitate_low_power);
    let rgb = vary_some(rgb, variations, |v| v.blur_px, blur);
    let rgb = vary_some(rgb, variations, |v| v.sharpen, sharpen);
    let rgb = vary_some(rgb, variations, |v| v.stain, vary_stain);
    let rgb = vary_some(rgb, variations, |v| v.light, vary_light);
    let rgb = vary_some(rgb, variations, |v| v.noise, add_noise);
    let rgb = vary_some(rgb, variations, |v| v.jpeg_quality, jpeg::compress);
    rgb.round()
}

/// Applies `vary` to those crops for which `part` is drawn, and leaves the others.
fn vary_some<T>(
    rgb: Tensor,
    variations: &[Variation],
    part: impl Fn(&Variation) -> Option<T>,
    vary: impl Fn(&Tensor, &[T]) -> Tensor,
) -> Tensor {
    let drawn = variations.iter().zip(0i64..);
    let drawn = drawn.filter_map(|(v, n)| Some((n, part(v)?)));
    let (numbers, parts): (Vec<i64>, Vec<T>) = drawn.unzip();
    if numbers.is_empty() {
        return rgb;
    }
    if numbers.len() == variations.len() {
        return vary(&rgb, &parts).clamp(0.0, 255.0);
    }
    let chosen = Tensor::from_slice(&numbers).to_device(rgb.device());
    let varied = vary(&rgb.index_select(0, &chosen), &parts).clamp(0.0, 255.0);
    rgb.index_copy(0, &chosen, &varied)
}

/// `numbers` of each crop as float `[N, K, 1, 1]`.
fn of_crops<const K: usize>(numbers: impl Iterator<Item = [f32; K]>, device: Device) -> Tensor {
    let flat: Vec<f32> = numbers.flatten().collect();
    Tensor::from_slice(&flat)
        .view([-1, K as i64, 1, 1])
        .to_device(device)
}

fn blur(x: &Tensor, sigmas_px: &[f32]) -> Tensor {
    let side = x.size()[2] as usize;
    let matrices = sigmas_px.iter().map(|&s| blur_matrix(side, side, s));
    filter(x, &filters::stack(matrices, [side, side], x.device()))
}

fn sharpen(x: &Tensor, drawn: &[Sharpen]) -> Tensor {
    let sigmas: Vec<f32> = drawn.iter().map(|s| s.sigma_px).collect();
    let amounts = of_crops(drawn.iter().map(|s| [s.amount]), x.device());
    x + amounts * (x - blur(x, &sigmas))
}

fn imitate_low_power(x: &Tensor, drawn: &[LowPower]) -> Tensor {
    let (side, device) = (x.size()[2] as usize, x.device());
    let small = |d: &LowPower| ((side as f32 / d.factor) as usize).max(1);
    // Crops of less than the greatest size leave the rest of it empty.
    let room = drawn.iter().map(small).max().unwrap_or(1);
    let down = drawn
        .iter()
        .map(|d| resize_matrix([side, side], [small(d), room], Kernel::Triangle));
    let low = filter(x, &filters::stack(down, [room, side], device));
    let soft = drawn.iter().map(|d| {
        let sigma = d.sharpen.map_or(0.0, |s| s.sigma_px);
        blur_matrix(small(d), room, sigma)
    });
    let soft = filter(&low, &filters::stack(soft, [room, room], device));
    let amount = |d: &LowPower| [d.sharpen.map_or(0.0, |s| s.amount)];
    let amounts = of_crops(drawn.iter().map(amount), device);
    let sharp = (&low + amounts * (&low - soft)).clamp(0.0, 255.0);
    let up = drawn
        .iter()
        .map(|d| resize_matrix([small(d), room], [side, side], Kernel::CatmullRom));
    filter(&sharp, &filters::stack(up, [side, room], device))
}

/// Varies the amounts of the stains, and the optical density of the background: new OD = OD *
/// unmix * diag(gain) * mix + shift * mix.
fn vary_stain(x: &Tensor, drawn: &[Stain]) -> Tensor {
    let unmix = invert(&STAINS);
    let matrix = |d: &Stain| -> [f32; 9] {
        std::array::from_fn(|i| {
            let (to, from) = (i / 3, i % 3);
            let through = |s: usize| unmix[from][s] * d.gain[s] * STAINS[s][to];
            (0..3).map(through).sum()
        })
    };
    let offset = |d: &Stain| -> [f32; 3] {
        std::array::from_fn(|c| (0..3).map(|s| d.shift[s] * STAINS[s][c]).sum())
    };
    let matrices = of_crops(drawn.iter().map(matrix), x.device()).view([-1, 3, 3]);
    let offsets = of_crops(drawn.iter().map(offset), x.device()).squeeze_dim(3);
    let density = -(x.flatten(2, 3).clamp_min(1.0) / 255.0).log();
    let density = matrices.matmul(&density) + offsets;
    ((-density).exp() * 255.0).view_as(x)
}

/// Varies the brightness of the lamp, the white balance and gamma.
fn vary_light(x: &Tensor, drawn: &[Light]) -> Tensor {
    let gamma = of_crops(drawn.iter().map(|d| [d.gamma]), x.device());
    let gain = of_crops(drawn.iter().map(|d| d.gain), x.device());
    (x / 255.0).pow(&gamma) * gain * 255.0
}

/// Adds to each value a sum of four uniform numbers, which is close enough to a normal one: the
/// four parts of a 64-bit hash (SplitMix64, Steele et al. 2014) of the seed and the value's place.
fn add_noise(x: &Tensor, drawn: &[Noise]) -> Tensor {
    let device = x.device();
    let seeds: Vec<i64> = drawn.iter().map(|d| d.seed).collect();
    let seeds = Tensor::from_slice(&seeds).view([-1, 1]).to_device(device);
    let values = x.numel() as i64 / drawn.len() as i64;
    let places = Tensor::arange(values, (Kind::Int64, device));
    let shifted = |z: &Tensor, bits: i64| {
        let filled = z.bitwise_right_shift_tensor_scalar(bits);
        // int64 is signed: the sign must not fill the upper bits.
        z.bitwise_xor_tensor(&filled.bitwise_and((1i64 << (64 - bits)) - 1))
    };
    let z = (places + 1) * GOLDEN + seeds;
    let z = shifted(&z, 30) * MIX_1;
    let z = shifted(&z, 27) * MIX_2;
    let z = shifted(&z, 31);
    let part = |bits: i64| {
        z.bitwise_right_shift_tensor_scalar(bits)
            .bitwise_and(0xffff)
    };
    let sum = (part(0) + part(16) + part(32) + part(48)).to_kind(Kind::Float);
    // Four uniform numbers have a mean of 2 and a variance of 1/3.
    let normal = (sum / 65536.0 - 2.0) * 3f64.sqrt();
    let sigmas = of_crops(drawn.iter().map(|d| [d.sigma]), device);
    x + normal.view_as(x) * sigmas
}

/// SplitMix64's constants as signed numbers.
const GOLDEN: i64 = 0x9E37_79B9_7F4A_7C15_u64.cast_signed();
const MIX_1: i64 = 0xBF58_476D_1CE4_E5B9_u64.cast_signed();
const MIX_2: i64 = 0x94D0_49BB_1331_11EB_u64.cast_signed();

/// Inverts a 3 x 3 matrix by cofactors.
fn invert(m: &[[f32; 3]; 3]) -> [[f32; 3]; 3] {
    let cofactor = |r: usize, c: usize| {
        let (a, b) = ((r + 1) % 3, (r + 2) % 3);
        let (d, e) = ((c + 1) % 3, (c + 2) % 3);
        m[a][d] * m[b][e] - m[a][e] * m[b][d]
    };
    let det: f32 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
    let mut out = [[0.0; 3]; 3];
    for (r, row) in out.iter_mut().enumerate() {
        for (c, v) in row.iter_mut().enumerate() {
            *v = cofactor(c, r) / det;
        }
    }
    out
}

#[cfg(test)]
mod tests;
