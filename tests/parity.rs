//! The whole comparison with the oracles (hover-net 0.0.10, scikit-image), over cases that tests/parity/*.py write:
//! `make parity`. Each test prints its rows of the table in docs/accuracy.md. Stored fixtures of the same
//! comparisons run in `make test`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::path::{Path, PathBuf};

use image::RgbImage;
use npyz::{Deserialize, NpyFile};
use tch::{Device, Tensor};
use wsi_nuclei::internals::hovernet::{HoverNet, Mode};
use wsi_nuclei::internals::reference::segment_map;
use wsi_nuclei::internals::{Annotation, Network, convert, scores};
use wsi_nuclei::{PredictionMap, measure_mask as shape};

/// The folder of cases below which `part` lies.
fn cases(part: &str) -> PathBuf {
    let root = std::env::var_os("WSI_NUCLEI_PARITY").expect("WSI_NUCLEI_PARITY: run `make parity`");
    Path::new(&root).join(part)
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder of cases");
    let mut found: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.to_string_lossy().ends_with(end));
    found.sort();
    found
}

fn npy<T: Deserialize>(path: &Path) -> (Vec<u64>, Vec<T>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = NpyFile::new(&bytes[..]).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

fn tensor(path: &Path) -> Tensor {
    let (shape, values) = npy::<f32>(path);
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// One row of the table.
fn row(what: &str, cases: &str, agreement: &str, largest: &str) {
    println!("| {what} | {cases} | {agreement} | {largest} |");
}

fn worst(ours: &Tensor, theirs: &Tensor) -> f64 {
    let largest = theirs.abs().max().double_value(&[]);
    (ours - theirs).abs().max().double_value(&[]) / largest
}

#[test]
#[ignore = "make parity"]
fn networks() {
    let folder = cases("network");
    let mut beyond = Vec::new();
    for path in files(&folder, ".tar") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mode = if name.starts_with("fast") {
            Mode::Fast
        } else {
            Mode::Original
        };
        let (_, tensors) = convert::read(&path, None).unwrap();
        let network = HoverNet::from_tensors(mode, &tensors, Device::Cpu).unwrap();
        let at = |part: &str| folder.join(format!("{name}.{part}.npy"));
        let (shape, rgb) = npy::<u8>(&at("rgb"));
        let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let raw = network
            .forward(&Tensor::from_slice(&rgb).reshape(&shape))
            .unwrap();
        let np = worst(&raw.np, &tensor(&at("np")));
        let hv = worst(&raw.hv, &tensor(&at("hv")));
        let mut largest = format!("np {np:.1e}, hv {hv:.1e} of the largest");
        if np >= 1e-4 || hv >= 1e-4 {
            beyond.push(format!("{name}: {largest}"));
        }
        let mut agreement = "all pixels".to_string();
        if let Some(tp) = raw.tp {
            let theirs = tensor(&at("tp"));
            largest += &format!(", tp {:.0e}", worst(&tp, &theirs));
            let differ = tp
                .argmax(1, false)
                .not_equal_tensor(&theirs.argmax(1, false));
            let (two, _) = theirs.topk(2, 1, true, true);
            let margin = two.select(1, 0) - two.select(1, 1);
            let unexplained = differ.logical_and(&margin.ge(1e-3)).sum(tch::Kind::Int64);
            assert_eq!(unexplained.int64_value(&[]), 0, "{name}: types differ");
            let n = differ.sum(tch::Kind::Int64).int64_value(&[]);
            agreement = format!("types of all but {n} pixels (ties)");
        }
        let what = format!("network {}", name.replace('_', ", "));
        row(
            &what,
            &format!("{} patches", shape[0]),
            &agreement,
            &largest,
        );
    }
    assert!(beyond.is_empty(), "{beyond:?}");
}

/// Instances of `expected` that `found` has pixel for pixel, and their number.
fn identical(expected: &[u32], found: &[u32]) -> (usize, usize) {
    let mut partners: BTreeMap<u32, Option<u32>> = BTreeMap::new();
    let mut owners: BTreeMap<u32, Option<u32>> = BTreeMap::new();
    for (&e, &f) in expected.iter().zip(found) {
        let partner = partners.entry(e).or_insert(Some(f));
        *partner = partner.filter(|p| *p == f && f > 0);
        let owner = owners.entry(f).or_insert(Some(e));
        *owner = owner.filter(|o| *o == e);
    }
    partners.remove(&0);
    let same = |(e, f): (&u32, &Option<u32>)| f.is_some_and(|f| owners[&f] == Some(*e));
    let count = partners.len();
    (partners.iter().filter(|&p| same(p)).count(), count)
}

#[test]
#[ignore = "make parity"]
fn reference_post_processing() {
    let mut kinds: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for path in files(&cases("maps"), ".npy") {
        let (shape, values) = npy::<f32>(&path);
        let (height, width) = (shape[1] as usize, shape[2] as usize);
        let plane = |i: usize| values[i * width * height..(i + 1) * width * height].to_vec();
        let ids = |i: usize| plane(i).iter().map(|&v| v as u32).collect::<Vec<_>>();
        let map = PredictionMap {
            width,
            height,
            np: plane(0),
            h: plane(1),
            v: plane(2),
            types: 0,
            tp: Vec::new(),
        };
        let (_, ours) = segment_map(&map, &RgbImage::new(width as u32, height as u32));
        let (oracle, by_blob) = (ids(3), ids(4));
        let (same, all) = identical(&oracle, &ours);
        let (explained, _) = identical(&by_blob, &ours);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let kind = match name.split('_').next() {
            Some("predicted") => "predicted by the default model",
            Some(n) if n.starts_with("crowd") => "synthetic crowds",
            _ => "made from labels",
        };
        let sums = kinds.entry(kind).or_default();
        let fill = if explained == by_blob.iter().max().map_or(0, |&n| n as usize) {
            all - same
        } else {
            unexplained.push(name);
            0
        };
        for (sum, v) in sums.iter_mut().zip([1, same, all, fill]) {
            *sum += v;
        }
    }
    let (mut total, mut equal) = (0, 0);
    for (kind, [maps, same, all, fill]) in &kinds {
        row(
            &format!("`--postproc reference`, maps {kind}"),
            &format!("{maps} maps, {all} instances"),
            &format!(
                "{same} identical ({:.3} %)",
                100.0 * *same as f64 / *all as f64
            ),
            &format!(
                "{fill} by hole filling across blobs, {} by anything else",
                all - same - fill
            ),
        );
        total += all;
        equal += same;
    }
    println!("maps with other differences: {unexplained:?}");
    assert!(equal as f64 >= 0.999 * total as f64, "{equal} of {total}");
}

#[test]
#[ignore = "make parity"]
fn region_properties() {
    let folder = cases("features");
    let (_, masks) = npy::<u8>(&folder.join("masks.npy"));
    let (_, boxes) = npy::<i64>(&folder.join("boxes.npy"));
    let (_, expected) = npy::<f64>(&folder.join("expected.npy"));
    let names = std::fs::read_to_string(folder.join("names.txt")).unwrap();
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names.len(), 15);
    let mut largest = vec![0.0f64; names.len()];
    let mut skipped = 0;
    for (b, expected) in boxes
        .chunks_exact(3)
        .zip(expected.chunks_exact(names.len()))
    {
        let (height, width) = (b[1] as usize, b[2] as usize);
        let mask = &masks[b[0] as usize..][..width * height];
        let mut bits = vec![0u8; mask.len().div_ceil(8)];
        for (i, _) in mask.iter().enumerate().filter(|(_, v)| **v > 0) {
            bits[i / 8] |= 1 << (i % 8);
        }
        let s = shape(&bits, width, height);
        let (large, small) = (s.inertia_eigval_x, s.inertia_eigval_y);
        let ours = [
            s.area,
            s.bbox_area,
            s.convex_area,
            s.eccentricity,
            s.equivalent_diameter,
            f64::from(s.euler_number),
            s.extent,
            s.filled_area,
            large,
            small,
            s.major_axis_length,
            s.minor_axis_length,
            s.orientation,
            s.perimeter,
            s.solidity,
        ];
        for (i, (&ours, &theirs)) in ours.iter().zip(expected).enumerate() {
            let mut difference = (ours - theirs).abs();
            if names[i] == "orientation" {
                // Without a long axis it is rounding noise; and an axis has no head.
                if large - small <= 1e-6 * large {
                    skipped += 1;
                    continue;
                }
                difference = difference.min((PI - difference).abs());
            }
            largest[i] = largest[i].max(difference / theirs.abs().max(1.0));
        }
    }
    let (name, most) = names
        .iter()
        .zip(&largest)
        .max_by(|a, b| a.1.total_cmp(b.1))
        .unwrap();
    row(
        "15 region properties, scikit-image 0.26",
        &format!("{} masks", boxes.len() / 3),
        &format!("all within 1e-9 (no orientation: {skipped} round ones)"),
        &format!("{most:.1e} ({name})"),
    );
    assert!(*most <= 1e-9, "{name}: {most:e}");
}

