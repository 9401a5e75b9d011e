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
    let density = summary["nuclei"]["density_per_mm2_tissue"]
        .as_f64()
        .unwrap();
    assert!((density / (count as f64 / 0.015) - 1.0).abs() < 1e-4);
}

/// The same nuclei on the same tissue give the same density, whatever squares they were found in. The tissue is counted
/// from mask.png, the nuclei from nuclei.csv.
#[test]
fn a_density_is_per_mm2_of_tissue_whatever_the_patch() {
    let dir = Dir::new();
    // A crowd in the upper left quarter of a white slide.
    let mut slide = image::RgbImage::from_pixel(2400, 2000, image::Rgb([245; 3]));
    image::imageops::replace(&mut slide, &crowd(1200, 1000, 5), 0, 0);
    slide.save(dir.path("a.png")).unwrap();
    let mut found = Vec::new();
    for (name, flags) in [
        ("usual", ""),
        ("patch", "--patch-size 200"),
        ("tile", "--tile-size 256"),
    ] {
        dir.ok(&format!("run {FLAGS} -o {name} {flags}"));
        let summary = dir.json(&format!("{name}/a/summary.json"));
        let mask = image::open(dir.path(&format!("{name}/a/mask.png"))).unwrap();
        let mask = mask.into_luma8();
        // Cells of 8 µm are 16 px; the last row is 2000 px.
        let is_tissue = |[x, y]: [f64; 2]| mask.get_pixel(x as u32 / 16, y as u32 / 16).0[0] > 0;
        let mut tissue_px = 0;
        for (x, y) in (0..2400).flat_map(|x| (0..2000).map(move |y| (x, y))) {
            tissue_px += u32::from(is_tissue([f64::from(x), f64::from(y)]));
        }
        let tissue_mm2 = f64::from(tissue_px) * 0.25e-6;
        let nuclei = nuclei(&dir, name, "a");
        let on_tissue = nuclei.keys().filter(|place| is_tissue(at(place))).count();
        assert_eq!(summary["nuclei"]["on_tissue"], on_tissue);
        let density = summary["nuclei"]["density_per_mm2_tissue"]
            .as_f64()
            .unwrap();
        assert!(
            (density / (on_tissue as f64 / tissue_mm2) - 1.0).abs() < 1e-5,
            "{density}"
        );
        assert_eq!(
            summary["tissue"]["mask_um_per_px"],
            serde_json::json!([8.0, 8.0])
        );
        let done = summary["area_mm2"]["done"].as_f64().unwrap();
        assert!(
            done > 1.02 * tissue_mm2,
            "{done} mm² of squares, {tissue_mm2} of tissue"
        );
        found.push((density, done));
    }
    assert!(
        found.iter().all(|(density, _)| *density == found[0].0),
        "{found:?}"
    );
    assert_ne!(found[0].1, found[1].1, "the squares must differ");
    // Without a mask the denominator is everything, and the file says so.
    dir.ok(&format!("run {FLAGS} -o none --mask none"));
    let summary = dir.json("none/a/summary.json");
    assert_eq!(summary["tissue"]["examined_mm2"], 1.2);
    let words = summary["tissue"]["density_denominator"].as_str().unwrap();
    assert!(words.contains("glass included") && words.contains("--mask none"));
}

/// Tissue that cannot be read is no denominator.
#[test]
fn unreadable_tissue_is_taken_off() {
    let Some(slide) = shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let mut bytes = std::fs::read(slide).unwrap();
    let damaged = crate::tiff::tile(&bytes, 0, 64);
    bytes[damaged].fill(0);
    let dir = Dir::new();
    dir.write("broken.svs", bytes);
    let run = dir.run(
        "run broken.svs -o out --model analytic --patch-size 512 --mask none --quiet --format csv,crops",
    );
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let summary = dir.json("out/broken/summary.json");
    let area = |name: &str| summary["area_mm2"][name].as_f64().unwrap();
    assert!(area("unreadable") > 0.0);
    let examined = summary["tissue"]["examined_mm2"].as_f64().unwrap();
    // Without a mask all is tissue: what is left of it is what was done.
    let left = area("tissue") - area("unreadable");
    assert!((examined / left - 1.0).abs() < 1e-3, "{examined} {left}");
    assert!((examined / area("done") - 1.0).abs() < 1e-3, "{examined}");
    // The store alone says the same.
    dir.run("export out/broken -o again --format csv");
    assert_eq!(dir.json("again/summary.json")["tissue"], summary["tissue"]);
}

/// What was not asked for is not shown: crops, thumbnail and report of a box.
#[test]
fn pictures_of_a_region_show_the_region() {
    let dir = Dir::new();
    crowd(1500, 1200, 5).save(dir.path("a.png")).unwrap();
    let flags = "a.png --model analytic --mpp 0.5 --quiet --mask none";
    dir.ok(&format!("run {flags} -o out --level0-box 401,333,700,600"));
    let crops = dir.json("out/a/crops/crops.json");
    let crops = crops.as_array().unwrap();
    assert_eq!(crops.len(), 4, "fields of 256 px: 2 x 2 in the box");
    for crop in crops {
        let place = |i: usize| crop["level0_px"][i].as_u64().unwrap();
        let [x, y, w, h] = [0, 1, 2, 3].map(place);
        assert!(
            x >= 401 && y >= 333 && x + w <= 1101 && y + h <= 933,
            "{crop}"
        );
        assert!(crop["nuclei"].as_u64().unwrap() > 0, "{crop}");
    }
    // The thumbnail is 750 px wide; the box's left side lies at 200 of it, black on white.
    let thumb = image::open(dir.path("out/a/thumb.png"))
        .unwrap()
        .into_rgb8();
    assert_eq!(thumb.width(), 750);
    assert_eq!(thumb.get_pixel(200, 300).0, [0, 0, 0]);
    let page = String::from_utf8(dir.read("out/a/report.html")).unwrap();
    assert!(page.contains("the region asked for") && page.contains("Nothing outside was examined"));
    // The page that `report` writes again is the same.
    dir.ok("report out/a");
    assert!(String::from_utf8(dir.read("out/a/report.html")).unwrap() == page);
}

/// Nuclei cannot be seen beyond 2 µm/px: refused at once, and run where somebody insists.
#[test]
fn a_coarse_slide_is_refused_unless_forced() {
    let dir = Dir::new();
    dir.field("a.png", 200, 150);
    for command in ["run", "tile"] {
        let flags = format!("-o {command} --model analytic --mpp 2.1");
        dir.fails(
            &format!("{command} a.png {flags}"),
            3,
            &["2.1 µm/px", "--mpp", "--force-scale"],
        );
        let forced = dir.ok(&format!("{command} a.png {flags} --force-scale"));
        assert!(
            forced.stderr.contains("it is enlarged"),
            "{}",
            forced.stderr
        );
        dir.ok(&format!("{command} a.png -o fine --model analytic --mpp 2"));
    }
    dir.fails(
        "plan a.png --model analytic --mpp 29",
        3,
        &["29 µm/px", "--force-scale"],
    );
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
