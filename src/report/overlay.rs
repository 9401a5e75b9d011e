//! Instance maps drawn over their images.

use image::{Rgb, RgbImage, imageops};

pub use crate::model::spec::TYPE_COLOURS;

/// Draws the outline of every id of `ids` (row by row, the picture's size), inside the nucleus, 1 px wide.
/// `colours[type]` colours an id of that type; `id_types[id]` is its type.
pub fn draw_ids(picture: &mut RgbImage, ids: &[u32], id_types: &[u8], colours: &[[u8; 3]]) {
    let (w, h) = picture.dimensions();
    let at = |x: u32, y: u32| ids.get((y * w + x) as usize).copied().unwrap_or(0);
    for y in 0..h {
        for x in 0..w {
            let id = at(x, y);
            if id == 0 {
                continue;
            }
            let rim = x == 0 || y == 0 || x + 1 == w || y + 1 == h;
            let inside = !rim
                && [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]
                    .iter()
                    .all(|&(nx, ny)| at(nx, ny) == id);
            if !inside {
                let kind = id_types.get(id as usize).copied().unwrap_or(0);
                picture.put_pixel(x, y, colour(colours, kind));
            }
        }
    }
}

/// Draws a cross of 5 px at each point (px, pixel-edge frame).
pub fn draw_points(picture: &mut RgbImage, points: &[[f64; 2]], types: &[u8], colours: &[[u8; 3]]) {
    for (i, [x, y]) in points.iter().enumerate() {
        let colour = colour(colours, types.get(i).copied().unwrap_or(0));
        for d in -2i64..=2 {
            for (dx, dy) in [(d, 0), (0, d)] {
                let place = (x.floor() as i64 + dx, y.floor() as i64 + dy);
                if let (Ok(px), Ok(py)) = (u32::try_from(place.0), u32::try_from(place.1))
                    && let Some(pixel) = picture.get_pixel_mut_checked(px, py)
                {
                    *pixel = colour;
                }
            }
        }
    }
}

fn colour(colours: &[[u8; 3]], kind: u8) -> Rgb<u8> {
    let kind = usize::from(kind);
    let fallback = TYPE_COLOURS[kind % TYPE_COLOURS.len()];
    match colours.get(kind) {
        Some(c) if kind > 0 => Rgb(*c),
        _ => Rgb(fallback),
    }
}

/// Two pictures of equal height side by side.
pub fn side_by_side(left: &RgbImage, right: &RgbImage) -> RgbImage {
    const GAP_PX: u32 = 6;
    let mut both = RgbImage::from_pixel(
        left.width() + GAP_PX + right.width(),
        left.height().max(right.height()),
        Rgb([128, 128, 128]),
    );
    imageops::replace(&mut both, left, 0, 0);
    imageops::replace(&mut both, right, i64::from(left.width() + GAP_PX), 0);
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rim_of_a_nucleus_is_drawn_in_its_types_colour() {
        let mut picture = RgbImage::new(5, 5);
        let inside = |i: usize| (1..4).contains(&(i % 5)) && (1..4).contains(&(i / 5));
        let ids: Vec<u32> = (0..25).map(|i| u32::from(inside(i))).collect();
        draw_ids(&mut picture, &ids, &[0, 1], &[[0; 3], [9, 8, 7]]);
        let drawn = picture.pixels().filter(|p| p.0 == [9, 8, 7]).count();
        assert_eq!(drawn, 8);
        assert_eq!(picture.get_pixel(2, 2).0, [0; 3]);
    }
}
