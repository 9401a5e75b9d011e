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

/// The first of `bits` that is set, or not, as asked; a byte at a time.
fn find_bit(mask: &[u8], bits: std::ops::Range<usize>, set: bool) -> Option<usize> {
    let mut at = bits.start;
    while at < bits.end {
        let byte = mask.get(at / 8).copied().unwrap_or(0);
        let wanted = if set { byte } else { !byte } >> (at % 8);
        if wanted != 0 {
            let found = at + wanted.trailing_zeros() as usize;
            return (found < bits.end).then_some(found);
        }
        at = (at / 8 + 1) * 8;
    }
    None
}

/// The runs of pixels inside a mask whose bits fill `bbox` row by row, in raster order.
fn mask_runs(mask: &[u8], bbox: Rect) -> impl Iterator<Item = Run> + '_ {
    runs_of_rows(mask, bbox, bbox.y..bbox.bottom())
}

/// The runs of those rows of a mask that are in `rows` as well.
fn runs_of_rows(
    mask: &[u8],
    bbox: Rect,
    rows: std::ops::Range<i32>,
) -> impl Iterator<Item = Run> + '_ {
    let width = bbox.w.max(0) as usize;
    let rows = rows.start.max(bbox.y)..rows.end.min(bbox.bottom());
    rows.flat_map(move |y| {
        let start = (y - bbox.y) as usize * width;
        let mut x = 0;
        std::iter::from_fn(move || {
            let first = find_bit(mask, start + x..start + width, true)? - start;
            let end = find_bit(mask, start + first..start + width, false);
            x = end.map_or(width, |end| end - start);
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

    /// The runs of pixels inside that lie in `rows`, in raster order, proc px.
    pub fn runs_in_rows(&self, rows: std::ops::Range<i32>) -> impl Iterator<Item = Run> + '_ {
        runs_of_rows(&self.mask, self.bbox, rows)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_a_walk_over_the_bits() {
        let mut random = fastrand::Rng::with_seed(2);
        for width in [0, 1, 7, 8, 9, 16, 31] {
            for density in [0.0, 0.2, 0.9, 1.0] {
                let bbox = Rect::new(-3, 5, width, 6);
                let bits = bbox.area() as usize;
                let mut mask = vec![0u8; bits.div_ceil(8)];
                for bit in (0..bits).filter(|_| random.f64() < density) {
                    mask[bit / 8] |= 1 << (bit % 8);
                }
                // A mask that is cut short has nothing there.
                mask.truncate(mask.len() - mask.len() / 4);
                let mut wanted: Vec<Run> = Vec::new();
                for bit in (0..bits).filter(|bit| is_set(&mask, *bit)) {
                    let (x, y) = (bit as i32 % width + bbox.x, bit as i32 / width + bbox.y);
                    match wanted.last_mut() {
                        Some(run) if run.y == y && run.x1 == x => run.x1 += 1,
                        _ => wanted.push(Run {
                            y,
                            x0: x,
                            x1: x + 1,
                        }),
                    }
                }
                assert!(mask_runs(&mask, bbox).eq(wanted.iter().copied()));
                let some = wanted.iter().copied().filter(|run| (7..9).contains(&run.y));
                assert!(runs_of_rows(&mask, bbox, 7..9).eq(some));
                assert!(runs_of_rows(&mask, bbox, -50..50).eq(wanted.iter().copied()));
            }
        }
    }
}
