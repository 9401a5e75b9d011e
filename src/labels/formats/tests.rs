//! Fixtures of tests/fixtures/make_labels.py (written by NumPy and SciPy), and folders made here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{detect, load};
use crate::labels::{DataSet, Dot, Format, LabelledImage, Truth};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/labels")
        .join(name)
}

fn set(format: Format, type_ids: &[u8], types: &[(&str, u8)]) -> DataSet {
    DataSet {
        name: "set".into(),
        format,
        folder: PathBuf::new(),
        mpp: 0.25,
        share: 1.0,
        type_ids: type_ids.to_vec(),
        types: types.iter().map(|(n, t)| (n.to_string(), *t)).collect(),
        hold_out: vec!["Colon".into()],
    }
}

/// Areas by type, which tell the fixture's three nuclei apart.
fn areas_by_type(image: &LabelledImage) -> BTreeMap<u8, Vec<usize>> {
    let Truth::Instances { ids, types } = &image.truth else {
        panic!("dots");
    };
    let mut by_id = BTreeMap::new();
    for &id in ids.iter().filter(|id| **id > 0) {
        *by_id.entry(id).or_insert(0) += 1;
    }
    let mut by_type: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (id, area) in by_id {
        by_type.entry(types[id as usize]).or_default().push(area);
    }
    by_type
}

fn load_detected(folder: &Path, type_ids: &[u8]) -> Vec<LabelledImage> {
    let set = set(detect(folder).unwrap(), type_ids, &[]);
    let loaded = load(&set, folder).unwrap();
    loaded.into_iter().map(Result::unwrap).collect()
}

#[test]
fn every_published_format_gives_the_same_nuclei() {
    // A disc of radius √6, 5 x 4 and 7 x 6 px; types 2, 1, 5 become 2, 1, 3.
    let wanted = BTreeMap::from([(1, vec![20]), (2, vec![21]), (3, vec![42])]);
    let ours = [0, 1, 2, 0, 0, 3];
    let pannuke = load_detected(&fixture("pannuke"), &ours);
    assert_eq!(pannuke.len(), 2);
    let others = [
        "mat",
        "lizard",
        "listed",
        "npy",
        "npy_float",
        "conic",
        "palette",
    ];
    let others = others.map(|name| load_detected(&fixture(name), &ours).remove(0));
    for image in others.iter().chain(pannuke.last()) {
        assert_eq!(areas_by_type(image), wanted, "{}", image.name);
        assert_eq!(image.rgb.get_pixel(3, 2).0, [180, 115, 170]);
        assert_eq!(image.rgb.dimensions(), (16, 12));
    }
    assert!(pannuke[0].is_empty() && !pannuke[0].held_out);
    assert_eq!(pannuke[1].name, "set/Colon_0001");
    assert!(pannuke[1].held_out, "tissues can be held out by name");
    let untyped = load_detected(&fixture("segmentation"), &ours);
    assert_eq!(
        areas_by_type(&untyped[0]),
        BTreeMap::from([(0, vec![21, 20, 42])])
    );
}

#[test]
fn types_beyond_the_table_are_refused_with_their_file() {
    for name in ["mat", "npy", "pannuke"] {
        let folder = fixture(name);
        let set = set(detect(&folder).unwrap(), &[0, 1, 2], &[]);
        let error = match load(&set, &folder) {
            Err(error) => error,
            Ok(loaded) => loaded.into_iter().find_map(Result::err).unwrap(),
        };
        let text = error.to_string();
        assert!(
            text.contains("type 5, but type_ids has 3"),
            "{name}: {text}"
        );
        assert!(text.contains(name), "{text}");
    }
}

/// A folder with one grey image `a.png` of 8 x 6 px below `below`.
fn folder_with_image(below: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(below);
    std::fs::create_dir_all(&folder).unwrap();
    image::RgbImage::new(8, 6)
        .save(folder.join("a.png"))
        .unwrap();
    root
}

/// Why the first image of a folder cannot be read.
fn first_error(set: &DataSet, folder: &Path) -> String {
    let first = load(set, folder).unwrap().remove(0);
    first.unwrap_err().to_string()
}

#[test]
fn label_maps_take_types_by_name_and_by_number() {
    let root = folder_with_image("images");
    let labels = root.path().join("labels");
    std::fs::create_dir_all(&labels).unwrap();
    let map = image::GrayImage::from_fn(8, 6, |x, _| image::Luma([(x / 3) as u8]));
    map.save(labels.join("a.png")).unwrap();
    let types = root.path().join("types.csv");
    std::fs::write(&types, "image,id,type\na,1,lymphocyte\na,2,4\nother,9,1\n").unwrap();
    let set = set(Format::Labels, &[0, 0, 0, 0, 3], &[("lymphocyte", 2)]);
    let image = load(&set, root.path()).unwrap().remove(0).unwrap();
    assert_eq!(
        areas_by_type(&image),
        BTreeMap::from([(2, vec![18]), (3, vec![12])])
    );

    let says = |content: &str, words: &str| {
        std::fs::write(&types, content).unwrap();
        let text = first_error(&set, root.path());
        assert!(text.contains("types.csv") && text.contains(words), "{text}");
    };
    says(
        "image,id,type\na,7,4\n",
        "row 2: the label map has no nucleus 7",
    );
    says(
        "image,id,type\na,1,tumour\n",
        "row 2: type \"tumour\" has no id",
    );

    let wrong = image::GrayImage::new(8, 5);
    wrong.save(labels.join("a.png")).unwrap();
    let text = first_error(&set, root.path());
    assert!(
        text.contains("labels are 8 x 5 px, the image 8 x 6"),
        "{text}"
    );
}

