//! The answer never depends on how the work was cut, timed or shared: bytes, on pixels made to be cut badly.

use crate::crowd::crowd;
use crate::harness::Dir;

const FILES: [&str; 2] = ["nuclei.json", "nuclei.csv"];
/// Wider and higher than several tiles, and no multiple of one.
const SIZE_PX: [u32; 2] = [1100, 830];

/// The number of rounds of a test: short for `make test`, long for `make soak`.
pub fn rounds(short: usize, long: usize) -> usize {
    match std::env::var_os("WSI_NUCLEI_SOAK") {
        Some(_) => long,
        None => short,
    }
}

/// Writes a crowd and runs it as one tile into `whole/`; mpp and mask as flags for further runs.
fn whole(dir: &Dir, seed: u64) -> String {
    crowd(SIZE_PX[0], SIZE_PX[1], seed)
        .save(dir.path("a.png"))
        .unwrap();
    // The mask's edge runs through nuclei.
    let mask = image::GrayImage::from_fn(110, 83, |x, y| image::Luma([255 * u8::from(x + y > 40)]));
    mask.save(dir.path("mask.png")).unwrap();
    let mask = ["--mask none", "--mask mask.png", "--mask otsu"][seed as usize % 3];
    let flags = format!("a.png --mpp 0.5 {mask} --quiet --format json,csv");
    dir.ok(&format!(
        "run -o whole --model analytic --tile-size 8192 --threads 1 {flags}"
    ));
    assert_eq!(dir.json("whole/a/run.json")["tiles_planned"], 1);
    flags
}

fn same(dir: &Dir, one: &str, other: &str, how: &str) {
    for file in FILES {
        let bytes = |out: &str| dir.read(&format!("{out}/a/{file}"));
        assert!(bytes(one) == bytes(other), "{file} differs: {how}");
    }
    // Only how many tiles there are, and how much of them lies outside, may follow from the tiling.
    let summary = |out: &str| {
        let mut summary = dir.json(&format!("{out}/a/summary.json"));
        let px = summary["area_px"].clone();
        let of = |name: &str| px[name].as_u64().unwrap();
        assert_eq!(
            of("planned"),
            of("done") + of("unreadable") + of("missing"),
            "{how}"
        );
        assert_eq!(of("tiles"), of("planned") + of("outside"), "{how}");
        summary["tiles"] = 0.into();
        for area in ["area_mm2", "area_px"] {
            for name in ["tiles", "outside"] {
                summary[area][name] = 0.into();
            }
        }
        summary
    };
    assert_eq!(summary(one), summary(other), "{how}");
}

#[test]
fn same_bytes_whatever_tiles_batches_threads_memory_and_timing() {
    let mut random = fastrand::Rng::with_seed(6);
    let (mut tried, mut crossed) = (0, 0);
    for seed in 0..rounds(3, 12) as u64 {
        let dir = Dir::new();
        let flags = whole(&dir, seed);
        let mut before = String::new();
        for round in 0..rounds(3, 8) {
            let pick =
                |random: &mut fastrand::Rng, of: &[&str]| of[random.usize(..of.len())].to_owned();
            // The first round always has the most seams.
            let tile = match round {
                0 => "256".into(),
                _ => pick(&mut random, &["256", "512", "768", "1024", "2048"]),
            };
            let how = format!(
                "--model analytic:{} --tile-size {tile} --batch-size {} --threads {} --memory {}",
                random.u8(0..25),
                random.u8(1..9),
                random.u8(1..5),
                pick(&mut random, &["420MiB", "600MiB", "1GiB", "2GiB"]),
            );
            let out = format!("other{round}");
            dir.ok(&format!("run -o {out} {flags} {how}"));
            same(
                &dir,
                "whole",
                &out,
                &format!("seed {seed}: {how}; before: {before}"),
            );
            let report = dir.json(&format!("{out}/a/run.json"));
            crossed += report["nuclei_over_2_tiles"].as_u64().unwrap();
            tried += 1;
            before = how;
        }
    }
    eprintln!("invariance: {tried} combinations, {crossed} nuclei over seams, equal bytes");
    assert!(crossed >= 100, "{crossed}");
}

