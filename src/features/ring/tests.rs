//! Against SciPy and scikit-image (tests/fixtures/make_ring.py, whose formulas these are).

use image::{Rgb, RgbImage, imageops};

use super::*;
use crate::nuclei::Run;

const WIDTH: i32 = 90;
const HEIGHT: i32 = 1100;
const SLIDE: Rect = Rect::new(0, 0, WIDTH, HEIGHT);

fn picture() -> RgbImage {
    RgbImage::from_fn(WIDTH as u32, HEIGHT as u32, |x, y| {
        Rgb([
            ((x * 37 + y * 91) % 256) as u8,
            ((x * x + y * 13) % 256) as u8,
            ((x * 5 + y * y) % 251) as u8,
        ])
    })
}

/// The ellipses as nuclei. A pixel in several ellipses belongs to the first. `None`: no pixel is
/// left.
fn nuclei(ellipses: &[[i32; 4]]) -> Vec<Option<Nucleus>> {
    let mut taken = vec![false; SLIDE.area() as usize];
    let mut nuclei = Vec::new();
    for &[cx, cy, a, b] in ellipses {
        let bbox = Rect::new(cx - a, cy - b, 2 * a + 1, 2 * b + 1).intersect(&SLIDE);
        let mut runs = Vec::new();
        for y in bbox.y..bbox.bottom() {
            for x in bbox.x..bbox.right() {
                let inside = ((x - cx) * b).pow(2) + ((y - cy) * a).pow(2) <= (a * b).pow(2);
                let place = (y * WIDTH + x) as usize;
                if inside && !std::mem::replace(&mut taken[place], true) {
                    runs.push(Run {
                        y,
                        x0: x,
                        x1: x + 1,
                    });
                }
            }
        }
        nuclei.push((!runs.is_empty()).then(|| Nucleus::from_runs(&runs)));
    }
    nuclei
}

fn measured(nuclei: &[Nucleus], mpp: [f64; 2]) -> Option<Vec<Ring>> {
    let picture = picture();
    let around = Around {
        slide: SLIDE,
        mpp,
        pixels: |field: Rect, _: &[bool]| {
            let [x, y, w, h] = [field.x, field.y, field.w, field.h].map(|v| v as u32);
            Some(imageops::crop_imm(&picture, x, y, w, h).to_image())
        },
    };
    let all: Vec<usize> = (0..nuclei.len()).collect();
    let mut found = rings(nuclei, &all, &around, &AtomicBool::new(false))?;
    found.sort_by_key(|(place, _)| *place);
    assert!(found.iter().map(|(place, _)| *place).eq(0..nuclei.len()));
    Some(found.into_iter().map(|(_, ring)| ring).collect())
}

#[test]
fn rings_are_those_of_scipy_and_scikit_image() {
    let text = include_str!("../../../tests/fixtures/ring.json");
    let fixture: serde_json::Value = serde_json::from_str(text).unwrap();
    let ellipses: Vec<[i32; 4]> = serde_json::from_value(fixture["ellipses"].clone()).unwrap();
    let all = nuclei(&ellipses);
    let there: Vec<Nucleus> = all.iter().flatten().cloned().collect();
    let mut compared = 0;
    for case in fixture["cases"].as_array().unwrap() {
        let mpp: [f64; 2] = serde_json::from_value(case["mpp"].clone()).unwrap();
        let expected = case["rings"].as_array().unwrap();
        assert_eq!(expected.len(), all.len());
        let expected = expected.iter().filter(|row| !row.is_null());
        let found = measured(&there, mpp).unwrap();
        assert_eq!(expected.clone().count(), found.len());
        for (row, ring) in expected.zip(&found) {
            let row: [f64; 5] = serde_json::from_value(row.clone()).unwrap();
            assert_eq!(f64::from(ring.area_px), row[0], "{mpp:?}: {row:?}");
            let [h, e] = [ring.hematoxylin_od(), ring.eosin_od()];
            for (found, expected) in h.into_iter().chain(e).zip(&row[1..]) {
                // Each pixel's density is rounded to 1/10000.
                assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
            }
            compared += 1;
        }
    }
    assert!(compared > 120, "{compared}");
}

#[test]
fn neither_order_nor_distant_nuclei_change_a_ring() {
    let all: Vec<Nucleus> = nuclei(&[[20, 30, 6, 6], [33, 30, 6, 6], [60, 900, 9, 5]])
        .into_iter()
        .flatten()
        .collect();
    let rings = measured(&all, [0.25; 2]).unwrap();
    let turned: Vec<Nucleus> = all.iter().rev().cloned().collect();
    let mut of_turned = measured(&turned, [0.25; 2]).unwrap();
    of_turned.reverse();
    assert_eq!(rings, of_turned);
    let alone = measured(&all[2..], [0.25; 2]).unwrap();
    assert_eq!(alone, rings[2..]);
    // The second nucleus covers a part of the first one's ring.
    let first_alone = measured(&all[..1], [0.25; 2]).unwrap();
    assert!(first_alone[0].area_px > rings[0].area_px);
}

#[test]
fn a_ring_that_cannot_be_read_is_left_out_and_a_stop_ends_the_work() {
    let all: Vec<Nucleus> = nuclei(&[[20, 30, 6, 6]]).into_iter().flatten().collect();
    let around = Around {
        slide: SLIDE,
        mpp: [0.25; 2],
        pixels: |_: Rect, _: &[bool]| None,
    };
    let unread = rings(&all, &[0], &around, &AtomicBool::new(false)).unwrap();
    assert_eq!(unread, []);
    let none = Ring::default();
    assert!(none.hematoxylin_od().iter().all(|v| v.is_nan()));
    assert_eq!(rings(&all, &[0], &around, &AtomicBool::new(true)), None);
}

#[test]
fn a_ring_measured_in_bands_is_that_of_the_whole_box() {
    let ragged = |y: i32| Run {
        y,
        x0: y % 7,
        x1: 900 - y % 11,
    };
    let nucleus = Nucleus::from_runs(&(0..1500).map(ragged).collect::<Vec<_>>());
    let pixels = |field: Rect, _: &[bool]| {
        let colour = |x: u32, y: u32| [x as i32 + field.x, y as i32 + field.y, 7].map(|c| c as u8);
        let (w, h) = (field.w as u32, field.h as u32);
        Some(RgbImage::from_fn(w, h, |x, y| Rgb(colour(x, y))))
    };
    let around = Around {
        slide: Rect::new(-10, -10, 1000, 1600),
        mpp: [0.25; 2],
        pixels,
    };
    let reach = Reach::new(around.mpp);
    let field = reach.around(nucleus.bbox).intersect(&around.slide);
    assert!(bands_of(field).count() > 1);
    let inside = ring_mask(&nucleus, std::iter::once(&nucleus), field, &reach);
    let whole = sum_up(&inside, &pixels(field, &inside).unwrap());
    assert!(whole.area_px > 10_000);
    let found = rings(&[nucleus], &[0], &around, &AtomicBool::new(false));
    assert_eq!(found, Some(vec![(0, whole)]));
}
