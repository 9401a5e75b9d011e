use super::*;
use crate::geometry::Rect;
use crate::slide::testing::{TestSlide, shared};
use crate::tissue::detect::CELL_UM;

const MPP: [f64; 2] = [0.25, 0.25];

/// A little noise that depends on the place alone.
fn noise(x: u64, y: u64, range: u64) -> u8 {
    let mut hash = x.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ y.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    hash ^= hash >> 31;
    (hash.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40 & 0xFFFF) as u8 % range.max(1) as u8
}

fn glass(x: u64, y: u64) -> [u8; 3] {
    [
        240 + noise(x, y, 6),
        239 + noise(y, x, 6),
        241 + noise(x + 9, y, 6),
    ]
}

fn stain(x: u64, y: u64) -> [u8; 3] {
    // Nuclei of 24 px in pink.
    if (x / 24 + y / 24).is_multiple_of(3) {
        [110 + noise(x, y, 20), 70 + noise(y, x, 20), 150]
    } else {
        [225 + noise(x, y, 10), 170 + noise(y, x, 20), 205]
    }
}

fn detected(
    size: [u64; 2],
    pixel: impl Fn(u64, u64) -> [u8; 3] + Send + Sync + 'static,
) -> TissueMask {
    let slide = TestSlide::new(&[size], move |_, x, y| pixel(x, y));
    detect(&slide, MPP).unwrap()
}

fn share(mask: &TissueMask) -> f64 {
    mask.tissue.iter().filter(|&&t| t).count() as f64 / mask.tissue.len() as f64
}

#[test]
fn white_and_glass_are_empty_and_full_is_full() {
    assert_eq!(share(&detected([1500, 1100], |_, _| [255; 3])), 0.0);
    assert_eq!(share(&detected([1500, 1100], glass)), 0.0);
    assert_eq!(share(&detected([1500, 1100], stain)), 1.0);
    // A dim lamp changes nothing.
    let dim = |px: [u8; 3]| px.map(|c| (u16::from(c) * 6 / 10) as u8);
    assert_eq!(
        share(&detected([1500, 1100], move |x, y| dim(glass(x, y)))),
        0.0
    );
    assert_eq!(
        share(&detected([1500, 1100], move |x, y| dim(stain(x, y)))),
        1.0
    );
    // Nor does a tint of the glass.
    assert_eq!(
        share(&detected([1500, 1100], |x, y| {
            let [r, g, b] = glass(x, y);
            [r - 2, g - 6, b - 9]
        })),
        0.0
    );
}

#[test]
fn the_tissue_is_where_it_was_put() {
    // A disc of tissue on glass, with a small hole that is filled and a large hole that is not, a
    // speck, grey dust and a black border.
    let inside =
        |x: u64, y: u64, cx: f64, cy: f64, r: f64| (x as f64 - cx).hypot(y as f64 - cy) < r;
    let mask = detected([4000, 4000], move |x, y| {
        if x < 200 {
            [3, 2, 4]
        } else if inside(x, y, 3400.0, 600.0, 200.0) {
            [90; 3]
        } else if inside(x, y, 3400.0, 3400.0, 60.0) {
            stain(x, y)
        } else if inside(x, y, 1700.0, 2000.0, 90.0) || inside(x, y, 2500.0, 2000.0, 320.0) {
            glass(x, y)
        } else if inside(x, y, 2000.0, 2000.0, 1200.0) {
            stain(x, y)
        } else {
            glass(x, y)
        }
    });
    let mut wrong = 0;
    for row in 0..mask.height {
        for col in 0..mask.width {
            let (x, y) = (u64::from(col) * 32 + 16, u64::from(row) * 32 + 16);
            let want = inside(x, y, 2000.0, 2000.0, 1200.0) && !inside(x, y, 2500.0, 2000.0, 320.0);
            let rim = [1200.0, 320.0]
                .iter()
                .zip([2000.0, 2500.0])
                .any(|(r, cx)| ((x as f64 - cx).hypot(y as f64 - 2000.0) - r).abs() < 40.0);
            wrong += u32::from(!rim && mask.is_tissue(col, row) != want);
        }
    }
    assert_eq!(wrong, 0);
}

#[test]
fn an_almost_empty_slide_gives_its_little_and_an_almost_full_one_nearly_all() {
    // One piece of 100 x 100 µm on 7 x 7 mm of glass, from a small level.
    let slide = TestSlide::new(&[[28_000, 28_000], [1750, 1750]], |level, x, y| {
        let scale = if level == 1 { 16 } else { 1 };
        let (lx, ly) = (x * scale, y * scale);
        if (9600..10_000).contains(&lx) && (9600..10_000).contains(&ly) {
            stain(lx, ly)
        } else {
            glass(x, y)
        }
    });
    let mask = detect(&slide, MPP).unwrap();
    let tissue = mask.tissue_mm2([28_000; 2], MPP);
    assert!((tissue - 0.01).abs() < 0.003, "{tissue}");
    let full = detected([3000, 3000], |x, y| {
        if x < 500 && y < 500 {
            glass(x, y)
        } else {
            stain(x, y)
        }
    });
    let got = share(&full);
    assert!((got - (1.0 - 25.0 / 900.0)).abs() < 0.01, "{got}");
}

