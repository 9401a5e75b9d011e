//! How likely a piece of a blob is a nucleus as an expert would draw it.
//!
//! In: the nuclei of a blob and the maps under them. Out: their [`Traits`], and from these the
//! overlap (intersection over union) with a true nucleus to expect. The rule is learnt from
//! labelled images. Traits are a pure function of the nucleus's own pixels: its surroundings cannot
//! change them. Never changes a nucleus; it only says which to keep.

use serde::{Deserialize, Serialize};

use super::Nucleus;
use super::foreground::{Foreground, HV_SCALE};
use super::pieces::{LabelledPieces, Piece};

/// Number of [`Traits`].
pub const TRAITS: usize = 8;

/// What is measured of a nucleus to judge it.
///
/// Across a single nucleus h and v run from -1 to 1. Across two nuclei that were not separated, or
/// across a dark smear, they do not; the last three traits tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traits {
    /// Mean probability of nucleus over the pixels, 0..=1.
    pub np_mean: f64,
    /// Standard deviation of the probability of nucleus.
    pub np_std: f64,
    /// ln of the area in µm².
    pub ln_area_um2: f64,
    /// Length of the outline along pixel edges, px, over the square root of the area in px.
    pub outline_ratio: f64,
    /// ln of the ratio of the major to the minor axis, from the second moments.
    pub ln_axis_ratio: f64,
    /// Mean absolute difference between h and v and the ideal maps of the nucleus's shape.
    pub hv_difference: f64,
    /// Sum of |h| and |v| over the same sum of the ideal maps.
    pub hv_size: f64,
    /// Correlation of h and v with the ideal maps, not centred.
    pub hv_correlation: f64,
}

impl Traits {
    /// In the order of [`Confidence::weights`].
    pub fn as_array(&self) -> [f64; TRAITS] {
        [
            self.np_mean,
            self.np_std,
            self.ln_area_um2,
            self.outline_ratio,
            self.ln_axis_ratio,
            self.hv_difference,
            self.hv_size,
            self.hv_correlation,
        ]
    }
}

/// A linear rule: expected overlap = `bias` + Σ `weights` · traits, fitted on labelled images by
/// `model tune`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    /// Nuclei below this expected overlap are dropped.
    pub least: f64,
    pub bias: f64,
    /// In the order of [`Traits::as_array`].
    pub weights: [f64; TRAITS],
}

impl Confidence {
    /// The intersection over union with a true nucleus to expect for these traits; about 0..=1.
    pub fn expected_overlap(&self, traits: &Traits) -> f64 {
        weighted_sum(self.bias, &self.weights, &traits.as_array())
    }

    pub(crate) fn keeps(&self, traits: &Traits) -> bool {
        self.expected_overlap(traits) >= self.least
    }
}

/// `bias` + Σ `weights` · `values`.
pub(super) fn weighted_sum(bias: f64, weights: &[f64], values: &[f64]) -> f64 {
    // A plain sum in a fixed order gives the same bits on every machine.
    let terms = weights.iter().zip(values);
    terms.fold(bias, |sum, (weight, value)| sum + weight * value)
}

/// The nuclei of a labelled blob with their traits, ordered by first pixel. `mpp`: µm per px, (x,
/// y).
pub(super) fn measure_nuclei(
    blob: &Foreground,
    labelled: &LabelledPieces,
    mpp: [f64; 2],
) -> Vec<(Nucleus, Traits)> {
    let nuclei = labelled.collect_nuclei(blob);
    let mut pieces_of = vec![Vec::new(); nuclei.len()];
    for piece in &labelled.pieces {
        pieces_of[labelled.slot(piece)].push(*piece);
    }
    let px_um2 = mpp[0] * mpp[1];
    let measure = |(nucleus, pieces): (Nucleus, Vec<Piece>)| {
        let traits = measure_traits(&nucleus, blob, &pieces, px_um2);
        (nucleus, traits)
    };
    nuclei.into_iter().zip(pieces_of).map(measure).collect()
}

fn measure_traits(nucleus: &Nucleus, blob: &Foreground, pieces: &[Piece], px_um2: f64) -> Traits {
    let n = f64::from(nucleus.area_px);
    let silhouette = Silhouette::new(nucleus, pieces);
    let fit = HvFit::new(blob, nucleus, pieces, &silhouette);
    let np_mean = f64::from(nucleus.np_sum) / n;
    let np_sq: u64 = pixels(pieces)
        .map(|(at, _, _)| u64::from(blob.np[at]).pow(2))
        .sum();
    let np_variance = (np_sq as f64 / n - np_mean * np_mean).max(0.0);
    Traits {
        np_mean: np_mean / 255.0,
        np_std: np_variance.sqrt() / 255.0,
        ln_area_um2: (n * px_um2).ln(),
        outline_ratio: f64::from(outline_px(nucleus, pieces)) / n.sqrt(),
        ln_axis_ratio: silhouette.ln_axis_ratio,
        hv_difference: fit.difference,
        hv_size: fit.size,
        hv_correlation: fit.correlation,
    }
}

