//! thumb.png, mask.png and overlay.jpg: what a person looks at.
//!
//! In: pixels that someone else read, a [`TissueMask`], a [`SlideResult`]. Out: PNG and JPEG files. Drawing is plain integer
//! work in order of id: the same result gives the same bytes.

use std::path::Path;

use font8x8::UnicodeFonts;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

use super::{OutputError, Pictures, write_file};
use crate::nuclei::outline_through_centres;
use crate::report::maps;
use crate::report::overlay::TYPE_COLOURS;
use crate::result::{Record, SlideResult};
use crate::tissue::TissueMask;

/// Longest side of overlay.jpg, px: larger slides are drawn smaller. `view` shows them at any zoom.
pub const OVERLAY_SIDE_PX: u32 = 4000;
/// Of overlay.jpg: outlines stay sharp, and a picture of the largest size has about 5 MB.
const OVERLAY_QUALITY: u8 = 80;
/// JPEG holds no longer side; the legend needs room too.
const JPEG_SIDE_PX: u32 = 60_000;
/// Up to this many µm per px an outline of 2 px leaves the nucleus to be seen.
const THICK_MPP: f64 = 0.6;
/// From here on a nucleus is a few px: its outline would be a blot, so that it is drawn as a point.
const POINT_MPP: f64 = 1.5;

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

/// Writes overlay.jpg: the pictures' overlay, or the thumbnail, with every nucleus and the region outlined.
pub(super) fn write_overlay(
    result: &SlideResult,
    pictures: &mut Pictures,
    folder: &Path,
) -> Result<(), OutputError> {
    let overlay = pictures.overlay.take();
    let mut picture = overlay.unwrap_or_else(|| pictures.thumb.clone());
    if picture.width().max(picture.height()) > JPEG_SIDE_PX {
        picture = maps::at_most(&picture, JPEG_SIDE_PX);
    }
    draw_nuclei(&mut picture, result);
    if let Some(region) = &result.meta.region {
        maps::draw_region(&mut picture, region, result.frames().level0_size_px);
    }
    if pictures.legend {
        picture = with_legend(picture, result);
    }
    write_file(&folder.join("overlay.jpg"), |out| {
        picture
            .write_with_encoder(JpegEncoder::new_with_quality(out, OVERLAY_QUALITY))
            .map_err(std::io::Error::other)
    })
}

/// Draws every nucleus over a picture of the whole slide as its scale allows: an outline of 2 px, of 1 px, or a point.
fn draw_nuclei(picture: &mut RgbImage, result: &SlideResult) {
    let frames = result.frames();
    let width_um = frames.level0_size_px[0] as f64 * frames.level0_mpp[0];
    let mpp = width_um / f64::from(picture.width().max(1));
    if mpp <= THICK_MPP {
        draw_rings(picture, result, 2);
    } else if mpp <= POINT_MPP {
        draw_rings(picture, result, 1);
    } else {
        draw_points(picture, result);
    }
}

/// A pixel in its type's colour for every nucleus; where several share one, the last in raster order shows.
fn draw_points(picture: &mut RgbImage, result: &SlideResult) {
    let [width, height] = result.frames().proc_size_px.map(f64::from);
    for record in result.records() {
        let [x, y] = record.centroid_proc_px();
        let x = (x / width * f64::from(picture.width())).floor() as i64;
        let y = (y / height * f64::from(picture.height())).floor() as i64;
        set(picture, x, y, colour_of(result, record.type_id));
    }
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
    draw_rings(picture, result, 2);
}

fn draw_rings(picture: &mut RgbImage, result: &SlideResult, stroke_px: i64) {
    let [width, height] = result.frames().proc_size_px.map(f64::from);
    let scale = [
        f64::from(picture.width()) / width,
        f64::from(picture.height()) / height,
    ];
    for record in result.records() {
        let colour = colour_of(result, record.type_id);
        draw_ring(picture, &record, scale, [0.0; 2], stroke_px, colour);
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
    stroke_px: i64,
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
        draw_line(picture, *a, *b, stroke_px, colour);
    }
}

