//! How likely a piece of a blob is a nucleus as an expert would draw it.
//!
//! In: a nucleus and the maps under it. Out: its [`Traits`], and from them the overlap (intersection over union) with a
//! true nucleus that labelled images lead to expect. A pure function of the nucleus's own pixels: what surrounds it
//! cannot change the answer. Never changes a nucleus, it only says which to keep.

use serde::{Deserialize, Serialize};

use super::Nucleus;
use super::foreground::{Foreground, HV_SCALE};
use super::gather::{Piece, slots};

/// Length of [`Traits`].
pub const TRAITS: usize = 8;

/// What is measured of a nucleus, in this order: mean and standard deviation of np; ln of the area in µm²; the length
/// of its outline along pixel edges over the root of its area in px; ln of the axis ratio of its second moments; mean
/// difference between its h and v and those that its own shape would have; how large its h and v are compared with
/// those; their correlation with them.
///
/// A nucleus alone has h and v that run from -1 to 1 across it. Two that were not told apart, and a smear that only
/// looks dark, have not.
pub type Traits = [f64; TRAITS];

/// A linear rule: expected overlap = `bias` + Σ `weights` · traits, fitted on labelled images by `model tune`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    /// Nuclei below this expected overlap are dropped.
    pub least: f64,
    pub bias: f64,
    pub weights: [f64; TRAITS],
}

impl Confidence {
    /// The overlap with a true nucleus that these traits lead to expect; about 0..=1.
    pub fn expected_overlap(&self, traits: &Traits) -> f64 {
        line(self.bias, &self.weights, traits)
    }

    pub(crate) fn keeps(&self, traits: &Traits) -> bool {
        self.expected_overlap(traits) >= self.least
    }
}

/// `bias` + Σ `weights` · `traits`.
pub(super) fn line(bias: f64, weights: &[f64], traits: &[f64]) -> f64 {
    // A plain sum in one order: the same on every machine.
    let terms = weights.iter().zip(traits);
    terms.fold(bias, |sum, (weight, trait_)| sum + weight * trait_)
}

/// The traits of the nuclei that `gather` made of the same `pieces`, in the same order. `mpp`: µm a px, (x, y).
pub(super) fn traits(
    blob: &Foreground,
    pieces: &[Piece],
    nuclei: &[Nucleus],
    mpp: [f64; 2],
) -> Vec<Traits> {
    let slot_of_label = slots(pieces);
    let mut own = vec![Vec::new(); nuclei.len()];
    for piece in pieces {
        own[slot_of_label[piece.label as usize]].push(*piece);
    }
    let px_um2 = mpp[0] * mpp[1];
    let of = |(nucleus, pieces): (&Nucleus, &Vec<Piece>)| traits_of(nucleus, blob, pieces, px_um2);
    nuclei.iter().zip(&own).map(of).collect()
}

fn traits_of(nucleus: &Nucleus, blob: &Foreground, pieces: &[Piece], px_um2: f64) -> Traits {
    let n = f64::from(nucleus.area_px);
    let shape = Shape::of(nucleus, pieces);
    let ramp = Ramp::of(blob, nucleus, pieces, &shape);
    let mean_np = f64::from(nucleus.np_sum) / n;
    let np_sq: u64 = pixels(pieces)
        .map(|(at, _, _)| u64::from(blob.np[at]).pow(2))
        .sum();
    let np_variance = (np_sq as f64 / n - mean_np * mean_np).max(0.0);
    [
        mean_np / 255.0,
        np_variance.sqrt() / 255.0,
        (n * px_um2).ln(),
        f64::from(outline_px(nucleus, pieces)) / n.sqrt(),
        shape.ln_axis_ratio,
        ramp.difference,
        ramp.size,
        ramp.correlation,
    ]
}

/// Index in the blob's planes, x and y of each pixel.
fn pixels(pieces: &[Piece]) -> impl Iterator<Item = (usize, i32, i32)> + '_ {
    pieces.iter().flat_map(|piece| {
        let run = piece.run;
        (run.x0..run.x1).map(move |x| (piece.at + (x - run.x0) as usize, x, run.y))
    })
}

/// Where the centre lies and how far the nucleus reaches from it.
struct Shape {
    /// Rounded centre of mass, px from the box's corner.
    centre: [i32; 2],
    /// Largest distance to the left, right, top and bottom, at least 1.
    reach: [f64; 4],
    ln_axis_ratio: f64,
}

