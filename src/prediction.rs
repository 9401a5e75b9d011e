//! The dense output of a network for one patch or one small image.
//!
//! In: the planes of any architecture. Out: [`QuantisedMap`], the one form that post-processing reads, whatever device
//! made it, and [`PredictionMap`], the numbers before rounding, for files and per-map rules. The rule of rounding is
//! here and nowhere else.

/// Scale of quantised h and v: `round(value * HV_SCALE)`, clamped to the range of `i16` (±4).
pub const HV_SCALE: f32 = 8192.0;

/// Per-pixel predictions, `[height, width]` row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionMap {
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// Probability of nucleus, 0..=1, `[height, width]`.
    pub np: Vec<f32>,
    /// Horizontal distance to the nucleus's centre, about -1 (left) to 1 (right).
    pub h: Vec<f32>,
    /// Vertical distance to the nucleus's centre, about -1 (top) to 1 (bottom).
    pub v: Vec<f32>,
    /// Number of type channels, background (0) included; 0 for a model without types.
    pub types: usize,
    /// Class probabilities, `[height, width, types]`, 0..=1.
    pub tp: Vec<f32>,
}

/// A [`PredictionMap`] in the integers that are stored, `[height, width]` row by row: 10 bytes a pixel with 5 types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantisedMap {
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// [`quantise_probability`] of the probability of nucleus.
    pub np: Vec<u8>,
    /// [`quantise_distance`] of the horizontal distance.
    pub h: Vec<i16>,
    /// [`quantise_distance`] of the vertical distance.
    pub v: Vec<i16>,
    /// Number of type channels, background (0) included; 0 for a model without types.
    pub types: usize,
    /// [`quantise_probability`] of the class probabilities, plane by plane: `[types, height, width]`.
    pub tp: Vec<u8>,
}

/// Quantises a probability: `floor(p * 255 + 1/2)`. NaN and negative values give 0, values above 1
/// give 255.
#[inline]
#[expect(clippy::manual_clamp, reason = "max turns NaN into 0, clamp would not")]
pub fn quantise_probability(p: f32) -> u8 {
    let scaled = (p * 255.0 + 0.5).max(0.0).min(255.5);
    // A saturating cast would keep the loops from being vectorised.
    // SAFETY: within 0.0..=255.5, and not NaN.
    unsafe { scaled.to_int_unchecked::<i32>() as u8 }
}

/// Quantises h or v: `x * HV_SCALE` rounded half away from zero, clamped to `i16`. NaN gives 0.
#[inline]
pub fn quantise_distance(x: f32) -> i16 {
    let scaled = x * HV_SCALE + 0.5f32.copysign(x);
    let scaled = if scaled.is_nan() { 0.0 } else { scaled };
    // SAFETY: clamped to the range of i16, and not NaN.
    unsafe { scaled.clamp(-32768.0, 32767.0).to_int_unchecked::<i32>() as i16 }
}

impl PredictionMap {
    /// The map as post-processing reads it.
    pub fn quantised(&self) -> QuantisedMap {
        let probabilities =
            |plane: &[f32]| plane.iter().map(|&p| quantise_probability(p)).collect();
        let distances = |plane: &[f32]| plane.iter().map(|&x| quantise_distance(x)).collect();
        let of_type = |kind: usize| self.tp.iter().skip(kind).step_by(self.types.max(1));
        let mut tp = Vec::with_capacity(self.tp.len());
        for kind in 0..self.types {
            tp.extend(of_type(kind).map(|&p| quantise_probability(p)));
        }
        QuantisedMap {
            width: self.width,
            height: self.height,
            np: probabilities(&self.np),
            h: distances(&self.h),
            v: distances(&self.v),
            types: self.types,
            tp,
        }
    }
}
