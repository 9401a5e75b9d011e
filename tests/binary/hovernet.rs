//! hover_net's command line: every flag, before and after the command word, the same files out.

use std::io::Read;

use crate::harness::Dir;
#[cfg(target_os = "linux")]
use crate::killed::child_of;

/// Two images of different sizes in `in/`.
fn images() -> Dir {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("in")).unwrap();
    dir.field("in/a.png", 300, 200).field("in/b.png", 90, 120);
    dir
}

const TYPE_INFO: &str =
    r#"{"0": ["nolabe", [0, 0, 0]], "1": ["DARK", [255, 0, 0]], "2": ["pale", [0, 255, 0]]}"#;

/// Numeric matrices of a .mat by name: [rows, columns].
fn matrices(bytes: &[u8]) -> Vec<(String, [usize; 2])> {
    let found = wsi_nuclei::internals::read_mat5(bytes).unwrap();
    let shape = |m: wsi_nuclei::internals::Matrix| (m.name, [m.rows, m.columns]);
    found.into_iter().map(shape).collect()
}

#[test]
fn tile_writes_hover_nets_files() {
    let dir = images();
    dir.write("type_info.json", TYPE_INFO);
    dir.ok(
        "hovernet --gpu=0 --nr_types=3 --model_path=analytic --nr_inference_workers=8 --batch_size 4 tile \
         --input_dir=in --output_dir=out --mem_usage=0.1 --draw_dot --save_qupath --type_info_path=type_info.json --mpp=0.5",
    );
    for stem in ["a", "b"] {
        let json = dir.json(&format!("out/json/{stem}.json"));
        let keys: Vec<&String> = json.as_object().unwrap().keys().take(2).collect();
        assert_eq!(keys, ["mag", "nuc"]);
        assert!(json["mag"].is_null());
        let nuclei = json["nuc"].as_object().unwrap();
        assert!(nuclei.len() > 10, "{stem}: {}", nuclei.len());
        let (_, first) = nuclei.iter().next().unwrap();
        let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["bbox", "centroid", "contour", "type_prob", "type"]);
        let n = nuclei.len();
        let found = matrices(&dir.read(&format!("out/mat/{stem}.mat")));
        let shape = |name: &str| found.iter().find(|m| m.0 == name).map(|m| m.1);
        let side = if stem == "a" { [200, 300] } else { [120, 90] };
        assert_eq!(shape("inst_map"), Some(side));
        assert_eq!(shape("inst_uid"), Some([n, 1]));
        assert_eq!(shape("inst_type"), Some([n, 1]));
        assert_eq!(shape("inst_centroid"), Some([n, 2]));
        let tsv = String::from_utf8(dir.read(&format!("out/qupath/{stem}.tsv"))).unwrap();
        assert_eq!(tsv.lines().count(), n + 1);
        assert!(
            tsv.lines().skip(1).all(
                |l| l.ends_with("\tDARK\tDARK\t16711680") || l.ends_with("\tpale\tpale\t65280")
            )
        );
        let overlay = image::open(dir.path(&format!("out/overlay/{stem}.png"))).unwrap();
        assert_eq!([overlay.height() as usize, overlay.width() as usize], side);
    }
}

#[test]
fn flags_stand_before_or_after_the_command_word() {
    let dir = images();
    dir.ok("hovernet tile --input_dir in --output_dir one --model_path analytic --gpu 0 --mpp 0.5");
    dir.ok(
        "hovernet --output_dir=two --input_dir=in --mpp=0.5 --gpu=0,1 --model_path=analytic tile",
    );
    assert_eq!(dir.read("one/json/a.json"), dir.read("two/json/a.json"));
    assert!(!dir.path("one/qupath").exists());
}

#[test]
fn wsi_counts_in_px_of_proc_mag() {
    let dir = images();
    std::fs::create_dir(dir.path("masks")).unwrap();
    image::GrayImage::from_pixel(30, 20, image::Luma([255]))
        .save(dir.path("masks/a.png"))
        .unwrap();
    // b has no mask: tissue is searched for.
    dir.ok("hovernet --model_path=analytic wsi --input_dir=in --output_dir=out --mask_dir=masks --mpp=0.5 \
        --proc_mag=40 \
            --save_thumb --save_mask --tile_shape=2048 --cache_path=cache");
    let json = dir.json("out/json/a.json");
    assert_eq!(json["mag"], 40);
    // 300 px of 0.5 µm are 600 px at 40x.
    assert_eq!(json["width"], 600);
    let nuclei = json["nuc"].as_object().unwrap();
    let most = |axis: usize| {
        let xs = nuclei
            .values()
            .map(|n| n["centroid"][axis].as_f64().unwrap());
        xs.fold(0.0, f64::max)
    };
    assert!((500.0..600.0).contains(&most(0)), "{}", most(0));
    assert!((300.0..400.0).contains(&most(1)), "{}", most(1));
    let thumb = image::open(dir.path("out/thumb/a.png")).unwrap();
    let mask = image::open(dir.path("out/mask/a.png")).unwrap();
    // 1.25x: 8 µm a px.
    assert_eq!((thumb.width(), mask.width()), (19, 19));
    assert!(dir.path("out/json/b.json").exists());
    // A flag that stands twice counts as the last says: scripts end with "$@".
    // Without thumbs and masks JSON lies at the top, and the checkpoint is used again.
    dir.ok("hovernet --model_path=analytic wsi --input_dir=in --output_dir=out --input_mask_dir=masks --mpp=0.3 \
        --mpp=0.5");
    assert_eq!(dir.json("out/a.json")["nuc"], json["nuc"]);
}