#[test]
fn polygons_become_instances_and_points_become_dots() {
    let root = folder_with_image("");
    let path = root.path().join("a.geojson");
    let feature = |geometry: &str, class: &str| {
        format!(
            r#"{{"type":"Feature","geometry":{geometry},"properties":{{"objectType":"annotation"{class}}}}}"#
        )
    };
    let named = |name: &str| format!(r#","classification":{{"name":"{name}"}}"#);
    let square = r#"{"type":"Polygon","coordinates":[[[1,1],[4,1],[4,4],[1,4],[1,1]]]}"#;
    let other = r#"{"type":"Polygon","coordinates":[[[5.4,1],[7.4,1],[7.4,3],[5.4,3],[5.4,1]]]}"#;
    let point = r#"{"type":"Point","coordinates":[2.5,3.5]}"#;
    // A bare list, as QuPath also writes.
    let text = format!(
        "[{},{},{}]",
        feature(square, &named("tumour")),
        feature(other, ""),
        feature(point, "")
    );
    std::fs::write(&path, text).unwrap();
    assert_eq!(detect(root.path()).unwrap(), Format::Geojson);
    let set = set(Format::Geojson, &[], &[("tumour", 1)]);
    let image = load(&set, root.path()).unwrap().remove(0).unwrap();
    assert_eq!(
        areas_by_type(&image),
        BTreeMap::from([(0, vec![4]), (1, vec![9])])
    );

    std::fs::write(&path, feature(point, &named("tumour"))).unwrap();
    let image = load(&set, root.path()).unwrap().remove(0).unwrap();
    let dot = Dot {
        x_px: 2.5,
        y_px: 3.5,
        type_id: 1,
    };
    assert!(matches!(&image.truth, Truth::Dots(dots) if dots[..] == [dot]));

    std::fs::write(&path, feature(square, &named("Tumor"))).unwrap();
    let text = first_error(&set, root.path());
    assert!(
        text.contains("class \"Tumor\" has no id in `types` (tumour)"),
        "{text}"
    );
}

/// One square nucleus, as a GeoJSON feature with these properties.
fn square(left: u32, side: u32, properties: &str) -> String {
    let (right, bottom) = (left + side, 1 + side);
    format!(
        r#"{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":[[[{left},1],[{right},1],[{right},{bottom}],[{left},{bottom}],[{left},1]]]}},"properties":{{{properties}}}}}"#
    )
}

#[test]
fn what_is_drawn_beside_nuclei_is_passed_over() {
    let root = folder_with_image("");
    let path = root.path().join("a.geojson");
    let set = set(
        Format::Geojson,
        &[],
        &[("Tumor", 1), ("Stroma: Positive", 2)],
    );
    let areas = |features: &[String]| {
        std::fs::write(&path, format!("[{}]", features.join(","))).unwrap();
        areas_by_type(&load(&set, root.path()).unwrap().remove(0).unwrap())
    };
    let tumor = r#""classification":{"names":["Tumor","Negative"]}"#;
    let stroma = r#""classification":"{\"name\":\"Stroma: Positive\"}""#;
    let nuclei = [square(1, 2, tumor), square(5, 2, stroma)];
    let wanted = BTreeMap::from([(1, vec![4]), (2, vec![4])]);
    assert_eq!(areas(&nuclei), wanted);
    let region = square(0, 8, "").replace(
        "[0,1],[8,1],[8,9],[0,9],[0,1]",
        "[0,0],[8,0],[8,6],[0,6],[0,0]",
    );
    let line = r#"{"type":"Feature","geometry":{"type":"LineString","coordinates":[[1,1],[5,5]]},"properties":null}"#;
    let empty =
        r#"{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[]]},"properties":{}}"#;
    let tile = square(3, 2, r#""objectType":"tile""#);
    for other in [region, line.into(), empty.into(), tile] {
        let all = [nuclei.to_vec(), vec![other.clone()]].concat();
        assert_eq!(areas(&all), wanted, "{other}");
    }
    // A cell's own outline is not its nucleus.
    let nucleus = r#""nucleusGeometry":{"type":"Polygon","coordinates":[[[2,2],[3,2],[3,3],[2,3],[2,2]]]},"properties":{"#;
    let cell = square(1, 4, tumor).replace(r#""properties":{"#, nucleus);
    assert_eq!(areas(&[cell]), BTreeMap::from([(1, vec![1])]));
    let collection = square(1, 2, tumor).replace(
        r#""geometry":{"#,
        r#""geometry":{"type":"GeometryCollection","geometries":[{"#,
    );
    let collection = collection.replace(r#"},"properties""#, r#"}]},"properties""#);
    assert_eq!(areas(&[collection]), BTreeMap::from([(1, vec![4])]));
}

#[test]
fn an_empty_folder_is_an_error_that_lists_the_formats() {
    let root = tempfile::tempdir().unwrap();
    let text = detect(root.path()).unwrap_err().to_string();
    assert!(text.contains("PanNuke's images.npy"), "{text}");
}