#[derive(serde::Deserialize)]
struct Pair {
    name: String,
    truth_types: Vec<u8>,
    pred_types: Vec<u8>,
    scores: BTreeMap<String, f64>,
    f1: BTreeMap<String, f64>,
}

#[test]
#[ignore = "make parity"]
fn metrics() {
    let folder = cases("metrics");
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let pairs: Vec<Pair> = serde_json::from_str(&text).unwrap();
    let mut largest = (0.0f64, String::new());
    let mut compared = 0;
    for pair in &pairs {
        let side = |part: &str, types: &[u8]| {
            let (shape, ids) = npy::<u32>(&folder.join(format!("{}.{part}.npy", pair.name)));
            let types = std::iter::once(0).chain(types.iter().copied()).collect();
            Annotation::of_map(ids, types, shape[1] as usize)
        };
        let truth = side("truth", &pair.truth_types);
        let pred = side("pred", &pair.pred_types);
        let ours = scores::score_image(&pair.name, &truth, &pred, 5, 12.0);
        let s = ours.segmentation.unwrap();
        let mut found = BTreeMap::from([
            ("DICE".to_string(), s.dice),
            ("AJI".to_string(), s.aji),
            ("AJI+".to_string(), s.aji_plus),
            ("DQ".to_string(), s.dq),
            ("SQ".to_string(), s.sq),
            ("PQ".to_string(), s.pq),
            ("F1d".to_string(), ours.detections.f1d()),
        ]);
        let mut expected = pair.scores.clone();
        for (type_id, f1) in &pair.f1 {
            let name = format!("F1 of type {type_id}");
            found.insert(
                name.clone(),
                ours.detections.f1_type(type_id.parse().unwrap()),
            );
            expected.insert(name, *f1);
        }
        for (name, theirs) in &expected {
            let difference = (found[name] - theirs).abs();
            compared += 1;
            if difference >= largest.0 {
                largest = (difference, format!("{name} of {}", pair.name));
            }
        }
    }
    row(
        "DICE, AJI, AJI+, DQ, SQ, PQ, F1d, F1 a type",
        &format!("{} pairs, {compared} scores", pairs.len()),
        "all within 1e-6",
        &format!("{:.1e} ({})", largest.0, largest.1),
    );
    assert!(largest.0 < 1e-6, "{largest:?}");
}
