//! A mask as one byte per pixel with an empty rim, and the measures that depend on neighbouring
//! pixels.
//!
//! In: mask bits, or the first and last pixel of each row. Out: perimeter, Euler number, filled
//! area, in px. Never knows about units.

use std::f64::consts::SQRT_2;

use crate::geometry::Rect;
use crate::nuclei::mask_runs;

/// `width * height` pixels inside a rim of one empty pixel, so that every pixel has all its
/// neighbours.
#[derive(Debug, Clone)]
pub struct MaskImage {
    pub width: usize,
    pub height: usize,
    /// `[height + 2, width + 2]`, row by row, 1 = inside.
    cells: Vec<u8>,
}

impl MaskImage {
    fn empty(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            cells: vec![0; (width + 2) * (height + 2)],
        }
    }

    /// From bits in the layout of [`Nucleus::mask`](crate::nuclei::Nucleus); bits that `mask` lacks
    /// count as 0.
    pub fn from_bits(mask: &[u8], width: usize, height: usize) -> Self {
        let mut image = Self::empty(width, height);
        for run in mask_runs(mask, Rect::new(0, 0, width as i32, height as i32)) {
            image.row_mut(run.y as usize)[run.x0 as usize..run.x1 as usize].fill(1);
        }
        image
    }

    /// From the first and last pixel of each row, filled between them; `None` for an empty row.
    pub fn from_extents(extents: &[Option<[i32; 2]>], width: usize) -> Self {
        let mut image = Self::empty(width, extents.len());
        for (y, extent) in extents.iter().enumerate() {
            if let Some([first, last]) = *extent {
                let span = first.max(0) as usize..(last + 1).clamp(0, width as i32) as usize;
                image.row_mut(y)[span].fill(1);
            }
        }
        image
    }

    fn stride(&self) -> usize {
        self.width + 2
    }

    /// The pixels of row `y`, without the rim.
    pub fn row(&self, y: usize) -> &[u8] {
        let start = (y + 1) * self.stride() + 1;
        &self.cells[start..start + self.width]
    }

    fn row_mut(&mut self, y: usize) -> &mut [u8] {
        let start = (y + 1) * self.stride() + 1;
        &mut self.cells[start..start + self.width]
    }

    /// First and last pixel of each row.
    pub fn extents(&self) -> Vec<Option<[i32; 2]>> {
        (0..self.height)
            .map(|y| {
                let row = self.row(y);
                let first = row.iter().position(|&c| c != 0)?;
                let last = row.iter().rposition(|&c| c != 0)?;
                Some([first as i32, last as i32])
            })
            .collect()
    }

    /// Length of the outline, px: the sum over border pixels (inside, with one of 4 neighbours
    /// outside) of a weight that depends on the border pixels around them.
    ///
    /// Source: Benkrid and Crookes, "Design and FPGA implementation of a perimeter estimator", as
    /// in `skimage.measure.perimeter(neighborhood=4)`.
    pub fn perimeter(&self) -> f64 {
        let stride = self.stride();
        let mut border = vec![0u8; self.cells.len()];
        for y in 1..=self.height {
            let start = y * stride;
            for at in start + 1..=start + self.width {
                let c = &self.cells;
                let inner = c[at - 1] & c[at + 1] & c[at - stride] & c[at + stride];
                border[at] = c[at] & !inner;
            }
        }
        let mut counts = [0u32; 3];
        for y in 1..=self.height {
            let start = y * stride;
            for at in start + 1..=start + self.width {
                let b = &border;
                if b[at] == 0 {
                    continue;
                }
                let sides = b[at - 1] + b[at + 1] + b[at - stride] + b[at + stride];
                let corners = b[at - stride - 1]
                    + b[at - stride + 1]
                    + b[at + stride - 1]
                    + b[at + stride + 1];
                match (sides, corners) {
                    (2 | 3, 0..=2) => counts[0] += 1,
                    (0, 2) | (1, 3) => counts[1] += 1,
                    (1, 1 | 2) => counts[2] += 1,
                    _ => {}
                }
            }
        }
        f64::from(counts[0])
            + f64::from(counts[1]) * SQRT_2
            + f64::from(counts[2]) * (1.0 + SQRT_2) / 2.0
    }

    /// Objects (8-connected) minus holes, counted over the 2 x 2 windows.
    ///
    /// Source: Ohser, Nagel and Schladitz 2002, as in
    /// `skimage.measure.euler_number(connectivity=2)`.
    pub fn euler_number(&self) -> i32 {
        let stride = self.stride();
        let mut euler = 0;
        for y in 1..=self.height + 1 {
            let above = &self.cells[(y - 1) * stride..y * stride];
            let here = &self.cells[y * stride..(y + 1) * stride];
            for (a, c) in above.windows(2).zip(here.windows(2)) {
                match (a[0], a[1], c[0], c[1]) {
                    (1, 0, 0, 0) => euler += 1,
                    (0, 1, 1, 0) | (1, 1, 1, 0) => euler -= 1,
                    _ => {}
                }
            }
        }
        euler
    }

    /// Number of pixels inside after holes are filled. A hole is background that is not 8-connected
    /// to the outside: `scipy`'s `binary_fill_holes` with a full 3 x 3 structure, as scikit-image
    /// calls it.
    pub fn filled_area(&self) -> usize {
        // Where each row is one run, all background reaches the rim along its row.
        let area: usize = self.cells.iter().map(|&cell| usize::from(cell)).sum();
        let between = self.extents().into_iter().flatten();
        if between
            .map(|[first, last]| (last - first + 1) as usize)
            .sum::<usize>()
            == area
        {
            return area;
        }
        let stride = self.stride();
        let mut cells = self.cells.clone();
        let mut outside = 0;
        let mut open = vec![0usize];
        if let Some(corner) = cells.first_mut() {
            *corner = 2;
        }
        while let Some(at) = open.pop() {
            outside += 1;
            let (x, y) = (at % stride, at / stride);
            for ny in y.saturating_sub(1)..=(y + 1).min(self.height + 1) {
                for nx in x.saturating_sub(1)..=(x + 1).min(self.width + 1) {
                    let next = ny * stride + nx;
                    if cells[next] == 0 {
                        cells[next] = 2;
                        open.push(next);
                    }
                }
            }
        }
        cells.len() - outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(rows: &[&str]) -> MaskImage {
        let width = rows[0].len();
        let mut image = MaskImage::empty(width, rows.len());
        for (y, row) in rows.iter().enumerate() {
            for (cell, c) in image.row_mut(y).iter_mut().zip(row.bytes()) {
                *cell = u8::from(c == b'#');
            }
        }
        image
    }

    #[test]
    fn a_hole_that_leaks_over_a_corner_is_no_hole_to_filling_but_one_to_euler() {
        let leaky = image(&["####", "#..#", "#.#.", "###."]);
        // 8-connected object, 4-connected background: the ring is closed for Euler, open for
        // filling.
        assert_eq!(leaky.euler_number(), 0);
        assert_eq!(leaky.filled_area(), 11);
        let tight = image(&["####", "#..#", "####"]);
        assert_eq!(tight.euler_number(), 0);
        assert_eq!(tight.filled_area(), 12);
    }

    #[test]
    fn what_is_filled_is_what_no_walk_from_outside_reaches() {
        // A plain walk over the neighbours, on shapes with and without gaps in their rows.
        let mut random = fastrand::Rng::with_seed(4);
        for density in [0.3, 0.6, 0.9, 1.0] {
            for _ in 0..50 {
                let (width, height) = (random.usize(1..12), random.usize(1..12));
                let mut shape = MaskImage::empty(width, height);
                for y in 0..height {
                    for cell in shape.row_mut(y) {
                        *cell = u8::from(random.f64() < density);
                    }
                }
                let stride = width + 2;
                let mut reached = vec![false; shape.cells.len()];
                reached[0] = true;
                loop {
                    let near = |at: usize| {
                        let (x, y) = ((at % stride) as i64, (at / stride) as i64);
                        (0..shape.cells.len()).any(|other| {
                            let (ox, oy) = ((other % stride) as i64, (other / stride) as i64);
                            reached[other] && (ox - x).abs() <= 1 && (oy - y).abs() <= 1
                        })
                    };
                    let open = |at: &usize| shape.cells[*at] == 0 && !reached[*at] && near(*at);
                    let Some(next) = (0..shape.cells.len()).find(open) else {
                        break;
                    };
                    reached[next] = true;
                }
                let wanted = reached.iter().filter(|reached| !**reached).count();
                assert_eq!(shape.filled_area(), wanted, "{shape:?}");
            }
        }
    }

    #[test]
    fn bits_and_extents_agree_on_a_convex_mask() {
        let extents = [Some([1, 2]), Some([0, 3]), None];
        let image = MaskImage::from_extents(&extents, 4);
        assert_eq!(image.extents(), extents);
        let bits = MaskImage::from_bits(&[0b1111_0110, 0], 4, 3);
        assert_eq!(bits.cells, image.cells);
    }
}
