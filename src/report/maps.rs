//! Pictures of a whole slide, small: tissue and region outlined, density of a type drawn over it.
//!
//! In: pixels, the mask, the region, places of nuclei. Out: pixels. Never reads a file.

use image::imageops::FilterType;
use image::{Rgb, RgbImage};

use crate::tissue::Region;

/// Longest side of the slide card's picture, px.
pub const CARD_SIDE_PX: u32 = 720;
/// Longest side of a density map, px.
pub const MAP_SIDE_PX: u32 = 420;
/// Side of a density map's cell, µm, where that gives fewer than [`MOST_CELLS`] a side.
const CELL_UM: f64 = 100.0;
const MOST_CELLS: f64 = 96.0;
/// Black on a paler line: seen on tissue and on glass.
const OUTLINE: Rgb<u8> = Rgb([0, 0, 0]);
/// Around a region's outline.
const HALO: Rgb<u8> = Rgb([255, 255, 255]);

/// The mask over a slide: `true` is tissue; cells may stick out at the right and bottom.
pub struct Mask<'a> {
    pub width: u32,
    pub height: u32,
    /// Columns and rows that lie on the slide, with fractions.
    pub on_slide: [f64; 2],
    pub tissue: &'a [bool],
}

/// `picture` with its longer side at most `side_px`; never enlarged.
pub fn at_most(picture: &RgbImage, side_px: u32) -> RgbImage {
    let longer = picture.width().max(picture.height()).max(1);
    if longer <= side_px {
        return picture.clone();
    }
    let scale = |n: u32| (u64::from(n) * u64::from(side_px) / u64::from(longer)).max(1) as u32;
    let (w, h) = (scale(picture.width()), scale(picture.height()));
    image::imageops::resize(picture, w, h, FilterType::Triangle)
}

/// Draws the border of the tissue, 2 px wide.
pub fn outline_tissue(picture: &mut RgbImage, mask: &Mask<'_>) {
    let (w, h) = picture.dimensions();
    let tissue = |x: u32, y: u32| {
        let cell = |at: u32, size: u32, cells: f64| {
            ((f64::from(at) + 0.5) / f64::from(size) * cells).floor() as u32
        };
        let (column, row) = (cell(x, w, mask.on_slide[0]), cell(y, h, mask.on_slide[1]));
        let at = row as usize * mask.width as usize + column as usize;
        column < mask.width && row < mask.height && mask.tissue.get(at) == Some(&true)
    };
    for y in 0..h {
        for x in 0..w {
            let here = tissue(x, y);
            let right = x + 1 < w && tissue(x + 1, y) != here;
            let below = y + 1 < h && tissue(x, y + 1) != here;
            if right || below {
                for (px, py) in [(x, y), (x + 1, y), (x, y + 1)] {
                    if let Some(pixel) = picture.get_pixel_mut_checked(px, py) {
                        *pixel = OUTLINE;
                    }
                }
            }
        }
    }
}

/// Draws the outline of the region asked for over a picture of the whole slide: black on white, so that it is seen on
/// tissue and on glass. A drawn mask has no outline of its own: [`outline_tissue`] draws it.
pub fn draw_region(picture: &mut RgbImage, region: &Region, level0_size_px: [u64; 2]) {
    let scale = [
        f64::from(picture.width()) / level0_size_px[0].max(1) as f64,
        f64::from(picture.height()) / level0_size_px[1].max(1) as f64,
    ];
    let mut rings: Vec<Vec<[f64; 2]>> = Vec::new();
    if let Some([left, top, right, bottom]) = region.level0_box {
        rings.push(vec![
            [left, top],
            [right, top],
            [right, bottom],
            [left, bottom],
        ]);
    }
    rings.extend(region.polygons.iter().flatten().flatten().cloned());
    let width_px = i64::from(picture.width().max(picture.height()) / 700 + 1);
    for (colour, half_px) in [(HALO, 2 * width_px), (OUTLINE, width_px)] {
        for ring in &rings {
            let next = ring.iter().cycle().skip(1);
            for (a, b) in ring.iter().zip(next) {
                let place = |[x, y]: [f64; 2]| [x * scale[0], y * scale[1]];
                draw_thick_line(picture, place(*a), place(*b), half_px, colour);
            }
        }
    }
}

