//! The binary as its users meet it: files written, messages, exit codes.

use crate::harness::{self, Dir, shared, signal};
use image::{DynamicImage, Rgb, RgbImage};

const RUN: &str = "run --model analytic --mpp 0.5 -o out";
const FILES: [&str; 9] = [
    "nuclei.json",
    "nuclei.csv",
    "nuclei.parquet",
    "nuclei.geojson.gz",
    "summary.json",
    "run.json",
    "thumb.png",
    "mask.png",
    "overlay.jpg",
];

/// Rows of a CSV by header.
fn rows(bytes: &[u8]) -> Vec<std::collections::BTreeMap<String, String>> {
    csv::Reader::from_reader(bytes)
        .deserialize()
        .map(Result::unwrap)
        .collect()
}

#[test]
fn run_writes_every_file_and_table_and_json_agree() {
    let dir = Dir::new();
    dir.field("a.png", 700, 500).ok(&format!("{RUN} a.png"));
    for file in FILES {
        assert!(!dir.read(&format!("out/a/{file}")).is_empty(), "{file}");
    }
    let json = dir.json("out/a/nuclei.json");
    let nuclei = json["nuc"].as_object().unwrap();
    let rows = rows(&dir.read("out/a/nuclei.csv"));
    // 23 x 16 whole discs, and a few that the rim cuts.
    assert!(nuclei.len() >= 23 * 16, "{}", nuclei.len());
    assert_eq!(nuclei.len(), rows.len());
    for ((id, nucleus), row) in nuclei.iter().zip(&rows) {
        assert_eq!(id, &row["id"]);
        for point in nucleus["contour"].as_array().unwrap() {
            assert!((0.0..=699.0).contains(&point[0].as_f64().unwrap()));
            assert!((0.0..=499.0).contains(&point[1].as_f64().unwrap()));
        }
    }
    let summary = dir.json("out/a/summary.json");
    assert_eq!(summary["nuclei"]["count"], nuclei.len());
    assert_eq!(summary["complete"], true);
    let run = dir.json("out/a/run.json");
    assert_eq!(run["exit_code"], 0);
    assert_eq!(run["settings"]["model"]["from"], "flag");
    assert_eq!(run["settings"]["units"]["from"], "default");
    assert!(run["peak_memory_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_second_run_reuses_the_tiles_and_export_needs_no_slide() {
    let dir = Dir::new();
    dir.field("a.png", 600, 600)
        .ok(&format!("{RUN} a.png --tile-size 256"));
    let results = [
        "nuclei.json",
        "nuclei.csv",
        "nuclei.parquet",
        "nuclei.geojson.gz",
        "summary.json",
    ];
    let first = results.map(|file| dir.read(&format!("out/a/{file}")));
    dir.ok(&format!("{RUN} a.png --tile-size 256"));
    assert_eq!(
        results.map(|file| dir.read(&format!("out/a/{file}"))),
        first
    );
    let run = dir.json("out/a/run.json");
    assert!(run["tiles_planned"].as_u64().unwrap() > 1);
    assert_eq!(run["tiles_reused"], run["tiles_planned"]);

    std::fs::remove_file(dir.path("a.png")).unwrap();
    dir.ok("export out/a -o again");
    assert_eq!(
        results.map(|file| dir.read(&format!("again/{file}"))),
        first
    );
}

#[test]
fn report_crops_and_labels_follow_from_the_run() {
    let dir = Dir::new();
    dir.field("a.png", 600, 500)
        .field("b.png", 300, 300)
        .ok(&format!(
            "{RUN} a.png b.png --format csv,crops,report,ome-zarr"
        ));
    let first = dir.read("out/a/report.html");
    let html = String::from_utf8(first.clone()).unwrap();
    for text in ["<svg", "Cliff’s δ", "Densest field, no. 1", "id=\"f14\""] {
        assert!(html.contains(text), "{text}");
    }
    assert!(!html.contains("http") && !html.contains("<script") && first.len() < 5_000_000);
    assert!(!dir.read("out/a/labels.ome.zarr/nuclei/0/c/0/0").is_empty());
    let pixels = image::open(dir.path("out/a/crops/densest-1-pixels.png")).unwrap();
    assert_eq!((pixels.width(), pixels.height()), (256, 256));

    std::fs::remove_file(dir.path("out/a/report.html")).unwrap();
    let run = dir.ok("report out");
    assert!(run.stdout.contains("2 slides"), "{}", run.stdout);
    assert_eq!(dir.read("out/a/report.html"), first);
    let index = String::from_utf8(dir.read("out/index.html")).unwrap();
    assert!(index.contains("href=\"a/report.html\"") && index.contains("href=\"b/report.html\""));

    dir.fails("report .", 2, &["holds no results"]);
    dir.fails("export out/a -o again --format crops", 2, &["use `run`"]);
    std::fs::remove_file(dir.path("out/b/store.zarr/zarr.json")).unwrap();
    dir.fails("report out", 1, &["store.zarr"]);
}

#[test]
fn tile_writes_pages_only_when_asked() {
    let dir = Dir::new();
    dir.field("a.png", 200, 160);
    dir.ok("tile --model analytic --mpp 0.5 -o out a.png");
    assert!(!dir.path("out/a/report.html").exists() && !dir.path("out/a/crops").exists());
    let run = dir.json("out/a/run.json");
    assert_eq!(run["exit_code"], 0);
    assert!(run["nuclei"].as_u64() > Some(0) && run["slide"]["path"] == "a.png");
    dir.ok("tile --model analytic --mpp 0.5 -o out a.png --format csv,report,crops");
    assert!(dir.path("out/a/crops/crops.json").exists());
    let first = dir.read("out/a/report.html");
    // There is no store: the page is made from the tables, whose 6 digits may show in the last of a figure.
    dir.ok("report out/a");
    let parts = [first, dir.read("out/a/report.html")].map(|page| {
        let html = String::from_utf8(page).unwrap();
        let end = html.find("Size by type").unwrap();
        (
            html[..end].to_owned(),
            html[html.find("How to cite").unwrap()..].to_owned(),
        )
    });
    assert!(parts[0] == parts[1], "the pages differ");
}

#[test]
fn another_identity_is_refused_and_names_what_differs() {
    let dir = Dir::new();
    dir.field("a.png", 300, 300).ok(&format!("{RUN} a.png"));
    let before = dir.read("out/a/run.json");
    dir.fails(
        "run --model analytic --mpp 0.25 -o out a.png",
        2,
        &["mpp", "--restart"],
    );
    assert_eq!(dir.read("out/a/run.json"), before);
    dir.ok("run --model analytic --mpp 0.25 -o out a.png --restart");
}

#[test]
fn tile_keeps_the_images_own_pixels() {
    let dir = Dir::new();
    dir.field("a.png", 200, 160)
        .ok("tile --model analytic --mpp 0.25 -o out a.png");
    let labels = image::open(dir.path("out/a/labels.png"))
        .unwrap()
        .into_luma16();
    let overlay = image::open(dir.path("out/a/overlay.jpg")).unwrap();
    assert_eq!(labels.dimensions(), (200, 160));
    assert_eq!((overlay.width(), overlay.height()), (200, 160));
    let json = dir.json("out/a/nuclei.json");
    let nuclei = json["nuc"].as_object().unwrap();
    let most = labels.pixels().map(|p| usize::from(p.0[0])).max().unwrap();
    assert!(most > 20 && most <= nuclei.len());
    assert!(!dir.path("out/a/store.zarr").exists());
    dir.fails(
        "tile --model analytic --mpp 0.25 -o out a.png --restart",
        2,
        &["--restart is for `run`"],
    );
}

#[test]
fn postproc_of_a_saved_map_gives_the_same_nuclei() {
    let dir = Dir::new();
    dir.field("a.png", 200, 160)
        .ok("tile --model analytic --mpp 0.5 -o out a.png --save-raw");
    std::fs::rename(dir.path("out/a/raw.npy"), dir.path("b.npy")).unwrap();
    dir.ok("postproc b.npy --model analytic --mpp 0.5 -o out --image a.png");
    let [a, b] = ["a", "b"].map(|stem| dir.json(&format!("out/{stem}/nuclei.json")));
    assert!(a["nuc"].as_object().unwrap().len() > 20);
    assert_eq!(a["nuc"], b["nuc"]);
    dir.ok("postproc b.npy --mpp 0.5 -o reference --postproc reference");
    dir.fails("postproc a.png -o out", 3, &["a.png: is no .npy file"]);
    dir.ok("tile --model analytic --mpp 0.5 -o out/reference a.png --postproc reference");
}

#[test]
fn wrong_input_has_a_message_and_its_exit_code() {
    let dir = Dir::new();
    dir.field("a.png", 64, 64)
        .write("text.svs", "no slide")
        .write("half.png", &dir.read("a.png")[..300])
        .write("empty.svs", "");
    std::fs::create_dir(dir.path("folder")).unwrap();
    for name in ["missing.svs", "text.svs", "half.png", "empty.svs"] {
        dir.fails(&format!("{RUN} {name}"), 3, &[name]);
    }
    dir.fails("run --model analytic -o out a.png", 3, &["a.png", "--mpp"]);
    dir.fails(
        "tile --model analytic -o out/images a.png",
        3,
        &["a.png", "--mpp"],
    );
    // An image that failed leaves its folder with the reason, as a slide does.
    for folder in ["out/a", "out/images/a"] {
        let run = dir.json(&format!("{folder}/run.json"));
        assert_eq!(
            (&run["exit_code"], &run["settings"]["model"]["from"]),
            (&3.into(), &"flag".into())
        );
        assert!(run["error"].as_str().unwrap().contains("--mpp"), "{run}");
    }
    dir.fails(&format!("{RUN} folder"), 2, &["folder", ".svs"]);
    dir.fails(RUN, 2, &["no slide"]);
    dir.fails("run --model analytic a.png", 2, &["-o OUT"]);
    dir.fails(
        "run --model analytic --mpp 0.5 -o a.png/out a.png",
        2,
        &["a.png/out", "-o"],
    );
    dir.fails("run --model nosuch --mpp 0.5 -o out a.png", 2, &["nosuch"]);
    dir.fails(
        "run --mask no.png -o out a.png",
        2,
        &["no.png", "no such file"],
    );
    dir.fails("run --postproc reference -o out a.png", 2, &["tile"]);
    dir.fails("run --quiet --progress json -o out a.png", 2, &["--quiet"]);
    dir.fails("run --level0-box 1,2,3 -o out a.png", 2, &["x,y,w,h"]);
    dir.fails("run --memory lots -o out a.png", 2, &["8GiB"]);
    dir.fails("export a.png -o out", 3, &["store"]);
    dir.fails("frobnicate", 2, &["frobnicate"]);
    assert!(!dir.path("out/a/nuclei.json").exists());
}

#[test]
fn a_model_folder_with_a_wrong_hash_is_refused() {
    let dir = Dir::new();
    let toml = |types: &str| {
        format!(
            "name = \"m\"\narchitecture = \"hovernet-lite\"\nmpp = 0.25\npatch_in_px = 512\npatch_out_px = 384\n\
             weights = \"model.safetensors\"\nsha256 = \"{}\"\ntypes = {types}\n",
            "0".repeat(64)
        )
    };
    dir.field("a.png", 64, 64)
        .write("m/model.toml", toml("[]"))
        .write("m/model.safetensors", "not weights")
        .write("n/model.toml", toml("3"));
    dir.fails(
        "run --model ./m --mpp 0.5 -o out a.png",
        2,
        &["model.safetensors", "SHA-256"],
    );
    dir.fails("run --model ./n --mpp 0.5 -o out a.png", 2, &["model.toml"]);
    dir.fails("model info ./m", 2, &["SHA-256"]);
}

#[test]
fn odd_images_are_fine() {
    let dir = Dir::new();
    let white = RgbImage::from_pixel(80, 60, Rgb([255, 255, 255]));
    let field = harness::field(300, 200);
    white.save(dir.path("white.png")).unwrap();
    RgbImage::from_pixel(1, 1, Rgb([120, 60, 140]))
        .save(dir.path("one.png"))
        .unwrap();
    harness::field(40, 30).save(dir.path("small.png")).unwrap();
    DynamicImage::from(field.clone())
        .into_rgba8()
        .save(dir.path("rgba.png"))
        .unwrap();
    DynamicImage::from(field.clone())
        .into_rgb16()
        .save(dir.path("deep.png"))
        .unwrap();
    field.save(dir.path("jpeg.jpg")).unwrap();
    for (name, nuclei) in [
        ("white.png", false),
        ("one.png", false),
        ("small.png", true),
        ("rgba.png", true),
        ("deep.png", true),
        ("jpeg.jpg", true),
    ] {
        let stem = name.split('.').next().unwrap();
        for mask in ["otsu", "none"] {
            dir.ok(&format!(
                "run --model analytic --mpp 0.5 -o {mask} --mask {mask} {name}"
            ));
            for file in FILES {
                assert!(
                    dir.path(&format!("{mask}/{stem}/{file}")).is_file(),
                    "{mask} {name} {file}"
                );
            }
        }
        dir.ok(&format!("tile --model analytic --mpp 0.5 -o tile {name}"));
        for from in ["none", "tile"] {
            let count = dir.json(&format!("{from}/{stem}/summary.json"))["nuclei"]["count"].clone();
            assert_eq!(count.as_u64().unwrap() > 0, nuclei, "{from} {name}");
        }
    }
    let warnings = dir.json("otsu/white/summary.json")["warnings"].to_string();
    assert!(warnings.contains("no nucleus"), "{warnings}");
}

#[test]
fn one_bad_slide_leaves_the_others_running() {
    let dir = Dir::new();
    dir.field("good.png", 200, 200).write("bad.svs", "no slide");
    dir.fails(&format!("{RUN} bad.svs good.png"), 1, &["bad.svs"]);
    assert!(dir.path("out/good/nuclei.json").is_file());
}

#[test]
fn one_stem_twice_needs_other_names() {
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path("x")).unwrap();
    dir.field("a.png", 64, 64).field("x/a.png", 64, 64);
    dir.fails(
        &format!("{RUN} a.png x/a.png"),
        2,
        &["a.png", "x/a.png", "--dedupe-names"],
    );
    dir.write(
        "cohort.csv",
        "path,id,mpp\na.png,one,0.5\nx/a.png,two,0.25\n",
    );
    dir.ok("run --model analytic -o out --manifest cohort.csv");
    assert_eq!(dir.json("out/one/summary.json")["mpp"][0], 0.5);
    assert_eq!(dir.json("out/two/summary.json")["mpp"][0], 0.25);
    assert_eq!(dir.json("out/two/summary.json")["mpp_from"], "manifest");
    dir.ok(&format!("{RUN} -r . --dedupe-names --format json"));
    let names: Vec<_> = std::fs::read_dir(dir.path("out")).unwrap().collect();
    assert!(names.len() >= 4);
}

#[test]
fn settings_come_from_files_and_the_environment() {
    let dir = Dir::new();
    dir.field("a.png", 64, 64)
        .write(
            "my.toml",
            "model = \"analytic\"\nmpp = 0.5\nformat = [\"csv\"]\nunits = \"px\"\n",
        )
        .write("bad.toml", "mpp = 0.5\nmodle = \"x\"\n");
    let output = dir
        .command("run --config my.toml -o out a.png")
        .env("WSI_NUCLEI_UNITS", "um")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!dir.path("out/a/nuclei.json").exists());
    let header = String::from_utf8(dir.read("out/a/nuclei.csv")).unwrap();
    assert!(header.contains(",area_um2,"));
    let settings = dir.json("out/a/run.json")["settings"].clone();
    assert_eq!(settings["units"]["from"], "environment");
    assert_eq!(settings["format"]["from"], "file");
    dir.fails(
        "run --config bad.toml -o out a.png",
        2,
        &["bad.toml, line 2", "`model`"],
    );
}

