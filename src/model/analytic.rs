//! np, h, v and tp straight from stain densities: a whole slide's pipeline without a network.
//!
//! In: RGB patches. Out: [`PredictionMap`]s that the usual post-processing turns into plausible
//! nuclei. A pixel of a map depends on the pixels at most [`REACH_PX`] away and on nothing else, in
//! integers, so neighbouring patches agree bit for bit. For tests and capacity planning, never for
//! science: types follow from the colour alone.

mod options;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use image::RgbImage;

use super::error::ModelError;
use super::fake_device::FakeDevice;
use super::patch_model::PatchModel;
use super::spec::{Architecture, ModelSpec, TypeInfo};
use crate::nuclei::{EnergyRule, PostprocParams};
use crate::prediction::{PredictionMap, QuantisedMap, quantise_distance, quantise_probability};

pub use options::Options;

/// How far a map's pixel sees: two 3 x 3 means and the moments' window.
pub const REACH_PX: i32 = 2 + MOMENT_PX as i32;
/// Half side of the window in which the centre of mass is taken, px.
const MOMENT_PX: usize = 5;
/// Units per optical density (natural logarithm).
const OD_SCALE: f64 = 1024.0;
/// Hematoxylin density where np is 0.5.
const NP_MIDDLE: f64 = 0.45;
/// Width of np's sigmoid.
const NP_WIDTH: f64 = 0.08;
/// Hematoxylin density where "dark" and "pale" are equally likely.
const DARK_MIDDLE: f64 = 0.75;
/// Width of their sigmoid.
const DARK_WIDTH: f64 = 0.08;
/// Units per np of 1 in the weights of the moments.
const MASS_SCALE: f64 = 1023.0;
/// Its hash stands for that of weights. The number is raised whenever the rule changes.
pub const RULE: &str = "analytic 1";
/// [`RULE`] for [`fine_spec`].
pub const FINE_RULE: &str = "analytic 1 fine";

/// The built-in model's description: 0.5 µm/px, 272 px in, 256 out, types dark and pale.
pub fn spec() -> ModelSpec {
    let info = |name: &str, color| TypeInfo {
        name: name.into(),
        color,
    };
    ModelSpec {
        name: "analytic".into(),
        architecture: Architecture::Analytic,
        mpp: 0.5,
        patch_in_px: 272,
        patch_out_px: 256,
        types: vec![
            info("background", [128, 128, 128]),
            info("dark", [59, 76, 192]),
            info("pale", [221, 132, 82]),
        ],
        postproc: PostprocParams {
            np_threshold: 0.5,
            energy: EnergyRule::Eigen,
            sobel_px: 5,
            hv_lo: -0.10,
            hv_hi: 0.10,
            energy_threshold: 0.4,
            open_px: 3,
            min_area_um2: 4.0,
            division: None,
            confidence: None,
        },
        weights: None,
        sha256: None,
        types_from: None,
        licence: "none needed: a rule without weights".into(),
        citation: "Ruifrok and Johnston 2001 (stain densities)".into(),
        training_data: "none".into(),
        scores: toml::Table::new(),
    }
}

/// The rule at 0.25 µm/px with the default model's patches: 768 px in, 704 out.
pub fn fine_spec() -> ModelSpec {
    let spec = spec();
    ModelSpec {
        name: "analytic fine".into(),
        mpp: 0.25,
        patch_in_px: 768,
        patch_out_px: 704,
        postproc: PostprocParams {
            sobel_px: 11,
            open_px: 5,
            ..spec.postproc
        },
        ..spec
    }
}

/// The rule, with a delay for tests that need time to pass, or on a device that takes a set time.
#[derive(Debug, Clone)]
pub struct Analytic {
    margin_px: usize,
    delay: Duration,
    device: Option<Arc<FakeDevice>>,
    fine: bool,
}

impl Analytic {
    /// `margin_px` (at least [`REACH_PX`]) is cut off each side. Every patch takes 0.5 to 1.5 times
    /// `delay` longer, depending on its pixels, so that patches overtake each other.
    pub fn new(margin_px: usize, delay: Duration) -> Self {
        Self {
            margin_px,
            delay,
            device: None,
            fine: false,
        }
    }

    /// The rule on `device`, which takes the patches of a call as one batch.
    pub fn on_device(margin_px: usize, device: Arc<FakeDevice>) -> Self {
        Self {
            device: Some(device),
            ..Self::new(margin_px, Duration::ZERO)
        }
    }

