use std::path::PathBuf;

use image::RgbImage;
use serde_json::json;

use super::*;
use crate::model::Architecture;
use crate::nuclei::{PostprocParams, Run, StainSums};
use crate::tissue::TissueMask;

/// Settings of a small slide of 2 x 2 tiles; the stitcher's tests use them too.
pub(crate) fn meta(planned_tiles: Vec<[i32; 2]>, tiles_xy: [i32; 2]) -> StoreMeta {
    StoreMeta {
        identity: BTreeMap::from([
            ("mpp".into(), json!(0.1 + 0.2)),
            ("level".into(), json!(0)),
            ("mask".into(), json!({"kind": "otsu", "sha256": "ab"})),
        ]),
        layout: TileLayout {
            tile_patches: 2,
            tiles_xy,
            planned_tiles,
            patch_in_px: 64,
            patch_out_px: 32,
        },
        stem: "slide é".into(),
        slide: SlideInfo {
            path: PathBuf::from("slides/slide é.svs"),
            vendor: "aperio".into(),
            levels: vec![],
            mpp: Some([0.2521, 0.2519]),
            physical_mpp: None,
            notes: Vec::new(),
            objective_power: Some(40.0),
            bounds_px: None,
            background: [255; 3],
            associated: vec!["label".into()],
            properties: BTreeMap::from([("aperio.AppMag".into(), "40".into())]),
            file_bytes: 1 << 40,
            quickhash: "00ff".into(),
        },
        manifest: Vec::new(),
        mpp_from: "file".into(),
        frames: Frames {
            level0_size_px: [100, 90],
            level0_mpp: [0.2521, 0.2519],
            proc_size_px: [101, 91],
            proc_per_level0: [1.0084, 1.0 / 3.0],
        },
        model: ModelSpec {
            name: "lite".into(),
            architecture: Architecture::HovernetLite,
            mpp: 0.25,
            patch_in_px: 64,
            patch_out_px: 32,
            types: vec![],
            postproc: PostprocParams::default(),
            weights: Some("model.safetensors".into()),
            sha256: Some("ab".into()),
            types_from: None,
            licence: "MIT".into(),
            citation: String::new(),
            training_data: String::new(),
            scores: toml::from_str("[consep]\npq = 0.5").unwrap(),
        },
        tissue_mm2: 1.0 / 3.0,
        tissue_from: crate::tissue::TissueSource::Found,
        region: None,
        warnings: vec!["no objective power".into()],
    }
}

pub(crate) fn thumb() -> RgbImage {
    RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 200]))
}

pub(crate) fn mask(tissue: bool) -> TissueMask {
    TissueMask {
        width: 3,
        height: 2,
        cell_level0_px: [33.4, 45.0],
        tissue: vec![tissue; 6],
    }
}

fn tile(col: i32, row: i32) -> TileResult {
    let rect = Rect::new(col * 64, row * 64, 37, 27);
    TileResult {
        col,
        row,
        rect,
        done_px: 900,
        unreadable_px: 99,
        outside_px: 0,
        unreadable: vec![],
        read_errors: vec![],
        nuclei: vec![Nucleus {
            bbox: Rect::new(rect.x + 3, rect.y + 4, 2, 2),
            mask: vec![0b0111],
            area_px: 3,
            prob_sums: vec![],
            type_counts: vec![],
            np_sum: 600,
            stain: StainSums::default(),
            cut: false,
        }],
        fragments: vec![Foreground {
            runs: vec![Run {
                y: rect.y,
                x0: rect.x,
                x1: rect.x + 2,
            }],
            np: vec![200, 201],
            h: vec![-8192, 8192],
            v: vec![0, i16::MIN],
            types: 0,
            tp: vec![],
            rgb: vec![1, 2, 3, 4, 5, 6],
        }],
    }
}

/// [`tile`] as a store gives it back.
fn done(col: i32, row: i32, numerics: &str) -> TileState {
    TileState::Done {
        tile: Box::new(tile(col, row)),
        numerics: numerics.into(),
    }
}

/// Why a tile is damaged.
fn damage(store: &Store, col: i32, row: i32) -> String {
    match store.tile_state(col, row).unwrap() {
        TileState::Damaged(reason) => reason,
        state => panic!("{state:?}"),
    }
}

struct Made {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: Store,
}

fn make() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out/store.zarr");
    let planned = vec![[0, 0], [1, 0], [1, 1]];
    let store = Store::create(&path, &meta(planned, [2, 2]), &thumb(), &mask(true)).unwrap();
    Made {
        _folder: folder,
        path,
        store,
    }
}

