//! Fixtures made by OpenCV, SciPy and scikit-image (tests/fixtures/make_postproc.py).

use image::RgbImage;
use npyz::NpyFile;
use serde::Deserialize;

use super::*;
use crate::nuclei::morphology::disc;
use crate::nuclei::reference::segment_map;
use crate::nuclei::watershed::{OUTSIDE, flood_like_skimage};

struct Crop {
    map: PredictionMap,
    rgb: RgbImage,
    reference: Vec<u32>,
    eigen: Vec<u32>,
    axes: Vec<u32>,
}

fn crops() -> Vec<(String, Crop)> {
    let mut crops = Vec::new();
    for entry in std::fs::read_dir(fixture("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("crop_") {
            crops.push((name, read_crop(&std::fs::read(path).unwrap())));
        }
    }
    crops.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(crops.len(), 5);
    crops
}

fn read_crop(bytes: &[u8]) -> Crop {
    let file = NpyFile::new(bytes).unwrap();
    let (height, width) = (file.shape()[1] as usize, file.shape()[2] as usize);
    let values: Vec<u8> = file.into_vec().unwrap();
    let plane = |i: usize| &values[i * width * height..(i + 1) * width * height];
    let distance = |i| {
        plane(i)
            .iter()
            .map(|&b| (f32::from(b) - 128.0) / 100.0)
            .collect()
    };
    let instances = |i| plane(i).iter().map(|&b| u32::from(b)).collect();
    Crop {
        map: PredictionMap {
            width,
            height,
            np: plane(0).iter().map(|&b| f32::from(b) / 255.0).collect(),
            h: distance(1),
            v: distance(2),
            types: 0,
            tp: Vec::new(),
        },
        rgb: RgbImage::new(width as u32, height as u32),
        reference: instances(3),
        eigen: instances(4),
        axes: instances(5),
    }
}

fn instance_map(nuclei: &[Nucleus], width: usize, height: usize) -> Vec<u32> {
    let mut map = vec![0; width * height];
    for (nucleus, number) in nuclei.iter().zip(1..) {
        for (y, x) in nucleus_pixels(nucleus) {
            map[y as usize * width + x as usize] = number;
        }
    }
    map
}

#[test]
fn reference_rules_give_hover_nets_instances() {
    let mut found = 0;
    for (name, crop) in crops() {
        let (nuclei, instances) = segment_map(&crop.map, &crop.rgb);
        assert_eq!(instances, crop.reference, "{name}");
        assert_eq!(
            instance_map(&nuclei, crop.map.width, crop.map.height),
            instances,
            "{name}"
        );
        found += nuclei.len();
    }
    assert_eq!(found, 32);
}

#[test]
fn default_rule_gives_the_oracles_instances() {
    for (name, crop) in crops() {
        let (width, height) = (crop.map.width, crop.map.height);
        let clip = Rect::new(0, 0, width as i32, height as i32);
        let fg = Foreground::from_patch(&crop.map.quantised(), &crop.rgb, 0, (0, 0), clip, 0.5);
        for (energy, expected) in [
            (EnergyRule::Eigen, &crop.eigen),
            (EnergyRule::Axes, &crop.axes),
        ] {
            let params = PostprocParams {
                energy,
                ..PostprocParams::default()
            };
            let mut nuclei: Vec<Nucleus> = components(&fg)
                .iter()
                .flat_map(|blob| segment(blob, &params, MPP))
                .collect();
            nuclei.sort_by_key(Nucleus::first_pixel);
            assert_eq!(
                &instance_map(&nuclei, width, height),
                expected,
                "{name} {energy:?}"
            );
        }
    }
}

#[derive(Deserialize)]
struct WatershedCase {
    width: usize,
    value: Vec<f64>,
    mask: Vec<u8>,
    marker: Vec<u32>,
    label: Vec<u32>,
}