/// A line of squares of `2 * half_px` a side; only what is near the picture is walked along.
fn draw_thick_line(
    picture: &mut RgbImage,
    a: [f64; 2],
    b: [f64; 2],
    half_px: i64,
    colour: Rgb<u8>,
) {
    let size = [f64::from(picture.width()), f64::from(picture.height())];
    let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
    for axis in 0..2 {
        let (low, high) = (-(half_px as f64), size[axis] + half_px as f64);
        let step = b[axis] - a[axis];
        if step == 0.0 {
            if a[axis] < low || a[axis] > high {
                return;
            }
            continue;
        }
        let (first, second) = ((low - a[axis]) / step, (high - a[axis]) / step);
        enter = enter.max(first.min(second));
        leave = leave.min(first.max(second));
    }
    if enter > leave {
        return;
    }
    let at = |share: f64| [0, 1].map(|axis| a[axis] + share * (b[axis] - a[axis]));
    let (from, to) = (at(enter), at(leave));
    let steps = (to[0] - from[0])
        .abs()
        .max((to[1] - from[1]).abs())
        .ceil()
        .max(1.0) as i64;
    for step in 0..=steps {
        let share = step as f64 / steps as f64;
        let [x, y] = [0, 1].map(|i| (from[i] + share * (to[i] - from[i])).floor() as i64);
        for (dy, dx) in
            (-half_px..half_px).flat_map(|dy| (-half_px..half_px).map(move |dx| (dy, dx)))
        {
            if let (Ok(px), Ok(py)) = (u32::try_from(x + dx), u32::try_from(y + dy))
                && let Some(pixel) = picture.get_pixel_mut_checked(px, py)
            {
                *pixel = colour;
            }
        }
    }
}

/// The longest of 1, 2 and 5 times a power of ten that is at most a third of `width_um`: what a scale bar shows.
pub fn scale_bar_um(width_um: f64) -> f64 {
    let most = (width_um / 3.0).max(1e-3);
    let power = 10f64.powi(most.log10().floor() as i32);
    let fits = |factor: &f64| factor * power <= most * (1.0 + 1e-9);
    [5.0, 2.0, 1.0].into_iter().find(fits).unwrap_or(1.0) * power
}

/// A length in words: `500 µm`, `2 mm`.
pub fn length_text(um: f64) -> String {
    match um >= 1000.0 {
        true => format!("{} mm", um / 1000.0),
        false => format!("{um} µm"),
    }
}

/// Nuclei a cell of a grid over the slide.
pub struct Density {
    pub cells: [usize; 2],
    /// µm a cell, x and y.
    pub cell_um: [f64; 2],
    counts: Vec<u32>,
}

impl Density {
    /// `places`: shares of the slide's width and height, 0 to 1.
    pub fn of(places: impl Iterator<Item = [f32; 2]>, slide_um: [f64; 2]) -> Self {
        let longer = slide_um[0].max(slide_um[1]);
        let cell = CELL_UM.max(longer / MOST_CELLS);
        let cells = slide_um.map(|um| (um / cell).ceil().clamp(1.0, MOST_CELLS) as usize);
        let mut counts = vec![0u32; cells[0] * cells[1]];
        for place in places {
            let [column, row] = [0, 1].map(|axis| {
                let at = f64::from(place[axis]) * cells[axis] as f64;
                (at.max(0.0) as usize).min(cells[axis] - 1)
            });
            if let Some(count) = counts.get_mut(row * cells[0] + column) {
                *count += 1;
            }
        }
        Self {
            cells,
            cell_um: [0, 1].map(|axis| slide_um[axis] / cells[axis] as f64),
            counts,
        }
    }

    /// Nuclei per mm² of the densest cell.
    pub fn most_per_mm2(&self) -> f64 {
        let most = self.counts.iter().copied().max().unwrap_or(0);
        f64::from(most) / (self.cell_um[0] * self.cell_um[1] / 1e6)
    }