/// The truth is `run` on the same slide: what `export` makes of hover_net's JSON must lie where `run` says.
#[test]
fn export_of_a_20x_slide_in_px_of_40x_lies_where_run_says() {
    let dir = images();
    std::fs::remove_file(dir.path("in/b.png")).unwrap();
    let said = dir.run(
        "hovernet --model_path=analytic wsi --input_dir=in --output_dir=hv --mpp=0.5 --save_thumb",
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    // The message names a file that is there.
    assert!(
        said.stderr.contains("written to hv/json/a.json"),
        "{}",
        said.stderr
    );
    let json = dir.json("hv/json/a.json");
    assert!(json["frame"].as_str().unwrap().starts_with("px of 40x"));
    for nucleus in json["nuc"].as_object().unwrap().values() {
        let points = nucleus["contour"].as_array().unwrap().iter();
        assert!(
            points
                .flat_map(|p| p.as_array().unwrap())
                .all(|v| v.is_u64())
        );
    }
    dir.ok("export hv/json/a.json -o x --format csv,geojson");
    dir.ok("run in/a.png -o r --model analytic --mpp 0.5 --format csv,geojson");
    let rows = |path: &str| {
        let text = dir.read(path);
        let mut reader = csv::Reader::from_reader(&text[..]);
        let header = reader.headers().unwrap().clone();
        let column = |name: &str| header.iter().position(|h| h == name).unwrap();
        let wanted = ["x_px", "y_px", "x_um", "area_um2", "max_x", "perimeter_um"].map(column);
        let records = reader.records().map(Result::unwrap);
        let rows: Vec<_> = records.map(|r| wanted.map(|c| r[c].to_owned())).collect();
        rows
    };
    let (exported, run) = (rows("x/a/nuclei.csv"), rows("r/a/nuclei.csv"));
    assert!(run.len() > 10);
    assert_eq!(exported, run);
    let corner =
        |path: &str| dir.json(path)["features"][3]["geometry"]["coordinates"][0][0].clone();
    assert_eq!(corner("x/a/nuclei.geojson"), corner("r/a/nuclei.geojson"));
}

#[test]
fn tile_names_the_file_it_wrote() {
    let dir = images();
    let said =
        dir.run("hovernet --model_path=analytic tile --input_dir=in --output_dir=out --mpp=0.5");
    for stem in ["a", "b"] {
        let file = format!("out/json/{stem}.json");
        assert!(
            said.stderr.contains(&format!("written to {file}")),
            "{}",
            said.stderr
        );
        assert!(dir.path(&file).is_file());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_dies_costs_wsi_one_slide() {
    let dir = images();
    let line = "hovernet --model_path=analytic:300 wsi --input_dir=in --output_dir=out --mpp=0.5";
    let mut command = dir.command(line);
    let mut parent = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    // A store is there: the child is beyond its start.
    while !dir.path("out/store/a/store.zarr").exists() {
        assert!(begun.elapsed().as_secs() < 60, "no store");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // SAFETY: kill(2) takes plain numbers; the process is a child of ours.
    assert_eq!(unsafe { libc::kill(child_of(&parent), libc::SIGABRT) }, 0);
    let mut said = String::new();
    parent
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(parent.wait().unwrap().code(), Some(1), "{said}");
    assert!(
        said.contains("a.png: the process that worked on it died (signal 6"),
        "{said}"
    );
    assert!(!dir.path("out/a.json").exists());
    assert!(dir.path("out/b.json").exists());
}

#[test]
fn misfits_are_named() {
    let dir = images();
    let line = "hovernet --model_path=analytic --input_dir=in --output_dir=out --mpp=0.5";
    dir.fails(&format!("{line} tile --nr_types=9"), 2, &["--nr_types="]);
    dir.fails(&format!("{line} wsi --postproc=reference"), 2, &["tiling"]);
    dir.fails(
        "hovernet tile --input_dir=no --output_dir=out",
        2,
        &["--input_dir no"],
    );
    dir.write("type_info.json", r#"{"1": ["a", [0, 0, 0]]}"#);
    let info = "tile --type_info_path=type_info.json";
    dir.fails(&format!("{line} {info}"), 2, &["type_info.json", "\"0\""]);
    // As long as the model's, but of other types: it would rename them.
    let other =
        r#"{"0": ["nolabe", [0, 0, 0]], "1": ["neopla", [0, 0, 0]], "2": ["inflam", [0, 0, 0]]}"#;
    dir.write("type_info.json", other);
    dir.fails(
        &format!("{line} {info}"),
        2,
        &["1 dark / neopla", "2 pale / inflam"],
    );
    dir.write("in/c.png", b"no picture");
    let run = dir.run(&format!("{line} tile"));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(dir.path("out/json/a.json").exists() && !dir.path("out/json/c.json").exists());
}
