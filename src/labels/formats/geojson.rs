//! Annotations drawn in QuPath: NAME.geojson beside NAME.png, .jpg or .tif, in px of the image.
//!
//! Polygons become instances; of a cell its nucleus counts. Where two overlap, the first keeps the
//! pixel. Points become dots if there are no polygons. A polygon around others is a region, not a
//! nucleus. A class is a name in `types`: `classification.name`, or `names` ("Tumor: Positive" is
//! looked up as a whole, then as "Tumor"), or the same as JSON text. Whatever is passed over, and
//! nuclei without a class beside some with one, is counted in a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use geojson::{Geometry, GeometryValue, Position};
use serde_json::Value;

use super::polygons::{Ring, Shape, fill_polygons, find_regions};
use super::{Loaded, list_files, list_images, read_rgb};
use crate::geojson_file;
use crate::labels::{DataSet, Dot, LabelError, Truth};

/// Objects of QuPath that are no annotations of nuclei.
const PASSED_OVER: [&str; 4] = ["tile", "root", "tma_core", "tmacore"];

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
        .filter_map(|(_, path)| geojson_file::read_features(path).ok())
        .flatten();
    features
        .filter_map(|feature| match class_of(&feature) {
            Class::Named(names) => names.into_iter().next_back(),
            Class::None | Class::Unnamed => None,
        })
        .collect()
}

/// What a feature says about its class.
#[derive(Debug, PartialEq)]
enum Class {
    /// Nothing.
    None,
    /// A classification without a name: its type is lost.
    Unnamed,
    /// Names to look for, the most special first: the whole class, then its base.
    Named(Vec<String>),
}

fn class_of(feature: &Value) -> Class {
    let Some(class) = feature.pointer("/properties/classification") else {
        return Class::None;
    };
    let parsed;
    let class = match class {
        Value::Null => return Class::None,
        // A text is a name, unless it is JSON.
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) if value.is_object() => {
                parsed = value;
                &parsed
            }
            _ => return named(text),
        },
        other => other,
    };
    if let Some(name) = class.get("name").and_then(Value::as_str) {
        return named(name);
    }
    let names = class.get("names").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    named(&names.collect::<Vec<_>>().join(": "))
}

/// A class by its name as QuPath writes it: `BASE: DERIVED: …`.
fn named(name: &str) -> Class {
    let whole = name.trim();
    let base = whole.split(':').next().unwrap_or_default().trim();
    match (whole, base) {
        ("", _) => Class::Unnamed,
        (whole, base) if whole == base => Class::Named(vec![whole.to_owned()]),
        (whole, base) => Class::Named(vec![whole.to_owned(), base.to_owned()]),
    }
}

/// What a file holds besides usable nuclei.
#[derive(Default)]
struct Counts {
    lines: usize,
    empty: usize,
    other_objects: usize,
    unclassed: usize,
    unnamed: usize,
}

/// What is drawn in one file.
#[derive(Default)]
struct Drawing {
    shapes: Vec<Shape>,
    shape_types: Vec<u8>,
    dots: Vec<Dot>,
    counts: Counts,
}

fn read_truth(set: &DataSet, path: &Path, (w, h): (u32, u32)) -> Result<Truth, LabelError> {
    let features = geojson_file::read_features(path).map_err(|e| LabelError::new(path, e))?;
    let drawing = collect(set, path, features)?;
    let Drawing { shapes, dots, .. } = &drawing;
    let regions = find_regions(shapes);
    let mut ids = vec![0u32; w as usize * h as usize];
    let (mut types, mut overlapping) = (vec![0u8], 0);
    let nuclei = shapes.iter().zip(&drawing.shape_types).zip(&regions);
    for ((shape, type_id), _) in nuclei.filter(|(_, is_region)| !**is_region) {
        types.push(*type_id);
        overlapping += fill_polygons(&mut ids, (w, h), shape, types.len() as u32 - 1);
    }
    let is_dots = types.len() == 1 && !dots.is_empty();
    let unused = if is_dots { 0 } else { dots.len() };
    let counts = &drawing.counts;
    let nuclei = types.len() - 1 + dots.len();
    // A file without any class is one of outlines alone.
    let unclassed = if counts.unclassed < nuclei {
        counts.unclassed
    } else {
        0
    };
    for (number, what) in [
        (overlapping, "px lie in two polygons; the first keeps them"),
        (unused, "points beside polygons are not used"),
        (counts.lines, "lines are not used: draw polygons or points"),
        (counts.empty, "objects without an outline are not used"),
        (
            counts.other_objects,
            "tiles, TMA cores and roots are not used",
        ),
        (
            regions.iter().filter(|is_region| **is_region).count(),
            "polygons hold other objects: they are taken for regions, not for nuclei",
        ),
        (unclassed, "nuclei have no class: their type is unknown"),
        (
            counts.unnamed,
            "nuclei have a classification without a name: their type is unknown",
        ),
    ] {
        if number > 0 {
            tracing::warn!("{}: {number} {what}", path.display());
        }
    }
    Ok(match is_dots {
        true => Truth::Dots(drawing.dots),
        false => Truth::Instances { ids, types },
    })
}