#[test]
fn watershed_breaks_ties_as_scikit_image_does() {
    let text = std::fs::read_to_string(fixture("watershed.json")).unwrap();
    let cases: Vec<WatershedCase> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 60);
    for (number, case) in cases.iter().enumerate() {
        let height = case.value.len() / case.width;
        let stride = case.width + 2;
        let mut value = vec![0.0; stride * (height + 2)];
        let mut label = vec![OUTSIDE; value.len()];
        let at = |i: usize| (i / case.width + 1) * stride + i % case.width + 1;
        for i in 0..case.value.len() {
            value[at(i)] = case.value[i];
            if case.mask[i] == 1 {
                label[at(i)] = case.marker[i];
            }
        }
        flood_like_skimage(&value, &mut label, stride);
        let found: Vec<u32> = (0..case.value.len())
            .map(|i| Some(label[at(i)]).filter(|&l| l != OUTSIDE).unwrap_or(0))
            .collect();
        assert_eq!(found, case.label, "case {number}");
    }
}

/// `cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (d, d))`, OpenCV 5.0.
#[test]
fn discs_are_opencvs_ellipses() {
    let columns = |d: u32| -> Vec<(i32, i32)> {
        let centre = d as i32 / 2;
        disc(d)
            .iter()
            .map(|row| (row.left + centre, row.right + centre))
            .collect()
    };
    assert_eq!(columns(1), [(0, 0)]);
    assert_eq!(columns(2), [(1, 1), (0, 1)]);
    assert_eq!(columns(3), [(1, 1), (0, 2), (1, 1)]);
    assert_eq!(columns(4), [(2, 2), (0, 3), (0, 3), (0, 3)]);
    assert_eq!(columns(5), [(2, 2), (0, 4), (0, 4), (0, 4), (2, 2)]);
    assert_eq!(
        columns(7),
        [(3, 3), (1, 5), (0, 6), (0, 6), (0, 6), (1, 5), (3, 3)]
    );
    assert_eq!(columns(9)[..5], [(4, 4), (1, 7), (1, 7), (0, 8), (0, 8)]);
}

/// A flat ring around another nucleus: the original fills the ring's hole and gives both one id.
#[test]
fn a_ring_does_not_swallow_what_lies_inside_it() {
    let (width, height) = (60, 60);
    let mut map = PredictionMap {
        width,
        height,
        np: vec![0.0; width * height],
        h: vec![0.0; width * height],
        v: vec![0.0; width * height],
        types: 0,
        tp: Vec::new(),
    };
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = (x as f32 - 30.0, y as f32 - 30.0);
            let r = (dx * dx + dy * dy).sqrt();
            let i = y * width + x;
            if r < 8.0 {
                (map.np[i], map.h[i], map.v[i]) = (1.0, dx / 8.0, dy / 8.0);
            } else if (12.0..22.0).contains(&r) {
                (map.np[i], map.h[i], map.v[i]) = (1.0, dx / 22.0, dy / 22.0);
            }
        }
    }
    let (nuclei, instances) = segment_map(&map, &RgbImage::new(60, 60));
    assert_eq!(nuclei.len(), 2);
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            let inner = (x as f32 - 30.0).hypot(y as f32 - 30.0) < 8.0;
            let expected = match (map.np[i] > 0.0, inner) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 2,
            };
            assert_eq!(instances[i], expected, "{x} {y}");
        }
    }
}

#[test]
fn odd_maps_do_not_panic() {
    let segment_all = |width: usize, height: usize, value: f32| {
        let n = width * height;
        let map = PredictionMap {
            width,
            height,
            np: vec![value; n],
            h: vec![value; n],
            v: vec![-value; n],
            types: 2,
            tp: vec![value; 2 * n],
        };
        segment_map(&map, &RgbImage::new(width as u32, height as u32))
    };
    for value in [0.0, 1.0, f32::NAN, f32::INFINITY, -3.0] {
        for (width, height) in [(0, 0), (1, 1), (1, 40), (40, 1), (2, 2), (16, 16)] {
            let (nuclei, instances) = segment_all(width, height, value);
            assert_eq!(instances.len(), width * height);
            let labelled = instances.iter().filter(|&&i| i > 0).count();
            let area: u32 = nuclei.iter().map(|n| n.area_px).sum();
            assert_eq!(labelled, area as usize);
        }
    }
}