    fn look(&self, patch: &RgbImage) -> Result<Seen, ModelError> {
        if !self.fine {
            return look_at(patch, self.margin_px);
        }
        let (width, height) = patch.dimensions();
        let margin_px = self.margin_px as u32;
        if ![width, height, margin_px]
            .iter()
            .all(|px| px.is_multiple_of(2))
        {
            return Err(ModelError::input(format!(
                "a patch of {width} x {height} px with {} px of margin has no 2 x 2 px: give even sides",
                self.margin_px
            )));
        }
        Ok(look_at(&halved(patch), self.margin_px / 2)?.doubled())
    }

    /// The same at the scale of [`fine_spec`], if `fine`.
    pub fn at_scale(self, fine: bool) -> Self {
        Self { fine, ..self }
    }

    /// Gives `map` each patch, no sooner than delay or device allow.
    fn timed<T>(
        &self,
        patches: &[RgbImage],
        map: impl Fn(&RgbImage) -> Result<T, ModelError>,
    ) -> Result<Vec<T>, ModelError> {
        if let Some(device) = &self.device {
            let px = |patch: &RgbImage| u64::from(patch.width()) * u64::from(patch.height());
            return device.run(patches.iter().map(px).sum(), || {
                patches.iter().map(map).collect()
            });
        }
        let late = |patch: &RgbImage| {
            if !self.delay.is_zero() {
                std::thread::sleep(self.delay.mul_f64(0.5 + unevenness(patch)));
            }
            map(patch)
        };
        patches.iter().map(late).collect()
    }
}

impl PatchModel for Analytic {
    fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError> {
        self.timed(patches, |patch| Ok(self.look(patch)?.map()))
    }

    fn predict_quantised(&mut self, patches: &[RgbImage]) -> Result<Vec<QuantisedMap>, ModelError> {
        self.timed(patches, |patch| Ok(self.look(patch)?.quantised()))
    }
}

/// A number from 0 to 1 that differs from patch to patch.
fn unevenness(patch: &RgbImage) -> f64 {
    let sum: u32 = patch.as_raw().iter().map(|&byte| u32::from(byte)).sum();
    f64::from(sum.wrapping_mul(2_654_435_761) >> 16) / 65_535.0
}

/// What the rule sees of one patch: everything but probabilities, for the centre that is kept.
struct Seen {
    width: usize,
    height: usize,
    /// Entry of the tables, `[height, width]`.
    index: Vec<u16>,
    h: Vec<f32>,
    v: Vec<f32>,
}

/// Densities, their smoothing and the moments of one patch.
fn look_at(patch: &RgbImage, margin_px: usize) -> Result<Seen, ModelError> {
    let (width, height) = (patch.width() as usize, patch.height() as usize);
    if margin_px < REACH_PX as usize || width <= 2 * margin_px || height <= 2 * margin_px {
        return Err(ModelError::input(format!(
            "a patch of {width} x {height} px leaves nothing inside {margin_px} px of margin \
             (at least {REACH_PX})"
        )));
    }
    let density = Plane::hematoxylin(patch).sum3x3().sum3x3();
    let mass = Plane {
        width,
        values: density
            .values
            .iter()
            .map(|&d| TABLES.mass[Tables::index(d)])
            .collect(),
    };
    let (h, v) = moments(&mass, margin_px);
    let (out_width, out_height) = (width - 2 * margin_px, height - 2 * margin_px);
    let inside = (margin_px..margin_px + out_height).flat_map(|y| {
        let start = y * width + margin_px;
        density.values.iter().skip(start).take(out_width)
    });
    Ok(Seen {
        width: out_width,
        height: out_height,
        index: inside.map(|&d| Tables::index(d) as u16).collect(),
        h,
        v,
    })
}

impl Seen {
    fn map(self) -> PredictionMap {
        let of = |i: &u16| (TABLES.np[usize::from(*i)], TABLES.dark[usize::from(*i)]);
        PredictionMap {
            width: self.width,
            height: self.height,
            np: self.index.iter().map(|i| of(i).0).collect(),
            h: self.h,
            v: self.v,
            types: 3,
            tp: self.index.iter().flat_map(|i| types_of(of(i))).collect(),
        }
    }

