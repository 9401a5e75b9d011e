//! A wrong µm/px is noticed, and the right one found, on images whose scale is known.

use image::imageops::{FilterType, crop_imm, resize};

use crate::harness::{Dir, shared};

/// Files below shared/ with their µm/px (the READMEs of shared/data and shared/slides say where it comes from).
const KNOWN: [(&str, f64); 3] = [
    ("slides/CMU-1-Small-Region.svs", 0.499),
    ("data/consep/Train/Images/train_1.png", 0.25),
    ("data/nuinsseg/images/human_spleen_01.jpg", 0.155),
];

#[test]
fn the_estimate_is_within_a_quarter_of_the_known_scale() {
    let dir = Dir::new();
    for (name, known) in KNOWN {
        let Some(path) = shared(name) else { return };
        let line = format!("slide info {} --estimate-mpp --json", path.display());
        let said: serde_json::Value = serde_json::from_str(&dir.ok(&line).stdout).unwrap();
        let found = said["estimated_mpp"].as_f64().unwrap();
        assert!(
            (0.75 * known..=1.25 * known).contains(&found),
            "{name}: {found}, known {known}"
        );
    }
}

#[test]
fn blue_tissue_without_nuclei_warns_of_the_scale() {
    let Some(path) = shared("data/consep/Train/Images/train_1.png") else {
        return;
    };
    let dir = Dir::new();
    let whole = image::open(path).unwrap().into_rgb8();
    // 2 µm/px, said to be 0.25: nuclei of two px that nothing finds.
    let small = resize(&whole, 125, 125, FilterType::CatmullRom);
    let wide = image::RgbImage::from_fn(1000, 1000, |x, y| *small.get_pixel(x % 125, y % 125));
    crop_imm(&wide, 0, 0, 1000, 1000)
        .to_image()
        .save(dir.path("coarse.png"))
        .unwrap();
    let run = dir.ok("run coarse.png -o out --mpp 0.25 --mask none --format json");
    let summary = dir.json("out/coarse/summary.json");
    let warned = summary["warnings"].to_string();
    assert!(warned.contains("--estimate-mpp"), "{warned}");
    assert!(run.stderr.contains("--estimate-mpp"), "{}", run.stderr);
}
