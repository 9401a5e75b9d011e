//! Test-time augmentation: the mean over rotated and mirrored views of a patch.
//!
//! In: a [`PatchModel`], patches. Out: maps in the patch's own orientation, with h and v turned
//! back. Sums run in f64 in one order, so a network that commutes with the symmetries gives the
//! same bits as without averaging.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;
use serde::Serialize;

use super::error::ModelError;
use super::patch_model::PatchModel;
use crate::prediction::PredictionMap;

/// Views that are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tta {
    /// The patch as it is
    #[default]
    None,
    /// Four views: mirrored left to right, top to bottom, both
    Flips,
    /// All eight symmetries of the square
    D8,
}

impl FromStr for Tta {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as clap::ValueEnum>::from_str(text, false)
    }
}

impl fmt::Display for Tta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tta::None => "none",
            Tta::Flips => "flips",
            Tta::D8 => "d8",
        })
    }
}

/// One of the eight symmetries of the square: transposed first, then mirrored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symmetry {
    pub transpose: bool,
    pub flip_x: bool,
    pub flip_y: bool,
}

impl Tta {
    fn symmetries(self) -> Vec<Symmetry> {
        let views = match self {
            Tta::None => 1,
            Tta::Flips => 4,
            Tta::D8 => 8,
        };
        (0..views).map(Symmetry::of).collect()
    }
}

impl Symmetry {
    /// The symmetry of a number from 0 (identity) to 7; the first four do not transpose.
    pub(crate) fn of(number: u8) -> Self {
        Self {
            transpose: number & 4 != 0,
            flip_x: number & 1 != 0,
            flip_y: number & 2 != 0,
        }
    }

    /// The place in the view of pixel (x, y) of a `width` x `height` image.
    fn place(self, x: usize, y: usize, width: usize, height: usize) -> (usize, usize) {
        let (u, v, w, h) = if self.transpose {
            (y, x, height, width)
        } else {
            (x, y, width, height)
        };
        (
            if self.flip_x { w - 1 - u } else { u },
            if self.flip_y { h - 1 - v } else { v },
        )
    }

    fn view(self, image: &RgbImage) -> RgbImage {
        let (w, h) = image.dimensions();
        let (vw, vh) = if self.transpose { (h, w) } else { (w, h) };
        let mut view = RgbImage::new(vw, vh);
        for (x, y, px) in image.enumerate_pixels() {
            let (vx, vy) = self.place(x as usize, y as usize, w as usize, h as usize);
            view.put_pixel(vx as u32, vy as u32, *px);
        }
        view
    }

    /// (h, v) of the image, from those of its view.
    fn turned_back(self, h: f32, v: f32) -> (f32, f32) {
        let h = if self.flip_x { -h } else { h };
        let v = if self.flip_y { -v } else { v };
        if self.transpose { (v, h) } else { (h, v) }
    }
}

/// A model whose maps are means over views.
pub(super) struct Averaging {
    pub inner: Box<dyn PatchModel>,
    pub tta: Tta,
}

impl PatchModel for Averaging {
    fn set_batch(&mut self, batch: usize) {
        self.inner.set_batch(batch);
    }

    fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError> {
        let symmetries = self.tta.symmetries();
        let mut sums: Vec<Sum> = Vec::with_capacity(patches.len());
        for &symmetry in &symmetries {
            let views: Vec<RgbImage> = patches.iter().map(|p| symmetry.view(p)).collect();
            for (i, map) in self.inner.predict(&views)?.into_iter().enumerate() {
                if sums.len() <= i {
                    sums.push(Sum::like(&map));
                }
                sums[i].add(&map, symmetry);
            }
        }
        let views = symmetries.len() as f64;
        Ok(sums.into_iter().map(|sum| sum.mean(views)).collect())
    }
}

/// Sums of np, h, v and tp over views, in the patch's orientation.
struct Sum {
    width: usize,
    height: usize,
    types: usize,
    np: Vec<f64>,
    h: Vec<f64>,
    v: Vec<f64>,
    tp: Vec<f64>,
}

impl Sum {
    /// Empty sums of the shape of `map`, the first view's (the patch itself).
    fn like(map: &PredictionMap) -> Self {
        let n = map.width * map.height;
        Self {
            width: map.width,
            height: map.height,
            types: map.types,
            np: vec![0.0; n],
            h: vec![0.0; n],
            v: vec![0.0; n],
            tp: vec![0.0; n * map.types],
        }
    }

