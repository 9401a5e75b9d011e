use super::*;
use crate::slide::testing::{TestSlide, busy};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

fn proc_image(reader: Arc<dyn SlideReader>, mpp: f64, model_mpp: f64) -> ProcImage {
    let (frames, level) = Frames::for_slide(reader.info(), [mpp, mpp], model_mpp).unwrap();
    ProcImage::new(reader, frames, level, 64 << 20)
}

/// The whole slide put together from reads of `side` px.
fn tiled(image: &ProcImage, side: i32) -> RgbImage {
    let all = image.frames.proc_rect();
    let mut out = RgbImage::new(all.w as u32, all.h as u32);
    for y in (0..all.h).step_by(side as usize) {
        for x in (0..all.w).step_by(side as usize) {
            let rect = Rect::new(x, y, side, side).intersect(&all);
            let part = image.region(rect).unwrap();
            image::imageops::replace(&mut out, &part, x.into(), y.into());
        }
    }
    out
}

/// The level resized in one go, its last px repeated where proc px reach beyond it.
fn resized_whole(image: &ProcImage) -> RgbImage {
    let l = image.reader.info().levels[image.level];
    let (w, h) = (l.width_px as u32, l.height_px as u32);
    let level = image.reader.read_level(image.level, 0, 0, w, h).unwrap();
    let proc = image.frames.proc_rect();
    let [sx, sy] = image.level_per_proc;
    let (crop_w, crop_h) = (f64::from(proc.w) * sx, f64::from(proc.h) * sy);
    let source = RgbImage::from_fn(
        w.max((crop_w - 1e-6).ceil() as u32),
        h.max((crop_h - 1e-6).ceil() as u32),
        |x, y| *level.get_pixel(x.min(w - 1), y.min(h - 1)),
    );
    let from = ImageRef::new(
        source.width(),
        source.height(),
        source.as_raw(),
        PixelType::U8x3,
    )
    .unwrap();
    let mut to = Image::new(proc.w as u32, proc.h as u32, PixelType::U8x3);
    let crop_w = crop_w.min(source.width().into());
    let crop_h = crop_h.min(source.height().into());
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .crop(0.0, 0.0, crop_w, crop_h);
    Resizer::new().resize(&from, &mut to, &options).unwrap();
    RgbImage::from_raw(proc.w as u32, proc.h as u32, to.into_vec()).unwrap()
}

fn max_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    let pairs = a.as_raw().iter().zip(b.as_raw());
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn odd_pyramid_has_no_seams_and_no_tiling() {
    // Level 1 has a downsample of 4.0001 in x; ratio 0.37 of level 0, then of level 1.
    let sizes = [[40_001, 3003], [10_000, 750]];
    for (model_mpp, level, size) in [
        (0.25 / 0.37, 0, [14_800, 1111]),
        (1.0 / 0.37, 1, [3700, 278]),
    ] {
        let image = proc_image(Arc::new(TestSlide::new(&sizes, busy)), 0.25, model_mpp);
        assert_eq!((image.level, image.frames.proc_size_px), (level, size));
        let image = |bytes| {
            let reader = Arc::new(TestSlide::new(&sizes, busy));
            ProcImage::new(reader, image.frames, level, bytes)
        };
        if level == 1 {
            let a = tiled(&image(64 << 20), 164);
            let b = tiled(&image(1 << 20), 1000);
            assert_eq!(a, b);
            assert!(max_difference(&a, &resized_whole(&image(0))) <= 1);
        } else {
            // All of level 0 is too much for a test: boxes around block corners, read in two ways.
            let rect = Rect::new(13_700, 400, 700, 711);
            let whole = image(64 << 20).region(rect).unwrap();
            let parts = image(1 << 20);
            for y in (0..711).step_by(101) {
                let part = Rect::new(rect.x, rect.y + y, rect.w, 101.min(711 - y));
                let got = parts.region(part).unwrap();
                let want = image::imageops::crop_imm(&whole, 0, y as u32, 700, part.h as u32);
                assert_eq!(got, want.to_image());
            }
        }
    }
}