#[test]
fn everything_comes_back_after_reopening() {
    let made = make();
    made.store.write_tile(&tile(1, 0), "cpu").unwrap();
    made.store.write_tile(&tile(1, 1), "gpu").unwrap();
    let store = Store::open(&made.path).unwrap();
    assert_eq!(store.meta(), &meta(vec![[0, 0], [1, 0], [1, 1]], [2, 2]));
    assert_eq!(store.thumb().unwrap(), thumb());
    assert_eq!(store.mask().unwrap(), mask(true));
    assert_eq!(store.tile_state(1, 0).unwrap(), done(1, 0, "cpu"));
    assert_eq!(store.tile_state(1, 1).unwrap(), done(1, 1, "gpu"));
    assert_eq!(store.tile_state(0, 0).unwrap(), TileState::Absent);
    assert_eq!(store.tile_state(-1, 0).unwrap(), TileState::Absent);
}

#[test]
fn an_empty_mask_and_a_tile_written_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let store = Store::create(&path, &meta(vec![], [0, 0]), &thumb(), &mask(false)).unwrap();
    assert_eq!(store.mask().unwrap(), mask(false));
    store.write_tile(&tile(0, 0), "cpu").unwrap();
    store.write_tile(&tile(0, 0), "gpu").unwrap();
    assert_eq!(store.tile_state(0, 0).unwrap(), done(0, 0, "gpu"));
}

#[test]
fn the_same_store_has_the_same_bytes_in_every_file() {
    let [a, b] = [make(), make()];
    let files = |made: &Made| {
        made.store.write_tile(&tile(1, 0), "cpu").unwrap();
        [
            "zarr.json",
            "tiles/zarr.json",
            "mask/c/0/0",
            "thumb/c/0/0/0",
            "tiles/c/0/1",
        ]
        .map(|file| std::fs::read(made.path.join(file)).unwrap())
    };
    assert_eq!(files(&a), files(&b));
}

/// (what happened to the chunk's file, its new content)
fn damages(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut flipped = good.to_vec();
    flipped[good.len() / 2] ^= 4;
    let mut last = good.to_vec();
    *last.last_mut().unwrap() ^= 1;
    vec![
        ("empty", vec![]),
        ("four zeros", vec![0; 4]),
        ("truncated", good[..good.len() - 7].to_vec()),
        ("zero-filled", vec![0; good.len()]),
        ("bit-flipped", flipped),
        ("checksum flipped", last),
        (
            "text",
            b"not a chunk at all, but long enough to be one".to_vec(),
        ),
    ]
}

#[test]
fn a_damaged_chunk_is_a_tile_to_run_again_with_its_reason() {
    let made = make();
    made.store.write_tile(&tile(1, 0), "cpu").unwrap();
    made.store.write_tile(&tile(1, 1), "cpu").unwrap();
    let file = made.path.join("tiles/c/0/1");
    for (name, content) in damages(&std::fs::read(&file).unwrap()) {
        std::fs::write(&file, content).unwrap();
        let reason = damage(&made.store, 1, 0);
        assert!(reason.contains("tiles/c/0/1: "), "{name}: {reason}");
        assert_eq!(made.store.tile_state(1, 1).unwrap(), done(1, 1, "cpu"));
    }
    // The right bytes at the wrong place.
    std::fs::copy(made.path.join("tiles/c/1/1"), &file).unwrap();
    let reason = damage(&made.store, 1, 0);
    assert!(reason.ends_with("belongs to tile (1, 1)"), "{reason}");
    made.store.write_tile(&tile(1, 0), "cpu").unwrap();
    assert_eq!(made.store.tile_state(1, 0).unwrap(), done(1, 0, "cpu"));
}

#[test]
fn a_chunk_of_a_store_with_other_settings_is_not_taken() {
    let [a, b] = [make(), make()];
    let mut other = a.store.meta().clone();
    other.identity.insert("level".into(), json!(1));
    remove(&b.path).unwrap();
    let b_store = Store::create(&b.path, &other, &thumb(), &mask(true)).unwrap();
    b_store.write_tile(&tile(1, 0), "cpu").unwrap();
    atomic::create_dir_all(&a.path.join("tiles/c/0")).unwrap();
    std::fs::copy(b.path.join("tiles/c/0/1"), a.path.join("tiles/c/0/1")).unwrap();
    let reason = damage(&a.store, 1, 0);
    assert!(
        reason.ends_with("belongs to a run with other settings"),
        "{reason}"
    );

    a.store.check_identity(a.store.meta()).unwrap();
    let message = a.store.check_identity(&other).unwrap_err().to_string();
    assert!(message.contains("level: stored 0, wanted 1"), "{message}");
    assert!(message.contains("--restart"), "{message}");
    assert!(!message.contains("mpp"), "{message}");
}