#[test]
fn tiny_slides_are_tissue_unless_white() {
    for size in [[1, 1], [20, 30], [100, 100]] {
        assert_eq!(share(&detected(size, |_, _| [255; 3])), 0.0);
        assert_eq!(share(&detected(size, stain)), 1.0);
        assert_eq!(share(&detected(size, |_, _| [120; 3])), 1.0);
    }
}

#[test]
fn what_cannot_be_read_counts_as_tissue() {
    let mut slide = TestSlide::new(&[[6000, 3000]], |_, x, y| glass(x, y));
    slide.broken_level0 = Some(Rect::new(4500, 100, 10, 10));
    let mask = detect(&slide, MPP).unwrap();
    assert!(mask.is_tissue(4500 / 32, 100 / 32));
    assert!(
        share(&mask) > 0.0 && share(&mask) < 0.05,
        "{}",
        share(&mask)
    );
    slide.broken_level0 = Some(Rect::new(0, 0, 6000, 3000));
    assert!(detect(&slide, MPP).is_err());
}

/// The truth is tests/fixtures/make_tissue.py's: scikit-image on the saturation.
#[test]
fn real_tissue_of_the_demo_slide() {
    let Some(path) = shared("slides/CMU-1-Small-Region.svs") else {
        return;
    };
    let slide = crate::slide::open(&path).unwrap();
    // 16 px per cell, as in the fixture.
    let mask = detect(slide.as_ref(), [CELL_UM / 16.0; 2]).unwrap();
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/tissue_cmu1_small.png"
    );
    let truth = image::open(fixture).unwrap().into_luma8();
    let (mut both, mut either, mut missed) = (0, 0, 0);
    for (col, row, px) in truth.enumerate_pixels() {
        let (got, want) = (mask.is_tissue(col, row), px.0[0] > 0);
        both += u32::from(got && want);
        either += u32::from(got || want);
        missed += u32::from(!got && want);
    }
    assert!(both > 8000 && missed * 100 < both, "{both} {missed}");
    assert!(both * 100 > either * 85, "{both} of {either}");
}

#[test]
fn masks_as_png_come_back_and_any_size_is_laid_over_the_slide() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mask.png");
    let mut mask = TissueMask::all([3200, 1600], MPP);
    mask.tissue.iter_mut().step_by(3).for_each(|t| *t = false);
    std::fs::write(&path, mask.png_bytes().unwrap()).unwrap();
    assert_eq!(TissueMask::from_png(&path, [3200, 1600]).unwrap(), mask);
    // One px above 0 in one channel of an RGB picture; transparent px do not count.
    let mut rgb = image::RgbaImage::from_pixel(4, 2, image::Rgba([0, 0, 0, 255]));
    rgb.put_pixel(1, 1, image::Rgba([0, 1, 0, 255]));
    rgb.put_pixel(3, 0, image::Rgba([9, 9, 9, 0]));
    rgb.save(&path).unwrap();
    let got = TissueMask::from_png(&path, [1000, 500]).unwrap();
    assert_eq!(got.cell_level0_px, [250.0, 250.0]);
    assert_eq!(
        got.tissue,
        [false, false, false, false, false, true, false, false]
    );
    assert!((got.tissue_mm2([1000, 500], [1.0, 1.0]) - 0.0625).abs() < 1e-12);
    std::fs::write(&path, "no picture").unwrap();
    let message = TissueMask::from_png(&path, [9, 9]).unwrap_err().to_string();
    assert!(
        message.contains("mask.png") && message.contains("PNG"),
        "{message}"
    );
}

#[test]
fn a_mask_of_another_shape_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mask.png");
    let read = |mask: [u32; 2], slide: [u64; 2]| {
        image::GrayImage::new(mask[0], mask[1]).save(&path).unwrap();
        TissueMask::from_png(&path, slide)
    };
    // Rounded sides, and a mask of few cells.
    for (mask, slide) in [
        ([192, 156], [1536, 1248]),
        ([191, 156], [1536, 1248]),
        ([3, 2], [1536, 1248]),
    ] {
        assert!(read(mask, slide).is_ok(), "{mask:?}");
    }
    for mask in [[156, 192], [192, 150]] {
        let error = read(mask, [1536, 1248]).unwrap_err().to_string();
        assert!(error.contains("the slide is 1536 x 1248 px"), "{error}");
    }
}
