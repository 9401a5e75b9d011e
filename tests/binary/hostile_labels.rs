//! Readers of labelled data, for training and for `eval`, fed with damaged files: see hostile.rs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wsi_nuclei::internals::{DataSet, LabelFormat as Format, folders, formats};

use crate::hostile::{LARGEST_REQUEST, fixture, fuzz};

fn set(format: Format) -> DataSet {
    DataSet {
        name: "set".into(),
        format,
        folder: PathBuf::new(),
        mpp: 0.25,
        share: 1.0,
        type_ids: vec![0, 1, 2, 3, 1, 2],
        types: BTreeMap::from([("tumour".into(), 1)]),
        hold_out: vec![],
    }
}

/// A folder of labelled data of which one file is hostile.
struct Folder {
    dir: tempfile::TempDir,
    format: Format,
    hostile: PathBuf,
}

impl Folder {
    /// `files`: what lies beside the hostile one.
    fn new(format: Format, hostile: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hostile = dir.path().join(hostile);
        std::fs::create_dir_all(hostile.parent().unwrap()).unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Self {
            dir,
            format,
            hostile,
        }
    }

    /// Whether training takes every image of the folder with these bytes in the hostile file.
    fn is_taken(&self, bytes: &[u8]) -> bool {
        std::fs::write(&self.hostile, bytes).unwrap();
        let loaded = formats::load(&set(self.format), self.dir.path());
        loaded.is_ok_and(|images| images.iter().all(Result::is_ok))
    }

    /// Feeds training's reader, and that of `eval` too where it reads such files.
    fn fuzz(&self, name: &str, seed: Vec<u8>, also_eval: bool) {
        fuzz(name, &[seed], LARGEST_REQUEST, |bytes| {
            let taken = self.is_taken(bytes);
            if also_eval {
                let _ = folders::read(&self.hostile);
            }
            taken
        });
    }
}

fn png(width: u32, height: u32, value: impl Fn(u32) -> u16) -> Vec<u8> {
    let map = image::ImageBuffer::from_fn(width, height, |x, _| image::Luma([value(x)]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    map.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn label(name: &str) -> Vec<u8> {
    fixture(&format!("tests/fixtures/labels/{name}"))
}

#[test]
fn consep() {
    let image = [("Images/one.png", label("mat/Images/one.png"))];
    let folder = Folder::new(Format::Consep, "Labels/one.mat", &image);
    folder.fuzz("CoNSeP .mat", label("mat/Labels/one.mat"), true);
}

#[test]
fn patches() {
    let folder = Folder::new(Format::HovernetNpy, "one.npy", &[]);
    folder.fuzz("hover_net patch .npy", label("npy/one.npy"), true);
}

#[test]
fn pannuke() {
    let names = ["images.npy", "masks.npy", "types.npy"];
    let files = names.map(|name| (name, label(&format!("pannuke/{name}"))));
    for (name, seed) in files.clone() {
        let folder = Folder::new(Format::Pannuke, name, &files);
        folder.fuzz(&format!("PanNuke {name}"), seed, false);
    }
}

#[test]
fn label_pictures() {
    let image = ("images/a.png", png(8, 6, |_| 9));
    let map = ("labels/a.png", png(8, 6, |x| x as u16 / 3));
    let folder = Folder::new(Format::Labels, map.0, std::slice::from_ref(&image));
    folder.fuzz("label PNG", map.1.clone(), true);
    let table = b"image,id,type\na,1,tumour\na,2,4\n".to_vec();
    let folder = Folder::new(Format::Labels, "types.csv", &[image, map]);
    folder.fuzz("types.csv", table, false);
}

#[test]
fn drawings_and_dots() {
    let image = |name| [(name, png(8, 6, |_| 9))];
    let drawing = br#"[{"type":"Feature","properties":{"classification":{"name":"tumour"}},"geometry":{"type":"Polygon","coordinates":[[[1,1],[4,1],[4,4],[1,4],[1,1]]]}},{"type":"Feature","properties":{},"geometry":{"type":"MultiPolygon","coordinates":[[[[5.4,1],[7.4,1],[7.4,3],[5.4,1]]]]}}]"#;
    let folder = Folder::new(Format::Geojson, "a.geojson", &image("a.png"));
    folder.fuzz("GeoJSON drawing", drawing.to_vec(), false);
    let folder = Folder::new(Format::Dots, "points/a.csv", &image("images/a.png"));
    let dots = b"x,y,type\n1.5,2,tumour\n3,4,tumour\n".to_vec();
    folder.fuzz("dots CSV", dots, false);
}

/// Ids near 2^32 in a map of a few pixels: tables by the largest id would take gigabytes.
#[test]
fn ids_far_apart_cost_no_memory() {
    let mut npy = label("npy/one.npy");
    let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let text = String::from_utf8_lossy(&npy[10..header]).into_owned();
    assert!(text.contains("<i4"), "{text}");
    let folder = Folder::new(Format::HovernetNpy, "one.npy", &[]);
    assert!(folder.is_taken(&npy));
    // The fourth of five numbers a pixel is the id.
    for px in npy[header..].chunks_exact_mut(5 * 4) {
        if px[12..16] != [0; 4] {
            px[15] = 0x7f;
        }
    }
    folder.fuzz("ids far apart", npy, true);
}
