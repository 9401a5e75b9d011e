use std::sync::Arc;

use super::testing::{TestSlide, busy, shared};
use super::*;
use crate::geometry::Rect;

fn message(path: &Path) -> String {
    open(path).err().expect("must not open").to_string()
}

#[test]
fn what_is_no_slide_is_named_with_a_cure() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let missing = open(&dir.path().join("gone.svs")).err().unwrap();
    assert!(matches!(missing, SlideError::Missing { .. }));
    let folder = dir.path().join("folder.svs");
    std::fs::create_dir(&folder).unwrap();
    for (path, said) in [
        (
            file("text.svs", b"these are no pixels\n"),
            "PNG, JPEG or TIFF",
        ),
        (file("empty.svs", b""), "empty"),
        (
            file("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
            "cut short",
        ),
        (folder, "folder"),
    ] {
        let message = message(&path);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            message.contains(name) && message.contains(said),
            "{message}"
        );
    }
}

#[test]
fn a_truncated_slide_is_an_error() {
    let Some(path) = shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let bytes = std::fs::read(path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.svs");
    for part in [4, 1000, bytes.len() / 2, 1_276_000] {
        std::fs::write(&cut, &bytes[..part]).unwrap();
        let message = message(&cut);
        assert!(message.contains("cut.svs"), "{message}");
    }
}

#[test]
fn the_demo_slide_is_read() {
    let Some(path) = shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let slide = open(&path).unwrap();
    let info = slide.info();
    assert_eq!(info.vendor, "aperio");
    assert_eq!(
        (info.levels[0].width_px, info.levels[0].height_px),
        (2220, 2967)
    );
    assert_eq!(
        (info.mpp, info.objective_power),
        (Some([0.499, 0.499]), Some(20.0))
    );
    assert_eq!((info.file_bytes, info.quickhash.len()), (1_938_955, 64));
    let label = slide.associated("thumbnail").unwrap().unwrap();
    assert!(label.width() > 100);
    assert!(slide.associated("nothing").unwrap().is_none());
    // A window is the same px whoever reads it.
    let whole = slide.read_level(0, 0, 0, 2220, 2967).unwrap();
    let part = slide.read_level(0, 733, 1501, 300, 200).unwrap();
    let want = image::imageops::crop_imm(&whole, 733, 1501, 300, 200).to_image();
    assert_eq!(part, want);
}

#[test]
fn a_compression_that_openslide_lacks_is_named() {
    let Some(path) = shared("slides/synthetic_10000x5000_pyramid_zstd.tiff") else {
        return;
    };
    match open(&path) {
        Ok(slide) => assert_eq!(slide.info().levels[0].width_px, 10_000),
        Err(error) => assert!(error.to_string().contains("convert it"), "{error}"),
    }
}

#[test]
fn pyramids_of_every_shared_slide_agree_between_levels() {
    for name in [
        "synthetic_300x250_pyramid_deflate.tiff",
        "synthetic_boxes_0.dcm",
        "synthetic_boxes_1.dcm",
        "camelyon_1152x700_jpeg_tiledfull.dcm",
    ] {
        let Some(path) = shared(&format!("slides/{name}")) else {
            return;
        };
        let slide = open(&path).unwrap();
        let last = slide.info().levels.len() - 1;
        let l = slide.info().levels[last];
        let (w, h) = (l.width_px as u32, l.height_px as u32);
        let small = slide.read_level(last, 0, 0, w, h).unwrap();
        let [rx, ry] = level::level0_per_level(&slide.info().levels, last);
        let zero = overview::overview(
            &OnlyLevel0(slide.as_ref(), zero_only(slide.info())),
            [w, h],
            [rx, ry],
        )
        .unwrap();
        let pairs = small.as_raw().iter().zip(zero.image.as_raw());
        let mean =
            pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / f64::from(w * h * 3);
        eprintln!("{name}: {} levels, mean difference {mean:.2}", last + 1);
        assert!(mean < 8.0, "{name}: {mean}");
    }
}

fn zero_only(info: &SlideInfo) -> SlideInfo {
    SlideInfo {
        levels: vec![info.levels[0]],
        ..info.clone()
    }
}

/// A slide without its smaller levels.
struct OnlyLevel0<'a>(&'a dyn SlideReader, SlideInfo);

impl SlideReader for OnlyLevel0<'_> {
    fn info(&self) -> &SlideInfo {
        &self.1
    }
    fn read_level(
        &self,
        l: usize,
        x: u64,
        y: u64,
        w: u32,
        h: u32,
    ) -> Result<image::RgbImage, SlideError> {
        self.0.read_level(l, x, y, w, h)
    }
    fn associated(&self, _: &str) -> Result<Option<image::RgbImage>, SlideError> {
        Ok(None)
    }
}

#[test]
fn a_spoilt_handle_is_replaced() {
    let Some(path) = shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let clean = open(&path).unwrap();
    let want = clean.read_level(0, 0, 0, 200, 200).unwrap();
    // A JPEG tile in the middle of the file loses its header.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 30_000].fill(0);
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("damaged.svs");
    std::fs::write(&damaged, bytes).unwrap();
    let slide: Arc<dyn SlideReader> = Arc::from(open(&damaged).unwrap());
    let bad = (0..13)
        .map(|row| row * 240)
        .find(|&y| {
            slide
                .read_level(0, 0, y, 2220, 2967.min(y as u32 + 240) - y as u32)
                .is_err()
        })
        .expect("a row of tiles is damaged");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (slide, want) = (Arc::clone(&slide), &want);
            scope.spawn(move || {
                for round in 0..10 {
                    if (thread + round) % 2 == 0 {
                        let error = slide.read_level(0, 0, bad, 2220, 200).unwrap_err();
                        assert!(error.to_string().contains("damaged.svs"), "{error}");
                    } else {
                        assert_eq!(&slide.read_level(0, 0, 0, 200, 200).unwrap(), want);
                    }
                }
            });
        }
    });
    // An overview loses the damaged tiles, not the slide.
    let seen = overview::overview(slide.as_ref(), [222, 297], [10.0, 10.0]).unwrap();
    let lost: u64 = seen.unreadable.iter().map(Rect::area).sum();
    assert!(lost > 0 && lost < 222 * 297 / 4, "{lost}");
}

#[test]
fn a_slide_of_one_broken_tile_opens_and_errs() {
    let Some(path) = shared("slides/broken_unreadable_tile.svs") else {
        return;
    };
    let slide = open(&path).unwrap();
    let l = slide.info().levels[0];
    for _ in 0..2 {
        let error = slide
            .read_level(0, 0, 0, l.width_px as u32, l.height_px as u32)
            .unwrap_err();
        assert!(
            error.to_string().contains("broken_unreadable_tile.svs"),
            "{error}"
        );
    }
    assert!(thumb(slide.as_ref(), 64).is_err());
}

#[test]
fn thumbs_show_the_whole_slide_and_never_enlarge() {
    // Left half black, right half white, far larger than a chunk.
    let slide = TestSlide::new(&[[9001, 3001]], |_, x, _| {
        [if x < 4500 { 0 } else { 255 }; 3]
    });
    let small = thumb(&slide, 100).unwrap();
    assert_eq!(small.dimensions(), (100, 33));
    for y in 0..33 {
        assert!((0..49).all(|x| small.get_pixel(x, y).0 == [0; 3]));
        assert!((51..100).all(|x| small.get_pixel(x, y).0 == [255; 3]));
    }
    let tiny = TestSlide::new(&[[7, 3]], busy);
    assert_eq!(thumb(&tiny, 1024).unwrap(), tiny.level(0));
}