#[test]
#[cfg(feature = "openslide")]
fn real_pixels_at_both_directions() {
    let Some(path) = crate::slide::testing::shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let reader: Arc<dyn SlideReader> = Arc::from(crate::slide::open(&path).unwrap());
    for model_mpp in [0.499, 0.25, 0.499 / 0.37] {
        let image = proc_image(Arc::clone(&reader), 0.499, model_mpp);
        let a = tiled(&image, 777);
        let other = ProcImage::new(Arc::clone(&reader), image.frames, image.level, 1 << 20);
        for i in 0..12 {
            // Around block corners, in an order of their own.
            let [w, h] = image.frames.proc_size_px;
            let x = (490 + 512 * (i % 2)).min(w - 300);
            let rect = Rect::new(x, (3 + 97 * ((i * 5) % 12)).min(h - 211), 300, 211);
            let want = image::imageops::crop_imm(
                &a,
                rect.x as u32,
                rect.y as u32,
                rect.w as u32,
                rect.h as u32,
            );
            assert_eq!(other.region(rect).unwrap(), want.to_image());
        }
        assert!(
            max_difference(&a, &resized_whole(&image)) <= 1,
            "{model_mpp}"
        );
    }
}

#[test]
fn the_same_scale_gives_the_levels_own_pixels() {
    let slide = Arc::new(TestSlide::new(&[[1201, 700], [300, 175]], busy));
    let image = proc_image(slide.clone(), 0.25, 1.0);
    assert_eq!(image.level, 1);
    assert_eq!(
        image.region(image.frames.proc_rect()).unwrap(),
        slide.level(1)
    );
}

#[test]
fn the_rim_is_mirrored_as_opencv_does() {
    // OpenCV: borderInterpolate(p, n, BORDER_REFLECT_101) for p in -7..=8.
    assert_eq!(
        mirrored(-7, 16, 5),
        [1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0]
    );
    assert_eq!(mirrored(-3, 7, 2), [1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(mirrored(-3, 7, 1), [0; 7]);
    for size in [[1u64, 1], [3, 2], [600, 1], [700, 530]] {
        let slide = Arc::new(TestSlide::new(&[size], busy));
        let image = proc_image(slide.clone(), 0.25, 0.25);
        for rect in [
            Rect::new(-46, -46, 256, 256),
            Rect::new(500, 480, 256, 256),
            Rect::new(-900, 10, 64, 3),
            Rect::new(5000, -5000, 7, 9),
            Rect::new(-10, -10, 730, 560),
        ] {
            let got = image.region(rect).unwrap();
            let mirror = |p: i32, n: u64| {
                let n = n as i32;
                let mut p = p;
                while n > 1 && !(0..n).contains(&p) {
                    p = if p < 0 { -p } else { 2 * (n - 1) - p };
                }
                if n == 1 { 0 } else { p as u64 }
            };
            for (x, y, px) in got.enumerate_pixels() {
                let (sx, sy) = (
                    mirror(rect.x + x as i32, size[0]),
                    mirror(rect.y + y as i32, size[1]),
                );
                assert_eq!(px.0, busy(0, sx, sy), "{size:?} {rect:?} {x} {y}");
            }
        }
    }
}

#[test]
fn empty_boxes_and_tiny_slides() {
    let image = proc_image(Arc::new(TestSlide::new(&[[1, 1]], busy)), 0.1, 0.5);
    assert_eq!(
        image.region(Rect::new(5, 5, 0, 9)).unwrap().dimensions(),
        (0, 0)
    );
    let got = image.region(Rect::new(-2, -2, 5, 5)).unwrap();
    assert!(got.pixels().all(|px| px.0 == busy(0, 0, 0)));
}

#[test]
fn a_broken_part_spoils_little_beside_itself() {
    let mut slide = TestSlide::new(&[[2000, 600]], busy);
    slide.broken_level0 = Some(Rect::new(600, 100, 10, 10));
    let image = proc_image(Arc::new(slide), 0.25, 0.25);
    let block = |bx, by| image.region(image.block_rect(bx, by));
    assert!(block(0, 0).is_ok());
    let error = block(1, 0).unwrap_err();
    assert!(error.to_string().contains("test.svs"), "{error}");
    assert!(block(1, 1).is_ok());
    assert!(image.region(Rect::new(400, 0, 200, 90)).is_err());
    assert!(image.region(Rect::new(1024, 0, 900, 600)).is_ok());
    // The rest of the broken block is there, as it would be without the damage.
    let whole = proc_image(Arc::new(TestSlide::new(&[[2000, 600]], busy)), 0.25, 0.25);
    for rect in [Rect::new(640, 0, 384, 600), Rect::new(512, 128, 200, 300)] {
        assert_eq!(image.region(rect).unwrap(), whole.region(rect).unwrap());
    }
}