    fn add(&mut self, map: &PredictionMap, symmetry: Symmetry) {
        for y in 0..self.height {
            for x in 0..self.width {
                let (vx, vy) = symmetry.place(x, y, self.width, self.height);
                let (to, from) = (y * self.width + x, vy * map.width + vx);
                let (h, v) = symmetry.turned_back(map.h[from], map.v[from]);
                self.np[to] += f64::from(map.np[from]);
                self.h[to] += f64::from(h);
                self.v[to] += f64::from(v);
                let k = self.types;
                for (sum, p) in self.tp[to * k..(to + 1) * k]
                    .iter_mut()
                    .zip(&map.tp[from * k..(from + 1) * k])
                {
                    *sum += f64::from(*p);
                }
            }
        }
    }

    fn mean(self, views: f64) -> PredictionMap {
        let mean = |sums: Vec<f64>| sums.into_iter().map(|s| (s / views) as f32).collect();
        PredictionMap {
            width: self.width,
            height: self.height,
            np: mean(self.np),
            h: mean(self.h),
            v: mean(self.v),
            types: self.types,
            tp: mean(self.tp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    /// np from red, h and v from the slopes of red (they turn with the image), tp from green and
    /// blue: commutes with every symmetry. `tilt` adds a part that does not: it grows to the right
    /// and down.
    struct Slopes {
        tilt: f32,
    }

    impl PatchModel for Slopes {
        fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError> {
            Ok(patches.iter().map(|p| self.map(p)).collect())
        }
    }

    impl Slopes {
        fn map(&self, image: &RgbImage) -> PredictionMap {
            let (w, h) = (image.width() as i64, image.height() as i64);
            let at = |x: i64, y: i64, c: usize| {
                let p = image.get_pixel(x.clamp(0, w - 1) as u32, y.clamp(0, h - 1) as u32);
                f32::from(p.0[c])
            };
            let places: Vec<(i64, i64)> =
                (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).collect();
            let of = |f: &dyn Fn(i64, i64) -> f32| places.iter().map(|&(x, y)| f(x, y)).collect();
            PredictionMap {
                width: w as usize,
                height: h as usize,
                np: of(&|x, y| at(x, y, 0) / 255.0 + self.tilt * x as f32),
                h: of(&|x, y| at(x + 1, y, 0) - at(x - 1, y, 0)),
                v: of(&|x, y| at(x, y + 1, 0) - at(x, y - 1, 0) + self.tilt * y as f32),
                types: 2,
                tp: places
                    .iter()
                    .flat_map(|&(x, y)| [at(x, y, 1), at(x, y, 2)])
                    .collect(),
            }
        }
    }

    fn noise(width: u32, height: u32) -> RgbImage {
        let mut rng = fastrand::Rng::with_seed(9);
        RgbImage::from_fn(width, height, |_, _| {
            Rgb([rng.u8(..), rng.u8(..), rng.u8(..)])
        })
    }

    fn averaged(tta: Tta, tilt: f32, image: &RgbImage) -> PredictionMap {
        let inner = Box::new(Slopes { tilt });
        let mut model = Averaging { inner, tta };
        model
            .predict(std::slice::from_ref(image))
            .unwrap()
            .remove(0)
    }

    #[test]
    fn a_network_that_commutes_with_the_symmetries_gives_the_same_bits() {
        let image = noise(7, 7);
        let plain = Slopes { tilt: 0.0 }.map(&image);
        for tta in [Tta::None, Tta::Flips, Tta::D8] {
            assert_eq!(averaged(tta, 0.0, &image), plain, "{tta}");
        }
        let oblong = noise(5, 9);
        let plain = Slopes { tilt: 0.0 }.map(&oblong);
        assert_eq!(averaged(Tta::D8, 0.0, &oblong), plain);
    }

    #[test]
    fn another_network_is_averaged_view_by_view() {
        // np gets tilt * x in every view: over flips its mean is half the width; v gets tilt * y,
        // which changes sign.
        let image = noise(5, 5);
        let plain = Slopes { tilt: 0.0 }.map(&image);
        let tilted = averaged(Tta::Flips, 1.0, &image);
        for i in 0..25 {
            let y = (i / 5) as f32;
            assert!((tilted.np[i] - plain.np[i] - 2.0).abs() < 1e-6);
            assert!((tilted.v[i] - plain.v[i] - (y - 2.0)).abs() < 1e-4);
            assert_eq!(tilted.h[i], plain.h[i]);
        }
        // All eight: the transposed views give h a share of the slope along x.
        let all = averaged(Tta::D8, 1.0, &image);
        for i in 0..25 {
            let (x, y) = ((i % 5) as f32, (i / 5) as f32);
            assert!((all.v[i] - plain.v[i] - (y - 2.0) / 2.0).abs() < 1e-4);
            assert!((all.h[i] - plain.h[i] - (x - 2.0) / 2.0).abs() < 1e-4);
        }
    }
}
