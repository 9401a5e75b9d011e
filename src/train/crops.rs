//! Which part of which image a step sees, and from what angle.
//!
//! In: loaded sets, (seed, step, place in the batch). Out: an RGB [`View`] and its truth in the crop's own px. A crop is
//! a pure function of those numbers.

use fastrand::Rng;
use image::{Rgb, RgbImage};

use super::data::{Dot, LabelledImage, LoadedSet, Truth};

/// Share of the crops of typed sets that are centred on a nucleus of a uniformly drawn type.
const TYPE_CENTRED: f64 = 0.4;
/// Scale augmentation: px of the image a px of the crop.
const STEP_RANGE: (f64, f64) = (1.0 / 1.4, 1.0 / 0.7);

/// A dot this near to the crop may belong to a nucleus that reaches into it.
const DOT_MARGIN_PX: f64 = 40.0;

/// One square crop before colour augmentation.
pub struct View {
    pub rgb: RgbImage,
    /// Instance id of each px; -1 outside the image.
    pub ids: Vec<i32>,
    /// Type of each id (instances) or empty.
    pub types: Vec<u8>,
    /// Dots in the crop and near it, px; `None` where instances are known.
    pub dots: Option<Vec<Dot>>,
}

/// Images to learn from, by set, with the places of each type for balanced drawing.
pub struct Pool<'a> {
    sets: Vec<(f64, Vec<&'a LabelledImage>, TypePlaces)>,
}

/// For each type with at least one nucleus: (image in the set, x, y).
type TypePlaces = Vec<Vec<(usize, f64, f64)>>;

impl<'a> Pool<'a> {
    pub fn new(sets: &'a [LoadedSet], types: usize) -> Self {
        let sets = sets
            .iter()
            .map(|set| {
                let images: Vec<_> = set.images.iter().filter(|i| !i.held_out).collect();
                let mut places = vec![Vec::new(); types + 1];
                for (index, image) in images.iter().enumerate() {
                    for (type_id, x, y) in centres(image) {
                        if let Some(of_type) = places.get_mut(usize::from(type_id)) {
                            of_type.push((index, x, y));
                        }
                    }
                }
                places.remove(0);
                places.retain(|p: &Vec<_>| !p.is_empty());
                (set.share, images, places)
            })
            .collect();
        Self { sets }
    }

    /// Draws one crop of `side` px, a share of `resampled` scaled and turned by any angle; without that number it is cut
    /// out as it is.
    pub fn draw(&self, rng: &mut Rng, side: usize, resampled: Option<f64>) -> View {
        let total: f64 = self.sets.iter().map(|s| s.0).sum();
        let mut at = rng.f64() * total;
        let mut chosen = self.sets.len() - 1;
        for (i, set) in self.sets.iter().enumerate() {
            if at < set.0 {
                chosen = i;
                break;
            }
            at -= set.0;
        }
        let (_, images, places) = &self.sets[chosen];
        let (image, centre) = if !places.is_empty() && rng.f64() < TYPE_CENTRED {
            let of_type = &places[rng.usize(..places.len())];
            let (image, x, y) = of_type[rng.usize(..of_type.len())];
            let mut off = || (rng.f64() - 0.5) * side as f64 * 0.6;
            (images[image], (x + off(), y + off()))
        } else {
            let image = images[rng.usize(..images.len())];
            let (w, h) = image.rgb.dimensions();
            (image, (rng.f64() * f64::from(w), rng.f64() * f64::from(h)))
        };
        let pose = resampled.map_or(Pose::PLAIN, |share| Pose::draw(rng, share));
        sample(image, centre, pose, side)
    }
}

/// One point inside each nucleus with its type.
fn centres(image: &LabelledImage) -> Vec<(u8, f64, f64)> {
    match &image.truth {
        Truth::Dots(dots) => dots
            .iter()
            .map(|d| (d.type_id, f64::from(d.x_px), f64::from(d.y_px)))
            .collect(),
        Truth::Instances { ids, types } => {
            let w = image.rgb.width() as usize;
            let mut sums = vec![(0u32, 0.0, 0.0); types.len()];
            for (i, &id) in ids.iter().enumerate().filter(|(_, id)| **id > 0) {
                let s = &mut sums[id as usize];
                *s = (s.0 + 1, s.1 + (i % w) as f64, s.2 + (i / w) as f64);
            }
            sums.iter()
                .zip(types)
                .filter(|((n, ..), _)| *n > 0)
                .map(|((n, x, y), &t)| (t, x / f64::from(*n), y / f64::from(*n)))
                .collect()
        }
    }
}

/// How a crop lies in its image.
#[derive(Clone, Copy)]
struct Pose {
    /// Px of the crop are px of the image.
    copied: bool,
    /// Px of the image a px of the crop.
    step: f64,
    angle: f64,
    /// -1 (mirrored) or 1.
    mirror: f64,
}

impl Pose {
    const PLAIN: Self = Self {
        copied: true,
        step: 1.0,
        angle: 0.0,
        mirror: 1.0,
    };

    fn draw(rng: &mut Rng, resampled: f64) -> Self {
        let copied = rng.f64() >= resampled;
        let (step, angle) = if copied {
            (1.0, f64::from(rng.u8(0..4)) * std::f64::consts::FRAC_PI_2)
        } else {
            let (lo, hi) = STEP_RANGE;
            let step = (lo.ln() + rng.f64() * (hi.ln() - lo.ln())).exp();
            (step, rng.f64() * std::f64::consts::TAU)
        };
        Self {
            copied,
            step,
            angle,
            mirror: if rng.bool() { -1.0 } else { 1.0 },
        }
    }
}

