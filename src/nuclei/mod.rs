//! Blob -> instances.
//!
//! In: one blob ([`Foreground`] of one 4-connected component) and the constants of post-processing. Out: its
//! [`Nucleus`]es. A pure function: nothing outside the blob counts, ties go in raster order, so the answer cannot
//! depend on tile, batch or thread. Never reads a slide, a file or a clock.

pub mod blobs;
pub mod confidence;
pub mod contour;
pub mod division;
mod energy;
mod filter;
pub mod foreground;
mod gather;
mod markers;
mod morphology;
pub mod params;
mod plane;
pub mod reference;
mod rules;
pub mod segment;
pub mod sobel;
pub mod stain;
pub mod types;
mod watershed;

pub use blobs::components;
pub use confidence::{Confidence, Traits};
pub use contour::{Polygon, outline_on_edges, outline_through_centres};
pub use division::{Branch, Division};
pub use foreground::{Foreground, HV_SCALE, Run};
pub use params::{EnergyRule, PostprocParams};
pub use rules::PostprocRules;
pub use segment::{CUT, CutRule, Extent, divisions, segment, segment_extent, segment_with_traits};

use crate::geometry::Rect;

/// One nucleus in proc px, with every sum that later outputs need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nucleus {
    /// Tight box of the mask, proc px.
    pub bbox: Rect,
    /// `bbox.w * bbox.h` bits, row by row, bit i of byte i / 8 (least significant first); 1 = inside.
    pub mask: Vec<u8>,
    /// Pixels inside.
    pub area_px: u32,
    /// Sum over the pixels of the quantised class probabilities (`[types]`, background included).
    pub prob_sums: Vec<u32>,
    /// Pixels whose most probable class is i (`[types]`): hover_net's pixel share.
    pub type_counts: Vec<u32>,
    /// Sum of the quantised np over the pixels.
    pub np_sum: u32,
    pub stain: StainSums,
    /// The blob was above the cut constant, so an outline may follow the 4096 px grid.
    pub cut: bool,
}

/// Sums over a nucleus's pixels for colour and stain features. Optical densities in 1/10000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StainSums {
    pub rgb: [u64; 3],
    pub hematoxylin: i64,
    pub hematoxylin_sq: u64,
    pub eosin: i64,
    pub eosin_sq: u64,
}

impl Nucleus {
    /// Whether the pixel at (`x`, `y`), proc px, is inside.
    pub fn contains(&self, x: i32, y: i32) -> bool {
        if !self.bbox.contains(x, y) {
            return false;
        }
        let row = (y - self.bbox.y) as usize * self.bbox.w as usize;
        let bit = row + (x - self.bbox.x) as usize;
        self.mask
            .get(bit / 8)
            .is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    /// The pixels inside, row by row, as (y, first x, x after the last), proc px.
    pub fn runs(&self) -> impl Iterator<Item = (i32, i32, i32)> + '_ {
        let Rect {
            x: first, y: top, ..
        } = self.bbox;
        let (right, bottom) = (self.bbox.right(), self.bbox.bottom());
        (top..bottom).flat_map(move |y| {
            let mut x = first;
            std::iter::from_fn(move || {
                let left = (x..right).find(|&x| self.contains(x, y))?;
                x = (left..right)
                    .find(|&x| !self.contains(x, y))
                    .unwrap_or(right);
                Some((y, left, x))
            })
        })
    }

    /// (y, x) of the first pixel in raster order, proc px: nuclei are sorted by it.
    pub fn first_pixel(&self) -> (i32, i32) {
        let x = (self.bbox.x..self.bbox.right())
            .find(|&x| self.contains(x, self.bbox.y))
            .unwrap_or(self.bbox.x);
        (self.bbox.y, x)
    }
}

#[cfg(test)]
mod tests;
