//! Blob -> instances.
//!
//! In: one blob ([`Foreground`] of one 4-connected component) and the constants of post-processing.
//! Out: its [`Nucleus`]es. The result is a pure function of the blob: no pixel outside it is read
//! and ties are broken in raster order, so it cannot depend on tile, batch or thread. Never reads a
//! slide, a file or a clock.

mod bit_plane;
pub mod blobs;
mod confidence;
mod contour;
mod division;
mod energy;
mod filter;
mod foreground;
mod map;
mod markers;
mod mask;
mod morphology;
mod params;
mod pieces;
mod plane;
pub mod reference;
mod rules;
mod segment;
mod sobel;
mod stain;
mod types;
mod watershed;

pub use blobs::{components, into_components};
pub use confidence::{Confidence, TRAITS, Traits};
pub use contour::{Polygon as OutlinePolygon, outline_on_edges, outline_through_centres};
pub use division::{Branch, DIVISION_TRAITS, Division};
pub use foreground::{Foreground, Run, bounds_of, push_runs};
pub use map::{segment_foreground, segment_map};
pub use params::{EnergyRule, PostprocParams};
pub use rules::PostprocRules;
#[cfg(test)]
pub use segment::cut_along_grid;
pub use segment::{
    CUT, CutRule, Extent, cut_runs_along_grid, divisions, segment, segment_extent,
    segment_with_traits,
};
pub use stain::OD_SCALE;

#[cfg(test)]
pub use division::DivisionTraits;

use crate::geometry::Rect;

/// One nucleus in proc px, with every sum that later outputs need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nucleus {
    /// Tight box of the mask, proc px.
    pub bbox: Rect,
    /// `bbox.w * bbox.h` bits, row by row, bit i of byte i / 8 (least significant first); 1 =
    /// inside.
    pub mask: Vec<u8>,
    /// Pixels inside.
    pub area_px: u32,
    /// Sums over the pixels of the quantised class probabilities (`[types]`, background included).
    pub prob_sums: Vec<u32>,
    /// Pixels whose most probable class is i (`[types]`, background included).
    pub type_counts: Vec<u32>,
    /// Sum over the pixels of the quantised probability of nucleus.
    pub np_sum: u32,
    /// Sums of the pixels' colours and stains.
    pub stain: StainSums,
    /// Part of a blob that was too large and was cut, so its outline may follow the cut.
    pub cut: bool,
}

/// Sums over a nucleus's pixels for colour and stain features. Optical densities are in units of
/// 1 / 10,000 (`OD_SCALE`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StainSums {
    /// Red, green and blue, 0..=255 per pixel.
    pub rgb: [u64; 3],
    /// Sum of hematoxylin's optical densities.
    pub hematoxylin: i64,
    /// Sum of squares.
    pub hematoxylin_sq: u64,
    /// Sum of eosin's optical densities.
    pub eosin: i64,
    /// Sum of squares.
    pub eosin_sq: u64,
}

#[cfg(test)]
mod tests;
