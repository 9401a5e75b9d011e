//! What is wrong with labelled data: to be found before a model is trained on it.
//!
//! In: the images of a set, or why they could not be read. Out: [`Findings`]. Never changes data.

use std::collections::BTreeMap;

use image::RgbImage;

use super::formats::Loaded;
use super::{Dot, LabelledImage, Truth};

/// No nucleus has fewer pixels at any scale at which nuclei are labelled by hand.
const MIN_NUCLEUS_PX: usize = 10;
/// Range of the median nuclear diameter of a tissue, µm.
const MEDIAN_DIAMETER_UM: [f64; 2] = [4.0, 15.0];
/// The most common median nuclear diameter, µm.
const TYPICAL_DIAMETER_UM: f64 = 7.0;
/// Largest shift of the labels against the image that is tried, px, in each direction.
const MAX_SHIFT_PX: i32 = 3;
/// Number of shifts tried along each axis.
const SHIFTS: usize = 2 * MAX_SHIFT_PX as usize + 1;
/// Ratio of contrasts above which the labels are taken to be shifted.
const MIN_SHIFT_GAIN: f64 = 1.03;

/// What was counted in one set, and what is wrong with it. The fields are those of check.json.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Findings {
    pub images: usize,
    pub nuclei: usize,
    /// Number of nuclei of each type id; 0: unknown.
    pub types: BTreeMap<u8, usize>,
    pub median_diameter_um: Option<f64>,
    /// Faults of single images: (image, fault).
    pub of_images: Vec<(String, String)>,
    /// Faults of the whole set.
    pub of_set: Vec<String>,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        self.of_images.is_empty() && self.of_set.is_empty()
    }
}

/// Checks every image of a set at `mpp` µm/px. `seen`: names of all images so far, by content.
pub fn check_set(loaded: &Loaded, mpp: f64, seen: &mut BTreeMap<u64, String>) -> Findings {
    let mut found = Findings {
        images: loaded.len(),
        ..Findings::default()
    };
    let mut diameters_um = Vec::new();
    let mut contrast: Contrast = [[0.0; SHIFTS]; SHIFTS];
    for image in loaded {
        let image = match image {
            Ok(image) => image,
            Err(error) => {
                let path = error.path.display().to_string();
                found.of_images.push((path, error.reason.clone()));
                continue;
            }
        };
        let mut add = |fault: String| found.of_images.push((image.name.clone(), fault));
        if image.is_empty() {
            add("no nuclei: it teaches background".into());
        }
        let twin = seen.insert(content_hash(&image.rgb), image.name.clone());
        if let Some(other) = twin {
            add(format!("the same pixels as {other}"));
        }
        find_faults(image).into_iter().for_each(&mut add);
        match &image.truth {
            Truth::Dots(dots) => {
                found.nuclei += dots.len();
                for dot in dots {
                    *found.types.entry(dot.type_id).or_default() += 1;
                }
            }
            Truth::Instances { ids, types } => {
                for (id, area) in count_areas(ids) {
                    found.nuclei += 1;
                    let kind = types.get(id as usize).copied().unwrap_or(0);
                    *found.types.entry(kind).or_default() += 1;
                    diameters_um.push(2.0 * (area as f64 / std::f64::consts::PI).sqrt() * mpp);
                }
                add_contrast(&mut contrast, &image.rgb, ids);
            }
            Truth::Unknown => {}
        }
    }
    found.median_diameter_um = median(&mut diameters_um);
    found
        .of_set
        .extend(find_scale_fault(found.median_diameter_um, mpp));
    found.of_set.extend(find_shift(&contrast));
    let mut pictures = loaded.iter().flatten();
    let unknown = |image: &LabelledImage| matches!(image.truth, Truth::Unknown);
    if found.nuclei == 0 && !pictures.any(unknown) {
        found.of_set.push("no nucleus in any image".into());
    }
    found
}

