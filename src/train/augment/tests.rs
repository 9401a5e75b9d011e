//! Variations against other code: the `image` crate's filters and JPEG, and formulas px by px.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::*;

const SIDE: u32 = 64;

/// Something like tissue: smooth, with discs.
fn picture(seed: u64) -> RgbImage {
    let mut rng = Rng::with_seed(seed);
    let mut rgb = RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([220, 170 + (x / 2) as u8, 190 + (y / 2) as u8]));
    for _ in 0..12 {
        let (cx, cy, r) = (rng.f32() * 64.0, rng.f32() * 64.0, 3.0 + rng.f32() * 5.0);
        let colour = [80 + rng.u8(0..60), 40 + rng.u8(0..60), 120 + rng.u8(0..60)];
        for (x, y, px) in rgb.enumerate_pixels_mut() {
            if (x as f32 - cx).hypot(y as f32 - cy) < r {
                px.0 = colour;
            }
        }
    }
    rgb
}

fn tensor(pictures: &[RgbImage]) -> Tensor {
    let n = pictures.len() as i64;
    let bytes: Vec<u8> = pictures.iter().flat_map(|p| p.as_raw().clone()).collect();
    let (w, h) = (i64::from(pictures[0].width()), i64::from(pictures[0].height()));
    let pixels = Tensor::from_slice(&bytes).view([n, h, w, 3]);
    pixels.permute([0, 3, 1, 2]).contiguous().to_kind(Kind::Float)
}

/// Mean and greatest difference of crop `n` of `found` from `wanted`.
fn difference(found: &Tensor, n: i64, wanted: &RgbImage) -> [f64; 2] {
    let apart = (found.get(n) - tensor(std::slice::from_ref(wanted)).get(0)).abs();
    [apart.mean(Kind::Float).double_value(&[]), apart.max().double_value(&[])]
}

fn only(part: impl FnOnce(&mut Variation)) -> Variation {
    let mut v = Variation::default();
    part(&mut v);
    v
}

#[test]
fn a_crop_without_a_variation_stays_and_its_neighbour_does_not() {
    let pictures = [picture(1), picture(2)];
    let blurred = only(|v| v.blur_px = Some(1.2));
    let found = vary_colours(tensor(&pictures), &[Variation::default(), blurred]);
    assert_eq!(difference(&found, 0, &pictures[0]), [0.0; 2]);
    assert!(difference(&found, 1, &pictures[1])[0] > 1.0);
    // The same alone as in company.
    let alone = vary_colours(tensor(&pictures[1..]), &[only(|v| v.blur_px = Some(1.2))]);
    assert!((alone.get(0) - found.get(1)).abs().max().double_value(&[]) <= 1.0);
}

#[test]
fn a_blur_is_that_of_the_image_crate() {
    for sigma in [0.5f32, 1.0, 1.5] {
        let found = vary_colours(tensor(&[picture(3)]), &[only(|v| v.blur_px = Some(sigma))]);
        let wanted = imageops::blur(&picture(3), sigma);
        // Its borders end where ours are mirrored.
        let inner = |t: &Tensor| t.narrow(1, 8, 48).narrow(2, 8, 48);
        let apart = (inner(&found.get(0)) - inner(&tensor(&[wanted]).get(0))).abs();
        assert!(apart.max().double_value(&[]) <= 2.0, "{sigma}: {apart}");
    }
}

#[test]
fn a_slide_of_lower_power_is_resized_as_the_image_crate_does() {
    let factors = [1.4f32, 2.3, 1.9];
    let pictures = [4, 5, 6].map(picture);
    let low = |factor: f32| only(|v| v.low_power = Some(LowPower { factor, sharpen: None }));
    let found = vary_colours(tensor(&pictures), &factors.map(low));
    for (n, (picture, factor)) in pictures.iter().zip(factors).enumerate() {
        let small = (SIDE as f32 / factor) as u32;
        let down = imageops::resize(picture, small, small, FilterType::Triangle);
        let wanted = imageops::resize(&down, SIDE, SIDE, FilterType::CatmullRom);
        let [mean, greatest] = difference(&found, n as i64, &wanted);
        // It rounds to bytes between its two passes and between the two sizes.
        assert!(mean < 0.5 && greatest <= 3.0, "{factor}: {mean} {greatest}");
    }
}

#[test]
fn a_sharpened_picture_is_it_and_a_part_of_its_difference_from_a_blur() {
    let x = tensor(&[picture(7)]);
    let drawn = Sharpen { sigma_px: 1.1, amount: 0.8 };
    let found = vary_colours(x.shallow_clone(), &[only(|v| v.sharpen = Some(drawn))]);
    let soft = tensor(&[imageops::blur(&picture(7), 1.1)]);
    let wanted = (&x + (&x - soft) * 0.8).clamp(0.0, 255.0);
    let inner = |t: &Tensor| t.narrow(2, 8, 48).narrow(3, 8, 48);
    let apart = (inner(&found) - inner(&wanted)).abs().max().double_value(&[]);
    assert!(apart <= 2.5, "{apart}");
    assert!((found - x).abs().max().double_value(&[]) > 20.0);
}

