//! Results that exist already: `features` and `export` of JSON, without slide or network.

use std::collections::BTreeMap;
use std::io::Read;

use crate::harness::Dir;

/// As hover_net writes a slide: ids in any order, wrong boxes, a nucleus without a type.
const OLD: &str = r#"{"mag": 40, "nuc": {
    "7": {"bbox": [[10, 20], [14, 26]], "centroid": [12, 22], "contour": [[10, 20], [10, 23], [15, 23], [15, 20]], "type_prob": 0.75, "type": 1},
    "2": {"bbox": [[0, 0], [1, 1]], "centroid": [40, 40], "contour": [[40, 40], [41, 41], [42, 42]], "type_prob": null, "type": null}
}}"#;

fn rows(bytes: &[u8]) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(bytes);
    reader.deserialize().map(Result::unwrap).collect()
}

#[test]
fn old_json_gives_tables_with_right_boxes() {
    let dir = Dir::new();
    dir.write("json/a.json", OLD).write(
        "types.json",
        r#"{"0": ["nolabe", [0, 0, 0]], "1": ["neopla", [255, 0, 0]]}"#,
    );
    let run = dir.ok("features json -o out --tutorial --type-info types.json");
    assert!(
        run.stderr.contains("warning") && run.stderr.contains("--mpp"),
        "{}",
        run.stderr
    );
    let table = rows(&dir.read("out/a/nuclei.csv"));
    let expected = [
        ("id", "7"),
        ("type", "1"),
        ("type_name", "neopla"),
        ("type_prob", "0.75"),
        ("min_x", "10"),
        ("max_x", "16"),
        ("min_y", "20"),
        ("max_y", "24"),
        ("x_px", "13"),
        // 6 x 4 px of 0.25 µm.
        ("area_um2", "1.5"),
    ];
    for (name, value) in expected {
        assert_eq!(table[1][name], value, "{name}");
    }
    assert_eq!(
        (table[0]["id"].as_str(), table[0]["type"].as_str()),
        ("2", "")
    );
    assert_eq!(table[0]["area_um2"], "0.1875");
    assert!(!table[0].contains_key("red_mean") && !table[0].contains_key("type_share"));
    let tutorial = rows(&dir.read("out/a/features.csv"));
    assert_eq!(tutorial[1]["area"], "24");
    assert_eq!(tutorial[1]["inertia_tensor_eigvals_x"], "2.91667");
    assert_eq!(tutorial[1]["centroid_x"], "12.5");
    assert!(dir.read("out/a/nuclei.parquet").starts_with(b"PAR1"));
}

#[test]
fn a_broken_file_is_refused_with_its_byte_and_leaves_the_others() {
    let dir = Dir::new();
    let cut = &OLD[..OLD.find("[15, 23]").unwrap()];
    dir.write("json/a.json", OLD).write("json/b.json", cut);
    let place = format!("byte {} (nucleus 7)", cut.len());
    dir.fails("features json -o out", 1, &[&place, "b.json"]);
    assert!(dir.path("out/a/nuclei.csv").exists() && !dir.path("out/b").exists());
    dir.fails("features json/b.json -o out", 3, &["copy it again"]);
    dir.write("c.json", OLD.replace("\"mag\": 40", "\"mag\": null"));
    dir.fails("features c.json -o out", 3, &["--mpp", "--units px"]);
    dir.ok("features c.json -o out --units px");
    dir.write("other/a.json", OLD);
    dir.fails("features json other -o out", 2, &["would both be written"]);
    dir.fails("features json/a.json -o out --format json", 2, &["export"]);
}

#[test]
fn export_repairs_json_and_gives_geojson() {
    let dir = Dir::new();
    dir.write("a.json", OLD);
    dir.ok("export a.json -o out --format json,geojson,geojson.gz");
    let json = dir.json("out/a/nuclei.json");
    let second = &json["nuc"]["7"];
    assert_eq!(second["bbox"].to_string(), "[[20,10],[24,16]]");
    assert_eq!(
        second["contour"].to_string(),
        "[[10,20],[10,23],[15,23],[15,20]]"
    );
    assert_eq!(json["nuc"]["2"]["type"], serde_json::Value::Null);
    assert_eq!(json["mag"].to_string(), "40");
    let plain = dir.read("out/a/nuclei.geojson");
    let geojson: serde_json::Value = serde_json::from_slice(&plain).unwrap();
    // Three px on a diagonal touch at corners alone: three polygons.
    let first = &geojson["features"][0]["geometry"];
    assert_eq!(
        (
            first["type"].as_str(),
            first["coordinates"].as_array().unwrap().len()
        ),
        (Some("MultiPolygon"), 3)
    );
    let mut unpacked = Vec::new();
    let packed = dir.read("out/a/nuclei.geojson.gz");
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain);
    // The header's time.
    assert_eq!(packed[4..8], [0; 4]);
    dir.fails("export a.json -o out --format overlay", 2, &["STORE"]);
}

#[test]
fn our_own_json_gives_the_tables_that_the_run_gave() {
    let dir = Dir::new();
    dir.field("a.png", 300, 200)
        .ok("run --model analytic --mpp 0.5 -o out a.png");
    dir.ok("features out/a/nuclei.json -o again");
    let (run, read) = (
        rows(&dir.read("out/a/nuclei.csv")),
        rows(&dir.read("again/a/nuclei.csv")),
    );
    assert!(read.len() > 40);
    assert_eq!(run.len(), read.len());
    for (run, read) in run.iter().zip(&read) {
        for (name, value) in read {
            // The JSON keeps 4 decimals of it.
            if name != "type_prob" {
                assert_eq!(value, &run[name], "{name}");
            }
        }
    }
    dir.ok("export out/a/nuclei.json -o repaired --format json");
    assert_eq!(
        dir.read("repaired/a/nuclei.json"),
        dir.read("out/a/nuclei.json")
    );
}