#[test]
fn progress_is_lines_json_or_nothing() {
    let dir = Dir::new();
    dir.field("a.png", 200, 200);
    let plain = dir.ok(&format!("{RUN} a.png --log run.log")).stderr;
    assert!(
        plain.contains("mm²") && plain.contains("nuclei in"),
        "{plain}"
    );
    assert_eq!(String::from_utf8(dir.read("run.log")).unwrap(), plain);
    let lines = dir
        .ok(&format!("{RUN} a.png --progress json --restart"))
        .stderr;
    let events: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
    assert!(kinds.contains(&"planned") && kinds.contains(&"progress") && kinds.ends_with(&["end"]));
    assert_eq!(dir.ok(&format!("{RUN} a.png --quiet --restart")).stderr, "");
}

#[test]
fn look_without_running() {
    let dir = Dir::new();
    dir.field("a.png", 500, 400);
    let info: serde_json::Value =
        serde_json::from_str(&dir.ok("slide info a.png --json").stdout).unwrap();
    assert_eq!(info["levels"][0]["width_px"], 500);
    assert!(dir.ok("slide info a.png").stdout.contains("500 x 400 px"));
    let plan = dir
        .ok("plan a.png --model analytic --mpp 0.5 --json")
        .stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert!(plan["patches"].as_u64().unwrap() >= 1);
    dir.ok("mask a.png --mpp 0.5 -o m.png");
    dir.ok(&format!("{RUN} a.png --mask m.png"));
    assert!(dir.ok("model list").stdout.contains("analytic"));
    assert!(dir.ok("doctor").stdout.contains("libtorch"));
    assert!(dir.ok("model verify analytic").stdout.contains("np"));
    let version = dir.ok("--version").stdout;
    assert!(
        version.contains("libtorch 2.") && version.contains("OpenSlide 4."),
        "{version}"
    );
    assert!(dir.ok("completions bash").stdout.contains("wsi-nuclei"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = Dir::new();
    let mut child = dir
        .command("completions bash")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_truncated_real_slide_is_an_error_and_an_unreadable_tile_is_incomplete() {
    let (Some(whole), Some(broken)) = (
        shared("slides/CMU-1-Small-Region.svs"),
        shared("slides/broken_unreadable_tile.svs"),
    ) else {
        return;
    };
    let dir = Dir::new();
    let bytes = std::fs::read(whole).unwrap();
    dir.write("cut.svs", &bytes[..bytes.len() / 3]);
    let run = dir.run("run --model analytic -o out cut.svs");
    assert!(matches!(run.code, Some(1 | 3)), "{}", run.stderr);
    assert!(run.stderr.contains("cut.svs") && !run.stderr.contains("panicked"));
    // Its only tile cannot be read: nothing could be done.
    let broken = broken.display();
    dir.fails(
        &format!("run --model analytic --mpp 0.5 --mask none -o out {broken}"),
        3,
        &["cannot be read", "broken_unreadable_tile.svs"],
    );
}

#[test]
fn a_folder_of_images_becomes_one_table() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("images")).unwrap();
    dir.field("images/b, 2.png", 120, 90)
        .field("images/a.png", 90, 120);
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/extract_features.sh");
    let output = std::process::Command::new(script)
        .args(["images", "out", "0.5", "--model", "analytic"])
        .env("WSI_NUCLEI", env!("CARGO_BIN_EXE_wsi-nuclei"))
        .current_dir(dir.path(""))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let table = rows(&dir.read("out/features.csv"));
    let of = |image: &str| table.iter().filter(|row| row["image"] == image).count();
    for image in ["a", "b_ 2"] {
        let summary = dir.json(&format!("out/{image}/summary.json"));
        assert!(of(image) > 5);
        assert_eq!(summary["nuclei"]["count"], of(image));
    }
    assert_eq!(of("a") + of("b_ 2"), table.len());
}

/// Starts a slow run and waits until it works on tiles.
fn slow_run(dir: &Dir) -> std::process::Child {
    use std::io::BufRead;
    let mut child = dir
        .command("run --model analytic:400 --mpp 0.5 -o out a.png --tile-size 256 --threads 1 --progress json")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("\"progress\"")),
        "no tile was done"
    );
    // Somebody must read on, or the run would write into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn a_stop_request_ends_with_75_and_the_next_run_goes_on() {
    let dir = Dir::new();
    dir.field("a.png", 1200, 1200);
    let mut child = slow_run(&dir);
    signal(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(dir.json("out/a/run.json")["exit_code"], 75);
    assert!(!dir.path("out/a/nuclei.json").exists());
    dir.ok("run --model analytic --mpp 0.5 -o out a.png");
    assert!(dir.json("out/a/run.json")["tiles_reused"].as_u64().unwrap() > 0);
    dir.ok("run --model analytic --mpp 0.5 -o whole a.png");
    assert_eq!(
        dir.read("out/a/nuclei.json"),
        dir.read("whole/a/nuclei.json")
    );
}
