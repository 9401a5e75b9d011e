//! The tile size decides scheduling and memory, never a result: real pixels, the embedded model, three tilings.

use crate::harness::{Dir, shared};

/// A small patch, so that tiles may be small and seams many.
const PATCH: &str = "256";
/// One patch a tile: its output square of 192 px.
const SMALLEST: &str = "256";
/// Larger than the slide in proc px.
const WHOLE: &str = "8192";

#[test]
fn same_bytes_whatever_the_tile_size() {
    let Some(slide) = shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let dir = Dir::new();
    let slide = slide.display().to_string();
    let run = |name: &str, tile: &str| {
        dir.ok(&format!(
            "run {slide} -o {name} --quiet --format json,csv --patch-size {PATCH} {tile}"
        ));
    };
    run("smallest", &format!("--tile-size {SMALLEST}"));
    run("default", "");
    run("whole", &format!("--tile-size {WHOLE}"));

    let report = dir.json("smallest/CMU-1-Small-Region/run.json");
    let crossed = |name: &str| report[name].as_u64().unwrap_or(0);
    assert!(crossed("nuclei_over_2_tiles") >= 200, "{report}");
    assert!(crossed("nuclei_over_4_tiles") >= 4, "{report}");
    let whole = dir.json("whole/CMU-1-Small-Region/run.json");
    assert_eq!(whole["tiles_planned"], 1);
    assert_eq!(whole["nuclei_over_2_tiles"], 0);
    for file in ["nuclei.json", "nuclei.csv"] {
        let bytes = |name: &str| dir.read(&format!("{name}/CMU-1-Small-Region/{file}"));
        assert!(
            bytes("smallest") == bytes("whole"),
            "{file}: smallest and whole differ"
        );
        assert!(
            bytes("default") == bytes("whole"),
            "{file}: default and whole differ"
        );
    }
    coordinates_are_inside(
        &dir.json("whole/CMU-1-Small-Region/nuclei.json"),
        2220.0,
        2967.0,
    );
}

/// Every coordinate lies on the slide, and nuclei lie at its lower rim, where the tissue is cut by the scan.
fn coordinates_are_inside(nuclei: &serde_json::Value, width: f64, height: f64) {
    let nuclei = nuclei["nuc"].as_object().expect("nuc");
    let mut lowest: f64 = 0.0;
    for (id, nucleus) in nuclei {
        let points = nucleus["contour"].as_array().expect("contour").iter();
        for point in points.chain([&nucleus["centroid"]]) {
            let (x, y) = (point[0].as_f64().expect("x"), point[1].as_f64().expect("y"));
            assert!(
                x >= 0.0 && y >= 0.0 && x <= width - 1.0 && y <= height - 1.0,
                "{id}: {x}, {y}"
            );
            lowest = lowest.max(y);
        }
        let corner = |i: usize, j: usize| nucleus["bbox"][i][j].as_f64().expect("bbox");
        assert!(corner(0, 0) >= 0.0 && corner(0, 1) >= 0.0, "{id}");
        assert!(corner(1, 0) <= height && corner(1, 1) <= width, "{id}");
    }
    assert!(
        lowest >= height - 2.0,
        "the slide's rim is not predicted: lowest {lowest}"
    );
}
