//! Outlines against OpenCV and against the masks they come from.

use serde::Deserialize;

use super::*;
use crate::nuclei::contour::Polygon;

#[derive(Deserialize)]
struct Case {
    rows: Vec<String>,
    points: Vec<[i32; 2]>,
}

#[test]
fn outline_through_centres_is_opencvs() {
    let text = std::fs::read_to_string(fixture("contours.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 120);
    for case in cases {
        let rows: Vec<&str> = case.rows.iter().map(String::as_str).collect();
        let found = outline_through_centres(&drawn(&rows));
        assert_eq!(found, case.points, "{}", case.rows.join("\n"));
    }
}

#[test]
fn the_largest_part_is_followed() {
    let nucleus = drawn(&["##....", "......", "...###", "...###"]);
    let expected = [[3, 2], [3, 3], [5, 3], [5, 2]];
    assert_eq!(outline_through_centres(&nucleus), expected);
}

fn even_odd(polygons: &[Polygon], x: i32, y: i32) -> bool {
    let rings = polygons
        .iter()
        .flat_map(|p| std::iter::once(&p.exterior).chain(&p.holes));
    let crossings = rings
        .flat_map(|ring| ring.windows(2))
        .filter(|e| e[0][0] == e[1][0] && e[0][0] <= x)
        .filter(|e| e[0][1].min(e[1][1]) <= y && y < e[0][1].max(e[1][1]))
        .count();
    crossings % 2 == 1
}

fn doubled_area(ring: &[[i32; 2]]) -> i32 {
    ring.windows(2)
        .map(|e| e[0][0] * e[1][1] - e[1][0] * e[0][1])
        .sum()
}

/// Closed, turning at every point, visiting none twice.
fn assert_simple(ring: &[[i32; 2]]) {
    assert_eq!(ring.first(), ring.last());
    let open = &ring[1..];
    for i in 0..open.len() {
        let (a, b, c) = (
            open[i],
            open[(i + 1) % open.len()],
            open[(i + 2) % open.len()],
        );
        assert_ne!(a[0] == b[0], a[1] == b[1], "{ring:?}");
        assert_ne!(a[0] == b[0], b[0] == c[0], "{ring:?}");
    }
    let mut sorted = open.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), open.len(), "{ring:?}");
}

fn assert_gives_mask_back(nucleus: &Nucleus) {
    let polygons = outline_on_edges(nucleus);
    let b = nucleus.bbox;
    for y in b.y - 1..=b.bottom() {
        for x in b.x - 1..=b.right() {
            assert_eq!(even_odd(&polygons, x, y), nucleus.contains(x, y), "{x} {y}");
        }
    }
    let mut area = 0;
    for polygon in &polygons {
        assert_simple(&polygon.exterior);
        assert!(doubled_area(&polygon.exterior) > 0);
        area += doubled_area(&polygon.exterior);
        for hole in &polygon.holes {
            assert_simple(hole);
            assert!(doubled_area(hole) < 0);
            area += doubled_area(hole);
        }
    }
    assert_eq!(area, 2 * nucleus.area_px as i32);
}

#[test]
fn rings_on_edges_give_the_mask_back() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let (width, height) = (1 + dice.below(12), 1 + dice.below(12));
        let fill = 20 + dice.below(75);
        let mut rows: Vec<String> = (0..height)
            .map(|_| {
                let mut draw = |_| if dice.below(100) < fill { '#' } else { '.' };
                (0..width).map(&mut draw).collect()
            })
            .collect();
        rows[0].replace_range(0..1, "#");
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        assert_gives_mask_back(&drawn(&rows));
    }
}

#[test]
fn nuclei_are_one_polygon_each() {
    let blobs = components(&foreground(5, 90, 90, (-40, 1000)));
    let mut holes = 0;
    for blob in &blobs {
        for nucleus in segment(blob, &constants(EnergyRule::Eigen), MPP) {
            assert_gives_mask_back(&nucleus);
            let polygons = outline_on_edges(&nucleus);
            assert_eq!(polygons.len(), 1);
            holes += polygons[0].holes.len();
        }
    }
    assert!(holes > 0, "the noise leaves holes in some nuclei");
}

#[test]
fn a_hole_that_meets_the_rim_at_a_corner_stays_a_hole() {
    let polygons = outline_on_edges(&drawn(&["###", "#.#", "##."]));
    assert_eq!(polygons.len(), 1);
    assert_eq!(
        polygons[0].exterior,
        [[0, 0], [3, 0], [3, 2], [2, 2], [2, 3], [0, 3], [0, 0]]
    );
    let mut hole = polygons[0].holes[0].clone();
    hole.sort();
    hole.dedup();
    assert_eq!(hole, [[1, 1], [1, 2], [2, 1], [2, 2]]);
}

#[test]
fn a_part_inside_a_hole_is_a_polygon_of_its_own() {
    let rows = [
        "#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######",
    ];
    let polygons = outline_on_edges(&drawn(&rows));
    assert_eq!(polygons.len(), 2);
    assert_eq!(doubled_area(&polygons[0].exterior), 2 * 49);
    assert_eq!(doubled_area(&polygons[0].holes[0]), -2 * 25);
    assert_eq!(doubled_area(&polygons[1].exterior), 2 * 9);
    assert_eq!(doubled_area(&polygons[1].holes[0]), -2);
}
