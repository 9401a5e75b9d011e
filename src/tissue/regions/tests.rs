use super::*;

fn square(left: f64, top: f64, side: f64) -> Vec<[f64; 2]> {
    let (right, bottom) = (left + side, top + side);
    vec![[left, top], [right, top], [right, bottom], [left, bottom]]
}

#[test]
fn boxes_that_only_touch_do_not_meet() {
    let regions = Regions::from_polygons(&[vec![square(100.0, 100.0, 100.0)]]);
    for (rect, want) in [
        ([0.0, 0.0, 100.0, 100.0], Coverage::Outside),
        ([0.0, 120.0, 100.0, 130.0], Coverage::Outside),
        ([200.0, 120.0, 300.0, 130.0], Coverage::Outside),
        ([0.0, 0.0, 100.001, 100.001], Coverage::Partly),
        ([120.0, 120.0, 130.0, 130.0], Coverage::Inside),
        ([100.0, 100.0, 200.0, 200.0], Coverage::Inside),
        ([0.0, 0.0, 900.0, 900.0], Coverage::Partly),
        ([150.0, 0.0, 151.0, 900.0], Coverage::Partly),
        ([150.0, 150.0, 150.0, 150.0], Coverage::Outside),
    ] {
        assert_eq!(regions.coverage(rect), want, "{rect:?}");
    }
}

#[test]
fn holes_are_outside_and_polygons_are_united() {
    let ring = vec![square(0.0, 0.0, 100.0), square(20.0, 20.0, 60.0)];
    let regions = Regions::from_polygons(&[ring, vec![square(10.0, 10.0, 30.0)]]);
    assert!(!regions.meets([45.0, 45.0, 55.0, 55.0]));
    // The second polygon covers a corner of the first one's hole; their common part stays inside.
    assert!(regions.meets([25.0, 25.0, 26.0, 26.0]));
    assert!(regions.meets([12.0, 12.0, 13.0, 13.0]));
    assert!(regions.meets([90.0, 90.0, 95.0, 95.0]));
    assert!(regions.meets([45.0, 45.0, 81.0, 46.0]));
}

/// Against counting: for many points of the box, the crossings of a ray with the polygon's edges.
#[test]
fn boxes_against_many_points() {
    let mut state = 88_172_645_463_325_252u64;
    let mut random = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n) as f64
    };
    let inside = |ring: &[[f64; 2]], x: f64, y: f64| {
        let pairs = ring.iter().zip(ring.iter().cycle().skip(1));
        pairs.fold(false, |odd, (a, b)| {
            let crossing =
                (a[1] > y) != (b[1] > y) && x < a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1]);
            odd != crossing
        })
    };
    let (mut met, mut missed) = (0, 0);
    for _ in 0..60 {
        let ring: Vec<[f64; 2]> = (0..7).map(|_| [random(60), random(60)]).collect();
        let regions = Regions::from_polygons(&[vec![ring.clone()]]);
        for _ in 0..40 {
            let (x, y) = (random(60), random(60));
            let (w, h) = (1.0 + random(9), 1.0 + random(9));
            let rect = [x, y, x + w, y + h];
            let points = (0..400).map(|i| {
                let (i, j) = (f64::from(i % 20), f64::from(i / 20));
                [x + (i + 0.497) * w / 20.0, y + (j + 0.503) * h / 20.0]
            });
            let hits = points.filter(|p| inside(&ring, p[0], p[1])).count();
            match regions.coverage(rect) {
                Coverage::Outside => assert_eq!(hits, 0, "{ring:?} {rect:?}"),
                Coverage::Inside => assert_eq!(hits, 400, "{ring:?} {rect:?}"),
                Coverage::Partly if hits == 0 || hits == 400 => missed += 1,
                Coverage::Partly => met += 1,
            }
        }
    }
    // A few slivers and outlines that cross themselves lie between the points.
    assert!(met > 300 && missed * 5 < met, "{met} {missed}");
}

