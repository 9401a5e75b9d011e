//! Properties that hold for every map.

use std::collections::BTreeSet;

use super::*;
use crate::nuclei::segment::segment_or_cut;
use crate::prediction::{quantise_distance, quantise_probability};

#[test]
fn quantisation_rounds_and_saturates() {
    for i in 0..=2000u32 {
        let p = i as f32 / 2000.0;
        assert_eq!(quantise_probability(p), (p * 255.0).round() as u8, "{p}");
        let x = p * 10.0 - 5.0;
        let expected = (x * 8192.0).round().clamp(-32768.0, 32767.0) as i16;
        assert_eq!(quantise_distance(x), expected, "{x}");
    }
    assert_eq!(quantise_probability(f32::NAN), 0);
    assert_eq!(quantise_probability(-1.0), 0);
    assert_eq!(quantise_probability(7.0), 255);
    assert_eq!(quantise_distance(f32::NAN), 0);
    assert_eq!(quantise_distance(f32::NEG_INFINITY), i16::MIN);
}

#[test]
fn from_patch_keeps_what_np_says_inside_the_clip() {
    let (mut map, rgb) = discs(1, 50, 40);
    map.np[777] = f32::NAN;
    (map.h[778], map.np[778]) = (f32::NAN, 1.0);
    let (origin, clip) = ((-7, 100), Rect::new(-3, 90, 30, 45));
    let fg = Foreground::from_patch(&map.quantised(), &rgb, 0, origin, clip, 0.5);
    let mut expected = Vec::new();
    for y in 0..40i32 {
        for x in 0..50i32 {
            let i = (y * 50 + x) as usize;
            let place = (y + origin.1, x + origin.0);
            if (map.np[i] * 255.0).round() >= 128.0 && clip.contains(place.1, place.0) {
                expected.push((place, i));
            }
        }
    }
    assert!(expected.len() > 300);
    assert_eq!(
        pixels(&fg),
        expected.iter().map(|e| e.0).collect::<Vec<_>>()
    );
    for (n, &(_, i)) in expected.iter().enumerate() {
        assert_eq!(fg.np[n], quantise_probability(map.np[i]));
        assert_eq!(fg.h[n], quantise_distance(map.h[i]));
        assert_eq!(fg.v[n], quantise_distance(map.v[i]));
        assert_eq!(fg.rgb[3 * n..3 * n + 3], rgb.as_raw()[3 * i..3 * i + 3]);
        for t in 0..3 {
            assert_eq!(fg.tp[3 * n + t], quantise_probability(map.tp[3 * i + t]));
        }
    }
    for pair in fg.runs.windows(2) {
        assert!(pair[0].y < pair[1].y || pair[0].x1 < pair[1].x0, "maximal");
    }
}

#[test]
fn patches_merge_into_the_whole_in_any_order() {
    let (map, rgb) = discs(2, 60, 50);
    let cut = |clip| Foreground::from_patch(&map.quantised(), &rgb, 0, (0, 0), clip, 0.5);
    let whole = cut(Rect::new(0, 0, 60, 50));
    let mut parts = Vec::new();
    for y in [0, 13, 26, 39] {
        for x in [0, 17, 34, 51] {
            parts.push(cut(Rect::new(x, y, 17, 13)));
        }
    }
    parts.push(Foreground::default());
    for seed in 0..10 {
        let mut dice = Dice::new(seed);
        for i in (1..parts.len()).rev() {
            parts.swap(i, dice.below(i as u32 + 1) as usize);
        }
        assert_eq!(Foreground::merge(&parts), whole);
    }
    assert_eq!(Foreground::merge(&[whole.clone(), whole.clone()]), whole);
    assert!(Foreground::merge(&[]).is_empty());
}

fn moved(fg: &Foreground, dx: i32, dy: i32) -> Foreground {
    let mut fg = fg.clone();
    for run in &mut fg.runs {
        (run.y, run.x0, run.x1) = (run.y + dy, run.x0 + dx, run.x1 + dx);
    }
    fg
}