/// Sorts the features of a file into shapes, dots and what is passed over.
fn collect(set: &DataSet, path: &Path, features: Vec<Value>) -> Result<Drawing, LabelError> {
    let mut drawing = Drawing::default();
    for feature in &features {
        let object = ["objectType", "object_type"]
            .iter()
            .find_map(|key| feature["properties"][key].as_str());
        let object = object.unwrap_or_default().to_ascii_lowercase();
        if PASSED_OVER.contains(&object.as_str()) {
            drawing.counts.other_objects += 1;
            continue;
        }
        let places = [
            "/nucleusGeometry",
            "/properties/nucleusGeometry",
            "/geometry",
        ];
        let value = places
            .iter()
            .find_map(|place| feature.pointer(place).filter(|value| !value.is_null()));
        let Some(value) = value else {
            drawing.counts.empty += 1;
            continue;
        };
        let geometry = serde_json::from_value::<Geometry>(value.clone())
            .map_err(|error| LabelError::new(path, format!("a geometry is damaged: {error}")))?;
        let type_id = type_of(set, feature, path, &mut drawing.counts)?;
        add_geometry(&mut drawing, &geometry, type_id);
    }
    Ok(drawing)
}

fn add_geometry(drawing: &mut Drawing, geometry: &Geometry, type_id: u8) {
    let mut shape = Shape::new();
    let mut rest = vec![geometry];
    let mut has_other = false;
    while let Some(geometry) = rest.pop() {
        match &geometry.value {
            GeometryValue::Polygon { coordinates } => shape.push(rings_of(coordinates)),
            GeometryValue::MultiPolygon { coordinates } => {
                shape.extend(coordinates.iter().map(|p| rings_of(p)));
            }
            GeometryValue::Point { coordinates } => {
                has_other = true;
                drawing.dots.extend(dot_at(coordinates, type_id));
            }
            GeometryValue::MultiPoint { coordinates } => {
                has_other = true;
                let dots = coordinates.iter().filter_map(|c| dot_at(c, type_id));
                drawing.dots.extend(dots);
            }
            GeometryValue::GeometryCollection { geometries } => {
                rest.extend(geometries.iter().rev());
            }
            GeometryValue::LineString { .. } | GeometryValue::MultiLineString { .. } => {
                has_other = true;
                drawing.counts.lines += 1;
            }
        }
    }
    shape.retain(|rings| rings.first().is_some_and(|ring| ring.len() >= 3));
    if !shape.is_empty() {
        drawing.shapes.push(shape);
        drawing.shape_types.push(type_id);
    } else if !has_other {
        drawing.counts.empty += 1;
    }
}

fn type_of(
    set: &DataSet,
    feature: &Value,
    path: &Path,
    counts: &mut Counts,
) -> Result<u8, LabelError> {
    let names = match class_of(feature) {
        Class::None => {
            counts.unclassed += 1;
            return Ok(0);
        }
        Class::Unnamed => {
            counts.unnamed += 1;
            return Ok(0);
        }
        Class::Named(names) => names,
    };
    let known = names.iter().find_map(|name| set.types.get(name));
    known.copied().ok_or_else(|| {
        let known: Vec<_> = set.types.keys().map(String::as_str).collect();
        let name = &names[0];
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_is_found_however_it_is_written() {
        let of = |class: Value| class_of(&json!({"properties": {"classification": class}}));
        let named = |names: &[&str]| Class::Named(names.iter().map(|n| n.to_string()).collect());
        assert_eq!(
            of(json!({"name": "Tumor", "colorRGB": -3670016})),
            named(&["Tumor"])
        );
        assert_eq!(of(json!({"names": ["Tumor"]})), named(&["Tumor"]));
        let derived = named(&["Tumor: Positive", "Tumor"]);
        assert_eq!(of(json!({"names": ["Tumor", "Positive"]})), derived);
        assert_eq!(of(json!({"name": "Tumor: Positive"})), derived);
        assert_eq!(
            of(json!("{\"name\": \"Tumor\", \"color\": [1, 2, 3]}")),
            named(&["Tumor"])
        );
        assert_eq!(of(json!("Tumor")), named(&["Tumor"]));
        assert_eq!(of(json!({"colorRGB": -3670016})), Class::Unnamed);
        assert_eq!(of(json!(null)), Class::None);
        assert_eq!(class_of(&json!({"properties": null})), Class::None);
    }
}
