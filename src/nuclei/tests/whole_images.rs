//! Whole 1000 x 1000 maps of `tests/fixtures/make_postproc.py --whole`: agreement with the oracle,
//! and speed.
//!
//! `WSI_NUCLEI_WHOLE_MAPS=FOLDER cargo test --release nuclei::tests::whole_images -- --ignored
//! --nocapture`

use std::path::PathBuf;
use std::time::Instant;

use image::RgbImage;
use npyz::NpyFile;

use super::*;
use crate::nuclei::reference::segment_map;

fn whole_maps() -> Vec<(String, PredictionMap, Vec<u32>)> {
    let Some(folder) = std::env::var_os("WSI_NUCLEI_WHOLE_MAPS") else {
        eprintln!("skipped: WSI_NUCLEI_WHOLE_MAPS does not name a folder of whole_*.npy");
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "npy"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(path).unwrap();
        let file = NpyFile::new(&bytes[..]).unwrap();
        let (height, width) = (file.shape()[1] as usize, file.shape()[2] as usize);
        let values: Vec<f32> = file.into_vec().unwrap();
        let mut planes = values.chunks_exact(width * height).map(<[f32]>::to_vec);
        let mut next = || planes.next().unwrap();
        let map = PredictionMap {
            width,
            height,
            np: next(),
            h: next(),
            v: next(),
            types: 0,
            tp: Vec::new(),
        };
        (name, map, next().iter().map(|&i| i as u32).collect())
    };
    paths.into_iter().map(read).collect()
}

/// The number of instances of `expected` that `found` has pixel for pixel, and the number of
/// instances.
fn identical(expected: &[u32], found: &[u32]) -> (usize, usize) {
    let count = *expected.iter().max().unwrap_or(&0) as usize;
    let mut partner = vec![None; count + 1];
    let mut same = vec![true; count + 1];
    for (&e, &f) in expected.iter().zip(found) {
        let e = e as usize;
        same[e] &= *partner[e].get_or_insert(f) == f && f != 0;
    }
    // Nothing of the partner may lie elsewhere.
    let mut owner = vec![None; *found.iter().max().unwrap_or(&0) as usize + 1];
    for (&e, &f) in expected.iter().zip(found) {
        if *owner[f as usize].get_or_insert(e) != e {
            same[e as usize] = false;
            owner[f as usize]
                .into_iter()
                .for_each(|o| same[o as usize] = false);
        }
    }
    (same[1..].iter().filter(|&&s| s).count(), count)
}

#[test]
#[ignore = "needs WSI_NUCLEI_WHOLE_MAPS"]
fn reference_rules_on_whole_images() {
    let (mut same, mut all) = (0, 0);
    for (name, map, expected) in whole_maps() {
        let rgb = RgbImage::new(map.width as u32, map.height as u32);
        let (_, found) = segment_map(&map, &rgb);
        let (s, n) = identical(&expected, &found);
        if s < n {
            eprintln!("{name}: {s} of {n} identical");
        }
        (same, all) = (same + s, all + n);
    }
    eprintln!("identical instances: {same} of {all}");
    assert_eq!(same, all);
}

#[test]
#[ignore = "a timing, for a release build"]
fn milliseconds_per_megapixel() {
    for (name, mut map, _) in whole_maps() {
        map.types = 5;
        map.tp = vec![0.2; 5 * map.np.len()];
        let rgb = RgbImage::from_pixel(
            map.width as u32,
            map.height as u32,
            image::Rgb([150, 90, 160]),
        );
        let clip = Rect::new(0, 0, map.width as i32, map.height as i32);
        let params = PostprocParams::default();
        let mut best = [f64::INFINITY; 3];
        let (mut covered, mut count, mut split) = (0, 0, 0);
        for _ in 0..5 {
            let mut clock = Instant::now();
            let mut lap = |slot: &mut f64| {
                *slot = slot.min(clock.elapsed().as_secs_f64());
                clock = Instant::now();
            };
            let fg = Foreground::from_patch(&map.quantised(), &rgb, 0, (0, 0), clip, 0.5);
            lap(&mut best[0]);
            let blobs = components(&fg);
            lap(&mut best[1]);
            let nuclei: Vec<Vec<Nucleus>> =
                blobs.iter().map(|b| segment(b, &params, MPP)).collect();
            lap(&mut best[2]);
            covered = fg.len();
            count = nuclei.iter().map(Vec::len).sum();
            split = nuclei.iter().filter(|n| n.len() > 1).count();
        }
        let mpx = clip.area() as f64 / 1e6;
        let ms = best.map(|s| s * 1e3 / mpx);
        eprintln!(
            "{name}: {:.1} % foreground, {count} nuclei, {split} blobs split; ms/Mpx: patch {:.1}, blobs {:.1}, \
                segment {:.1}",
            covered as f64 / mpx / 1e4,
            ms[0],
            ms[1],
            ms[2]
        );
    }
}