#[test]
fn shards_together_give_the_bytes_of_one_run() {
    for seed in 0..rounds(2, 6) as u64 {
        let dir = Dir::new();
        let flags = whole(&dir, seed);
        let shards = 2 + seed as usize;
        let line = |shard: usize| {
            format!(
                "run -o shared {flags} --model analytic:10 --tile-size 256 --threads 1 --shard {shard}/{shards}"
            )
        };
        let running: Vec<_> = (0..shards)
            .map(|shard| dir.command(&line(shard)).spawn().unwrap())
            .collect();
        for mut child in running {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        same(&dir, "whole", "shared", &format!("{shards} shards"));
        // Each did something, none did another's.
        let done = (0..shards).filter(|i| {
            dir.path(&format!("shared/a/run-{i}-of-{shards}.json"))
                .is_file()
        });
        assert!(done.count() < shards && dir.path("shared/a/run.json").is_file());
    }
}

#[test]
fn a_lost_shard_is_run_again_or_taken_over() {
    let dir = Dir::new();
    let flags = whole(&dir, 1);
    let line =
        |shard: &str| format!("run -o shared {flags} --model analytic --tile-size 256 {shard}");
    dir.ok(&line("--shard 0/3"));
    dir.ok(&line("--shard 2/3"));
    assert!(!dir.path("shared/a/nuclei.json").exists());
    assert!(dir.path("shared/a/run-0-of-3.json").is_file());
    dir.fails(
        &line("--shard 1/3 --restart"),
        2,
        &["--shard and --restart"],
    );
    // A run without --shard does what is missing.
    dir.ok(&line(""));
    let report = dir.json("shared/a/run.json");
    let (planned, reused) = (&report["tiles_planned"], &report["tiles_reused"]);
    assert!(
        reused.as_u64() > Some(0) && reused.as_u64() < planned.as_u64(),
        "{report}"
    );
    same(&dir, "whole", "shared", "a lost shard");
}

/// Discs that narrow bars join to one blob, whose box is above the cut constant (4096 x 4096 px).
pub fn net(width: u32, height: u32) -> image::RgbImage {
    const CELL_PX: u32 = 32;
    image::RgbImage::from_fn(width, height, |x, y| {
        let [dx, dy] = [x, y].map(|at| (at % CELL_PX) as i32 - CELL_PX as i32 / 2);
        if dx * dx + dy * dy <= 81 || dx.abs() <= 2 || dy.abs() <= 2 {
            let pale = ((x / CELL_PX * 7 + y / CELL_PX * 13) % 40) as u8;
            image::Rgb([70 + pale, 45 + pale, 120 + pale / 2])
        } else {
            image::Rgb([232, 184, 212])
        }
    })
}

#[test]
fn a_blob_above_the_cut_constant_is_cut_alike_whatever_the_tiles() {
    let dir = Dir::new();
    net(4400, 4300).save(dir.path("a.png")).unwrap();
    let flags = "a.png --mpp 0.5 --mask none --model analytic --quiet --format json,csv";
    dir.ok(&format!("run -o whole {flags} --tile-size 8192"));
    dir.ok(&format!(
        "run -o other {flags} --tile-size 1024 --threads 3"
    ));
    let report = |out: &str, name: &str| dir.json(&format!("{out}/a/run.json"))[name].as_u64();
    assert_eq!(report("whole", "tiles_planned"), Some(1));
    assert_eq!(report("other", "tiles_planned"), Some(25));
    same(&dir, "whole", "other", "a blob above the cut constant");

    // It was one blob, and the fixed grid cut it: all its nuclei are flagged, and none crosses a line of the grid.
    let warnings = dir.json("whole/a/summary.json")["warnings"].to_string();
    let nuclei = dir.json("whole/a/nuclei.json");
    let nuclei = nuclei["nuc"].as_object().unwrap();
    let flagged = format!("{} nuclei lie in blobs that were cut", nuclei.len());
    assert!(warnings.contains(&flagged), "{flagged}: {warnings}");
    assert!(nuclei.len() > 5000, "{}", nuclei.len());
    let line = 4096.0;
    let mut beside = 0;
    for (id, nucleus) in nuclei {
        let edge = |corner: usize, axis: usize| nucleus["bbox"][corner][axis].as_f64().unwrap();
        for axis in [0, 1] {
            let (low, high) = (edge(0, axis), edge(1, axis));
            assert!(
                high <= line || low >= line,
                "{id} crosses the line: {low} to {high}"
            );
            beside += usize::from(high == line || low == line);
        }
    }
    eprintln!(
        "invariance: {} nuclei of one blob cut along the grid, {beside} of them at its lines",
        nuclei.len()
    );
    assert!(beside >= 100, "{beside}");
}