#[test]
fn what_is_no_store_or_a_damaged_one_says_so_and_names_the_cure() {
    let made = make();
    let error = |path: &std::path::Path| Store::open(path).err().unwrap().to_string();
    assert!(error(&made.path.join("thumb/c")).contains("is not a nuclei store"));
    assert!(error(&made.path.join("thumb")).contains("is not a nuclei store"));
    let root = made.path.join("zarr.json");
    let good = std::fs::read_to_string(&root).unwrap();
    for bad in [
        "",
        "{",
        &good[..good.len() / 2],
        &good.replace("0.2521", "0.2522"),
    ] {
        std::fs::write(&root, bad).unwrap();
        let message = error(&made.path);
        assert!(
            message.contains("zarr.json: is damaged") && message.contains("--restart"),
            "{message}"
        );
    }
    std::fs::write(&root, &good).unwrap();
    let tiles = made.path.join("tiles/zarr.json");
    std::fs::write(&tiles, "{}").unwrap();
    let message = error(&made.path);
    assert!(
        message.contains("tiles/zarr.json: is damaged") && message.contains("--restart"),
        "{message}"
    );
    // --restart works on the damaged store.
    remove(&made.path).unwrap();
    Store::create(&made.path, made.store.meta(), &thumb(), &mask(true)).unwrap();
}

#[test]
fn a_missing_thumb_is_damage_and_not_a_black_picture() {
    let made = make();
    std::fs::remove_file(made.path.join("thumb/c/0/0/0")).unwrap();
    assert!(matches!(
        made.store.thumb(),
        Err(StoreError::Damaged { .. })
    ));
}

#[test]
fn creating_keeps_a_store_and_clears_what_an_interrupted_one_left() {
    let made = make();
    made.store.write_tile(&tile(1, 0), "cpu").unwrap();
    let create = || Store::create(&made.path, made.store.meta(), &thumb(), &mask(true));
    assert!(matches!(create(), Err(StoreError::Exists { .. })));
    // A kill between the arrays and the group's metadata.
    std::fs::remove_file(made.path.join("zarr.json")).unwrap();
    assert!(matches!(
        Store::open(&made.path),
        Err(StoreError::NotAStore { .. })
    ));
    let store = create().unwrap();
    assert_eq!(store.tile_state(1, 0).unwrap(), TileState::Absent);
}

#[test]
fn removing_leaves_other_peoples_files() {
    let made = make();
    let note = made.path.join("note.txt");
    std::fs::write(&note, "mine").unwrap();
    remove(&made.path).unwrap();
    assert!(note.exists() && !made.path.join("tiles").exists());
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("zarr.json"), "{}").unwrap();
    assert!(remove(foreign.path()).is_err());
    assert!(foreign.path().join("zarr.json").exists());
    remove(&foreign.path().join("nothing here")).unwrap();
}

#[test]
fn threads_write_different_tiles_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let planned: Vec<[i32; 2]> = (0..64).map(|i| [i % 8, i / 8]).collect();
    let store =
        Store::create(&path, &meta(planned.clone(), [8, 8]), &thumb(), &mask(true)).unwrap();
    std::thread::scope(|scope| {
        for part in planned.chunks(16) {
            let store = &store;
            scope.spawn(move || {
                for &[col, row] in part {
                    store.write_tile(&tile(col, row), "cpu").unwrap();
                }
            });
        }
    });
    for &[col, row] in &planned {
        assert_eq!(store.tile_state(col, row).unwrap(), done(col, row, "cpu"));
    }
}

#[test]
fn rings_come_back_for_the_same_nuclei_alone() {
    use crate::features::Ring;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.zarr");
    let store = Store::create(&path, &meta(vec![[0, 0]], [1, 1]), &thumb(), &mask(true)).unwrap();
    // More than a chunk of them.
    let nuclei: Vec<Nucleus> = (0..9000)
        .map(|x| Nucleus {
            bbox: Rect::new(x, 2 * x, 1, 1),
            mask: vec![1],
            area_px: 1,
            prob_sums: vec![],
            type_counts: vec![],
            np_sum: 0,
            stain: StainSums::default(),
            cut: false,
        })
        .collect();
    let rings: Vec<Ring> = (0..9000)
        .map(|i| Ring {
            area_px: i,
            hematoxylin: -7 * i64::from(i),
            hematoxylin_sq: 1 << 60,
            eosin: 3,
            eosin_sq: 5,
        })
        .collect();
    assert_eq!(store.read_rings(&nuclei), None);
    store.write_rings(&nuclei, &rings).unwrap();
    assert_eq!(store.read_rings(&nuclei).as_ref(), Some(&rings));
    assert_eq!(Store::open(&path).unwrap().read_rings(&nuclei), Some(rings));
    assert_eq!(store.read_rings(&nuclei[1..]), None);
    let mut moved = nuclei.clone();
    moved[3].bbox.x += 1;
    assert_eq!(store.read_rings(&moved), None);

    // A damaged chunk and an absent one are not taken for rings.
    let chunk = path.join("rings/c/1/0");
    let mut bytes = std::fs::read(&chunk).unwrap();
    bytes[10] ^= 4;
    std::fs::write(&chunk, bytes).unwrap();
    assert_eq!(store.read_rings(&nuclei), None);
    std::fs::remove_file(&chunk).unwrap();
    assert_eq!(store.read_rings(&nuclei), None);
    assert_eq!(store.read_rings(&[]), Some(vec![]));
}
