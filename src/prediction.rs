//! The dense output of a network for one patch or one small image.
//!
//! In: the planes of any architecture. Out: the map that post-processing reads. Never quantised:
//! see [`crate::nuclei::Foreground`].

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
