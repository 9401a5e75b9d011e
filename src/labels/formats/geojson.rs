//! Annotations drawn in QuPath: NAME.geojson beside NAME.png, .jpg or .tif, in px of the image.
//!
//! Polygons become instances: a pixel belongs to the polygon that holds its centre (even-odd rule).
//! Where two overlap, the first keeps the pixel and a warning gives the number of such pixels.
//! Points become dots if there are no polygons. `classification.name` is a name in `types`; without
//! one the type is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use geojson::{Feature, GeometryValue, Position};

use super::{Loaded, list_files, list_images, read_rgb};
use crate::geojson_file;
use crate::labels::{DataSet, Dot, LabelError, Truth};

type Ring = Vec<[f64; 2]>;

pub fn load(set: &DataSet, folder: &Path) -> Result<Loaded, LabelError> {
    let pictures: BTreeMap<_, _> = list_images(folder)?.into_iter().collect();
    let drawings = list_files(folder, &["geojson"])?;
    Ok(drawings
        .into_iter()
        .map(|(stem, path)| {
            let picture = pictures.get(&stem).ok_or_else(|| {
                LabelError::new(
                    &path,
                    format!("has no image {stem}.png, .jpg or .tif beside it"),
                )
            })?;
            let rgb = read_rgb(picture)?;
            let truth = read_truth(set, &path, rgb.dimensions())?;
            Ok(set.image(&stem, rgb, truth))
        })
        .collect())
}

/// See [`super::class_names`].
pub fn class_names(folder: &Path) -> BTreeSet<String> {
    let drawings = list_files(folder, &["geojson"]).unwrap_or_default();
    let features = drawings
        .iter()
        .filter_map(|(_, path)| read_features(path).ok())
        .flatten();
    features
        .filter_map(|f| class_name(&f).map(str::to_string))
        .collect()
}

fn class_name(feature: &Feature) -> Option<&str> {
    let class = feature.property("classification")?;
    class.get("name")?.as_str()
}

fn read_features(path: &Path) -> Result<Vec<Feature>, LabelError> {
    let values = geojson_file::read_features(path).map_err(|e| LabelError::new(path, e))?;
    let feature = |value| serde_json::from_value(value).map_err(|e| LabelError::new(path, e));
    values.into_iter().map(feature).collect()
}

fn read_truth(set: &DataSet, path: &Path, (w, h): (u32, u32)) -> Result<Truth, LabelError> {
    let features = read_features(path)?;
    let mut ids = vec![0u32; w as usize * h as usize];
    let (mut types, mut dots, mut overlapping) = (vec![0u8], Vec::new(), 0usize);
    for feature in &features {
        let type_id = type_of(set, feature, path)?;
        let Some(geometry) = &feature.geometry else {
            continue;
        };
        let mut add_nucleus = |polygons: &[Vec<Ring>]| {
            types.push(type_id);
            overlapping += fill_polygons(&mut ids, (w, h), polygons, types.len() as u32 - 1);
        };
        match &geometry.value {
            GeometryValue::Polygon { coordinates } => add_nucleus(&[rings_of(coordinates)]),
            GeometryValue::MultiPolygon { coordinates } => {
                let polygons: Vec<_> = coordinates.iter().map(|p| rings_of(p)).collect();
                add_nucleus(&polygons);
            }
            GeometryValue::Point { coordinates } => dots.extend(dot_at(coordinates, type_id)),
            GeometryValue::MultiPoint { coordinates } => {
                dots.extend(coordinates.iter().filter_map(|c| dot_at(c, type_id)));
            }
            _ => {
                return Err(LabelError::new(
                    path,
                    "holds lines: draw polygons or points",
                ));
            }
        }
    }
    if overlapping > 0 {
        tracing::warn!(
            "{}: {overlapping} px lie in two polygons; the first keeps them",
            path.display()
        );
    }
    if types.len() == 1 && !dots.is_empty() {
        return Ok(Truth::Dots(dots));
    }
    if !dots.is_empty() {
        tracing::warn!(
            "{}: {} points beside polygons are not used",
            path.display(),
            dots.len()
        );
    }
    Ok(Truth::Instances { ids, types })
}