    fn quantised(self) -> QuantisedMap {
        let np = |i: &u16| TABLES.stored_np[usize::from(*i)];
        let kind = |kind: usize| {
            let stored = move |i: &u16| TABLES.stored_tp[usize::from(*i)][kind];
            self.index.iter().map(stored)
        };
        let distances = |plane: &[f32]| plane.iter().map(|&x| quantise_distance(x)).collect();
        QuantisedMap {
            width: self.width,
            height: self.height,
            np: self.index.iter().map(np).collect(),
            h: distances(&self.h),
            v: distances(&self.v),
            types: 3,
            tp: (0..3).flat_map(kind).collect(),
        }
    }

    /// Every pixel as 2 x 2.
    fn doubled(self) -> Seen {
        let width = self.width;
        Seen {
            width: 2 * width,
            height: 2 * self.height,
            index: doubled(&self.index, width),
            h: doubled(&self.h, width),
            v: doubled(&self.v, width),
        }
    }
}

/// Background, dark and pale, from the probabilities of nucleus and of dark.
fn types_of((nucleus, dark): (f32, f32)) -> [f32; 3] {
    [1.0 - nucleus, nucleus * dark, nucleus * (1.0 - dark)]
}

fn doubled<T: Copy>(plane: &[T], width: usize) -> Vec<T> {
    let mut all = Vec::with_capacity(4 * plane.len());
    for row in plane.chunks_exact(width.max(1)) {
        for _ in 0..2 {
            all.extend(row.iter().flat_map(|&value| [value; 2]));
        }
    }
    all
}

/// Means of 2 x 2 px, rounded half up.
fn halved(patch: &RgbImage) -> RgbImage {
    let row_bytes = 3 * patch.width() as usize;
    let (width, height) = (patch.width() / 2, patch.height() / 2);
    let mut pixels = Vec::with_capacity(3 * (width * height) as usize);
    for rows in patch.as_raw().chunks_exact((2 * row_bytes).max(1)) {
        let (above, below) = rows.split_at(row_bytes);
        let (above, below) = (above.as_chunks::<6>().0, below.as_chunks::<6>().0);
        for (a, b) in above.iter().zip(below) {
            let sum = |c: usize| {
                [a[c], a[c + 3], b[c], b[c + 3]]
                    .map(u16::from)
                    .iter()
                    .sum::<u16>()
            };
            pixels.extend([0, 1, 2].map(|c| ((sum(c) + 2) / 4) as u8));
        }
    }
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

/// np, the probability of "dark", and the moments' weight, by smoothed density.
struct Tables {
    np: Vec<f32>,
    dark: Vec<f32>,
    mass: Vec<i32>,
    /// np and the types as [`QuantisedMap`] has them.
    stored_np: Vec<u8>,
    stored_tp: Vec<[u8; 3]>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let sigmoid = |index: usize, middle: f64, width: f64| {
        let density = index as f64 * Tables::STEP as f64 / (81.0 * OD_SCALE);
        1.0 / (1.0 + (-(density - middle) / width).exp())
    };
    let table = |middle, width| (0..Tables::LEN).map(move |index| sigmoid(index, middle, width));
    let np: Vec<f32> = table(NP_MIDDLE, NP_WIDTH).map(|p| p as f32).collect();
    let dark: Vec<f32> = table(DARK_MIDDLE, DARK_WIDTH).map(|p| p as f32).collect();
    let both = np.iter().copied().zip(dark.iter().copied());
    Tables {
        stored_np: np.iter().map(|&p| quantise_probability(p)).collect(),
        stored_tp: both
            .map(|p| types_of(p).map(quantise_probability))
            .collect(),
        np,
        dark,
        mass: table(NP_MIDDLE, NP_WIDTH)
            .map(|p| (p * MASS_SCALE).round() as i32)
            .collect(),
    }
});

impl Tables {
    /// Densities are looked up in steps of this many units of 1 / (81 `OD_SCALE`).
    const STEP: i32 = 81;
    const LEN: usize = 2048;

    /// The entry of a smoothed density. A density outside the table takes the nearest entry.
    fn index(density: i32) -> usize {
        (density / Self::STEP).clamp(0, Self::LEN as i32 - 1) as usize
    }
}

/// A patch of integers, row by row.
struct Plane {
    width: usize,
    values: Vec<i32>,
}

