//! Crops: which part of which image a step sees, at what angle and scale.
//!
//! In: loaded sets, a generator. Out: a [`Crop`], its truth in the crop's own px. A crop is a pure
//! function of the images and the generator's seed.

use fastrand::Rng;
use image::{Rgb, RgbImage};

use crate::labels::{Dot, LabelledImage, LoadedSet, Truth};

/// Share of the crops of typed sets that are centred on a nucleus of a uniformly drawn type.
const TYPE_CENTRED_SHARE: f64 = 0.4;
/// Range of the scale augmentation, image px per crop px.
const STEP_RANGE: (f64, f64) = (1.0 / 1.4, 1.0 / 0.7);

/// A dot within this distance of the crop may belong to a nucleus that reaches into it.
const DOT_MARGIN_PX: f64 = 40.0;

/// One square crop before colour augmentation.
pub struct Crop {
    /// `[side, side]`.
    pub rgb: RgbImage,
    /// Instance id of each px, row by row; 0: none, -1: unknown, as outside the image.
    pub ids: Vec<i32>,
    /// Type of each id; empty where dots are known.
    pub types: Vec<u8>,
    /// Dots in the crop and near it; `None` where instances are known.
    pub dots: Option<Vec<Dot>>,
}

/// The images to learn from.
pub struct Pool<'a> {
    sets: Vec<PoolSet<'a>>,
}

struct PoolSet<'a> {
    /// Relative number of crops drawn from this set.
    share: f64,
    images: Vec<&'a LabelledImage>,
    /// For each type that has nuclei their centres: (index in `images`, x, y). Drawing types
    /// uniformly balances them.
    centres_by_type: Vec<Vec<(usize, f64, f64)>>,
}

impl<'a> Pool<'a> {
    /// The images of `sets` that are not held out. `types`: number of types, without background.
    pub fn new(sets: &'a [LoadedSet], types: usize) -> Self {
        let sets = sets
            .iter()
            .map(|set| {
                let images: Vec<_> = set.images.iter().filter(|i| !i.held_out).collect();
                let mut centres_by_type = vec![Vec::new(); types + 1];
                for (index, image) in images.iter().enumerate() {
                    for (type_id, x, y) in find_centres(image) {
                        if let Some(of_type) = centres_by_type.get_mut(usize::from(type_id)) {
                            of_type.push((index, x, y));
                        }
                    }
                }
                centres_by_type.remove(0);
                centres_by_type.retain(|c: &Vec<_>| !c.is_empty());
                PoolSet {
                    share: set.share,
                    images,
                    centres_by_type,
                }
            })
            .collect();
        Self { sets }
    }

    /// Draws one crop of `side` px. With probability `resampled` it is scaled and turned by any
    /// angle, else turned by right angles; with `None` it is cut out as it is.
    pub fn draw_crop(&self, rng: &mut Rng, side: usize, resampled: Option<f64>) -> Crop {
        let set = self.draw_set(rng);
        let (images, centres_by_type) = (&set.images, &set.centres_by_type);
        let (image, centre) = if !centres_by_type.is_empty() && rng.f64() < TYPE_CENTRED_SHARE {
            let of_type = &centres_by_type[rng.usize(..centres_by_type.len())];
            let (image, x, y) = of_type[rng.usize(..of_type.len())];
            let mut off = || (rng.f64() - 0.5) * side as f64 * 0.6;
            (images[image], (x + off(), y + off()))
        } else {
            let image = images[rng.usize(..images.len())];
            let (w, h) = image.rgb.dimensions();
            (image, (rng.f64() * f64::from(w), rng.f64() * f64::from(h)))
        };
        let pose = resampled.map_or(Pose::PLAIN, |share| Pose::draw(rng, share));
        cut_crop(image, centre, pose, side)
    }

