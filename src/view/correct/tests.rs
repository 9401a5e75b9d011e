//! A saved pair against the nuclei and pixels it was made of, pixel by pixel, as training reads it.

use std::sync::Arc;

use super::*;
use crate::labels::data_set::load_sets;
use crate::labels::{DataSet, LabelledImage, Truth};
use crate::result::fixture;
use crate::slide::SlideReader;
use crate::slide::testing::{TestSlide, busy};
use crate::view::open;
use crate::view::tiles::Tiles;

/// The hand-made slide of 60 x 40 px, four nuclei at level-0 px = proc px.
fn scene(with_slide: bool) -> Scene {
    let result = fixture::result(1.0);
    let slide: Arc<dyn SlideReader> = Arc::new(TestSlide::new(&[[60, 40]], busy));
    let thumb = image::RgbImage::new(60, 40);
    let tiles = Tiles::new([60, 40], with_slide.then_some(slide), thumb);
    let rows = open::table(&result).unwrap();
    Scene::new(result, rows, tiles, Vec::new())
}

fn asked(text: Value) -> Correction {
    serde_json::from_value(text).unwrap()
}

/// The pair in `folder`, read as training reads it.
fn read_back(folder: &Path) -> LabelledImage {
    let set = DataSet {
        types: [("tumour".into(), 1), ("lymphocyte".into(), 2)].into(),
        ..DataSet::from_folder(folder, 0.25).unwrap()
    };
    let mut sets = load_sets(&[set], Path::new(""), 0.25, 1.0).unwrap();
    assert_eq!(sets[0].images.len(), 1);
    sets[0].images.remove(0)
}

/// Type at each px of a box, by hand: 0 none, 9 of unknown type.
fn types_by_hand(rect: Rect, type_at: impl Fn(i32, i32) -> u8) -> Vec<u8> {
    let rows = rect.y..rect.bottom();
    rows.flat_map(|y| (rect.x..rect.right()).map(move |x| (x, y)))
        .map(|(x, y)| type_at(x, y))
        .collect()
}

fn types_of(image: &LabelledImage) -> Vec<u8> {
    let Truth::Instances { ids, types } = &image.truth else {
        panic!("outlines were saved")
    };
    let known = |id: u32| match types[id as usize] {
        0 => 9,
        known => known,
    };
    ids.iter()
        .map(|&id| if id == 0 { 0 } else { known(id) })
        .collect()
}

#[test]
fn a_saved_box_is_what_training_reads() {
    let scene = scene(true);
    let holds = |place: usize, x: i32, y: i32| {
        let nucleus = &scene.result().nuclei[place];
        nucleus.bbox.contains(x, y) && nucleus.contains(x, y)
    };
    let result_type = |place: usize| {
        let nucleus = &scene.result().nuclei[place];
        Record::new(place, nucleus, scene.result()).type_id.unwrap() as u8
    };
    // The whole slide, and a box that cuts nuclei 2 (on its left) and 3.
    for (level0_px, rect) in [
        ([0.0, 0.0, 60.0, 40.0], Rect::new(0, 0, 60, 40)),
        ([25.3, 5.0, 58.9, 99.0], Rect::new(25, 5, 34, 35)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = json!({
            "box": level0_px,
            "types": {"2": 1, "3": 2},
            // A square over a part of nucleus 2, and so before it.
            "drawn": [{"type": 2, "ring": [[30, 12], [36, 12], [36, 20], [30, 20]]}],
        });
        let first_is_inside = rect.x == 0;
        if first_is_inside {
            wanted["wrong"] = json!([1]);
        }
        let saved = save(&scene, &asked(wanted), folder.path()).unwrap();
        assert_eq!((saved.nuclei, saved.mpp), (4, 0.25));
        let name = format!("hand-made_x{}_y{}.png", rect.x, rect.y);
        assert_eq!(saved.picture, folder.path().join(name));
        let image = read_back(folder.path());
        assert_eq!(
            types_of(&image),
            types_by_hand(rect, |x, y| {
                if (30..36).contains(&x) && (12..20).contains(&y) {
                    2
                } else if holds(1, x, y) {
                    1
                } else if holds(2, x, y) {
                    2
                } else if holds(3, x, y) {
                    result_type(3)
                } else {
                    0
                }
            })
        );
        let slide = TestSlide::new(&[[60, 40]], busy).level(0);
        let [x, y, w, h] = [rect.x, rect.y, rect.w, rect.h].map(|v| v as u32);
        assert!(image.rgb == image::imageops::crop_imm(&slide, x, y, w, h).to_image());
    }
}

#[test]
fn saving_again_replaces_and_an_empty_box_teaches_background() {
    let scene = scene(true);
    let folder = tempfile::tempdir().unwrap();
    let all = json!([1, 2, 3, 4]);
    for (wrong, nuclei) in [(json!([]), 4), (all, 0)] {
        let wanted = asked(json!({"box": [0, 0, 60, 40], "wrong": wrong}));
        let saved = save(&scene, &wanted, folder.path()).unwrap();
        assert_eq!(saved.nuclei, nuclei);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_saved_is_said_and_leaves_no_file() {
    let whole = json!({"box": [0, 0, 60, 40]});
    let with = |key: &str, value: Value| {
        let mut asked = whole.clone();
        asked[key] = value;
        asked
    };
    let folder = tempfile::tempdir().unwrap();
    for (wanted, words) in [
        (with("box", json!([0, 0, 20, 40])), "20 x 40 px"),
        (with("box", json!([50, 40, 0, 0])), "0 x 0 px"),
        (with("wrong", json!([5])), "no nucleus 5 in the area"),
        (with("types", json!({"1": 3})), "no type 3"),
        (
            with("drawn", json!([{"type": 1, "ring": [[1, 2], [3, 4]]}])),
            "fewer than three corners",
        ),
        // Nucleus 1 lies beside the box.
        (
            json!({"box": [20, 0, 60, 40], "wrong": [1]}),
            "no nucleus 1",
        ),
    ] {
        let error = save(&scene(true), &asked(wanted), folder.path()).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let error = save(&scene(false), &asked(whole), folder.path()).unwrap_err();
    assert!(error.to_string().contains("--slide"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
