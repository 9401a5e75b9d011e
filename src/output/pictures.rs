//! thumb.png, mask.png and overlay.png: what a person looks at.
//!
//! In: pixels that someone else read, a [`TissueMask`], a [`SlideResult`]. Out: PNG files. Drawing is plain integer
//! work in order of id: the same result gives the same bytes.

use std::path::Path;

use font8x8::UnicodeFonts;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

use super::{OutputError, Pictures, write_file};
use crate::nuclei::outline_through_centres;
use crate::report::overlay::TYPE_COLOURS;
use crate::result::{Record, SlideResult};
use crate::tissue::TissueMask;

/// Longest side of overlay.png, px: larger slides are drawn smaller.
pub const OVERLAY_SIDE_PX: u32 = 6000;

/// For a model without types.
const UNTYPED: Rgb<u8> = Rgb([0, 230, 0]);
/// Writes any picture as PNG.
pub fn write_png(picture: &DynamicImage, path: &Path) -> Result<(), OutputError> {
    write_file(path, |out| {
        picture
            .write_with_encoder(PngEncoder::new(out))
            .map_err(std::io::Error::other)
    })
}

/// Writes overlay.png: the pictures' overlay, or the thumbnail, with every nucleus outlined.
pub(super) fn write_overlay(
    result: &SlideResult,
    pictures: &mut Pictures,
    folder: &Path,
) -> Result<(), OutputError> {
    let overlay = pictures.overlay.take();
    let mut picture = overlay.unwrap_or_else(|| pictures.thumb.clone());
    draw_outlines(&mut picture, result);
    if pictures.legend {
        picture = with_legend(picture, result);
    }
    write_png(&picture.into(), &folder.join("overlay.png"))
}

/// The mask as a picture: one px per cell, 255 is tissue.
pub fn mask_picture(mask: &TissueMask) -> GrayImage {
    GrayImage::from_fn(mask.width, mask.height, |x, y| {
        let cell = y as usize * mask.width as usize + x as usize;
        let tissue = mask.tissue.get(cell).copied().unwrap_or(false);
        Luma([if tissue { 255 } else { 0 }])
    })
}

/// Draws every nucleus's outline, 2 px wide in its type's colour, over a picture of the whole slide of any size.
pub fn draw_outlines(picture: &mut RgbImage, result: &SlideResult) {
    let [width, height] = result.frames().proc_size_px.map(f64::from);
    let scale = [
        f64::from(picture.width()) / width,
        f64::from(picture.height()) / height,
    ];
    for record in result.records() {
        let colour = colour_of(result, record.type_id);
        draw_ring(picture, &record, scale, [0.0; 2], colour);
    }
}

/// Draws a disc of radius 3 px at every centroid, as hover_net's --draw_dot.
pub fn draw_dots(picture: &mut RgbImage, result: &SlideResult) {
    for record in result.records() {
        let [x, y] = record.to_centre(record.centroid_proc_px());
        let (x, y) = (x.round() as i64, y.round() as i64);
        let colour = colour_of(result, record.type_id);
        for (dy, dx) in (-3..=3i64).flat_map(|dy| (-3..=3i64).map(move |dx| (dy, dx))) {
            if dx * dx + dy * dy <= 9 {
                set(picture, x + dx, y + dy, colour);
            }
        }
    }
}

/// The colour of a nucleus of this type.
pub fn colour_of(result: &SlideResult, type_id: Option<usize>) -> Rgb<u8> {
    type_id.map_or(UNTYPED, |id| type_colour(result, id))
}

/// Draws one nucleus's outline over a picture of `scale` px per proc px whose upper left corner is at `origin_px`.
pub(super) fn draw_ring(
    picture: &mut RgbImage,
    record: &Record<'_>,
    scale: [f64; 2],
    origin_px: [f64; 2],
    colour: Rgb<u8>,
) {
    let ring: Vec<[i64; 2]> = outline_through_centres(record.nucleus)
        .iter()
        .map(|[x, y]| {
            [
                ((f64::from(*x) + 0.5) * scale[0] - origin_px[0]).floor() as i64,
                ((f64::from(*y) + 0.5) * scale[1] - origin_px[1]).floor() as i64,
            ]
        })
        .collect();
    for (i, a) in ring.iter().enumerate() {
        let b = ring.get(i + 1).or(ring.first()).unwrap_or(a);
        draw_line(picture, *a, *b, colour);
    }
}

/// A line of 2 x 2 px stamps from `a` to `b`.
fn draw_line(picture: &mut RgbImage, a: [i64; 2], b: [i64; 2], colour: Rgb<u8>) {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let steps = dx.abs().max(dy.abs()).max(1);
    for step in 0..=steps {
        let at = |from: i64, d: i64| from + (2 * d * step + steps).div_euclid(2 * steps);
        let (x, y) = (at(a[0], dx), at(a[1], dy));
        for (px, py) in [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)] {
            set(picture, px, py, colour);
        }
    }
}

fn set(picture: &mut RgbImage, x: i64, y: i64, colour: Rgb<u8>) {
    let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
        return;
    };
    if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
        *pixel = colour;
    }
}

/// The model's colour of a type, or a visible one where it gives none.
pub fn type_colour(result: &SlideResult, id: usize) -> Rgb<u8> {
    match result.meta.model.types.get(id) {
        Some(kind) if kind.color.iter().any(|channel| *channel > 60) => Rgb(kind.color),
        _ => Rgb(TYPE_COLOURS[id % TYPE_COLOURS.len()]),
    }
}