    fn draw_set(&self, rng: &mut Rng) -> &PoolSet<'a> {
        let total: f64 = self.sets.iter().map(|s| s.share).sum();
        let mut at = rng.f64() * total;
        let chosen = self.sets.iter().position(|set| {
            let is_chosen = at < set.share;
            at -= set.share;
            is_chosen
        });
        &self.sets[chosen.unwrap_or(self.sets.len() - 1)]
    }
}

/// One point inside each nucleus with its type.
fn find_centres(image: &LabelledImage) -> Vec<(u8, f64, f64)> {
    match &image.truth {
        Truth::Dots(dots) => dots
            .iter()
            .map(|d| (d.type_id, f64::from(d.x_px), f64::from(d.y_px)))
            .collect(),
        Truth::Unknown => Vec::new(),
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
    /// Whether pixels are copied, not resampled.
    copied: bool,
    /// Image px per crop px.
    step: f64,
    /// Radians.
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

/// Cuts a square around `centre`, moved so that it lies inside the image if it fits.
fn cut_crop(image: &LabelledImage, centre: (f64, f64), pose: Pose, side: usize) -> Crop {
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
    let (ids, types, dots) = cut_truth(image, &source, side, |x, y| {
        let (rx, ry) = ((x - cx) / (step * step), (y - cy) / (step * step));
        let (dx, dy) = (rx * cos + ry * sin, -rx * sin + ry * cos);
        (dx * mirror + half, dy + half)
    });
    let mut rgb = RgbImage::new(side as u32, side as u32);
    for (x, y, px) in rgb.enumerate_pixels_mut() {
        let (sx, sy) = source(f64::from(x), f64::from(y));
        *px = if copied {
            sample_nearest(&image.rgb, sx, sy)
        } else {
            sample_cubic(&image.rgb, sx - 0.5, sy - 0.5)
        };
    }
    Crop {
        rgb,
        ids,
        types,
        dots,
    }
}

/// Ids, types and dots of a crop. `source`: the image place of a crop px; `to_crop`: its inverse.
fn cut_truth(
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
            Truth::Unknown => -1,
        }
    };
    let ids = (0..side * side).map(id_at).collect();
    match &image.truth {
        Truth::Instances { types, .. } => (ids, types.clone(), None),
        Truth::Unknown => (ids, Vec::new(), None),
        Truth::Dots(dots) => {
            let inside = |d: &Dot| {
                let (x, y) = to_crop(f64::from(d.x_px), f64::from(d.y_px));
                let within = -DOT_MARGIN_PX..side as f64 + DOT_MARGIN_PX;
                let ok = within.contains(&x) && within.contains(&y);
                ok.then(|| d.moved_to(x as f32, y as f32))
            };
            let dots = dots.iter().filter_map(inside).collect();
            (ids, Vec::new(), Some(dots))
        }
    }
}

/// The px that holds the place (x, y); outside, the image is mirrored.
fn sample_nearest(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (w, h) = (i64::from(image.width()), i64::from(image.height()));
    *image.get_pixel(
        mirror_index(x.floor() as i64, w) as u32,
        mirror_index(y.floor() as i64, h) as u32,
    )
}

/// Catmull-Rom sample (Keys 1981, a = -1/2), as on slides; outside, the image is mirrored.
fn sample_cubic(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (w, h) = (i64::from(image.width()), i64::from(image.height()));
    let (x0, y0) = (x.floor(), y.floor());
    let (wx, wy) = (catmull_rom((x - x0) as f32), catmull_rom((y - y0) as f32));
    let columns: [usize; 4] =
        std::array::from_fn(|i| mirror_index(x0 as i64 - 1 + i as i64, w) as usize);
    let pixels = image.as_raw();
    let mut sum = [0.0f32; 3];
    for (j, &wy) in wy.iter().enumerate() {
        let row = mirror_index(y0 as i64 - 1 + j as i64, h) as usize * w as usize;
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

/// The index that `i` falls on when `0..n` is mirrored at its ends.
fn mirror_index(i: i64, n: i64) -> i64 {
    let period = 2 * n;
    let m = i.rem_euclid(period);
    if m < n { m } else { period - 1 - m }
}