impl Shape {
    fn of(nucleus: &Nucleus, pieces: &[Piece]) -> Shape {
        // From the box's corner, so that a blob elsewhere on the slide gives the same bits.
        let corner = [nucleus.bbox.x, nucleus.bbox.y];
        let n = f64::from(nucleus.area_px);
        let mut sums = [0i64; 2];
        let mut squares = [0i64; 3];
        for (_, x, y) in pixels(pieces) {
            let [x, y] = [i64::from(x - corner[0]), i64::from(y - corner[1])];
            sums = [sums[0] + x, sums[1] + y];
            squares = [squares[0] + x * x, squares[1] + y * y, squares[2] + x * y];
        }
        let mean = sums.map(|s| s as f64 / n);
        let centre = mean.map(|m| m.round() as i32);
        let right = nucleus.bbox.w - 1 - centre[0];
        let bottom = nucleus.bbox.h - 1 - centre[1];
        Shape {
            centre,
            reach: [centre[0], right, centre[1], bottom].map(|d| f64::from(d.max(1))),
            ln_axis_ratio: ln_axis_ratio(mean, squares.map(|s| s as f64 / n)),
        }
    }

    /// h and v of a nucleus of this shape at (`x`, `y`) from the box's corner (Graham et al. 2019, section 3).
    fn ideal(&self, x: i32, y: i32) -> [f64; 2] {
        let side =
            |d: i32, before: f64, after: f64| f64::from(d) / if d > 0 { after } else { before };
        let [left, right, top, bottom] = self.reach;
        [
            side(x - self.centre[0], left, right),
            side(y - self.centre[1], top, bottom),
        ]
    }
}

/// Half the ln of the ratio of the eigenvalues of the covariance; each pixel is a square, so no nucleus is a line.
fn ln_axis_ratio(mean: [f64; 2], squares: [f64; 3]) -> f64 {
    let pixel = 1.0 / 12.0;
    let xx = squares[0] - mean[0] * mean[0] + pixel;
    let yy = squares[1] - mean[1] * mean[1] + pixel;
    let xy = squares[2] - mean[0] * mean[1];
    let half = 0.5 * (xx + yy);
    let spread = (0.25 * (xx - yy) * (xx - yy) + xy * xy).sqrt();
    0.5 * ((half + spread) / (half - spread).max(pixel)).ln()
}

/// How h and v compare with those of the nucleus's own shape.
struct Ramp {
    difference: f64,
    size: f64,
    correlation: f64,
}

impl Ramp {
    fn of(blob: &Foreground, nucleus: &Nucleus, pieces: &[Piece], shape: &Shape) -> Ramp {
        let (mut difference, mut sizes, mut products) = (0.0, [0.0; 2], [0.0; 3]);
        for (at, x, y) in pixels(pieces) {
            let ideal = shape.ideal(x - nucleus.bbox.x, y - nucleus.bbox.y);
            let found = [blob.h[at], blob.v[at]].map(|q| f64::from(q) / f64::from(HV_SCALE));
            for (f, i) in found.into_iter().zip(ideal) {
                difference += (f - i).abs();
                sizes = [sizes[0] + f.abs(), sizes[1] + i.abs()];
                products = [
                    products[0] + f * f,
                    products[1] + i * i,
                    products[2] + f * i,
                ];
            }
        }
        let both = (products[0] * products[1]).sqrt();
        Ramp {
            difference: difference / (2.0 * f64::from(nucleus.area_px)),
            // One pixel alone has neither: no ramp to compare with.
            size: if sizes[1] > 0.0 {
                sizes[0] / sizes[1]
            } else {
                0.0
            },
            correlation: if both > 0.0 { products[2] / both } else { 0.0 },
        }
    }
}

/// Pixel edges between the nucleus and what is not, holes included: four a pixel, less both sides of each inner one.
fn outline_px(nucleus: &Nucleus, pieces: &[Piece]) -> u32 {
    let inner: u32 = pixels(pieces)
        .map(|(_, x, y)| {
            u32::from(nucleus.contains(x - 1, y)) + u32::from(nucleus.contains(x, y - 1))
        })
        .sum();
    4 * nucleus.area_px - 2 * inner
}
