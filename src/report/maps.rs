//! Pictures of a whole slide, small: tissue outlined, density of a type drawn over it.

use image::imageops::FilterType;
use image::{Rgb, RgbImage};

/// Longest side of the slide card's picture, px.
pub const CARD_SIDE_PX: u32 = 720;
/// Longest side of a density map, px.
pub const MAP_SIDE_PX: u32 = 420;
/// Side of a density map's cell, µm, where that gives fewer than [`MOST_CELLS`] a side.
const CELL_UM: f64 = 100.0;
const MOST_CELLS: f64 = 96.0;
/// Black on a paler line: seen on tissue and on glass.
const OUTLINE: Rgb<u8> = Rgb([0, 0, 0]);

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
    fn pictures_get_smaller_and_never_larger() {
        let picture = RgbImage::new(1000, 10);
        assert_eq!(at_most(&picture, 100).dimensions(), (100, 1));
        assert_eq!(at_most(&picture, 2000).dimensions(), (1000, 10));
    }
}
