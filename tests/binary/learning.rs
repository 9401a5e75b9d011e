//! `train`, `eval` and `data check` as their users meet them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use fastrand::Rng;
use image::{ImageBuffer, Luma, Rgb, RgbImage};

use crate::harness::{Dir, Run};

/// Side of a training image, px.
const SIDE: u32 = 128;

/// Elliptic nuclei with grain on fibrous pink, some of them touching, and their ids.
fn tissue(seed: u64) -> (RgbImage, ImageBuffer<Luma<u16>, Vec<u16>>) {
    let mut rng = Rng::with_seed(seed);
    let mut rgb = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let fibre = ((f64::from(x) * 0.3 + f64::from(y) * 0.8).sin() * 12.0) as i32;
        let grain = rng.i32(-8..8);
        Rgb([225, 165, 200].map(|v: i32| (v + fibre + grain).clamp(0, 255) as u8))
    });
    let mut ids = ImageBuffer::from_pixel(SIDE, SIDE, Luma([0u16]));
    for id in 1..=24u16 {
        let at = |i: u16| 14.0 + f64::from(i) * 20.0;
        let (cx, cy) = (
            at((id - 1) % 5) + rng.f64() * 5.0,
            at((id - 1) / 5) + rng.f64() * 5.0,
        );
        let (a, b, turn) = (
            7.0 + 4.0 * rng.f64(),
            6.0 + 2.0 * rng.f64(),
            rng.f64() * 3.1,
        );
        for (x, y, px) in ids.enumerate_pixels_mut() {
            let (dx, dy) = (f64::from(x) + 0.5 - cx, f64::from(y) + 0.5 - cy);
            let (u, v) = (
                dx * turn.cos() + dy * turn.sin(),
                dy * turn.cos() - dx * turn.sin(),
            );
            if px.0[0] == 0 && (u / a).powi(2) + (v / b).powi(2) <= 1.0 {
                *px = Luma([id]);
                let grain = rng.i32(-20..20);
                let colour = [95, 60, 140].map(|v: i32| (v + grain).clamp(0, 255) as u8);
                rgb.put_pixel(x, y, Rgb(colour));
            }
        }
    }
    (rgb, ids)
}

/// Four labelled images in set/, and the configuration that learns them by heart.
pub fn four_images(dir: &Dir) {
    for folder in ["set/images", "set/labels"] {
        std::fs::create_dir_all(dir.path(folder)).unwrap();
    }
    for seed in 0..4 {
        let (rgb, ids) = tissue(seed);
        rgb.save(dir.path(&format!("set/images/t{seed}.png")))
            .unwrap();
        ids.save(dir.path(&format!("set/labels/t{seed}.png")))
            .unwrap();
    }
    let default = include_str!("../../config/train-default.toml");
    let mut config: toml::Table = default.parse().unwrap();
    let set: toml::Table =
        "name = 'set'\nformat = 'labels'\nfolder = 'set'\nmpp = 0.25\nshare = 1.0"
            .parse()
            .unwrap();
    config.insert("data".into(), vec![set].into());
    config.insert("augment".into(), false.into());
    config.insert("crop_px".into(), i64::from(SIDE).into());
    config.insert("batch".into(), 4.into());
    dir.write("config.toml", toml::to_string(&config).unwrap());
}

pub const TRAIN: &str = "train --config config.toml --data . --from default --lr 1e-3 --steps 120 \
                     --checkpoint-every 20 --validate-every 0 --threads 2";

fn scores(dir: &Dir, pred: &str) -> (f64, Run) {
    let run = dir.ok(&format!(
        "eval --pred {pred} --truth set/labels --json -o scores"
    ));
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    (json["all"]["scores"]["pq"]["value"].as_f64().unwrap(), run)
}