#[test]
fn a_moved_blob_gives_the_same_nuclei_moved() {
    for energy in BOTH {
        let mut several = 0;
        for blob in components(&foreground(3, 120, 90, (0, 0))) {
            let here = segment(&blob, &constants(energy), MPP);
            several += usize::from(here.len() > 1);
            for (dx, dy) in [(1, 0), (-4097, 333), (100_003, -50_001)] {
                let mut there = segment(&moved(&blob, dx, dy), &constants(energy), MPP);
                for nucleus in &mut there {
                    nucleus.bbox.x -= dx;
                    nucleus.bbox.y -= dy;
                }
                assert_eq!(there, here);
            }
        }
        assert!(several > 2, "blobs of several nuclei were tested");
    }
}

/// Asserts that nuclei are disjoint, inside the blob, not below the least area and ordered, and
/// that their sums are those of their pixels. Returns all their pixels.
fn assert_sound(nuclei: &[Nucleus], blob: &Foreground, min_px: u64) -> BTreeSet<(i32, i32)> {
    let index: std::collections::BTreeMap<_, _> = pixels(blob).into_iter().zip(0usize..).collect();
    let mut taken = BTreeSet::new();
    for nucleus in nuclei {
        let inside = nucleus_pixels(nucleus);
        assert_eq!(inside.len(), nucleus.area_px as usize);
        assert!(inside.len() as u64 >= min_px);
        let (mut np, mut sums, mut counts) = (0, [0u32; 3], [0u32; 3]);
        let mut stain = StainSums::default();
        for p in &inside {
            assert!(taken.insert(*p), "a pixel in two nuclei");
            let i = index[p];
            np += u32::from(blob.np[i]);
            let tp = &blob.tp[3 * i..3 * i + 3];
            (0..3).for_each(|t| sums[t] += u32::from(tp[t]));
            let most = tp.iter().max().unwrap();
            counts[tp.iter().position(|p| p == most).unwrap()] += 1;
            stain.add(&blob.rgb[3 * i..3 * i + 3]);
        }
        assert_eq!(nucleus.np_sum, np);
        assert_eq!(nucleus.prob_sums, sums);
        assert_eq!(nucleus.type_counts, counts);
        assert_eq!(nucleus.stain, stain);
        let (xs, ys) = (inside.iter().map(|p| p.1), inside.iter().map(|p| p.0));
        let tight = Rect::new(
            nucleus.bbox.x,
            nucleus.bbox.y,
            nucleus.bbox.w,
            nucleus.bbox.h,
        );
        assert_eq!(xs.clone().min(), Some(tight.x));
        assert_eq!(xs.max(), Some(tight.right() - 1));
        assert_eq!(ys.clone().min(), Some(tight.y));
        assert_eq!(ys.max(), Some(tight.bottom() - 1));
    }
    assert!(nuclei.is_sorted_by_key(Nucleus::first_pixel));
    taken
}

#[test]
fn nuclei_divide_their_blob() {
    for energy in BOTH {
        let mut small = 0;
        for blob in components(&foreground(4, 150, 100, (10, -20))) {
            let nuclei = segment(&blob, &constants(energy), MPP);
            let taken = assert_sound(&nuclei, &blob, 8);
            if blob.len() < 8 {
                small += 1;
                assert!(nuclei.is_empty());
            } else {
                assert_eq!(taken.len(), blob.len(), "no pixel of a large blob is lost");
            }
            assert!(nuclei.iter().all(|n| !n.cut));
        }
        assert!(small > 0, "blobs below the least area were tested");
    }
}

#[test]
fn buffers_carry_nothing_from_blob_to_blob() {
    let blobs = components(&foreground(6, 150, 100, (0, 0)));
    let params = constants(EnergyRule::Eigen);
    let forwards: Vec<_> = blobs.iter().map(|b| segment(b, &params, MPP)).collect();
    let mut backwards: Vec<_> = blobs
        .iter()
        .rev()
        .map(|b| segment(b, &params, MPP))
        .collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let alone = |blob: Foreground| {
        let params = params.clone();
        std::thread::spawn(move || segment(&blob, &params, MPP))
            .join()
            .unwrap()
    };
    for (blob, nuclei) in blobs
        .into_iter()
        .zip(forwards)
        .filter(|(b, _)| b.len() > 200)
    {
        assert_eq!(alone(blob), nuclei);
    }
}

fn cut(over_px: u64) -> CutRule {
    CutRule {
        over_px,
        grid_px: 32,
    }
}

