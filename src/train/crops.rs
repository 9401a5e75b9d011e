//! Crops: which part of which image a step sees, at what angle and scale.
//!
//! In: loaded sets, a generator. Out: a [`Place`], numbers only; [`super::atlas`] cuts it out. A
//! place is a pure function of the sets and the generator's seed.

use std::f64::consts::{FRAC_PI_2, TAU};

use fastrand::Rng;

use super::TrainError;
use crate::labels::{LabelledImage, LoadedSet, Truth};

/// Share of the crops of typed sets that are centred on a nucleus of a uniformly drawn type.
const TYPE_CENTRED_SHARE: f64 = 0.4;
/// Range of the scale augmentation, image px per crop px.
pub const STEP_RANGE: (f64, f64) = (1.0 / 1.4, 1.0 / 0.7);

/// The images of `sets` that are not held out, in the order in which [`Place::image`] counts them.
pub fn learning_images(sets: &[LoadedSet]) -> impl Iterator<Item = &LabelledImage> {
    sets.iter().flat_map(images_of)
}

fn images_of(set: &LoadedSet) -> impl Iterator<Item = &LabelledImage> {
    set.images.iter().filter(|i| !i.held_out)
}

/// How one square crop lies in its image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// See [`learning_images`].
    pub image: usize,
    /// Of the crop, image px.
    pub centre: [f64; 2],
    /// Image px (rows: x, y) per crop px (columns: x, y).
    pub axes: [[f64; 2]; 2],
    /// Image px per crop px, whatever the angle.
    pub step: f64,
    /// Whether pixels are copied, not resampled.
    pub copied: bool,
}

/// The images to draw from.
pub struct Pool {
    sets: Vec<PoolSet>,
    /// Width and height of each image, px.
    sizes: Vec<[f64; 2]>,
}

struct PoolSet {
    /// Relative number of crops drawn from this set.
    share: f64,
    /// The first image, and their number.
    first: usize,
    images: usize,
    /// For each type that has nuclei their centres: (image, x, y). Drawing types uniformly balances
    /// them.
    centres_by_type: Vec<Vec<(usize, f64, f64)>>,
}

impl Pool {
    /// The images of `sets` that are not held out. `types`: number of types, without background.
    /// A set without such images, or with no share, is never drawn from.
    ///
    /// # Errors
    /// No image to draw from.
    pub fn new(sets: &[LoadedSet], types: usize) -> Result<Self, TrainError> {
        let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        let names = names.join(", ");
        let mut sizes = Vec::new();
        let sets = sets.iter().map(|set| {
            let first = sizes.len();
            let mut centres_by_type = vec![Vec::new(); types + 1];
            for image in images_of(set) {
                for (type_id, x, y) in find_centres(image) {
                    if let Some(of_type) = centres_by_type.get_mut(usize::from(type_id)) {
                        of_type.push((sizes.len(), x, y));
                    }
                }
                let (w, h) = image.rgb.dimensions();
                sizes.push([f64::from(w), f64::from(h)]);
            }
            centres_by_type.remove(0);
            centres_by_type.retain(|c: &Vec<_>| !c.is_empty());
            PoolSet {
                share: set.share,
                first,
                images: sizes.len() - first,
                centres_by_type,
            }
        });
        let drawn: Vec<_> = sets.filter(|s| s.images > 0 && s.share > 0.0).collect();
        if drawn.is_empty() {
            return Err(TrainError::Config(format!(
                "nothing to learn from in {names}: every image is held out, or its set has no share; hold out fewer images"
            )));
        }
        Ok(Self { sets: drawn, sizes })
    }

    /// Draws the place of one crop of `side` px. With probability `resampled` it is scaled and
    /// turned by any angle, else turned by right angles; with `None` it is cut out as it is.
    pub fn draw_place(&self, rng: &mut Rng, side: usize, resampled: Option<f64>) -> Place {
        let set = self.draw_set(rng);
        let centres_by_type = &set.centres_by_type;
        let (image, centre) = if !centres_by_type.is_empty() && rng.f64() < TYPE_CENTRED_SHARE {
            let of_type = &centres_by_type[rng.usize(..centres_by_type.len())];
            let (image, x, y) = of_type[rng.usize(..of_type.len())];
            let mut off = || (rng.f64() - 0.5) * side as f64 * 0.6;
            (image, [x + off(), y + off()])
        } else {
            let image = set.first + rng.usize(..set.images);
            let [w, h] = self.sizes[image];
            (image, [rng.f64() * w, rng.f64() * h])
        };
        let pose = resampled.map_or(Pose::PLAIN, |share| Pose::draw(rng, share));
        pose.at(image, centre, self.sizes[image], side)
    }

    fn draw_set(&self, rng: &mut Rng) -> &PoolSet {
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

/// Scale and direction of a crop.
#[derive(Clone, Copy)]
struct Pose {
    copied: bool,
    /// Image px per crop px.
    step: f64,
    cos: f64,
    sin: f64,
    /// -1 (mirrored) or 1.
    mirror: f64,
}

impl Pose {
    const PLAIN: Self = Self {
        copied: true,
        step: 1.0,
        cos: 1.0,
        sin: 0.0,
        mirror: 1.0,
    };

    fn draw(rng: &mut Rng, resampled: f64) -> Self {
        let copied = rng.f64() >= resampled;
        let (step, cos, sin) = if copied {
            let angle = f64::from(rng.u8(0..4)) * FRAC_PI_2;
            // Whole numbers, so that every px falls on one px.
            (1.0, angle.cos().round(), angle.sin().round())
        } else {
            let (lo, hi) = STEP_RANGE;
            let step = (lo.ln() + rng.f64() * (hi.ln() - lo.ln())).exp();
            let angle = rng.f64() * TAU;
            (step, angle.cos(), angle.sin())
        };
        Self {
            copied,
            step,
            cos,
            sin,
            mirror: if rng.bool() { -1.0 } else { 1.0 },
        }
    }

    /// A crop of `side` px around `centre`, moved so that it lies inside its image of `size` px if
    /// it fits.
    fn at(self, image: usize, centre: [f64; 2], size: [f64; 2], side: usize) -> Place {
        let reach = self.step * side as f64 / 2.0;
        let keep = |c: f64, size: f64| {
            let kept = if size > 2.0 * reach {
                c.clamp(reach, size - reach)
            } else {
                size / 2.0
            };
            if self.copied { kept.round() } else { kept }
        };
        let (cos, sin) = (self.cos * self.step, self.sin * self.step);
        Place {
            image,
            centre: [keep(centre[0], size[0]), keep(centre[1], size[1])],
            axes: [[self.mirror * cos, -sin], [self.mirror * sin, cos]],
            step: self.step,
            copied: self.copied,
        }
    }
}