#[test]
fn training_learns_four_images_by_heart_and_survives_a_kill() {
    let dir = Dir::new();
    four_images(&dir);
    dir.ok(&format!("{TRAIN} -o whole"));
    dir.ok("tile set/images --model whole --mpp 0.25 -o out");
    let (pq, _) = scores(&dir, "out");
    eprintln!("PQ on the four images: {pq:.3}");
    assert!(pq >= 0.8, "PQ {pq}");
    for file in ["scores/eval.json", "scores/images.csv", "scores/index.html"] {
        assert!(!dir.read(file).is_empty(), "{file}");
    }

    // Killed once it has a checkpoint, then started again.
    let mut child = dir
        .command(&format!("{TRAIN} -o killed"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !dir.path("killed/train.safetensors").exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended before its first checkpoint"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    dir.ok(&format!("{TRAIN} -o killed"));
    assert!(
        dir.read("whole/model.safetensors") == dir.read("killed/model.safetensors"),
        "the weights of the killed training differ"
    );
    let log = BufReader::new(std::fs::File::open(dir.path("killed/train.jsonl")).unwrap());
    assert!(log.lines().count() >= 6);
}

#[test]
fn a_part_of_the_images_is_another_training() {
    let dir = Dir::new();
    four_images(&dir);
    let train = "train --config config.toml --data . --from default --steps 1";
    dir.ok(&format!("{train} -o all"));
    dir.ok(&format!("{train} -o whole --data-part 1"));
    dir.ok(&format!("{train} -o quarter --data-part 0.25"));
    let weights = |of: &str| dir.read(&format!("{of}/model.safetensors"));
    assert!(weights("all") == weights("whole"));
    assert!(weights("all") != weights("quarter"));
    dir.fails(
        &format!("{train} -o no --data-part 0"),
        2,
        &["data_part = 0"],
    );
}

#[test]
fn wrong_training_data_is_named() {
    let dir = Dir::new();
    four_images(&dir);
    let train = "train --config config.toml --data . --from default --steps 2 -o out";
    let blank = ImageBuffer::from_pixel(SIDE, SIDE, Luma([0u16]));
    let (_, ids) = tissue(1);
    // One image of another size than its labels.
    let (rgb, _) = tissue(0);
    let smaller = image::imageops::crop_imm(&rgb, 0, 0, 100, 90).to_image();
    smaller.save(dir.path("set/images/t1.png")).unwrap();
    dir.fails(train, 3, &["t1.png", "128 x 128 px", "100 x 90"]);
    rgb.save(dir.path("set/images/t1.png")).unwrap();
    // No nucleus anywhere.
    for seed in 0..4 {
        blank
            .save(dir.path(&format!("set/labels/t{seed}.png")))
            .unwrap();
    }
    dir.fails(train, 3, &["no nucleus in any of its 4 images"]);
    ids.save(dir.path("set/labels/t0.png")).unwrap();
    dir.write("set/labels/t2.png", b"not a picture");
    dir.fails(train, 3, &["t2.png"]);
    dir.fails(
        "train --data nothing --from default -o out",
        2,
        &["nothing"],
    );
    dir.fails("eval --pred set/labels --truth nothing", 2, &["nothing"]);
}

#[test]
fn data_check_finds_what_is_wrong_and_draws_it() {
    let dir = Dir::new();
    four_images(&dir);
    // At 0.5 µm/px the ellipses are 8 µm wide.
    dir.ok("data check set --mpp 0.5 -o clean");
    assert!(!dir.read("clean/set/t0.png").is_empty() && !dir.read("clean/index.html").is_empty());
    let (rgb, _) = tissue(0);
    rgb.save(dir.path("set/images/t3.png")).unwrap();
    dir.write("set/labels/t1.png", b"not a picture");
    let run = dir.run("data check set --mpp 0.02 -o wrong");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    for words in [
        "t1.png",
        "the same pixels as set/t0",
        "µm wide at 0.02 µm/px",
    ] {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    let found = dir.json("wrong/check.json");
    assert_eq!(found["sets"]["set"]["images"], 4);
}

/// The truth of step 0: the start's own nuclei, scored by `eval`.
#[test]
fn training_scores_its_start_and_says_what_it_learned_from() {
    let dir = Dir::new();
    four_images(&dir);
    let line = "train --data set --mpp 0.25 --hold-out t3 --from default --steps 2 --validate-every 1 --patience 5 \
                --lr 0.03 --batch 1 -o tuned";
    let said = dir.ok(line).stderr;
    let log = String::from_utf8(dir.read("tuned/train.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| !line["val_pq"].is_null())
        .collect();
    let steps: Vec<u64> = lines.iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 1, 2]);
    std::fs::create_dir_all(dir.path("truth")).unwrap();
    std::fs::copy(dir.path("set/labels/t3.png"), dir.path("truth/t3.png")).unwrap();
    dir.ok("tile set/images/t3.png --mpp 0.25 -o out");
    let run = dir.ok("eval --pred out --truth truth --json");
    let scores: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let pq = scores["all"]["scores"]["pq"]["value"].as_f64().unwrap();
    let start = lines[0]["val_pq"].as_f64().unwrap();
    assert!((start - pq).abs() < 1e-6, "{start} {pq}");

    // What is read in a log: a time, plain words, and the verdict.
    assert!(
        said.contains(&format!("the start: PQ {start:.3}")),
        "{said}"
    );
    assert!(said.contains("step 2 of 2 (100 %), loss "), "{said}");
    let scores: Vec<f64> = lines
        .iter()
        .map(|l| l["val_pq"].as_f64().unwrap())
        .collect();
    let better = scores[1..].iter().any(|pq| *pq > scores[0]);
    let verdict = match better {
        true => format!("; the start: {start:.3}"),
        false => "no validation was better than the start".into(),
    };
    assert!(said.lines().last().unwrap().contains(&verdict), "{said}");
    assert!(
        said.lines().all(|line| line.as_bytes()[10] == b'T'),
        "{said}"
    );

    let info = dir.ok("model info tuned").stdout;
    let trained = info.lines().find(|l| l.starts_with("trained on")).unwrap();
    assert!(
        trained.contains(" set; fine-tuned from hovernet-lite (CoNSeP"),
        "{info}"
    );
    let licence = info.lines().find(|l| l.starts_with("licence")).unwrap();
    assert!(licence.contains("new data"), "{info}");
    // A mean has a name of its own, and both origins.
    dir.ok("model average default tuned -o both");
    let info = dir.ok("model info both/").stdout;
    assert!(info.starts_with("name          both\n"), "{info}");
    assert!(info.contains("fine-tuned from hovernet-lite"), "{info}");
    dir.fails(
        "model average default tuned -o x/hovernet-lite",
        2,
        &["--name"],
    );
    dir.ok("model average default tuned -o x/hovernet-lite --name third");
    assert!(
        dir.ok("model info x/hovernet-lite/")
            .stdout
            .contains("third")
    );
    // Outlines of one, types of both; a training that starts there keeps the second network.
    dir.ok("model join default tuned --share 0.25 -o joined");
    let info = dir.ok("model info joined/").stdout;
    assert!(info.contains("for 25 % (temperature 1)"), "{info}");
    dir.ok("model verify joined/");
    dir.fails(
        "model join joined/ default -o again",
        2,
        &["second network"],
    );
    dir.fails(
        "model average joined/ default -o again",
        2,
        &["[types_from]"],
    );
}