    /// The slide in grey, the denser the more of `colour`.
    pub fn draw(&self, thumb: &RgbImage, colour: [u8; 3]) -> RgbImage {
        let mut picture = at_most(thumb, MAP_SIDE_PX);
        let (w, h) = picture.dimensions();
        let most = self.counts.iter().copied().max().unwrap_or(0).max(1);
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            let cell = |at: u32, size: u32, n: usize| at as usize * n / size.max(1) as usize;
            let at = cell(y, h, self.cells[1]) * self.cells[0] + cell(x, w, self.cells[0]);
            let count = self.counts.get(at).copied().unwrap_or(0);
            let Rgb([r, g, b]) = *pixel;
            // Pale, so that colour stands out.
            let grey = 128 + (u32::from(r) * 2 + u32::from(g) * 5 + u32::from(b)) / 16;
            let mix = |channel: u8| {
                let (grey, channel) = (u64::from(grey), u64::from(channel));
                let (count, most) = (u64::from(count), u64::from(most));
                ((grey * (most - count) + channel * count) / most) as u8
            };
            *pixel = Rgb(colour.map(mix));
        }
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_counts_by_hand() {
        let places = [
            [0.01, 0.01],
            [0.02, 0.02],
            [0.99, 0.99],
            [1.0, 1.0],
            [0.6, 0.1],
        ];
        let density = Density::of(places.into_iter(), [200.0, 200.0]);
        assert_eq!((density.cells, density.cell_um), ([2, 2], [100.0, 100.0]));
        assert_eq!(density.counts, [2, 1, 0, 2]);
        assert_eq!(density.most_per_mm2(), 200.0);
        let picture = density.draw(&RgbImage::from_pixel(10, 10, Rgb([255; 3])), [10, 20, 30]);
        assert_eq!(picture.get_pixel(0, 0).0, [10, 20, 30]);
        assert_eq!(picture.get_pixel(0, 9).0, [255; 3]);
    }

    #[test]
    fn the_outline_follows_the_mask() {
        let tissue = [false, true];
        let mask = Mask {
            width: 2,
            height: 1,
            on_slide: [2.0, 1.0],
            tissue: &tissue,
        };
        let mut picture = RgbImage::from_pixel(10, 4, Rgb([255; 3]));
        outline_tissue(&mut picture, &mask);
        let black: Vec<u32> = (0..10)
            .filter(|&x| picture.get_pixel(x, 2).0 == [0; 3])
            .collect();
        assert_eq!(black, [4, 5]);
    }

    #[test]
    fn a_region_is_drawn_where_it_lies() {
        let region = Region {
            polygons: Some(vec![vec![vec![[-1e9, 100.0], [1e9, 100.0], [0.0, 1e9]]]]),
            level0_box: Some([200.0, 50.0, 300.0, 150.0]),
            by_mask: false,
            mm2: 0.0,
            tissue_mm2: 0.0,
        };
        let grey = Rgb([99; 3]);
        let mut picture = RgbImage::from_pixel(400, 200, grey);
        draw_region(&mut picture, &region, [400, 200]);
        for at in [(20, 100), (380, 100), (200, 60), (250, 50), (300, 149)] {
            assert_eq!(*picture.get_pixel(at.0, at.1), OUTLINE, "{at:?}");
        }
        assert_eq!(*picture.get_pixel(250, 48), HALO);
        assert_eq!(*picture.get_pixel(250, 75), grey);
    }

    #[test]
    fn scale_bars_are_round_and_fit() {
        for (width_um, bar_um, text) in [
            (1500.0, 500.0, "500 µm"),
            (1499.0, 200.0, "200 µm"),
            (128.0, 20.0, "20 µm"),
            (25_000.0, 5000.0, "5 mm"),
            (6.0, 2.0, "2 µm"),
        ] {
            assert_eq!(scale_bar_um(width_um), bar_um);
            assert_eq!(length_text(bar_um), text);
        }
    }

    #[test]
    fn pictures_get_smaller_and_never_larger() {
        let picture = RgbImage::new(1000, 10);
        assert_eq!(at_most(&picture, 100).dimensions(), (100, 1));
        assert_eq!(at_most(&picture, 2000).dimensions(), (1000, 10));
    }
}
