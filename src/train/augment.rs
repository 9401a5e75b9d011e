//! Augmentation of colour and sharpness: crops as another scanner, another stain or another
//! laboratory would show them.
//!
//! In: a crop, a generator. Out: the crop with other colours; its geometry does not change. Stain
//! is varied in optical density along Ruifrok and Johnston's H, E and D vectors (the strongest
//! augmentation for H&E in Tellez et al. 2019).

use fastrand::Rng;
use image::{RgbImage, imageops};

/// Rows: optical density of hematoxylin, eosin and DAB in R, G and B (Ruifrok and Johnston 2001).
const STAINS: [[f32; 3]; 3] = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]];

/// Varies colours and sharpness of `rgb` by numbers drawn from `rng`.
pub fn vary_colours(mut rgb: RgbImage, rng: &mut Rng) -> RgbImage {
    if rng.f32() < 0.25 {
        rgb = imitate_low_power(&rgb, rng);
    }
    match rng.f32() {
        p if p < 0.15 => rgb = imageops::fast_blur(&rgb, 0.4 + 1.1 * rng.f32()),
        p if p < 0.3 => sharpen(
            &mut rgb,
            draw_uniform(rng, 0.7, 2.0),
            draw_uniform(rng, 0.3, 1.5),
        ),
        _ => {}
    }
    if rng.f32() < 0.8 {
        vary_stain(&mut rgb, rng);
    }
    if rng.f32() < 0.5 {
        vary_light(&mut rgb, rng);
    }
    if rng.f32() < 0.2 {
        add_noise(&mut rgb, rng);
    }
    if rng.f32() < 0.2 {
        rgb = compress_jpeg(rgb, rng);
    }
    rgb
}

fn draw_uniform(rng: &mut Rng, lo: f32, hi: f32) -> f32 {
    lo + rng.f32() * (hi - lo)
}

/// Unsharp mask, as scanners apply it, white rims included: adds `amount` times the difference from
/// a blur of `sigma_px`. A network that was trained without it misses half of the nuclei of an
/// Aperio 20x slide.
fn sharpen(rgb: &mut RgbImage, sigma_px: f32, amount: f32) {
    let blurred = imageops::fast_blur(rgb, sigma_px);
    for (px, soft) in rgb.pixels_mut().zip(blurred.pixels()) {
        for c in 0..3 {
            let v = f32::from(px.0[c]);
            px.0[c] = (v + amount * (v - f32::from(soft.0[c])) + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

/// Imitates a slide that was scanned at lower power (20x) and resampled.
fn imitate_low_power(rgb: &RgbImage, rng: &mut Rng) -> RgbImage {
    let (w, h) = rgb.dimensions();
    let factor = draw_uniform(rng, 1.4, 2.3);
    let small = |n: u32| ((n as f32 / factor) as u32).max(1);
    let mut down = imageops::resize(rgb, small(w), small(h), imageops::FilterType::Triangle);
    if rng.f32() < 0.6 {
        sharpen(
            &mut down,
            draw_uniform(rng, 0.5, 1.2),
            draw_uniform(rng, 0.3, 2.0),
        );
    }
    imageops::resize(&down, w, h, imageops::FilterType::CatmullRom)
}

/// Varies the amounts of the stains, and the optical density of the background.
fn vary_stain(rgb: &mut RgbImage, rng: &mut Rng) {
    let unmix = invert(&STAINS);
    let gain = [
        draw_uniform(rng, 0.65, 1.8),
        draw_uniform(rng, 0.5, 1.7),
        draw_uniform(rng, 0.6, 1.4),
    ];
    let shift = [
        draw_uniform(rng, -0.04, 0.04),
        draw_uniform(rng, -0.04, 0.04),
        draw_uniform(rng, -0.02, 0.02),
    ];
    // new OD = OD * unmix * diag(gain) * mix + shift * mix
    let mut matrix = [[0.0f32; 3]; 3];
    let mut offset = [0.0f32; 3];
    for c in 0..3 {
        for s in 0..3 {
            offset[c] += shift[s] * STAINS[s][c];
            for from in 0..3 {
                matrix[from][c] += unmix[from][s] * gain[s] * STAINS[s][c];
            }
        }
    }
    let od: Vec<f32> = (0..256)
        .map(|v| -((v as f32).max(1.0) / 255.0).ln())
        .collect();
    for px in rgb.pixels_mut() {
        let d = px.0.map(|v| od[usize::from(v)]);
        for c in 0..3 {
            let new = d[0] * matrix[0][c] + d[1] * matrix[1][c] + d[2] * matrix[2][c] + offset[c];
            px.0[c] = ((-new).exp() * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

/// Varies the brightness of the lamp, the white balance and gamma.
fn vary_light(rgb: &mut RgbImage, rng: &mut Rng) {
    let lamp = draw_uniform(rng, 0.65, 1.1);
    let gamma = draw_uniform(rng, -0.3, 0.3).exp();
    let table: Vec<Vec<u8>> = (0..3)
        .map(|_| {
            let gain = lamp * draw_uniform(rng, 0.93, 1.07);
            (0..256)
                .map(|v| {
                    ((v as f32 / 255.0).powf(gamma) * gain * 255.0 + 0.5).clamp(0.0, 255.0) as u8
                })
                .collect()
        })
        .collect();
    for px in rgb.pixels_mut() {
        for c in 0..3 {
            px.0[c] = table[c][usize::from(px.0[c])];
        }
    }
}

/// Adds noise of a standard deviation of 1 to 8 grey levels.
fn add_noise(rgb: &mut RgbImage, rng: &mut Rng) {
    let sigma = draw_uniform(rng, 1.0, 8.0);
    for px in rgb.pixels_mut() {
        for c in 0..3 {
            // The sum of four uniform numbers is close enough to a normal one.
            let n = (rng.f32() + rng.f32() + rng.f32() + rng.f32() - 2.0) * 1.73 * sigma;
            px.0[c] = (f32::from(px.0[c]) + n + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

/// Adds the artefacts of JPEG at a quality of 35 to 91.
fn compress_jpeg(rgb: RgbImage, rng: &mut Rng) -> RgbImage {
    let quality = rng.u8(35..92);
    let mut bytes = std::io::Cursor::new(Vec::new());
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    if rgb.write_with_encoder(encoder).is_err() {
        return rgb;
    }
    image::load_from_memory(bytes.get_ref()).map_or(rgb, |i| i.to_rgb8())
}

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
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity() {
        let inverse = invert(&STAINS);
        for (r, stain) in STAINS.iter().enumerate() {
            for c in 0..3 {
                let v: f32 = stain.iter().zip(&inverse).map(|(s, row)| s * row[c]).sum();
                let wanted = if r == c { 1.0 } else { 0.0 };
                assert!((v - wanted).abs() < 1e-5);
            }
        }
    }
}