/// FNV-1a over the pixels.
fn content_hash(rgb: &RgbImage) -> u64 {
    let sides = [rgb.width(), rgb.height()].map(u32::to_le_bytes).concat();
    sides
        .iter()
        .chain(rgb.as_raw())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// Number of pixels of each id.
fn count_areas(ids: &[u32]) -> BTreeMap<u32, usize> {
    let mut areas = BTreeMap::new();
    for &id in ids.iter().filter(|id| **id > 0) {
        *areas.entry(id).or_insert(0) += 1;
    }
    areas
}

/// Tiny nuclei, nuclei in several pieces, points outside the image.
fn find_faults(image: &LabelledImage) -> Vec<String> {
    let (w, h) = image.rgb.dimensions();
    let mut faults = Vec::new();
    let mut add = |n: usize, what: &str| {
        if n > 0 {
            faults.push(format!("{n} {what}"));
        }
    };
    match &image.truth {
        Truth::Dots(dots) => {
            let outside = |v: f32, n: u32| v < 0.0 || v >= n as f32;
            let is_outside = |d: &&Dot| outside(d.x_px, w) || outside(d.y_px, h);
            add(
                dots.iter().filter(is_outside).count(),
                "points outside the image",
            );
        }
        Truth::Instances { ids, .. } => {
            let areas = count_areas(ids);
            let tiny = areas.values().filter(|a| **a < MIN_NUCLEUS_PX).count();
            add(tiny, &format!("nuclei of less than {MIN_NUCLEUS_PX} px"));
            let components = count_components(ids, w as usize);
            let scattered = components.values().filter(|n| **n > 1).count();
            add(scattered, "nuclei in several pieces");
        }
        Truth::Unknown => {}
    }
    faults
}

/// Number of 8-connected components of each id.
pub(super) fn count_components(ids: &[u32], width: usize) -> BTreeMap<u32, usize> {
    let height = ids.len() / width.max(1);
    let mut visited = vec![false; ids.len()];
    let mut components = BTreeMap::new();
    let mut open = Vec::new();
    for start in 0..ids.len() {
        if ids[start] == 0 || visited[start] {
            continue;
        }
        *components.entry(ids[start]).or_insert(0) += 1;
        visited[start] = true;
        open.push(start);
        while let Some(i) = open.pop() {
            let (x, y) = (i % width, i / width);
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let n = ny * width + nx;
                    if !visited[n] && ids[n] == ids[start] {
                        visited[n] = true;
                        open.push(n);
                    }
                }
            }
        }
    }
    components
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A scale at which the median nucleus has an impossible size.
fn find_scale_fault(median_um: Option<f64>, mpp: f64) -> Option<String> {
    let median = median_um?;
    (!(MEDIAN_DIAMETER_UM[0]..=MEDIAN_DIAMETER_UM[1]).contains(&median)).then(|| {
        format!(
            "the median nucleus is {median:.1} µm wide at {mpp} µm/px: \
             with mpp = {:.3} it would be {TYPICAL_DIAMETER_UM} µm",
            mpp * TYPICAL_DIAMETER_UM / median
        )
    })
}

/// A wrong scale of one set among several: nuclei have similar sizes in all tissues, so medians
/// that differ by more than a factor of 1.5 mean that one scale is wrong. `medians_um`: (set,
/// median diameter in µm, µm/px).
pub fn compare_scales(medians_um: &[(String, f64, f64)]) -> Option<String> {
    let least = medians_um.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let most = medians_um.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (most.1 > 1.5 * least.1).then(|| {
        format!(
            "two scales: the median nucleus is {:.1} µm wide in {} and {:.1} µm in {}; \
             with mpp = {:.3} for {} they would be alike",
            least.1,
            least.0,
            most.1,
            most.0,
            most.2 * least.1 / most.1,
            most.0
        )
    })
}

/// By shift (row: y, column: x, from -[`MAX_SHIFT_PX`]): how much darker the image is under the
/// labels than beside them.
type Contrast = [[f64; SHIFTS]; SHIFTS];

/// Adds the contrasts of one image to `sums`.
fn add_contrast(sums: &mut Contrast, rgb: &RgbImage, ids: &[u32]) {
    let (w, h) = (rgb.width() as i32, rgb.height() as i32);
    let dark: Vec<f64> = rgb
        .pixels()
        .map(|p| 765.0 - p.0.iter().map(|v| f64::from(*v)).sum::<f64>())
        .collect();
    for (j, row) in sums.iter_mut().enumerate() {
        for (i, sum) in row.iter_mut().enumerate() {
            let (dx, dy) = (i as i32 - MAX_SHIFT_PX, j as i32 - MAX_SHIFT_PX);
            let (mut inside, mut n_in, mut outside, mut n_out) = (0.0, 0.0, 0.0, 0.0);
            for y in MAX_SHIFT_PX..h - MAX_SHIFT_PX {
                for x in MAX_SHIFT_PX..w - MAX_SHIFT_PX {
                    let value = dark[((y + dy) * w + x + dx) as usize];
                    if ids[(y * w + x) as usize] > 0 {
                        (inside, n_in) = (inside + value, n_in + 1.0);
                    } else {
                        (outside, n_out) = (outside + value, n_out + 1.0);
                    }
                }
            }
            if n_in > 0.0 && n_out > 0.0 {
                *sum += inside / n_in - outside / n_out;
            }
        }
    }
}

