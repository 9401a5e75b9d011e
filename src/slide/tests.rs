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
fn folders_are_searched_for_the_extensions_of_all_readers() {
    assert_eq!(
        slide_extensions().join(" "),
        "svs tif tiff ndpi vms vmu scn mrxs svslide bif czi dcm png jpg jpeg"
    );
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
    assert!(info.associated.contains(&"thumbnail".to_owned()));
    // A window's px do not depend on the window.
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
fn every_shared_slide_is_what_it_is_said_to_be() {
    // Sizes from the TIFF tags ImageWidth and ImageLength, and DICOM (0048,0006), (0048,0007).
    for (name, vendor, size, levels) in [
        (
            "synthetic_300x250_pyramid_deflate.tiff",
            "generic-tiff",
            [300, 250],
            4,
        ),
        ("synthetic_boxes_0.dcm", "dicom", [16, 16], 1),
        ("synthetic_boxes_1.dcm", "dicom", [16, 16], 1),
        (
            "camelyon_1152x700_jpeg_tiledfull.dcm",
            "dicom",
            [1152, 700],
            1,
        ),
    ] {
        let Some(path) = shared(&format!("slides/{name}")) else {
            return;
        };
        let slide = open(&path).unwrap();
        let info = slide.info();
        assert_eq!(info.vendor, vendor, "{name}");
        assert_eq!(info.levels.len(), levels, "{name}");
        assert_eq!(
            [info.levels[0].width_px, info.levels[0].height_px],
            size,
            "{name}"
        );
        eprintln!(
            "{name}: {:?} {:?} {:?}",
            info.mpp, info.objective_power, info.levels
        );
    }
}

/// A level shows the same picture as level 0 shrunk to its size, not a shifted one.
#[test]
fn levels_lie_on_each_other() {
    let Some(path) = shared("slides/synthetic_300x250_pyramid_deflate.tiff") else {
        return;
    };
    let slide = open(&path).unwrap();
    let ratio = level::level0_per_level(&slide.info().levels, 1);
    let l = slide.info().levels[1];
    let (w, h) = (l.width_px as u32, l.height_px as u32);
    let small = slide.read_level(1, 0, 0, w, h).unwrap();
    let zero = slide.info().levels[0];
    let size = [zero.width_px, zero.height_px];
    let pixels = slide.read_level(0, 0, 0, size[0] as u32, size[1] as u32);
    let pixels = pixels.unwrap();
    let level0 = TestSlide::new(&[size], move |_, x, y| pixels[(x as u32, y as u32)].0);
    let shrunk = overview::overview(&level0, [w, h], ratio).unwrap().image;
    let mean = |dx: u32, dy: u32| {
        let pairs = (0..h - dy).flat_map(|y| (0..w - dx).map(move |x| (x, y)));
        let sum: u32 = pairs
            .flat_map(|(x, y)| {
                let (a, b) = (small.get_pixel(x, y).0, shrunk.get_pixel(x + dx, y + dy).0);
                (0..3).map(move |c| u32::from(a[c].abs_diff(b[c])))
            })
            .sum();
        f64::from(sum) / f64::from((w - dx) * (h - dy) * 3)
    };
    assert!(
        mean(0, 0) * 2.0 < mean(1, 0),
        "{} {}",
        mean(0, 0),
        mean(1, 0)
    );
    assert!(
        mean(0, 0) * 2.0 < mean(0, 1),
        "{} {}",
        mean(0, 0),
        mean(0, 1)
    );
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
fn an_overview_looks_on_finer_levels_for_what_one_lost() {
    // Four px of a checkerboard a px of level 1, which shows their mean.
    let pixel = |level: usize, x: u64, y: u64| match level {
        0 => {
            [if (x / 2 + y / 2).is_multiple_of(2) {
                40
            } else {
                200
            }; 3]
        }
        _ => [120; 3],
    };
    let mut slide = TestSlide::new(&[[9600, 6400], [2400, 1600]], pixel);
    let whole = overview::overview(&slide, [300, 200], [32.0, 32.0]).unwrap();
    slide.broken_level = Some(1);
    let found = overview::overview(&slide, [300, 200], [32.0, 32.0]).unwrap();
    assert!(found.unreadable.is_empty());
    let apart = whole.image.as_raw().iter().zip(found.image.as_raw());
    let apart = apart.map(|(a, b)| a.abs_diff(*b)).max();
    assert!(apart <= Some(2), "{apart:?}");
    slide.broken_level0 = Some(Rect::new(0, 0, 9600, 6400));
    let error = overview::overview(&slide, [300, 200], [32.0, 32.0])
        .err()
        .unwrap();
    assert!(error.to_string().contains("level 1"), "{error}");
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

#[test]
fn a_picture_is_known_by_its_content_and_its_orientation_is_told_not_applied() {
    let dir = tempfile::tempdir().unwrap();
    let picture = RgbImage::from_fn(30, 20, |x, y| image::Rgb([x as u8 * 8, y as u8 * 12, 90]));
    let mut jpeg = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut jpeg, image::ImageFormat::Jpeg)
        .unwrap();
    let jpeg = jpeg.into_inner();
    // An Exif segment (Exif 2.3, 4.7.2) whose orientation, tag 0x112, is 6.
    let exif =
        b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let turned = [&jpeg[..2], exif, &jpeg[2..]].concat();
    let open_as = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        open(&path).unwrap()
    };
    let plain = open_as("a.jpg", &jpeg);
    let want = plain.read_level(0, 0, 0, 30, 20).unwrap();
    assert!(plain.info().notes.is_empty());
    for (name, bytes, told) in [
        ("a.png", &jpeg, false),
        ("a.TIF", &jpeg, false),
        ("b.jpg", &turned, true),
    ] {
        let slide = open_as(name, bytes);
        assert_eq!(slide.read_level(0, 0, 0, 30, 20).unwrap(), want, "{name}");
        assert_eq!(
            slide
                .info()
                .notes
                .iter()
                .any(|n| n.contains("orientation tag (6)")),
            told
        );
    }
    std::fs::write(dir.path().join("cut.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    assert!(message(&dir.path().join("cut.jpg")).contains("copy it again"));
}

#[cfg(unix)]
#[test]
fn a_name_of_any_bytes_is_told_as_text() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(std::ffi::OsStr::from_bytes(b"l\xe9.png"));
    RgbImage::new(3, 2)
        .save_with_format(&path, image::ImageFormat::Png)
        .unwrap();
    let slide = open(&path).unwrap();
    assert!(
        serde_json::to_string(slide.info())
            .unwrap()
            .contains("l\u{fffd}.png")
    );
}
