//! The rule on pictures made by hand, and its answers at both scales.

use super::*;
use image::Rgb;

/// A smooth but irregular picture in stain-like colours.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        let wave = (x * 0.31).sin() * (y * 0.27).cos() + 0.5 * (x * 0.05 + y * 0.09).sin();
        let dark = (wave.max(0.0) * 150.0).min(150.0);
        Rgb([
            (235.0 - dark) as u8,
            (215.0 - dark) as u8,
            (235.0 - 0.5 * dark) as u8,
        ])
    })
}

fn predict(patch: &RgbImage) -> PredictionMap {
    Analytic::new(8, Duration::ZERO)
        .predict(std::slice::from_ref(patch))
        .unwrap()
        .remove(0)
}

#[test]
fn unmixing_matches_scikit_image() {
    // numpy: inv(rows / norm)[:, 0] of skimage.color.rgb_from_hed, rows to unit length.
    for (mine, reference) in
        hematoxylin_row()
            .iter()
            .zip([1.874_787_45, -0.065_795_92, -0.600_883_25])
    {
        assert!((mine - reference).abs() < 1e-6, "{mine} {reference}");
    }
}

#[test]
fn a_pixel_does_not_depend_on_the_patch_that_shows_it() {
    let whole = picture(150, 130);
    let all = predict(&whole);
    for (x, y) in [(0, 0), (37, 21), (70, 58)] {
        let part = image::imageops::crop_imm(&whole, x, y, 80, 72).to_image();
        let map = predict(&part);
        assert_eq!((map.width, map.height), (64, 56));
        for row in 0..map.height {
            let mine = row * map.width..(row + 1) * map.width;
            let start = (row + y as usize) * all.width + x as usize;
            let theirs = start..start + map.width;
            assert_eq!(map.np[mine.clone()], all.np[theirs.clone()]);
            assert_eq!(map.h[mine.clone()], all.h[theirs.clone()]);
            assert_eq!(map.v[mine.clone()], all.v[theirs.clone()]);
            assert_eq!(
                map.tp[3 * mine.start..3 * mine.end],
                all.tp[3 * theirs.start..3 * theirs.end]
            );
        }
    }
}

#[test]
fn maps_match_a_plain_computation() {
    let patch = picture(64, 48);
    let map = predict(&patch);
    let row = hematoxylin_row();
    let density = |x: i32, y: i32| -> f64 {
        let pixel = patch.get_pixel(x as u32, y as u32).0;
        (0..3)
            .map(|c| -((f64::from(pixel[c]) + 1.0) / 256.0).ln() * row[c])
            .sum()
    };
    let weights = [1.0, 2.0, 3.0, 2.0, 1.0];
    let smooth = |x: i32, y: i32| -> f64 {
        let mut sum = 0.0;
        for dy in -2..=2i32 {
            for dx in -2..=2i32 {
                sum += weights[(dy + 2) as usize]
                    * weights[(dx + 2) as usize]
                    * density(x + dx, y + dy);
            }
        }
        sum / 81.0
    };
    let np = |x: i32, y: i32| 1.0 / (1.0 + (-(smooth(x, y) - NP_MIDDLE) / NP_WIDTH).exp());
    for (x, y) in [(0, 0), (10, 7), (47, 31), (20, 25)] {
        let at = y as usize * map.width + x as usize;
        let (cx, cy) = (x + 8, y + 8);
        let (mut total, mut mx, mut my) = (0.0, 0.0, 0.0);
        for dy in -5..=5i32 {
            for dx in -5..=5i32 {
                let m = np(cx + dx, cy + dy);
                total += m;
                mx += m * f64::from(dx);
                my += m * f64::from(dy);
            }
        }
        assert!((f64::from(map.np[at]) - np(cx, cy)).abs() < 0.01);
        assert!(
            (f64::from(map.h[at]) + mx / total * 0.4).abs() < 0.02,
            "{} {}",
            map.h[at],
            mx / total
        );
        assert!((f64::from(map.v[at]) + my / total * 0.4).abs() < 0.02);
    }
}

#[test]
fn h_and_v_rise_across_a_dark_disc() {
    let patch = RgbImage::from_fn(64, 64, |x, y| {
        let (dx, dy) = (f64::from(x) - 32.0, f64::from(y) - 32.0);
        if dx * dx + dy * dy <= 64.0 {
            Rgb([80, 60, 130])
        } else {
            Rgb([240, 225, 240])
        }
    });
    let map = predict(&patch);
    let at = |x: usize, y: usize| (y - 8) * map.width + (x - 8);
    assert!(map.np[at(32, 32)] > 0.9 && map.np[at(12, 12)] < 0.1);
    assert!(map.h[at(26, 32)] < -0.2 && map.h[at(38, 32)] > 0.2 && map.h[at(32, 32)].abs() < 1e-6);
    assert!(map.v[at(32, 26)] < -0.2 && map.v[at(32, 38)] > 0.2);
    let sum: f32 = map.tp[3 * at(32, 32)..3 * at(32, 32) + 3].iter().sum();
    assert!((sum - 1.0).abs() < 1e-6);
    assert!(map.tp[3 * at(32, 32) + 1] > 0.9, "a dark disc is dark");
}

#[test]
fn the_quantised_map_is_the_map_rounded() {
    for fine in [false, true] {
        let mut model = Analytic::new(32, Duration::ZERO).at_scale(fine);
        let patch = picture(192, 160);
        let patches = std::slice::from_ref(&patch);
        let map = model.predict(patches).unwrap().remove(0);
        let quantised = model.predict_quantised(patches).unwrap().remove(0);
        assert_eq!((quantised.width, quantised.height), (128, 96));
        assert!(quantised == map.quantised(), "fine: {fine}");
    }
}

#[test]
fn the_fine_rule_is_the_rule_on_means_of_four_pixels() {
    let patch = picture(200, 160);
    let half = RgbImage::from_fn(100, 80, |x, y| {
        let four = [(0, 0), (1, 0), (0, 1), (1, 1)];
        Rgb([0, 1, 2].map(|c| {
            let value = |(i, j)| f64::from(patch.get_pixel(2 * x + i, 2 * y + j).0[c]);
            (four.map(value).iter().sum::<f64>() / 4.0).round() as u8
        }))
    });
    let coarse = predict(&half);
    let mut model = Analytic::new(16, Duration::ZERO).at_scale(true);
    let fine = model.predict(&[patch]).unwrap().remove(0);
    assert_eq!(
        (fine.width, fine.height),
        (2 * coarse.width, 2 * coarse.height)
    );
    for y in 0..fine.height {
        for x in 0..fine.width {
            let (at, from) = (y * fine.width + x, y / 2 * coarse.width + x / 2);
            assert_eq!(fine.np[at], coarse.np[from]);
            assert_eq!((fine.h[at], fine.v[at]), (coarse.h[from], coarse.v[from]));
            assert_eq!(
                fine.tp[3 * at..3 * at + 3],
                coarse.tp[3 * from..3 * from + 3]
            );
        }
    }
    let odd = RgbImage::new(201, 160);
    assert!(model.predict(&[odd]).is_err());
}

#[test]
fn patches_too_small_are_refused() {
    let small = RgbImage::new(16, 40);
    assert!(Analytic::new(8, Duration::ZERO).predict(&[small]).is_err());
}
