//! Readers of untrusted files, fed with damaged ones: an answer or an error, never a panic, never memory out of all
//! proportion. `make fuzz` gives each reader minutes (WSI_NUCLEI_FUZZ_SECONDS) instead of a moment.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wsi_nuclei::internals::chunk::{self, ChunkKey};
use wsi_nuclei::internals::{
    Foreground, ModelSpec, Regions, Run, StainSums, Store, TileResult, TissueMask, folders, layers,
    load_store, pickle, raw_map, read_mat5, torch_file, weights,
};
use wsi_nuclei::{Nucleus, PredictionMap, Rect};

use crate::crowd::crowd;
use crate::harness::Dir;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with each thread's largest request remembered.
struct Watched;

// SAFETY: every call goes to the system's allocator as it is; the thread's cell needs no allocation of its own.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// The most that one request for memory may be, unless the reader states another limit.
pub const LARGEST_REQUEST: usize = 64 << 20;

fn seconds() -> Duration {
    let told = std::env::var("WSI_NUCLEI_FUZZ_SECONDS").ok();
    Duration::from_secs_f64(told.map_or(0.4, |text| text.parse().expect("WSI_NUCLEI_FUZZ_SECONDS")))
}

/// Damages `bytes` as disks, networks and people do.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut fastrand::Rng) {
    const ODD: [&[u8]; 12] = [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\xff\xff\xff\x7f",
        b"-1",
        b"1e999",
        b"NaN",
        b"99999999999999999999",
        b"../../../x",
        b"\"",
        b"[[[[[[[[",
        b"\x80",
        b"null",
    ];
    for _ in 0..1 + random.usize(..6) {
        let at = random.usize(..bytes.len().max(1)).min(bytes.len());
        match random.u8(..9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => {
                let odd = ODD[random.usize(..ODD.len())];
                let end = (at + odd.len()).min(bytes.len());
                bytes.splice(at..end, odd.iter().copied());
            }
            4 => {
                let odd = ODD[random.usize(..ODD.len())];
                bytes.splice(at..at, odd.iter().copied());
            }
            5 => {
                let end = (at + random.usize(..64)).min(bytes.len());
                bytes.drain(at..end);
            }
            6 => {
                let end = (at + random.usize(..64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, part);
            }
            7 if at + 8 <= bytes.len() => {
                let value = u64::MAX >> random.u8(..64);
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            _ => {
                let other = &others[random.usize(..others.len())];
                let from = random.usize(..other.len().max(1)).min(other.len());
                let end = (from + random.usize(..256)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
}

/// Feeds `read` with damaged `seeds` for a while; `true` from it means that it took the file.
pub fn fuzz(
    name: &str,
    seeds: &[Vec<u8>],
    largest_request: usize,
    mut read: impl FnMut(&[u8]) -> bool,
) {
    for seed in seeds {
        assert!(read(seed), "{name}: an undamaged file is refused");
    }
    let mut random = fastrand::Rng::with_seed(
        std::env::var("WSI_NUCLEI_FUZZ_SEED").map_or(1, |s| s.parse().unwrap()),
    );
    let (begun, mut tried, mut taken) = (Instant::now(), 0u64, 0u64);
    while begun.elapsed() < seconds() {
        let mut bytes = seeds[random.usize(..seeds.len())].clone();
        mutate(&mut bytes, seeds, &mut random);
        LARGEST.with(|largest| largest.set(0));
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
        let largest = LARGEST.with(Cell::get);
        let keep = |what: &str| -> ! {
            let path =
                std::env::temp_dir().join(format!("wsi-nuclei-{}.bin", name.replace(' ', "-")));
            std::fs::write(&path, &bytes).unwrap();
            panic!(
                "{name}: {what} after {tried} tries; the file is kept as {}",
                path.display()
            );
        };
        match outcome {
            Err(_) => keep("panicked"),
            Ok(_) if largest > largest_request.max(64 * bytes.len()) => {
                keep(&format!("asked for {largest} bytes"))
            }
            Ok(took) => taken += u64::from(took),
        }
        tried += 1;
    }
    eprintln!("hostile files: {name}: {tried} tried, {taken} of them still readable, no panic");
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Gives readers of paths their bytes.
struct OnDisk {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl OnDisk {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        Self { _dir: dir, path }
    }

    fn with(&self, bytes: &[u8]) -> &Path {
        std::fs::write(&self.path, bytes).unwrap();
        &self.path
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn model_toml() {
    let seeds = [fixture("weights/default/model.toml")];
    fuzz("model.toml", &seeds, LARGEST_REQUEST, |b| {
        ModelSpec::parse(&text(b), Path::new("model.toml")).is_ok()
    });
}

#[test]
fn safetensors() {
    let mut data = Vec::new();
    for (name, shape) in [("a.weight", vec![4, 3, 3, 3]), ("a.bias", vec![4])] {
        let bytes: Vec<u8> = (0..shape.iter().product::<usize>())
            .flat_map(|i| (i as f32).to_le_bytes())
            .collect();
        data.push((name, shape, bytes));
    }
    let views = data.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                .unwrap();
        (*name, view)
    });
    let seeds = [safetensors::serialize(views, None).unwrap()];
    fuzz("safetensors", &seeds, LARGEST_REQUEST, |b| {
        weights::read_safetensors(b, Path::new("x")).is_ok()
    });
}

#[test]
fn checkpoints() {
    let seeds = [
        fixture("tests/fixtures/checkpoint_zip.tar"),
        fixture("tests/fixtures/checkpoint_stream.tar"),
    ];
    fuzz("hover_net checkpoint", &seeds, LARGEST_REQUEST, |b| {
        torch_file::read(b).is_ok()
    });
}

#[test]
fn pickles() {
    // {'a': [1, 2.5, 'x'], 'b': (None, True)} by Python's pickle, protocol 2.
    let pickle = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G@\x04\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00xq\x03e\
                   X\x01\x00\x00\x00bq\x04N\x88\x86q\x05u.";
    fuzz("pickle", &[pickle.to_vec()], LARGEST_REQUEST, |b| {
        pickle::read(b).is_ok()
    });
}

#[test]
fn configs() {
    let seeds = [fixture("config/default.toml")];
    fuzz("config", &seeds, LARGEST_REQUEST, |b| {
        layers::from_toml(&text(b), Path::new("x.toml")).is_ok()
    });
}

#[test]
fn regions() {
    let seeds = [
        br#"{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"name":"a"},"geometry":{"type":"Polygon","coordinates":[[[0,0],[90.5,0],[90,80],[0,0]],[[5,5],[6,5],[6,6],[5,5]]]}}]}"#.to_vec(),
        br#"{"type":"MultiPolygon","coordinates":[[[[0,0],[9,0],[9,8],[0,0]]],[[[20,20],[29,20],[29,28],[20,20]]]]}"#.to_vec(),
    ];
    let file = OnDisk::new("roi.geojson");
    fuzz("GeoJSON region", &seeds, LARGEST_REQUEST, |b| {
        Regions::from_geojson(file.with(b)).is_ok_and(|regions| {
            let _ = regions.meets([3.0, 3.0, 30.0, 30.0]);
            true
        })
    });
}

#[test]
fn masks() {
    let mask = TissueMask {
        width: 30,
        height: 20,
        cell_level0_px: [16.0, 16.0],
        tissue: (0..600).map(|i| i % 7 < 3).collect(),
    };
    let seeds = [mask.png_bytes().unwrap()];
    let file = OnDisk::new("mask.png");
    // The stated limit of a mask, decoded.
    fuzz("mask PNG", &seeds, 1 << 30, |b| {
        TissueMask::from_png(file.with(b), [480, 320]).is_ok()
    });
}

#[test]
fn chunks() {
    let key = ChunkKey {
        identity: [7; 32],
        tile_patches: 2,
    };
    let rect = Rect::new(64, 0, 37, 27);
    let tile = TileResult {
        col: 1,
        row: 0,
        rect,
        done_px: 900,
        unreadable_px: 99,
        outside_px: 0,
        unreadable: vec![],
        read_errors: vec!["x.svs: unreadable".into()],
        nuclei: vec![Nucleus {
            bbox: Rect::new(67, 4, 2, 2),
            mask: vec![0b0111],
            area_px: 3,
            prob_sums: vec![1, 2],
            type_counts: vec![1, 2],
            np_sum: 600,
            stain: StainSums::default(),
            cut: false,
        }],
        fragments: vec![Foreground {
            runs: vec![Run {
                y: 0,
                x0: 64,
                x1: 66,
            }],
            np: vec![200, 201],
            h: vec![-8192, 8192],
            v: vec![0, i16::MIN],
            types: 2,
            tp: vec![1, 2, 3, 4],
            rgb: vec![1, 2, 3, 4, 5, 6],
        }],
    };
    let seeds = [chunk::encode(&tile, &key, "cpu").unwrap()];
    fuzz("store chunk", &seeds, LARGEST_REQUEST, |b| {
        chunk::decode(b, &key, [1, 0]).is_ok()
    });
}

/// The rings of a finished slide, beside its chunks in the store.
#[test]
fn store_rings() {
    let dir = Dir::new();
    crowd(300, 200, 3).save(dir.path("a.png")).unwrap();
    dir.ok("run a.png --mpp 0.5 --mask none --model analytic -o out --format csv --quiet");
    let path = dir.path("out/a/store.zarr");
    let store = Store::open(&path).unwrap();
    let nuclei = load_store(&store).unwrap().slide.nuclei;
    let rings = store.read_rings(&nuclei).expect("a finished run has them");
    assert!(rings.len() > 10 && rings.iter().all(|ring| ring.area_px > 0));
    for name in ["rings/zarr.json", "rings/c/0/0"] {
        let file = path.join(name);
        let seed = std::fs::read(&file).unwrap();
        fuzz(name, std::slice::from_ref(&seed), LARGEST_REQUEST, |b| {
            std::fs::write(&file, b).unwrap();
            store.read_rings(&nuclei).is_some()
        });
        std::fs::write(&file, seed).unwrap();
    }
    assert_eq!(store.read_rings(&nuclei), Some(rings));
}

#[test]
fn labels() {
    let mat = fixture("tests/fixtures/labels/mat/Labels/one.mat");
    fuzz(".mat", &[mat], LARGEST_REQUEST, |b| read_mat5(b).is_ok());
    let npy = OnDisk::new("x.npy");
    let map = PredictionMap {
        width: 5,
        height: 4,
        np: vec![0.5; 20],
        h: vec![0.1; 20],
        v: vec![-0.1; 20],
        types: 0,
        tp: vec![],
    };
    raw_map::write(&map, &npy.path).unwrap();
    let maps = [std::fs::read(&npy.path).unwrap()];
    fuzz(".npy map", &maps, LARGEST_REQUEST, |b| {
        raw_map::read(npy.with(b), None).is_ok()
    });
}

#[test]
fn nuclei_json() {
    let seeds = [br#"{"mag":40,"nuc":{"1":{"bbox":[[1,2],[3,4]],"centroid":[2.5,1.5],"contour":[[1,1],[3,1],[3,2]],"type_prob":0.5,"type":1}}}"#.to_vec()];
    let file = OnDisk::new("x.json");
    fuzz("nuclei JSON", &seeds, LARGEST_REQUEST, |b| {
        folders::read(file.with(b)).is_ok()
    });
}

/// Through the program itself: whatever the manifest says, nothing is written outside the output folder.
#[test]
fn manifests() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("in")).unwrap();
    dir.field("in/a.png", 64, 64);
    let seed =
        b"path,id,mpp,mask,roi,model\nin/a.png,one,0.5,none,,analytic\nin/a.png,two,0.25,,,\n"
            .to_vec();
    let mut random = fastrand::Rng::with_seed(3);
    let (begun, mut tried) = (Instant::now(), 0);
    while tried < 6 || begun.elapsed() < seconds() {
        let mut bytes = seed.clone();
        mutate(&mut bytes, std::slice::from_ref(&seed), &mut random);
        dir.write("in/cohort.csv", &bytes);
        let run = dir.run(
            "run --model analytic --format csv --manifest in/cohort.csv -o out/deep --mpp 0.5",
        );
        assert!(
            run.code.is_some() && !run.stderr.contains("panicked"),
            "{}\n{}",
            text(&bytes),
            run.stderr
        );
        tried += 1;
    }
    for id in [
        "..",
        "../../escaped",
        "/tmp/escaped",
        ".hidden",
        "a/b",
        "a\\..\\b",
        "\u{202e}x",
    ] {
        dir.write("in/cohort.csv", format!("path,id\nin/a.png,{id}\n"));
        dir.run("run --model analytic --format csv --manifest in/cohort.csv -o out/deep --mpp 0.5");
    }
    std::fs::copy(dir.path("in/a.png"), dir.path("in/...png")).unwrap();
    dir.run("run --model analytic --format csv in/...png -o out/deep --mpp 0.5");
    let names = |folder: &str| {
        let entries = std::fs::read_dir(dir.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["in", "out"]);
    assert_eq!(names("out"), ["deep"]);
    assert!(names("out/deep").iter().all(|name| !name.starts_with('.')));
}
