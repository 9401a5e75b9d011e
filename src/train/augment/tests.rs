//! Variations against other code: the `image` crate's change of size, libjpeg, and formulas px by px.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::*;

const SIDE: u32 = 64;

/// Something like tissue: smooth, with discs.
fn picture(seed: u64) -> RgbImage {
    let mut rng = Rng::with_seed(seed);
    let mut rgb = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        Rgb([220, 170 + (x / 2) as u8, 190 + (y / 2) as u8])
    });
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
    let (w, h) = (
        i64::from(pictures[0].width()),
        i64::from(pictures[0].height()),
    );
    let pixels = Tensor::from_slice(&bytes).view([n, h, w, 3]);
    pixels
        .permute([0, 3, 1, 2])
        .contiguous()
        .to_kind(Kind::Float)
}

/// Mean and greatest difference of crop `n` of `found` from `wanted`.
fn difference(found: &Tensor, n: i64, wanted: &RgbImage) -> [f64; 2] {
    let apart = (found.get(n) - tensor(std::slice::from_ref(wanted)).get(0)).abs();
    [
        apart.mean(Kind::Float).double_value(&[]),
        apart.max().double_value(&[]),
    ]
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

/// The Gauss filter in two dimensions by its definition, mirrored outside.
fn blurred(picture: &RgbImage, sigma: f64) -> Vec<f64> {
    let reach = (3.0 * sigma).ceil() as i64;
    let n = i64::from(SIDE);
    let mirrored = |i: i64| (if i < 0 { -1 - i } else { i.min(2 * n - 1 - i) }) as u32;
    let window = || (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)));
    let weight = |(dx, dy): (i64, i64)| (-0.5 * (dx * dx + dy * dy) as f64 / (sigma * sigma)).exp();
    let sum: f64 = window().map(weight).sum();
    let mut out = Vec::new();
    for channel in 0..3 {
        for y in 0..n {
            for x in 0..n {
                let value = |(dx, dy): (i64, i64)| {
                    let px = picture.get_pixel(mirrored(x + dx), mirrored(y + dy));
                    f64::from(px.0[channel]) * weight((dx, dy)) / sum
                };
                out.push(window().map(value).sum());
            }
        }
    }
    out
}

fn values(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(&t.to_kind(Kind::Double).reshape(-1)).unwrap()
}

#[test]
fn blur_and_sharpening_follow_their_definitions() {
    let picture = picture(3);
    let plain = values(&tensor(std::slice::from_ref(&picture)));
    for sigma in [0.5f32, 1.0, 1.5] {
        let drawn = Sharpen {
            sigma_px: sigma,
            amount: 0.8,
        };
        let found = [
            only(|v| v.blur_px = Some(sigma)),
            only(|v| v.sharpen = Some(drawn)),
        ]
        .map(|v| values(&vary_colours(tensor(std::slice::from_ref(&picture)), &[v])));
        let soft = blurred(&picture, f64::from(sigma));
        for (i, (x, soft)) in plain.iter().zip(soft).enumerate() {
            let sharp = (x + 0.8 * (x - soft)).clamp(0.0, 255.0);
            assert!(
                (found[0][i] - soft).abs() < 0.51,
                "{sigma}: {} for {soft}",
                found[0][i]
            );
            assert!(
                (found[1][i] - sharp).abs() < 0.51,
                "{sigma}: {} for {sharp}",
                found[1][i]
            );
        }
    }
}

#[test]
fn a_slide_of_lower_power_is_resized_as_the_image_crate_does() {
    let factors = [1.4f32, 2.3, 1.9];
    let pictures = [4, 5, 6].map(picture);
    let low = |factor: f32| {
        only(|v| {
            v.low_power = Some(LowPower {
                factor,
                sharpen: None,
            })
        })
    };
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
fn stain_and_light_follow_their_formulas() {
    let picture = picture(8);
    let stain = Stain {
        gain: [1.6, 0.7, 1.1],
        shift: [0.03, -0.02, 0.01],
    };
    let light = Light {
        gamma: 1.2,
        gain: [0.9, 0.95, 0.85],
    };
    let stained = vary_colours(
        tensor(std::slice::from_ref(&picture)),
        &[only(|v| v.stain = Some(stain))],
    );
    let lit = vary_colours(
        tensor(std::slice::from_ref(&picture)),
        &[only(|v| v.light = Some(light))],
    );
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
        let amounts = [0, 1, 2].map(new);
        for c in 0..3 {
            let place = [0, c as i64, i64::from(y), i64::from(x)];
            let density: f64 = amounts.iter().zip(rows).map(|(a, row)| a * row[c]).sum();
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

/// tests/fixtures/make_jpeg.py: libjpeg's own.
#[test]
fn jpeg_is_that_of_libjpeg() {
    let read = |name: &str| {
        let path = format!("{}/tests/fixtures/{name}.png", env!("CARGO_MANIFEST_DIR"));
        image::open(path).unwrap().to_rgb8()
    };
    let tissue = imageops::crop_imm(&read("tissue_cmu1_270"), 0, 0, 94, 94).to_image();
    let qualities = [35, 49, 91];
    let drawn = qualities.map(|quality| only(|v| v.jpeg_quality = Some(quality)));
    let found = vary_colours(tensor(&qualities.map(|_| tissue.clone())), &drawn);
    for (n, quality) in qualities.iter().enumerate() {
        let wanted = read(&format!("jpeg/{quality}"));
        let [mean, _] = difference(&found, n as i64, &wanted);
        let [lost, _] = difference(&tensor(std::slice::from_ref(&tissue)), 0, &wanted);
        // libjpeg's cosines are whole numbers: a coefficient between two steps may fall to either,
        // and its block with it. At high quality, rounding to bytes is most of what is lost.
        assert!(
            mean < 0.5 && mean < lost / 7.0,
            "{quality}: {mean}, of {lost}"
        );
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