impl Plane {
    /// Hematoxylin density of each pixel, in units of 1 / `OD_SCALE`.
    fn hematoxylin(patch: &RgbImage) -> Self {
        static OD: LazyLock<[[i32; 256]; 3]> = LazyLock::new(|| {
            hematoxylin_row().map(|weight| {
                std::array::from_fn(|byte| {
                    (-((byte as f64 + 1.0) / 256.0).ln() * weight * OD_SCALE).round() as i32
                })
            })
        });
        let [red, green, blue] = &*OD;
        let density = |pixel: &[u8; 3]| {
            red[pixel[0] as usize] + green[pixel[1] as usize] + blue[pixel[2] as usize]
        };
        let (pixels, _) = patch.as_raw().as_chunks::<3>();
        Self {
            width: patch.width() as usize,
            values: pixels.iter().map(density).collect(),
        }
    }

    /// Sums over 3 x 3 windows. The outermost pixels are wrong, but no map keeps them.
    fn sum3x3(&self) -> Self {
        let width = self.width;
        let rows: Vec<i32> = triples(&self.values, 1);
        let mut values = triples(&rows, width);
        values.resize(self.values.len(), 0);
        Self { width, values }
    }
}

/// `values[i - step] + values[i] + values[i + step]`; 0 where one of the three is missing.
fn triples(values: &[i32], step: usize) -> Vec<i32> {
    let mut sums = vec![0; values.len()];
    let middle = values.iter().skip(step).zip(values.iter().skip(2 * step));
    for ((sum, before), (here, after)) in sums.iter_mut().skip(step).zip(values).zip(middle) {
        *sum = before + here + after;
    }
    sums
}

/// h and v of the kept centre: offsets from the centre of mass of a window, scaled to about -1..1.
fn moments(mass: &Plane, margin_px: usize) -> (Vec<f32>, Vec<f32>) {
    let (width, height) = (mass.width, mass.values.len() / mass.width);
    let (out_width, out_height) = (width - 2 * margin_px, height - 2 * margin_px);
    let radius = MOMENT_PX as i64;
    let mut h = Vec::with_capacity(out_width * out_height);
    let mut v = Vec::with_capacity(out_width * out_height);
    let mut sums = vec![0i64; width];
    let mut vertical = vec![0i64; width];
    for y in margin_px..margin_px + out_height {
        sums.fill(0);
        vertical.fill(0);
        for dy in -radius..=radius {
            let row = mass
                .values
                .chunks_exact(width)
                .nth((y as i64 + dy) as usize)
                .unwrap_or_default();
            for ((sum, moment), &value) in sums.iter_mut().zip(&mut vertical).zip(row) {
                *sum += i64::from(value);
                *moment += dy * i64::from(value);
            }
        }
        let windows = sums
            .windows(2 * MOMENT_PX + 1)
            .zip(vertical.windows(2 * MOMENT_PX + 1));
        for (sums, vertical) in windows.skip(margin_px - MOMENT_PX).take(out_width) {
            let total: i64 = sums.iter().sum();
            let dx: i64 = sums
                .iter()
                .zip(-radius..=radius)
                .map(|(sum, dx)| sum * dx)
                .sum();
            let dy: i64 = vertical.iter().sum();
            h.push(offset(dx, total));
            v.push(offset(dy, total));
        }
    }
    (h, v)
}

/// Minus the offset of the centre of mass: negative left of the centre, as in HoVer-Net's maps.
fn offset(moment: i64, total: i64) -> f32 {
    let scale = 2.0 / MOMENT_PX as f32;
    (-(moment as f32) / (total.max(1) as f32) * scale).clamp(-1.0, 1.0)
}

/// Weights of the three optical densities in the hematoxylin density: the first column of the
/// inverse of the unit-length stain vectors of Ruifrok and Johnston 2001 (hematoxylin, eosin, DAB).
fn hematoxylin_row() -> [f64; 3] {
    let unit = |stain: [f64; 3]| {
        let length = stain.iter().map(|x| x * x).sum::<f64>().sqrt();
        stain.map(|x| x / length)
    };
    let h = unit([0.65, 0.70, 0.29]);
    let e = unit([0.07, 0.99, 0.11]);
    let d = unit([0.27, 0.57, 0.78]);
    let cross = [
        e[1] * d[2] - e[2] * d[1],
        e[2] * d[0] - e[0] * d[2],
        e[0] * d[1] - e[1] * d[0],
    ];
    let determinant: f64 = h.iter().zip(cross).map(|(a, b)| a * b).sum();
    cross.map(|x| x / determinant)
}

#[cfg(test)]
mod tests;
