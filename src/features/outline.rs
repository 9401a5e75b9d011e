//! What QuPath measures of an outline, so that its names mean the same in our files.
//!
//! In: a mask's outline along pixel edges, and the size of a pixel. Out: an [`Outline`], by the definitions of QuPath's
//! "Add shape features" (`ObjectMeasurements.addShapeMeasurements`): of the polygon itself, its steps included.
//! [`Shape`](super::Shape) has scikit-image's measures of the mask, which see through the steps.

use std::f64::consts::PI;

use crate::nuclei::OutlinePolygon;

/// Measures of an outline, in the unit of the pixel's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outline {
    /// Length of all rings.
    pub length: f64,
    /// 4π area / length² of the exterior, holes filled; NaN for several parts.
    pub circularity: f64,
    /// Area over that of the convex hull.
    pub solidity: f64,
    /// Diameter of the smallest circle around it.
    pub max_diameter: f64,
    /// Least distance between two parallel lines around it.
    pub min_diameter: f64,
}

/// Measures the outline of one nucleus; `px`: width and height of a pixel.
pub fn outline(polygons: &[OutlinePolygon], px: [f64; 2]) -> Outline {
    let scaled = |point: &[i32; 2]| [f64::from(point[0]) * px[0], f64::from(point[1]) * px[1]];
    let scaled_ring = |ring: &Vec<[i32; 2]>| ring.iter().map(scaled).collect::<Vec<_>>();
    let (mut all_length, mut area) = (0.0, 0.0);
    let mut corners: Vec<[i32; 2]> = Vec::new();
    for polygon in polygons {
        corners.extend(&polygon.exterior);
        let exterior = scaled_ring(&polygon.exterior);
        all_length += length(&exterior);
        area += ring_area(&exterior);
        for hole in polygon.holes.iter().map(scaled_ring) {
            all_length += length(&hole);
            area -= ring_area(&hole);
        }
    }
    let hull: Vec<[f64; 2]> = hull(corners).iter().map(scaled).collect();
    let circularity = match polygons {
        [only] => {
            let exterior = scaled_ring(&only.exterior);
            4.0 * PI * ring_area(&exterior) / length(&exterior).powi(2)
        }
        _ => f64::NAN,
    };
    Outline {
        length: all_length,
        circularity,
        solidity: area / ring_area(&hull),
        max_diameter: 2.0 * circle_radius(&hull),
        min_diameter: least_width(&hull),
    }
}

/// The sides of a ring, whether or not its first point stands again at its end.
fn sides(ring: &[[f64; 2]]) -> impl Iterator<Item = ([f64; 2], [f64; 2])> + '_ {
    let next = ring.iter().cycle().skip(1);
    ring.iter().copied().zip(next.copied()).take(ring.len())
}

fn length(ring: &[[f64; 2]]) -> f64 {
    sides(ring).map(|(a, b)| distance(a, b)).sum()
}

fn ring_area(ring: &[[f64; 2]]) -> f64 {
    let doubled: f64 = sides(ring).map(|(a, b)| a[0] * b[1] - a[1] * b[0]).sum();
    doubled.abs() / 2.0
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// The corners of the convex hull in order (Andrew's monotone chain), exact.
fn hull(mut points: Vec<[i32; 2]>) -> Vec<[i32; 2]> {
    points.sort_unstable();
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let turn = |a: [i32; 2], b: [i32; 2], c: [i32; 2]| {
        let [abx, aby, acx, acy] =
            [b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]].map(i64::from);
        abx * acy - aby * acx
    };
    let half = |points: &mut dyn Iterator<Item = [i32; 2]>| {
        let mut chain: Vec<[i32; 2]> = Vec::new();
        for point in points {
            while let [.., a, b] = chain[..]
                && turn(a, b, point) <= 0
            {
                chain.pop();
            }
            chain.push(point);
        }
        // It begins the other half.
        chain.pop();
        chain
    };
    let mut corners = half(&mut points.iter().copied());
    corners.extend(half(&mut points.iter().rev().copied()));
    corners
}

/// Over all sides of a hull, the least of the farthest corner's distances from the side's line.
fn least_width(hull: &[[f64; 2]]) -> f64 {
    let width = |(a, b): ([f64; 2], [f64; 2])| {
        let side = distance(a, b);
        let height = |c: &[f64; 2]| {
            let cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
            cross.abs() / side
        };
        hull.iter().map(height).fold(0.0, f64::max)
    };
    sides(hull).map(width).fold(f64::INFINITY, f64::min)
}

/// Radius of the smallest circle around all points (Welzl 1991, without recursion).
fn circle_radius(points: &[[f64; 2]]) -> f64 {
    let mut circle = ([0.0; 2], -1.0);
    let outside = |(centre, radius): ([f64; 2], f64), p: [f64; 2]| {
        distance(centre, p) > radius * (1.0 + 1e-12) + 1e-12
    };
    for (i, &p) in points.iter().enumerate() {
        if !outside(circle, p) {
            continue;
        }
        circle = (p, 0.0);
        for (j, &q) in points[..i].iter().enumerate() {
            if !outside(circle, q) {
                continue;
            }
            circle = around_two(p, q);
            for &r in &points[..j] {
                if outside(circle, r) {
                    circle = around_three(p, q, r);
                }
            }
        }
    }
    circle.1.max(0.0)
}

fn around_two(a: [f64; 2], b: [f64; 2]) -> ([f64; 2], f64) {
    let centre = [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
    (centre, distance(a, b) / 2.0)
}

fn around_three(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> ([f64; 2], f64) {
    let ([bx, by], [cx, cy]) = ([b[0] - a[0], b[1] - a[1]], [c[0] - a[0], c[1] - a[1]]);
    let doubled = 2.0 * (bx * cy - by * cx);
    let (b2, c2) = (bx * bx + by * by, cx * cx + cy * cy);
    let [x, y] = [(cy * b2 - by * c2) / doubled, (bx * c2 - cx * b2) / doubled];
    ([a[0] + x, a[1] + y], x.hypot(y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nuclei::{Nucleus, outline_on_edges};

    #[derive(serde::Deserialize)]
    struct Case {
        rows: Vec<String>,
        px: [f64; 2],
        length: f64,
        circularity: Option<f64>,
        solidity: f64,
        max_diameter: f64,
        min_diameter: f64,
    }

    /// Truth: GEOS, by Shapely (tests/fixtures/make_outline.py); QuPath computes with its Java twin.
    #[test]
    fn outlines_measure_as_in_geos() {
        let text = include_str!("../../tests/fixtures/outline.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let rows: Vec<&str> = case.rows.iter().map(String::as_str).collect();
            let found = outline(&outline_on_edges(&Nucleus::drawn(3, 5, &rows)), case.px);
            let pairs = [
                (found.length, case.length),
                (found.circularity, case.circularity.unwrap_or(f64::NAN)),
                (found.solidity, case.solidity),
                (found.max_diameter, case.max_diameter),
                (found.min_diameter, case.min_diameter),
            ];
            for (found, wanted) in pairs {
                let near = (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0);
                assert!(
                    near || (found.is_nan() && wanted.is_nan()),
                    "{rows:?}: {pairs:?}"
                );
            }
        }
    }
}