fn type_of(set: &DataSet, feature: &Feature, path: &Path) -> Result<u8, LabelError> {
    let Some(name) = class_name(feature) else {
        return Ok(0);
    };
    set.types.get(name).copied().ok_or_else(|| {
        let known: Vec<_> = set.types.keys().map(String::as_str).collect();
        LabelError::new(
            path,
            format!("class {name:?} has no id in `types` ({})", known.join(", ")),
        )
    })
}

fn dot_at(position: &Position, type_id: u8) -> Option<Dot> {
    let [x, y, ..] = position.as_slice() else {
        return None;
    };
    Some(Dot {
        x_px: *x as f32,
        y_px: *y as f32,
        type_id,
    })
}

fn rings_of(polygon: &[Vec<Position>]) -> Vec<Ring> {
    let point = |p: &Position| match p.as_slice() {
        [x, y, ..] => Some([*x, *y]),
        _ => None,
    };
    polygon
        .iter()
        .map(|ring| ring.iter().filter_map(point).collect())
        .collect()
}

/// Writes `id` into free pixels whose centres an odd number of rings hold; returns how many of
/// these pixels were taken.
fn fill_polygons(ids: &mut [u32], (w, h): (u32, u32), polygons: &[Vec<Ring>], id: u32) -> usize {
    let mut taken = 0;
    for rings in polygons {
        let ys = || rings.iter().flatten().map(|p| p[1]);
        let top = ys()
            .fold(f64::INFINITY, f64::min)
            .floor()
            .clamp(0.0, f64::from(h));
        let bottom = ys().fold(0.0, f64::max).ceil().clamp(0.0, f64::from(h));
        for y in top as usize..bottom as usize {
            let mut crossings = find_crossings(rings, y as f64 + 0.5);
            crossings.sort_by(f64::total_cmp);
            for pair in crossings.chunks_exact(2) {
                // Centres at x + 0.5 in [left, right).
                let first = |c: f64| (c - 0.5).ceil().clamp(0.0, f64::from(w)) as usize;
                for x in first(pair[0])..first(pair[1]) {
                    let px = &mut ids[y * w as usize + x];
                    match *px {
                        0 => *px = id,
                        _ => taken += 1,
                    }
                }
            }
        }
    }
    taken
}

/// The x at which the rings cross the horizontal line at `y`.
fn find_crossings(rings: &[Ring], y: f64) -> Vec<f64> {
    let mut found = Vec::new();
    for ring in rings {
        for (i, a) in ring.iter().enumerate() {
            let b = ring[(i + 1) % ring.len()];
            if (a[1] <= y) != (b[1] <= y) {
                found.push(a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the rings hold a point: even-odd test with a ray to the right, after Shimrat 1962.
    fn contains(rings: &[Ring], x: f64, y: f64) -> bool {
        find_crossings(rings, y).iter().filter(|&&c| c > x).count() % 2 == 1
    }

    #[test]
    fn a_polygon_covers_the_pixels_whose_centres_it_holds() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..50 {
            let mut ring = || -> Ring {
                (0..5)
                    .map(|_| [rng.f64() * 24.0 - 2.0, rng.f64() * 24.0 - 2.0])
                    .collect()
            };
            let rings = vec![ring(), ring()];
            let mut ids = vec![0; 400];
            assert_eq!(
                fill_polygons(&mut ids, (20, 20), std::slice::from_ref(&rings), 7),
                0
            );
            for (i, id) in ids.iter().enumerate() {
                let inside = contains(&rings, (i % 20) as f64 + 0.5, (i / 20) as f64 + 0.5);
                assert_eq!(*id == 7, inside, "{} {} {rings:?}", i % 20, i / 20);
            }
        }
    }

    #[test]
    fn of_two_overlapping_squares_the_first_keeps_the_overlap() {
        let corners = [[0.0, 1.0], [2.0, 1.0], [2.0, 3.0], [0.0, 3.0], [0.0, 1.0]];
        let square = |left: f64| vec![corners.map(|[x, y]| [left + x, y]).to_vec()];
        let mut ids = vec![0; 36];
        assert_eq!(fill_polygons(&mut ids, (6, 6), &[square(1.0)], 1), 0);
        assert_eq!(fill_polygons(&mut ids, (6, 6), &[square(2.0)], 2), 2);
        assert_eq!(ids[6..12], [0, 1, 1, 2, 0, 0]);
        assert_eq!(ids.iter().filter(|id| **id == 1).count(), 4);
    }
}
