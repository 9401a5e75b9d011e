//! Region properties against scikit-image 0.26 (tests/fixtures/make_regionprops.py).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::f64::consts::PI;

use serde::Deserialize;
use wsi_nuclei::{Shape, measure_mask as shape, shape_in_um as shape_um};

#[derive(Deserialize)]
struct Case {
    name: String,
    width: usize,
    /// Hex digits, most significant bit first, each row padded to whole bytes.
    rows: Vec<String>,
    expected: BTreeMap<String, Option<f64>>,
}

impl Case {
    fn bits(&self) -> Vec<u8> {
        let mut mask = vec![0u8; (self.width * self.rows.len()).div_ceil(8)];
        for (y, row) in self.rows.iter().enumerate() {
            for x in 0..self.width {
                let byte = u8::from_str_radix(&row[x / 8 * 2..x / 8 * 2 + 2], 16).unwrap();
                let at = y * self.width + x;
                mask[at / 8] |= (byte >> (7 - x % 8) & 1) << (at % 8);
            }
        }
        mask
    }

    fn shape(&self) -> Shape {
        shape(&self.bits(), self.width, self.rows.len())
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("fixtures/regionprops.json")).unwrap()
}

fn named(shape: &Shape) -> BTreeMap<&'static str, f64> {
    BTreeMap::from([
        ("area", shape.area),
        ("bbox_area", shape.bbox_area),
        ("convex_area", shape.convex_area),
        ("eccentricity", shape.eccentricity),
        ("equivalent_diameter", shape.equivalent_diameter),
        ("euler_number", f64::from(shape.euler_number)),
        ("extent", shape.extent),
        ("filled_area", shape.filled_area),
        ("inertia_eigval_x", shape.inertia_eigval_x),
        ("inertia_eigval_y", shape.inertia_eigval_y),
        ("major_axis_length", shape.major_axis_length),
        ("minor_axis_length", shape.minor_axis_length),
        ("orientation", shape.orientation),
        ("perimeter", shape.perimeter),
        ("solidity", shape.solidity),
        ("circularity", shape.circularity),
        ("feret_max", shape.feret_max),
        ("feret_min", shape.feret_min),
        ("roughness", shape.roughness),
        ("centroid_x", shape.centroid[0]),
        ("centroid_y", shape.centroid[1]),
    ])
}

/// Difference over max(1, |expected|); None stands for a division by a perimeter of 0.
fn difference(name: &str, found: f64, expected: Option<f64>) -> f64 {
    let Some(expected) = expected else {
        return if found.is_nan() { 0.0 } else { f64::INFINITY };
    };
    let mut difference = (found - expected).abs();
    if name == "orientation" {
        // An axis has no head: -π/2 and π/2 are one direction, and scikit-image's sign there is rounding noise.
        difference = difference.min((PI - difference).abs());
    }
    difference / expected.abs().max(1.0)
}

#[test]
fn every_property_equals_scikit_image() {
    let cases = cases();
    assert!(cases.len() > 150);
    let mut worst: BTreeMap<String, (f64, String)> = BTreeMap::new();
    for case in &cases {
        let found = named(&case.shape());
        assert_eq!(found.len(), case.expected.len());
        for (name, &expected) in &case.expected {
            let difference = difference(name, found[name.as_str()], expected);
            let entry = worst.entry(name.clone()).or_default();
            if difference >= entry.0 {
                *entry = (difference, case.name.clone());
            }
        }
    }
    println!("{worst:#?}");
    for (name, (difference, case)) in worst {
        assert!(
            difference <= 1e-9,
            "{name} of {case} differs by {difference:e}"
        );
    }
}

#[test]
fn an_empty_mask_is_all_zero() {
    assert_eq!(shape(&[0, 0], 4, 4), Shape::default());
    assert_eq!(shape(&[], 0, 0), Shape::default());
}

#[test]
fn micrometres_scale_lengths_areas_and_nothing_else() {
    for case in cases().iter().filter(|c| c.name.contains("ellipse")) {
        let px = case.shape();
        let um = shape_um(&px, [0.25, 0.25]);
        let power = |name: &str| match name {
            n if n.contains("area") || n.contains("inertia") => 2,
            n if n.contains("diameter") || n.contains("length") || n.contains("feret") => 1,
            "perimeter" | "centroid_x" | "centroid_y" => 1,
            _ => 0,
        };
        let (px, um) = (named(&px), named(&um));
        for (name, value) in &px {
            let expected = value * 0.25f64.powi(power(name));
            assert!((um[name] - expected).abs() < 1e-12, "{name}");
        }
    }
}