#[test]
fn giant_blobs_are_cut_along_the_fixed_grid() {
    let blob = components(&foreground(7, 130, 130, (-61, 35)))
        .into_iter()
        .max_by_key(Foreground::len)
        .unwrap();
    assert!(blob.bounds().w > 64 && blob.bounds().h > 64);
    let params = constants(EnergyRule::Eigen);
    let nuclei = segment_or_cut(&blob, &params, MPP, cut(2000));
    let taken = assert_sound(&nuclei, &blob, 8);
    // Only scraps below the least area may be lost at the grid.
    assert!(taken.len() * 100 >= blob.len() * 97);
    for nucleus in &nuclei {
        assert!(nucleus.cut);
        let b = nucleus.bbox;
        assert_eq!(b.x.div_euclid(32), (b.right() - 1).div_euclid(32));
        assert_eq!(b.y.div_euclid(32), (b.bottom() - 1).div_euclid(32));
    }
    let limit = blob.bounds().area();
    assert_eq!(
        segment_or_cut(&blob, &params, MPP, cut(limit)),
        segment(&blob, &params, MPP)
    );
}

#[test]
fn without_markers_the_blob_is_one_nucleus() {
    let mut blob = components(&foreground(8, 80, 80, (0, 0))).swap_remove(0);
    blob.h.fill(0);
    blob.v.fill(0);
    let nuclei = segment(&blob, &constants(EnergyRule::Eigen), MPP);
    assert_eq!(nuclei.len(), 1);
    assert_eq!(nuclei[0].area_px as usize, blob.len());
    assert!(segment(&Foreground::default(), &constants(EnergyRule::Axes), MPP).is_empty());
}

#[test]
fn least_area_is_given_in_um2() {
    let min_area_px = |min_area_um2: f32, mpp: [f64; 2]| {
        let params = PostprocParams {
            min_area_um2,
            ..PostprocParams::default()
        };
        params.min_area_px(mpp)
    };
    assert_eq!(min_area_px(2.0, [0.25, 0.25]), 32);
    assert_eq!(min_area_px(2.0, [0.5, 0.5]), 8);
    assert_eq!(min_area_px(2.0, [0.2508, 0.2508]), 32);
    assert_eq!(min_area_px(2.0, [0.246, 0.246]), 34);
    assert_eq!(min_area_px(0.0, [0.25, 0.25]), 1);
    assert_eq!(min_area_px(f32::NAN, [0.25, 0.25]), 1);
}

#[test]
fn odd_constants_do_not_panic() {
    let blobs = components(&foreground(9, 60, 60, (0, 0)));
    let odd = [
        (0, 0, 0.0, 0.0, f32::NAN),
        (4, 2, 0.1, -0.1, 0.5),
        (63, 9, -1e-30, 1e-30, 2.0),
        (9999, 31, f32::NEG_INFINITY, f32::INFINITY, -1.0),
    ];
    for (sobel_px, open_px, hv_lo, hv_hi, energy_threshold) in odd {
        let params = PostprocParams {
            sobel_px,
            open_px,
            hv_lo,
            hv_hi,
            energy_threshold,
            ..PostprocParams::default()
        };
        for blob in &blobs {
            assert_sound(&segment(blob, &params, MPP), blob, 32);
        }
    }
}

/// Two columns of 4 x 2 marker pixels in a blob of 20: nuclei can hardly be smaller.
#[test]
fn the_smallest_pair_is_told_apart() {
    let h = [-1.0, 0.0, 1.0, -1.0, 1.0];
    let map = PredictionMap {
        width: 5,
        height: 4,
        np: vec![1.0; 20],
        h: h.repeat(4),
        v: vec![0.0; 20],
        types: 0,
        tp: Vec::new(),
    };
    let clip = Rect::new(0, 0, 5, 4);
    let blob = Foreground::from_patch(
        &map.quantised(),
        &image::RgbImage::new(5, 4),
        0,
        (0, 0),
        clip,
        0.5,
    );
    let params = PostprocParams {
        energy: EnergyRule::Axes,
        sobel_px: 3,
        energy_threshold: 0.6,
        open_px: 0,
        min_area_um2: 0.5,
        ..PostprocParams::default()
    };
    let nuclei = segment(&blob, &params, MPP);
    assert_eq!(nuclei.len(), 2);
    assert!(nuclei.iter().all(|n| n.area_px >= 8));
}
