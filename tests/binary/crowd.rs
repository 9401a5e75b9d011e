//! A crowd of nuclei that lies as awkwardly as it can on a grid of 256 px tiles.

use image::{Rgb, RgbImage};

/// Side of the smallest tile: one patch of `analytic`.
pub const SEAM_PX: u32 = 256;

/// A picture of 0.5 µm/px: nuclei at random, chains longer than several tiles, a ring around each crossing of
/// four tiles with a nucleus upon it, nuclei at the rim, and a sheet that percolates.
pub fn crowd(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut image = RgbImage::from_pixel(width, height, Rgb([232, 184, 212]));
    let mut random = fastrand::Rng::with_seed(seed);
    let (w, h) = (f64::from(width), f64::from(height));
    for _ in 0..width * height / 1600 {
        let at = [random.f64() * w, random.f64() * h];
        disc(&mut image, at, 4.0 + 6.0 * random.f64(), shade(&mut random));
    }
    for y in [40.0, f64::from(SEAM_PX), h - 40.0] {
        chain(&mut image, &mut random, y);
    }
    for y in (SEAM_PX..height).step_by(SEAM_PX as usize) {
        for x in (SEAM_PX..width).step_by(SEAM_PX as usize) {
            let centre = [f64::from(x), f64::from(y)];
            ring(&mut image, centre, 34.0 + 8.0 * random.f64());
            disc(&mut image, centre, 8.0, [70, 45, 125]);
        }
    }
    for at in [
        [0.0, 90.0],
        [w - 1.0, 150.0],
        [120.0, 0.0],
        [200.0, h - 1.0],
        [0.0, 0.0],
    ] {
        disc(&mut image, at, 9.0, [80, 50, 130]);
    }
    sheet(&mut image, &mut random, [w * 0.55, h * 0.55]);
    image
}

fn shade(random: &mut fastrand::Rng) -> [u8; 3] {
    let pale = random.u8(0..60);
    [70 + pale, 45 + pale, 120 + pale / 2]
}

fn disc(image: &mut RgbImage, [cx, cy]: [f64; 2], radius: f64, colour: [u8; 3]) {
    paint(image, [cx, cy], radius, colour, |distance| {
        distance <= radius
    });
}

/// A closed band: one blob with a hole, larger than a nucleus.
fn ring(image: &mut RgbImage, centre: [f64; 2], radius: f64) {
    let inner = radius - 9.0;
    paint(image, centre, radius, [85, 55, 135], |distance| {
        (inner..=radius).contains(&distance)
    });
}

fn paint(
    image: &mut RgbImage,
    [cx, cy]: [f64; 2],
    reach: f64,
    colour: [u8; 3],
    inside: impl Fn(f64) -> bool,
) {
    let span = |centre: f64, end: u32| {
        let first = (centre - reach).floor().max(0.0) as u32;
        first..((centre + reach).ceil().max(0.0) as u32 + 1).min(end)
    };
    for y in span(cy, image.height()) {
        for x in span(cx, image.width()) {
            if inside((f64::from(x) - cx).hypot(f64::from(y) - cy)) {
                image.put_pixel(x, y, Rgb(colour));
            }
        }
    }
}

/// Discs that touch, from rim to rim.
fn chain(image: &mut RgbImage, random: &mut fastrand::Rng, y: f64) {
    let mut x = 0.0;
    while x < f64::from(image.width()) {
        let at = [x, y + 4.0 * random.f64()];
        disc(image, at, 8.5, shade(random));
        x += 13.0;
    }
}

/// Discs so dense that they hang together, over more than one crossing.
fn sheet(image: &mut RgbImage, random: &mut fastrand::Rng, [left, top]: [f64; 2]) {
    for _ in 0..300 {
        let at = [left + 300.0 * random.f64(), top + 200.0 * random.f64()];
        disc(image, at, 7.0, shade(random));
    }
}
