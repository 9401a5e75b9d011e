//! The mask of a nucleus: one bit per pixel of its box, row by row.
//!
//! In: mask bits and the box that they fill. Out: whether a pixel is inside, and the runs of
//! pixels inside. Never measures anything.

use super::Nucleus;
use super::foreground::Run;
use crate::geometry::Rect;

/// Whether bit `bit` is set: bit i of byte i / 8, least significant first. A bit that `mask` lacks
/// is not set.
fn is_set(mask: &[u8], bit: usize) -> bool {
    mask.get(bit / 8)
        .is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

/// The runs of pixels inside a mask whose bits fill `bbox` row by row, in raster order.
pub fn mask_runs(mask: &[u8], bbox: Rect) -> impl Iterator<Item = Run> + '_ {
    let width = bbox.w.max(0) as usize;
    (bbox.y..bbox.bottom()).zip(0..).flat_map(move |(y, row)| {
        let start = row * width;
        let mut x = 0;
        std::iter::from_fn(move || {
            let first = (x..width).find(|x| is_set(mask, start + x))?;
            x = (first..width)
                .find(|x| !is_set(mask, start + x))
                .unwrap_or(width);
            Some(Run {
                y,
                x0: bbox.x + first as i32,
                x1: bbox.x + x as i32,
            })
        })
    })
}

impl Nucleus {
    /// Whether the pixel at (`x`, `y`), proc px, is inside.
    pub fn contains(&self, x: i32, y: i32) -> bool {
        if !self.bbox.contains(x, y) {
            return false;
        }
        let row = (y - self.bbox.y) as usize * self.bbox.w as usize;
        is_set(&self.mask, row + (x - self.bbox.x) as usize)
    }

    /// The runs of pixels inside, in raster order, proc px.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        mask_runs(&self.mask, self.bbox)
    }

    /// (y, x) of the first pixel in raster order, proc px: nuclei are sorted by it.
    pub fn first_pixel(&self) -> (i32, i32) {
        let x = (self.bbox.x..self.bbox.right())
            .find(|&x| self.contains(x, self.bbox.y))
            .unwrap_or(self.bbox.x);
        (self.bbox.y, x)
    }

    /// Sets the bits of a run inside the box.
    pub(super) fn set_run(&mut self, run: Run) {
        let row = (run.y - self.bbox.y) as usize * self.bbox.w as usize;
        let first = row + (run.x0 - self.bbox.x) as usize;
        for bit in first..first + run.len() {
            self.mask[bit / 8] |= 1 << (bit % 8);
        }
    }
}