#[test]
fn geojson_of_every_kind() {
    let polygon = r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,10],[0,0]],[[2,2],[8,2],[8,8],[2,8],[2,2]]]}"#;
    let multi = r#"{"type":"MultiPolygon","coordinates":[[[[100,0],[110,0],[110,10],[100,0]]],[[[0,100],[9,100],[9,109,5],[0,100]]]]}"#;
    let feature = format!(r#"{{"type":"Feature","id":"a","properties":null,"geometry":{multi}}}"#);
    let collection = format!(
        r#"{{"type":"FeatureCollection","features":[{feature},{{"type":"Feature","properties":{{}},"geometry":{polygon}}}]}}"#
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roi.geojson");
    for text in [polygon, multi, &feature, &collection] {
        std::fs::write(&path, text).unwrap();
        let regions = Regions::from_geojson(&path).unwrap();
        assert!(!regions.meets([4.0, 4.0, 5.0, 5.0]));
        assert_eq!(
            regions.meets([1.0, 1.0, 2.0, 2.0]),
            text.contains("\"Polygon\"")
        );
        assert_eq!(
            regions.meets([105.0, 1.0, 106.0, 2.0]),
            text.contains("Multi")
        );
        assert_eq!(
            regions.meets([1.0, 101.0, 2.0, 102.0]),
            text.contains("Multi")
        );
    }
}

#[test]
fn bad_geojson_names_the_file_and_the_feature() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roi.geojson");
    let point = r#"{"type":"Feature","id":"7f","properties":null,"geometry":{"type":"Point","coordinates":[1,2]}}"#;
    let thin = r#"{"type":"Feature","properties":null,"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,1],[0,0]]]}}"#;
    let far = r#"{"type":"Polygon","coordinates":[[[0,0],[1e300,0],[1,1],[0,0]]]}"#;
    let none = r#"{"type":"Feature","properties":null,"geometry":null}"#;
    let far_feature = format!(r#"{{"type":"Feature","id":"7f","geometry":{far}}}"#);
    let collection =
        |features: &str| format!(r#"{{"type":"FeatureCollection","features":[{features}]}}"#);
    for (text, said) in [
        ("{", "GeoJSON"),
        (r#"{"type":"Polygon"}"#, "GeoJSON"),
        (
            &collection(&format!("{thin},{point}")),
            "feature 1: has a ring of 2",
        ),
        (&collection(point), "no polygon"),
        (&collection(none), "no polygon"),
        (&collection(""), "no polygon"),
        (
            &collection(&far_feature),
            "feature 1 (id 7f): has the point",
        ),
        (far, "no level-0 pixel"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = Regions::from_geojson(&path).unwrap_err().to_string();
        assert!(
            message.contains("roi.geojson") && message.contains(said),
            "{message}"
        );
    }
    let message = Regions::from_geojson(&dir.path().join("gone"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("gone") && message.contains("check the path"),
        "{message}"
    );
}

#[test]
fn what_has_no_inside_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roi.geojson");
    let square = r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,10],[0,0]]]}"#;
    let feature = |geometry: &str| format!(r#"{{"type":"Feature","geometry":{geometry}}}"#);
    let features = [
        feature(r#"{"type":"MultiPoint","coordinates":[[1,2],[3,4]]}"#),
        feature(r#"{"type":"LineString","coordinates":[[1,2],[3,4]]}"#),
        feature(r#"{"type":"Polygon","coordinates":[]}"#),
        feature("null"),
        feature(&format!(
            r#"{{"type":"GeometryCollection","geometries":[{{"type":"Point","coordinates":[1,2]}},{square}]}}"#
        )),
    ];
    std::fs::write(&path, format!("[{}]", features.join(","))).unwrap();
    let regions = Regions::from_geojson(&path).unwrap();
    assert_eq!((regions.polygons().len(), regions.skipped()), (1, 5));
    assert!(regions.contains([5.0, 5.0]) && !regions.contains([11.0, 5.0]));
    let moved = regions.moved([100.0, 50.0]);
    assert!(moved.contains([105.0, 55.0]) && !moved.contains([5.0, 5.0]));
}