/// Letters are 8 x 8 px, drawn twice as large.
const LETTER_PX: u32 = 16;
const ROW_PX: u32 = 28;
const SWATCH_PX: u32 = 16;
/// Narrowest legend: a picture of a few px still gets a readable one.
const LEAST_WIDTH_PX: u32 = 480;

/// The picture with a strip below that names each type's colour and count.
pub fn with_legend(picture: RgbImage, result: &SlideResult) -> RgbImage {
    let entries = legend_entries(result);
    let width = picture.width().max(LEAST_WIDTH_PX);
    let mut places = Vec::new();
    let (mut x, mut row) = (8u32, 0u32);
    for (_, text) in &entries {
        let entry_width = SWATCH_PX + 8 + LETTER_PX * text.chars().count() as u32 + 24;
        if x > 8 && x + entry_width > width {
            (x, row) = (8, row + 1);
        }
        places.push((x, picture.height() + row * ROW_PX + 6));
        x += entry_width;
    }
    let height = picture.height() + (row + 1) * ROW_PX;
    let mut strip = on_white(picture, width, height);
    for ((colour, text), (x, y)) in entries.iter().zip(places) {
        for (dx, dy) in (0..SWATCH_PX).flat_map(|dx| (0..SWATCH_PX).map(move |dy| (dx, dy))) {
            set(&mut strip, i64::from(x + dx), i64::from(y + dy), *colour);
        }
        draw_text(&mut strip, x + SWATCH_PX + 8, y, text);
    }
    strip
}

/// A picture in the upper left corner of a white one; grown in place where it is as wide, since it may be large.
fn on_white(picture: RgbImage, width: u32, height: u32) -> RgbImage {
    const WHITE: Rgb<u8> = Rgb([255; 3]);
    if picture.width() == width {
        let mut pixels = picture.into_raw();
        pixels.reserve_exact((height as usize * width as usize * 3).saturating_sub(pixels.len()));
        pixels.resize(width as usize * height as usize * 3, WHITE.0[0]);
        return RgbImage::from_raw(width, height, pixels)
            .unwrap_or_else(|| RgbImage::from_pixel(width, height, WHITE));
    }
    let mut white = RgbImage::from_pixel(width, height, WHITE);
    image::imageops::replace(&mut white, &picture, 0, 0);
    white
}

fn legend_entries(result: &SlideResult) -> Vec<(Rgb<u8>, String)> {
    let kinds = &result.meta.model.types;
    if kinds.is_empty() {
        return vec![(UNTYPED, format!("nuclei {}", result.nuclei.len()))];
    }
    let mut counts = vec![0usize; kinds.len()];
    for record in result.records() {
        if let Some(count) = record.type_id.and_then(|id| counts.get_mut(id)) {
            *count += 1;
        }
    }
    kinds
        .iter()
        .zip(counts)
        .enumerate()
        .filter(|(id, (_, count))| *id > 0 || *count > 0)
        .map(|(id, (kind, count))| (type_colour(result, id), format!("{} {count}", kind.name)))
        .collect()
}

fn draw_text(picture: &mut RgbImage, x: u32, y: u32, text: &str) {
    for (i, letter) in text.chars().enumerate() {
        let Some(rows) = font8x8::BASIC_FONTS.get(letter) else {
            continue;
        };
        let left = x + i as u32 * LETTER_PX;
        for dy in 0..LETTER_PX {
            for dx in 0..LETTER_PX {
                let row = rows.get(dy as usize / 2).copied().unwrap_or(0);
                if row >> (dx / 2) & 1 == 1 {
                    set(
                        picture,
                        i64::from(left + dx),
                        i64::from(y + dy),
                        Rgb([0, 0, 0]),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::fixture;

    #[test]
    fn outlines_lie_on_the_nuclei_in_their_colours() {
        let result = fixture::result(1.0);
        let white = Rgb([255, 255, 255]);
        let mut picture = RgbImage::from_pixel(60, 40, white);
        draw_outlines(&mut picture, &result);
        // Nucleus 2 is the box 20..32 x 10..18 of type 2 (blue in the fixture).
        assert_eq!(*picture.get_pixel(20, 10), Rgb([0, 0, 255]));
        assert_eq!(*picture.get_pixel(21, 11), Rgb([0, 0, 255]));
        assert_eq!(*picture.get_pixel(31, 17), Rgb([0, 0, 255]));
        assert_eq!(*picture.get_pixel(25, 14), white);
        assert_eq!(*picture.get_pixel(19, 9), white);
    }

    #[test]
    fn the_legend_keeps_the_picture_where_it_is() {
        let result = fixture::result(1.0);
        let picture = RgbImage::from_pixel(60, 40, Rgb([1, 2, 3]));
        let with = with_legend(picture.clone(), &result);
        assert_eq!(with.width(), LEAST_WIDTH_PX);
        assert!(with.height() > 40);
        assert_eq!(*with.get_pixel(59, 39), Rgb([1, 2, 3]));
        // The first swatch is type 1's red.
        assert_eq!(*with.get_pixel(8, 46), Rgb([255, 0, 0]));
        let letters = with.pixels().filter(|p| **p == Rgb([0, 0, 0])).count();
        assert!(letters > 200, "{letters}");
    }

    #[test]
    fn one_pixel_is_enough() {
        let result = fixture::result(1.0);
        let mut picture = RgbImage::new(1, 1);
        draw_outlines(&mut picture, &result);
        assert!(with_legend(picture.clone(), &result).height() > 1);
    }

    #[test]
    fn mask_is_0_and_255() {
        let mask = TissueMask {
            width: 2,
            height: 1,
            cell_level0_px: [1.0, 1.0],
            tissue: vec![false, true],
        };
        assert_eq!(mask_picture(&mask).into_raw(), [0, 255]);
    }
}