/// Cuts a square around `centre`, kept inside the image where it fits.
fn sample(image: &LabelledImage, centre: (f64, f64), pose: Pose, side: usize) -> View {
    let (w, h) = (f64::from(image.rgb.width()), f64::from(image.rgb.height()));
    let Pose {
        copied,
        step,
        angle,
        mirror,
    } = pose;
    let reach = step * side as f64 / 2.0;
    let keep = |c: f64, size: f64| {
        let kept = if size > 2.0 * reach {
            c.clamp(reach, size - reach)
        } else {
            size / 2.0
        };
        if copied { kept.round() } else { kept }
    };
    let (cx, cy) = (keep(centre.0, w), keep(centre.1, h));
    let (cos, sin) = (angle.cos() * step, angle.sin() * step);
    let half = side as f64 / 2.0;
    let source = |x: f64, y: f64| {
        let (dx, dy) = ((x + 0.5 - half) * mirror, y + 0.5 - half);
        (cx + dx * cos - dy * sin, cy + dx * sin + dy * cos)
    };
    let (ids, types, dots) = truth_of(image, &source, side, |x, y| {
        // The inverse turn, for dots.
        let (rx, ry) = ((x - cx) / (step * step), (y - cy) / (step * step));
        let (dx, dy) = (rx * cos + ry * sin, -rx * sin + ry * cos);
        (dx * mirror + half, dy + half)
    });
    let mut rgb = RgbImage::new(side as u32, side as u32);
    for (x, y, px) in rgb.enumerate_pixels_mut() {
        let (sx, sy) = source(f64::from(x), f64::from(y));
        *px = if copied {
            nearest(&image.rgb, sx, sy)
        } else {
            cubic(&image.rgb, sx - 0.5, sy - 0.5)
        };
    }
    View {
        rgb,
        ids,
        types,
        dots,
    }
}

fn truth_of(
    image: &LabelledImage,
    source: &impl Fn(f64, f64) -> (f64, f64),
    side: usize,
    to_crop: impl Fn(f64, f64) -> (f64, f64),
) -> (Vec<i32>, Vec<u8>, Option<Vec<Dot>>) {
    let (w, h) = (image.rgb.width() as i64, image.rgb.height() as i64);
    let id_at = |i: usize| {
        let (sx, sy) = source((i % side) as f64, (i / side) as f64);
        let (x, y) = (sx.floor() as i64, sy.floor() as i64);
        if x < 0 || y < 0 || x >= w || y >= h {
            return -1;
        }
        match &image.truth {
            Truth::Instances { ids, .. } => ids[(y * w + x) as usize] as i32,
            Truth::Dots(_) => 0,
        }
    };
    let ids = (0..side * side).map(id_at).collect();
    match &image.truth {
        Truth::Instances { types, .. } => (ids, types.clone(), None),
        Truth::Dots(dots) => {
            let inside = |d: &Dot| {
                let (x, y) = to_crop(f64::from(d.x_px), f64::from(d.y_px));
                let within = -DOT_MARGIN_PX..side as f64 + DOT_MARGIN_PX;
                let ok = within.contains(&x) && within.contains(&y);
                ok.then_some(Dot {
                    x_px: x as f32,
                    y_px: y as f32,
                    ..*d
                })
            };
            (
                ids,
                Vec::new(),
                Some(dots.iter().filter_map(inside).collect()),
            )
        }
    }
}

/// The px that holds the place; outside, the image is mirrored.
fn nearest(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (w, h) = (i64::from(image.width()), i64::from(image.height()));
    *image.get_pixel(
        mirror(x.floor() as i64, w) as u32,
        mirror(y.floor() as i64, h) as u32,
    )
}

/// Catmull-Rom sample (Keys 1981, a = -1/2), as slides are resampled; outside, the image is mirrored.
fn cubic(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (w, h) = (i64::from(image.width()), i64::from(image.height()));
    let (x0, y0) = (x.floor(), y.floor());
    let (wx, wy) = (catmull_rom((x - x0) as f32), catmull_rom((y - y0) as f32));
    let columns: [usize; 4] = std::array::from_fn(|i| mirror(x0 as i64 - 1 + i as i64, w) as usize);
    let pixels = image.as_raw();
    let mut sum = [0.0f32; 3];
    for (j, &wy) in wy.iter().enumerate() {
        let row = mirror(y0 as i64 - 1 + j as i64, h) as usize * w as usize;
        for (&column, &wx) in columns.iter().zip(&wx) {
            let at = (row + column) * 3;
            for (s, &v) in sum.iter_mut().zip(&pixels[at..at + 3]) {
                *s += wx * wy * f32::from(v);
            }
        }
    }
    Rgb(sum.map(|v| (v + 0.5).clamp(0.0, 255.0) as u8))
}

/// Weights of the px at -1, 0, 1 and 2 for a place `f` of the way from 0 to 1.
fn catmull_rom(f: f32) -> [f32; 4] {
    let (f2, f3) = (f * f, f * f * f);
    [
        -0.5 * f + f2 - 0.5 * f3,
        1.0 - 2.5 * f2 + 1.5 * f3,
        0.5 * f + 2.0 * f2 - 1.5 * f3,
        -0.5 * f2 + 0.5 * f3,
    ]
}

fn mirror(i: i64, n: i64) -> i64 {
    let period = 2 * n;
    let m = i.rem_euclid(period);
    if m < n { m } else { period - 1 - m }
}
