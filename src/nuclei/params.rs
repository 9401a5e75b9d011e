//! The constants of post-processing, as they stand in a model's `[postproc]`.

use serde::{Deserialize, Serialize};

use super::confidence::Confidence;
use super::division::Division;

/// Which response of the h and v maps separates touching nuclei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnergyRule {
    /// hover_net's: the smaller of dh/dx and dv/dy (Graham et al. 2019, section 3.2).
    Axes,
    /// The least eigenvalue of the symmetric part of the Jacobian of (h, v). Unlike `Axes` it does
    /// not depend on the direction of the border between two nuclei.
    Eigen,
}

/// The constants of post-processing with fixed scales.
///
/// Slopes are in map units per proc px: the response of a Sobel kernel divided by its gain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostprocParams {
    /// A pixel is nucleus where np >= this (compared after quantisation to 1/255).
    pub np_threshold: f32,
    /// How touching nuclei are separated.
    pub energy: EnergyRule,
    /// Side of the Sobel kernel at the model's µm/px, odd, px.
    pub sobel_px: u32,
    /// Slope at which the energy is 1 (a ridge between nuclei).
    pub hv_lo: f32,
    /// Slope at which the energy is 0 (inside a nucleus).
    pub hv_hi: f32,
    /// Markers are blob pixels whose ridge energy is below this.
    pub energy_threshold: f32,
    /// Diameter of the disc by which markers are opened, px; 0 or 1: no opening.
    pub open_px: u32,
    /// Smaller markers and blobs are dropped, µm².
    pub min_area_um2: f32,
    /// Chooses between several energy thresholds in place of `energy_threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub division: Option<Division>,
    /// Which nuclei are likely enough to be kept; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
}

impl Default for PostprocParams {
    /// At 0.25 µm/px, for a network whose h and v run from -1 to 1 across a nucleus.
    fn default() -> Self {
        Self {
            np_threshold: 0.5,
            energy: EnergyRule::Eigen,
            sobel_px: 9,
            hv_lo: -0.10,
            hv_hi: 0.10,
            energy_threshold: 0.4,
            open_px: 5,
            min_area_um2: 2.0,
            division: None,
            confidence: None,
        }
    }
}

impl PostprocParams {
    /// The least area as a whole number of px, rounded up, at least 1. `mpp`: µm per px, (x, y).
    pub fn min_area_px(&self, mpp: [f64; 2]) -> u64 {
        let pixels = f64::from(self.min_area_um2) / (mpp[0] * mpp[1]);
        // A rounding error must not raise a whole number to the next. `as` saturates NaN and
        // infinity.
        ((pixels - 1e-6).ceil() as u64).max(1)
    }
}