#[test]
fn stain_and_light_follow_their_formulas() {
    let picture = picture(8);
    let stain = Stain { gain: [1.6, 0.7, 1.1], shift: [0.03, -0.02, 0.01] };
    let light = Light { gamma: 1.2, gain: [0.9, 0.95, 0.85] };
    let stained = vary_colours(tensor(&[picture.clone()]), &[only(|v| v.stain = Some(stain))]);
    let lit = vary_colours(tensor(&[picture.clone()]), &[only(|v| v.light = Some(light))]);
    for (x, y, px) in picture.enumerate_pixels() {
        // Amounts a of the stains with sum a_s S_s = OD, by Cramer's rule.
        let density = px.0.map(|v| -(f64::from(v.max(1)) / 255.0).ln());
        let rows = STAINS.map(|row| row.map(f64::from));
        let det = |m: [[f64; 3]; 3]| {
            m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
                - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
                + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
        };
        let amount = |s: usize| {
            let mut changed = rows;
            changed[s] = density;
            det(changed) / det(rows)
        };
        let new = |s: usize| amount(s) * f64::from(stain.gain[s]) + f64::from(stain.shift[s]);
        for c in 0..3 {
            let place = [0, c as i64, i64::from(y), i64::from(x)];
            let density: f64 = (0..3).map(|s| new(s) * rows[s][c]).sum();
            let wanted = (255.0 * (-density).exp()).clamp(0.0, 255.0);
            assert!((stained.double_value(&place) - wanted).abs() <= 0.6);
            let wanted = (f64::from(px.0[c]) / 255.0).powf(1.2) * f64::from(light.gain[c]) * 255.0;
            assert!((lit.double_value(&place) - wanted.min(255.0)).abs() <= 0.51);
        }
    }
}

#[test]
fn noise_has_its_deviation_and_no_pattern() {
    let grey = tensor(&[RgbImage::from_pixel(SIDE, SIDE, Rgb([128; 3]))]);
    let with = |seed: i64| {
        let noisy = vary_colours(
            grey.shallow_clone(),
            &[only(|v| v.noise = Some(Noise { sigma: 6.0, seed }))],
        );
        noisy - 128.0
    };
    let (a, b) = (with(77), with(-3));
    let mean = |t: Tensor| t.mean(Kind::Float).double_value(&[]);
    assert!(mean(a.shallow_clone()).abs() < 0.2);
    assert!((mean(a.square()).sqrt() - 6.0).abs() < 0.2);
    // Neighbours, channels and seeds do not go together.
    let pairs = [
        &a * a.roll([1], [3]),
        &a * a.roll([1], [2]),
        &a * a.roll([1], [1]),
        &a * &b,
    ];
    for (n, product) in pairs.into_iter().enumerate() {
        assert!(mean(product).abs() < 1.2, "pair {n}");
    }
    assert!((with(77) - &a).abs().max().double_value(&[]) == 0.0);
}

#[test]
fn jpeg_is_that_of_the_image_crate() {
    // 270 px are no whole blocks.
    let odd = imageops::crop_imm(&picture(10), 0, 0, 62, 62).to_image();
    for (picture, qualities) in [(picture(9), [35, 60, 91]), (odd, [49, 50, 80])] {
        for quality in qualities {
            let mut bytes = std::io::Cursor::new(Vec::new());
            let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            picture.write_with_encoder(encoder).unwrap();
            let wanted = image::load_from_memory(bytes.get_ref()).unwrap().to_rgb8();
            let drawn = [only(|v| v.jpeg_quality = Some(quality))];
            let found = vary_colours(tensor(&[picture.clone()]), &drawn);
            let [mean, _] = difference(&found, 0, &wanted);
            let [lost, _] = difference(&tensor(&[picture.clone()]), 0, &wanted);
            // Coefficients that lie between two steps may fall to either.
            assert!(mean < 0.4 && mean < lost / 4.0, "{quality}: {mean}, of {lost}");
        }
    }
}

#[test]
fn variations_are_drawn_as_often_as_said() {
    let mut rng = Rng::with_seed(1);
    let drawn: Vec<_> = (0..4000).map(|_| Variation::draw(&mut rng)).collect();
    let share = |part: fn(&Variation) -> bool| {
        drawn.iter().filter(|v| part(v)).count() as f64 / drawn.len() as f64
    };
    let shares = [
        (share(|v| v.low_power.is_some()), 0.25),
        (share(|v| v.blur_px.is_some()), 0.15),
        (share(|v| v.sharpen.is_some()), 0.15),
        (share(|v| v.stain.is_some()), 0.8),
        (share(|v| v.light.is_some()), 0.5),
        (share(|v| v.noise.is_some()), 0.2),
        (share(|v| v.jpeg_quality.is_some()), 0.2),
    ];
    for (found, wanted) in shares {
        assert!((found - wanted).abs() < 0.03, "{found} for {wanted}");
    }
}