/// Index in the blob's planes, x and y of each pixel.
fn pixels(pieces: &[Piece]) -> impl Iterator<Item = (usize, i32, i32)> + '_ {
    pieces.iter().flat_map(|piece| {
        let run = piece.run;
        (run.x0..run.x1).map(move |x| (piece.at + (x - run.x0) as usize, x, run.y))
    })
}

/// The centre of a nucleus, how far it reaches from there, and how elongated it is.
struct Silhouette {
    /// Rounded centre of mass, px from the corner of the box.
    centre: [i32; 2],
    /// Largest distance from the centre to the left, right, top and bottom, px.
    reach: [i32; 4],
    ln_axis_ratio: f64,
}

impl Silhouette {
    fn new(nucleus: &Nucleus, pieces: &[Piece]) -> Silhouette {
        // From the corner of the box, so that the same blob elsewhere on the slide gives the same
        // bits.
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
        Silhouette {
            centre,
            reach: [centre[0], right, centre[1], bottom],
            ln_axis_ratio: ln_axis_ratio(mean, squares.map(|s| s as f64 / n)),
        }
    }
}

/// The ideal h and v of a nucleus at `offset` (x, y) px from its rounded centre of mass: the
/// distance along each axis, scaled so that it runs from -1 to 1 (Graham et al. 2019, HoVer-Net,
/// section 3). `reach`: the largest distance of its pixels from there to the left, right, top and
/// bottom, px.
fn ideal_hv([dx, dy]: [i32; 2], [left, right, top, bottom]: [i32; 4]) -> [f64; 2] {
    let scale = |d: i32, before: i32, after: i32| {
        let reach = if d > 0 { after } else { before };
        f64::from(d) / f64::from(reach.max(1))
    };
    [scale(dx, left, right), scale(dy, top, bottom)]
}

/// ln of the ratio of the axes: half the ln of the ratio of the covariance's eigenvalues.
/// `squares`: means of x², y² and xy.
fn ln_axis_ratio(mean: [f64; 2], squares: [f64; 3]) -> f64 {
    // A pixel is a square, not a point: with its own variance no nucleus is a line.
    let pixel = 1.0 / 12.0;
    let xx = squares[0] - mean[0] * mean[0] + pixel;
    let yy = squares[1] - mean[1] * mean[1] + pixel;
    let xy = squares[2] - mean[0] * mean[1];
    let half = 0.5 * (xx + yy);
    let spread = (0.25 * (xx - yy) * (xx - yy) + xy * xy).sqrt();
    0.5 * ((half + spread) / (half - spread).max(pixel)).ln()
}

/// How h and v compare with the ideal maps: see [`Traits`].
struct HvFit {
    difference: f64,
    size: f64,
    correlation: f64,
}

impl HvFit {
    fn new(blob: &Foreground, nucleus: &Nucleus, pieces: &[Piece], shape: &Silhouette) -> HvFit {
        let (mut difference, mut sizes, mut products) = (0.0, [0.0; 2], [0.0; 3]);
        let [centre_x, centre_y] = shape.centre;
        for (at, x, y) in pixels(pieces) {
            let offset = [x - nucleus.bbox.x - centre_x, y - nucleus.bbox.y - centre_y];
            let ideal = ideal_hv(offset, shape.reach);
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
        HvFit {
            difference: difference / (2.0 * f64::from(nucleus.area_px)),
            // The ideal maps of a single pixel are 0: nothing to compare with.
            size: if sizes[1] > 0.0 {
                sizes[0] / sizes[1]
            } else {
                0.0
            },
            correlation: if both > 0.0 { products[2] / both } else { 0.0 },
        }
    }
}

/// Pixel edges between the nucleus and its outside, holes included: four per pixel, less both sides
/// of each edge between two of its pixels.
fn outline_px(nucleus: &Nucleus, pieces: &[Piece]) -> u32 {
    let inner: u32 = pixels(pieces)
        .map(|(_, x, y)| {
            u32::from(nucleus.contains(x - 1, y)) + u32::from(nucleus.contains(x, y - 1))
        })
        .sum();
    4 * nucleus.area_px - 2 * inner
}
