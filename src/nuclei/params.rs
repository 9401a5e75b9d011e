//! The constants of post-processing, as they stand in a model's `[postproc]`.

use serde::{Deserialize, Serialize};

use super::confidence::Confidence;
use super::division::Division;

/// Which response of the h and v maps tells nuclei apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnergyRule {
    /// hover_net's: the smaller of dh/dx and dv/dy.
    Axes,
    /// The least eigenvalue of the symmetric part of the Jacobian of (h, v): the same in every direction.
    Eigen,
}

/// Fixed-scale post-processing. Slopes are in map units a proc px: a kernel's response divided by its gain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostprocParams {
    /// A pixel is nucleus where np >= this (compared after quantisation to 1/255).
    pub np_threshold: f32,
    pub energy: EnergyRule,
    /// Side of the Sobel kernel at the model's µm/px, odd, px.
    pub sobel_px: u32,
    /// Slope at which the energy is 1 (a ridge between nuclei).
    pub hv_lo: f32,
    /// Slope at which the energy is 0 (inside a nucleus).
    pub hv_hi: f32,
    /// Markers are blob pixels whose ridge energy is below this.
    pub energy_threshold: f32,
    /// Diameter of the opening of markers, px; 0 or 1: none.
    pub open_px: u32,
    /// Markers and nuclei smaller than this are dropped or merged into their neighbour, µm².
    pub min_area_um2: f32,
    /// Where blobs are divided, in place of one energy threshold; none: by `energy_threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub division: Option<Division>,
    /// Which nuclei are sure enough to be kept; none: all.
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
