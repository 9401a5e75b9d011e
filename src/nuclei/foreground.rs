//! The one shape in which predictions travel after the network: the pixels that np calls nucleus, and nothing else.
//!
//! In: a dense [`PredictionMap`] of one patch. Out: a [`Foreground`], quantised once. A patch, a tile, a blob and an
//! open fragment are all a `Foreground`; they differ only in extent. Never holds a pixel outside a nucleus: so memory
//! follows the nuclei and not the slide, and post-processing cannot see what it must not (DESIGN.md).

/// Quantisation of h and v: stored as `round(value * HV_SCALE)`, clamped to the range of `i16` (about ±4).
pub const HV_SCALE: f32 = 8192.0;

/// Pixels `x0..x1` of row `y`, proc px.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    pub y: i32,
    pub x0: i32,
    pub x1: i32,
}

impl Run {
    pub const fn len(&self) -> usize {
        (self.x1 - self.x0) as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.x1 <= self.x0
    }
}

/// Foreground pixels in raster order with their quantised maps.
///
/// Invariants: `runs` sorted by (y, x0), not empty, maximal (no two touch in a row); with
/// `n` = sum of run lengths, `np`, `h`, `v` have `n` values, `rgb` has `3 n`, `tp` has `types * n`
/// (pixel by pixel), in the runs' order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreground {
    pub runs: Vec<Run>,
    /// Probability of nucleus, `round(p * 255)`.
    pub np: Vec<u8>,
    /// Horizontal distance map, scaled by [`HV_SCALE`].
    pub h: Vec<i16>,
    /// Vertical distance map, scaled by [`HV_SCALE`].
    pub v: Vec<i16>,
    /// Number of type channels, background (0) included; 0 for a model without types.
    pub types: usize,
    /// Class probabilities, `round(p * 255)`, `types` a pixel.
    pub tp: Vec<u8>,
    /// The proc pixels themselves, 3 a pixel: stain features come from here, so that outputs need no slide.
    pub rgb: Vec<u8>,
}

impl Foreground {
    /// Number of pixels.
    pub fn len(&self) -> usize {
        self.np.len()
    }

    pub fn is_empty(&self) -> bool {
        self.np.is_empty()
    }
}