/// A line of stamps of `stroke_px` a side from `a` to `b`.
fn draw_line(picture: &mut RgbImage, a: [i64; 2], b: [i64; 2], stroke_px: i64, colour: Rgb<u8>) {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let steps = dx.abs().max(dy.abs()).max(1);
    for step in 0..=steps {
        let at = |from: i64, d: i64| from + (2 * d * step + steps).div_euclid(2 * steps);
        let (x, y) = (at(a[0], dx), at(a[1], dy));
        for (dx, dy) in (0..stroke_px).flat_map(|dx| (0..stroke_px).map(move |dy| (dx, dy))) {
            set(picture, x + dx, y + dy, colour);
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

/// Narrowest legend: a picture of a few px still gets a readable one.
const LEAST_WIDTH_PX: u32 = 480;

/// Sizes of a legend that is readable where the whole picture fits a screen.
#[derive(Clone, Copy)]
struct LegendSize {
    /// Px per px of a letter, which has 8 x 8.
    dot_px: u32,
}

impl LegendSize {
    fn of(picture: &RgbImage) -> Self {
        let side_px = picture.width().max(picture.height());
        Self {
            dot_px: (side_px / 700).max(2),
        }
    }

    fn letter_px(self) -> u32 {
        8 * self.dot_px
    }

    fn row_px(self) -> u32 {
        14 * self.dot_px
    }

    fn gap_px(self) -> u32 {
        4 * self.dot_px
    }

    fn text_px(self, text: &str) -> u32 {
        self.letter_px() * text.chars().count() as u32
    }
}

/// The picture with a strip below: a scale bar, and each type's colour, name and count.
pub fn with_legend(picture: RgbImage, result: &SlideResult) -> RgbImage {
    let size = LegendSize::of(&picture);
    let gap = size.gap_px();
    let frames = result.frames();
    let width_um = frames.level0_size_px[0] as f64 * frames.level0_mpp[0];
    let bar_um = maps::scale_bar_um(width_um);
    let bar_px = (bar_um / width_um * f64::from(picture.width()))
        .round()
        .max(1.0) as u32;
    let bar_text = maps::length_text(bar_um);

    // Places in the strip; the scale bar comes first.
    let entries = legend_entries(result);
    let width = picture.width().max(LEAST_WIDTH_PX);
    let (mut x, mut row) = (gap + bar_px + gap + size.text_px(&bar_text) + 3 * gap, 0u32);
    let mut places = Vec::new();
    for (_, text) in &entries {
        let entry_px = size.letter_px() + gap + size.text_px(text) + 2 * gap;
        if x > gap && x + entry_px > width {
            (x, row) = (gap, row + 1);
        }
        places.push((x, picture.height() + row * size.row_px() + 3 * size.dot_px));
        x += entry_px;
    }
    let top = picture.height() + 3 * size.dot_px;
    let height = picture.height() + (row + 1) * size.row_px();
    let mut strip = on_white(picture, width, height);
    let black = Rgb([0, 0, 0]);
    fill(
        &mut strip,
        [gap, top + 3 * size.dot_px],
        [bar_px, 2 * size.dot_px],
        black,
    );
    draw_text(&mut strip, size, gap + bar_px + gap, top, &bar_text);
    for ((colour, text), (x, y)) in entries.iter().zip(places) {
        fill(&mut strip, [x, y], [size.letter_px(); 2], *colour);
        draw_text(&mut strip, size, x + size.letter_px() + gap, y, text);
    }
    strip
}

fn fill(picture: &mut RgbImage, [x, y]: [u32; 2], [w, h]: [u32; 2], colour: Rgb<u8>) {
    for (dx, dy) in (0..w).flat_map(|dx| (0..h).map(move |dy| (dx, dy))) {
        set(picture, i64::from(x + dx), i64::from(y + dy), colour);
    }
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

fn draw_text(picture: &mut RgbImage, size: LegendSize, x: u32, y: u32, text: &str) {
    for (i, letter) in text.chars().enumerate() {
        let rows = font8x8::BASIC_FONTS.get(letter);
        let Some(rows) = rows.or_else(|| font8x8::LATIN_FONTS.get(letter)) else {
            continue;
        };
        let left = x + i as u32 * size.letter_px();
        for (row, bits) in (0u32..).zip(rows) {
            for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                let at = [left + column * size.dot_px, y + row * size.dot_px];
                fill(picture, at, [size.dot_px; 2], Rgb([0, 0, 0]));
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
        // 60 px of 0.25 µm: a bar of 5 µm is 20 px, black, after a gap of 8 px.
        assert_eq!(*with.get_pixel(8, 54), Rgb([0, 0, 0]));
        assert_eq!(*with.get_pixel(27, 54), Rgb([0, 0, 0]));
        assert_eq!(*with.get_pixel(28, 54), Rgb([255, 255, 255]));
        // Behind it and its text, `5 µm`, is type 1's red.
        assert_eq!(*with.get_pixel(124, 46), Rgb([255, 0, 0]));
        let letters = with.pixels().filter(|p| **p == Rgb([0, 0, 0])).count();
        assert!(letters > 200, "{letters}");
    }

    /// The legend of a large picture can be read where all of it is on a screen; that of a small one as before.
    #[test]
    fn letters_grow_with_the_picture() {
        let letter = |side| LegendSize::of(&RgbImage::new(side, 8)).letter_px();
        assert_eq!((letter(60), letter(1400), letter(4000)), (16, 16, 40));
    }

    #[test]
    fn a_nucleus_is_an_outline_or_a_point_as_the_scale_allows() {
        let mut result = fixture::result(1.0);
        // 60 px of the picture are 600 µm: nuclei of 2 px.
        result.meta.frames.level0_mpp = [10.0; 2];
        let white = Rgb([255, 255, 255]);
        let mut picture = RgbImage::from_pixel(60, 40, white);
        draw_nuclei(&mut picture, &result);
        let drawn = picture.pixels().filter(|pixel| **pixel != white).count();
        assert_eq!(drawn, result.nuclei.len());
        // At 1 µm/px the box of nucleus 2, 12 x 8 px, has a rim of 1 px.
        result.meta.frames.level0_mpp = [1.0; 2];
        let mut picture = RgbImage::from_pixel(60, 40, white);
        draw_nuclei(&mut picture, &result);
        let blue = picture
            .pixels()
            .filter(|pixel| pixel.0 == [0, 0, 255])
            .count();
        let of_type_2 = result.records().filter(|r| r.type_id == Some(2)).count();
        assert!(of_type_2 >= 1 && blue >= 36, "{blue}");
        assert_eq!(*picture.get_pixel(21, 11), white);
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
