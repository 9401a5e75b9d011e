//! The region asked for is the region reported: the nuclei whose centroid lies inside, whole, and no others.

use std::collections::BTreeMap;

use crate::crowd::crowd;
use crate::harness::{Dir, shared};

/// Each nucleus by its centroid (level-0 px), with its area: what does not depend on the others.
fn nuclei(dir: &Dir, out: &str, stem: &str) -> BTreeMap<(String, String), String> {
    let bytes = dir.read(&format!("{out}/{stem}/nuclei.csv"));
    let mut reader = csv::Reader::from_reader(&bytes[..]);
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    rows.into_iter()
        .map(|row| {
            (
                (row["x_px"].clone(), row["y_px"].clone()),
                row["area_um2"].clone(),
            )
        })
        .collect()
}

fn at(place: &(String, String)) -> [f64; 2] {
    [place.0.parse().unwrap(), place.1.parse().unwrap()]
}

const FLAGS: &str = "a.png --model analytic --mpp 0.5 --quiet --format csv,json";

/// A crowd and all its nuclei.
fn whole() -> (Dir, BTreeMap<(String, String), String>) {
    let dir = Dir::new();
    crowd(1500, 1200, 5).save(dir.path("a.png")).unwrap();
    dir.ok(&format!("run {FLAGS} -o whole --mask none"));
    let all = nuclei(&dir, "whole", "a");
    assert!(all.len() > 300, "{}", all.len());
    (dir, all)
}

/// The nuclei of a restricted run are those of the whole run whose centroid is `inside`.
fn same_as_filtered(
    dir: &Dir,
    all: &BTreeMap<(String, String), String>,
    flags: &str,
    inside: impl Fn([f64; 2]) -> bool,
) -> usize {
    dir.ok(&format!("run {FLAGS} -o part --restart {flags}"));
    let found = nuclei(dir, "part", "a");
    let expected: BTreeMap<_, _> = all.iter().filter(|(place, _)| inside(at(place))).collect();
    assert_eq!(
        found.iter().collect::<BTreeMap<_, _>>(),
        expected,
        "{flags}"
    );
    let json = dir.json("part/a/nuclei.json");
    assert_eq!(json["nuc"].as_object().unwrap().len(), found.len());
    // What the store gives is what the run wrote.
    dir.ok("export part/a -o again --format csv");
    assert_eq!(dir.read("again/nuclei.csv"), dir.read("part/a/nuclei.csv"));
    found.len()
}

#[test]
fn a_box_reports_the_centroids_inside_it_alone() {
    let (dir, all) = whole();
    let inside = |[x, y]: [f64; 2]| (401.0..701.0).contains(&x) && (333.0..533.0).contains(&y);
    let count = same_as_filtered(
        &dir,
        &all,
        "--mask none --level0-box 401,333,300,200",
        inside,
    );
    assert!(count > 10, "{count}");
    let summary = dir.json("part/a/summary.json");
    // 300 x 200 px of 0.5 µm.
    assert_eq!(summary["area_mm2"]["roi"], 0.015);
    let density = summary["nuclei"]["density_per_mm2_tissue"].as_f64().unwrap();
    assert!((density / (count as f64 / 0.015) - 1.0).abs() < 1e-4);
}

#[test]
fn polygons_and_a_drawn_mask_do_the_same() {
    let (dir, all) = whole();
    // A triangle.
    dir.write(
        "roi.geojson",
        r#"{"type": "Polygon", "coordinates": [[[200, 200], [1000, 200], [200, 1000], [200, 200]]]}"#,
    );
    let triangle = |[x, y]: [f64; 2]| x >= 200.0 && y >= 200.0 && x + y < 1200.0;
    assert!(same_as_filtered(&dir, &all, "--mask none --roi roi.geojson", triangle) > 50);
    let area = dir.json("part/a/summary.json")["area_mm2"]["roi"]
        .as_f64()
        .unwrap();
    assert!((area / (0.5 * 0.4 * 0.4) - 1.0).abs() < 2e-3, "{area}");

    // A mask of 100 px cells: the left half.
    let mask = image::GrayImage::from_fn(15, 12, |x, _| image::Luma([255 * u8::from(x < 7)]));
    mask.save(dir.path("half.png")).unwrap();
    let flags = "--mask half.png";
    same_as_filtered(&dir, &all, flags, |[x, _]| x < 700.0);
}

#[test]
fn a_region_without_anything_says_why() {
    let (dir, _) = whole();
    let ring = |x: f64, y: f64, side: f64| {
        let [r, b] = [x + side, y + side];
        format!(
            r#"{{"type": "Polygon", "coordinates": [[[{x},{y}],[{r},{y}],[{r},{b}],[{x},{b}],[{x},{y}]]]}}"#
        )
    };
    for (name, ring, words) in [
        (
            "off",
            ring(5000.0, 5000.0, 200.0),
            "lies outside the slide of 1500 x 1200 px",
        ),
        ("tiny", ring(300.1, 300.1, 0.2), "is smaller than a pixel"),
    ] {
        dir.write("roi.geojson", ring);
        let line = FLAGS.replace("--quiet", "");
        let run = dir.ok(&format!(
            "run {line} -o {name} --mask none --roi roi.geojson"
        ));
        assert!(run.stderr.contains(words), "{name}: {}", run.stderr);
        let summary = dir.json(&format!("{name}/a/summary.json"));
        assert_eq!(summary["nuclei"]["count"], 0);
        assert!(summary["warnings"].to_string().contains(words));
    }
}

#[test]
fn the_demo_slides_box_has_the_nuclei_inside_it() {
    let Some(slide) = shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let dir = Dir::new();
    let slide = slide.display();
    dir.ok(&format!(
        "run {slide} -o whole --model analytic --quiet --format csv"
    ));
    dir.ok(&format!(
        "run {slide} -o part --model analytic --quiet --format csv --level0-box 1000,700,300,600"
    ));
    let stem = "CMU-1-Small-Region";
    let inside = |[x, y]: [f64; 2]| (1000.0..1300.0).contains(&x) && (700.0..1300.0).contains(&y);
    let mut expected = nuclei(&dir, "whole", stem);
    let mut found = nuclei(&dir, "part", stem);
    expected.retain(|place, _| inside(at(place)));
    // These rules take whole epidermis for one blob. A blob that reaches more than 16 µm out of the box may be cut there.
    for nuclei in [&mut found, &mut expected] {
        nuclei.retain(|_, area| area.parse::<f64>().unwrap() < 200.0);
    }
    assert!(found.len() > 150);
    assert!(found == expected);
}

/// Every warning of summary.json is told on standard error, once, by `tile` and `hovernet tile` as by `run`.
#[test]
fn warnings_of_images_are_told() {
    let dir = Dir::new();
    image::RgbImage::from_pixel(80, 60, image::Rgb([250; 3]))
        .save(dir.path("blank.png"))
        .unwrap();
    let run = dir.ok("tile blank.png -o out --model analytic --mpp 0.25");
    let summary = dir.json("out/blank/summary.json");
    let warnings = summary["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|w| w == "no nucleus was found"));
    for warning in warnings {
        let told = run.stderr.matches(warning.as_str().unwrap()).count();
        assert_eq!(told, 1, "{warning}: {}", run.stderr);
    }
    std::fs::create_dir(dir.path("in")).unwrap();
    std::fs::rename(dir.path("blank.png"), dir.path("in/blank.png")).unwrap();
    let run = dir.ok("hovernet tile --input_dir in --output_dir hv --model_path analytic");
    assert!(
        run.stderr.contains("no nucleus was found"),
        "{}",
        run.stderr
    );
}