/// Labels that would lie on darker pixels if they were moved.
fn find_shift(contrast: &Contrast) -> Option<String> {
    let middle = MAX_SHIFT_PX as usize;
    let here = contrast[middle][middle];
    let places = (0..contrast.len()).flat_map(|j| (0..contrast.len()).map(move |i| (i, j)));
    let (i, j) = places.max_by(|a, b| contrast[a.1][a.0].total_cmp(&contrast[b.1][b.0]))?;
    let best = contrast[j][i];
    (here > 0.0 && best > MIN_SHIFT_GAIN * here).then(|| {
        format!(
            "the labels seem shifted: moved by ({}, {}) px they would lie on darker pixels ({:.0} % more contrast)",
            i as i32 - MAX_SHIFT_PX,
            j as i32 - MAX_SHIFT_PX,
            (best / here - 1.0) * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    /// Dark discs of radius 8 px on a light ground, labels moved by `shift` px.
    fn discs(shift: i32, seed: u8) -> LabelledImage {
        let inside = |x: i32, y: i32| {
            let d = (x.rem_euclid(32) - 16).pow(2) + (y.rem_euclid(32) - 16).pow(2);
            d <= 64
        };
        let rgb = RgbImage::from_fn(96, 96, |x, y| match inside(x as i32, y as i32) {
            true => Rgb([90, 60, 140]),
            false => Rgb([230, 190, seed]),
        });
        let ids = (0..96 * 96)
            .map(|i| {
                let (x, y) = (i % 96 - shift, i / 96);
                let id = 1 + x.div_euclid(32) + 4 * (y / 32);
                if inside(x, y) { id.max(1) as u32 } else { 0 }
            })
            .collect();
        LabelledImage {
            name: format!("set/{seed}"),
            held_out: false,
            rgb,
            truth: Truth::Instances {
                ids,
                types: vec![0; 20],
            },
        }
    }

    #[test]
    fn clean_data_has_no_faults_and_each_fault_is_named() {
        let mut seen = BTreeMap::new();
        let clean = check_set(&vec![Ok(discs(0, 1)), Ok(discs(0, 2))], 0.5, &mut seen);
        assert!(clean.is_clean(), "{clean:?}");
        assert_eq!(clean.nuclei, 18);
        // 197 px at 0.5 µm/px.
        assert!((clean.median_diameter_um.unwrap() - 7.92).abs() < 0.01);

        let shifted = check_set(&vec![Ok(discs(2, 3))], 0.5, &mut seen);
        assert!(
            shifted.of_set[0].contains("moved by (-2, 0) px"),
            "{shifted:?}"
        );

        let twice = check_set(&vec![Ok(discs(0, 1))], 0.05, &mut seen);
        assert!(twice.of_images[0].1.contains("the same pixels as set/1"));
        assert!(twice.of_set[0].contains("with mpp = 0.442"), "{twice:?}");

        let mut broken = discs(0, 4);
        if let Truth::Instances { ids, .. } = &mut broken.truth {
            // A second piece of nucleus 1 in the corner, and a nucleus of one pixel.
            ids[95] = 1;
            ids[95 * 96] = 19;
        }
        let faults = check_set(&vec![Ok(broken)], 0.5, &mut seen).of_images;
        let text: Vec<_> = faults.iter().map(|f| f.1.as_str()).collect();
        assert_eq!(
            text,
            ["1 nuclei of less than 10 px", "1 nuclei in several pieces"]
        );
    }

    #[test]
    fn two_sets_of_different_scales_are_reported() {
        let sets = [("a".to_string(), 7.0, 0.25), ("b".to_string(), 12.0, 0.25)];
        let text = compare_scales(&sets).unwrap();
        assert!(text.contains("with mpp = 0.146 for b"), "{text}");
        assert!(compare_scales(&sets[..1]).is_none());
    }
}
