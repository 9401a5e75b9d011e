//! A mask as rows of bits with an empty rim, and the measures that depend on neighbouring pixels, 64 pixels at a time.
//!
//! In: mask bits, or the first and last pixel of each row. Out: runs, perimeter, Euler number, filled area, in px. Never
//! knows about units.

use std::f64::consts::SQRT_2;

use crate::nuclei::blobs::{flatten_sets, join_sets};

/// `width * height` pixels inside a rim of one empty pixel, so that every pixel has all its
/// neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskImage {
    pub width: usize,
    pub height: usize,
    /// Words per row.
    words: usize,
    /// `[height + 2, words]`. Bit x + 1 of row y + 1 is pixel (x, y), bit 0 being the lowest of the first word.
    bits: Vec<u64>,
}

impl MaskImage {
    fn empty(width: usize, height: usize) -> Self {
        let words = (width + 2).div_ceil(64);
        Self {
            width,
            height,
            words,
            bits: vec![0; words * (height + 2)],
        }
    }

    /// From bits in the layout of [`Nucleus::mask`](crate::nuclei::Nucleus); bits that `mask` lacks
    /// count as 0.
    pub fn from_bits(mask: &[u8], width: usize, height: usize) -> Self {
        let mut image = Self::empty(width, height);
        for (y, row) in image.bits.chunks_exact_mut(image.words).skip(1).enumerate() {
            if y == height {
                break;
            }
            let start = y * width;
            row[0] = bits_of(mask, start, width.min(63)) << 1;
            for (k, word) in row.iter_mut().enumerate().skip(1) {
                let x = 64 * k - 1;
                *word = bits_of(mask, start + x, width.saturating_sub(x).min(64));
            }
        }
        image
    }

    /// From the first and last pixel of each row, filled between them; `None` for an empty row.
    pub fn from_extents(extents: &[Option<[i32; 2]>], width: usize) -> Self {
        let mut image = Self::empty(width, extents.len());
        for (row, extent) in image
            .bits
            .chunks_exact_mut(image.words)
            .skip(1)
            .zip(extents)
        {
            let Some([first, last]) = *extent else {
                continue;
            };
            let (from, to) = (first.max(0) as usize + 1, (last + 1).clamp(0, width as i32));
            for (k, word) in row.iter_mut().enumerate() {
                *word = bits_below(to as usize + 1, k) & !bits_below(from, k);
            }
        }
        image
    }

    /// Row `y` of the image with its rim.
    fn row(&self, y: usize) -> &[u64] {
        &self.bits[y * self.words..][..self.words]
    }

    /// Number of pixels inside.
    pub fn area(&self) -> usize {
        self.bits
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// First pixel inside and first pixel after it of each run of row `y`.
    pub fn runs(&self, y: usize) -> impl Iterator<Item = [usize; 2]> + '_ {
        let row = self.row(y + 1);
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = find_bit(row, at, true)?;
            at = find_bit(row, first, false)?;
            Some([first - 1, at - 1])
        })
    }

    /// First and last pixel of each row.
    pub fn extents(&self) -> Vec<Option<[i32; 2]>> {
        let extent = |row: &[u64]| {
            let first = find_bit(row, 0, true)?;
            let last_word = row.iter().rposition(|&word| word != 0)?;
            let last = 64 * last_word + 63 - row[last_word].leading_zeros() as usize;
            Some([first as i32 - 1, last as i32 - 1])
        };
        (1..=self.height).map(|y| extent(self.row(y))).collect()
    }

    /// Length of the outline, px: the sum over border pixels (inside, with one of 4 neighbours
    /// outside) of a weight that depends on the border pixels around them.
    ///
    /// Source: Benkrid and Crookes, "Design and FPGA implementation of a perimeter estimator", as
    /// in `skimage.measure.perimeter(neighborhood=4)`.
    pub fn perimeter(&self) -> f64 {
        let mut border = Self::empty(self.width, self.height);
        for y in 1..=self.height {
            let [above, here, below] = [y - 1, y, y + 1].map(|y| self.row(y));
            for k in 0..self.words {
                let inner = left(here, k) & right(here, k) & above[k] & below[k];
                border.bits[y * self.words + k] = here[k] & !inner;
            }
        }
        let mut counts = [0u32; 3];
        for y in 1..=self.height {
            let [above, here, below] = [y - 1, y, y + 1].map(|y| border.row(y));
            for k in 0..self.words {
                let sides = count_of_4([left(here, k), right(here, k), above[k], below[k]]);
                let corners = count_of_4([
                    left(above, k),
                    right(above, k),
                    left(below, k),
                    right(below, k),
                ]);
                let [none, one, two, three] = corners;
                let kinds = [
                    (sides[2] | sides[3]) & (none | one | two),
                    (sides[0] & two) | (sides[1] & three),
                    sides[1] & (one | two),
                ];
                for (count, kind) in counts.iter_mut().zip(kinds) {
                    *count += (kind & here[k]).count_ones();
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
        let mut euler = 0;
        for y in 1..=self.height + 1 {
            let [above, here] = [y - 1, y].map(|y| self.row(y));
            for k in 0..self.words {
                let (a, b) = (above[k], right(above, k));
                let (c, d) = (here[k], right(here, k));
                euler += (a & !b & !c & !d).count_ones() as i32;
                euler -= (b & c & !d).count_ones() as i32;
            }
        }
        euler
    }

    /// Number of pixels inside after holes are filled. A hole is background that is not 8-connected
    /// to the outside: `scipy`'s `binary_fill_holes` with a full 3 x 3 structure, as scikit-image
    /// calls it.
    pub fn filled_area(&self) -> usize {
        let area = self.area();
        // Where each row is one run, all background reaches the rim along its row.
        let between = self.extents().into_iter().flatten();
        let of_extents: i32 = between.map(|[first, last]| last - first + 1).sum();
        if of_extents as usize == area {
            return area;
        }
        let width = self.width + 2;
        let mut gaps: Vec<[usize; 2]> = Vec::new();
        let mut parents: Vec<u32> = Vec::new();
        let mut row_above = 0;
        for y in 0..self.height + 2 {
            let (mut above, row_start) = (row_above, gaps.len());
            for gap in gaps_of(self.row(y), width) {
                let this = gaps.len() as u32;
                parents.push(this);
                // Gaps of two rows are neighbours where they meet at a corner at least.
                while above < row_start && gaps[above][1] < gap[0] {
                    above += 1;
                }
                let near = (above..row_start).take_while(|&other| gaps[other][0] <= gap[1]);
                near.for_each(|other| join_sets(&mut parents, this, other as u32));
                gaps.push(gap);
            }
            row_above = row_start;
        }
        flatten_sets(&mut parents);
        // The first gap is the upper rim.
        let outside = gaps.iter().zip(&parents).filter(|(_, root)| **root == 0);
        let outside: usize = outside.map(|([first, end], _)| end - first).sum();
        width * (self.height + 2) - outside
    }
}

/// The runs of zeros among the first `width` bits of a row.
fn gaps_of(row: &[u64], width: usize) -> impl Iterator<Item = [usize; 2]> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = find_bit(row, at, false).filter(|first| *first < width)?;
        at = find_bit(row, first, true).unwrap_or(width);
        Some([first, at])
    })
}

/// `len` bits, at most 64, of a mask from bit `start` on.
fn bits_of(mask: &[u8], start: usize, len: usize) -> u64 {
    let (first, end) = (start / 8, (start + len).div_ceil(8).min(mask.len()));
    let mut bytes = [0; 16];
    if let Some(part) = mask.get(first..end) {
        bytes[..part.len()].copy_from_slice(part);
    }
    (u128::from_le_bytes(bytes) >> (start % 8)) as u64 & bits_below(len, 0)
}

/// Of word `k` of a row, the bits below bit `end` of the row.
fn bits_below(end: usize, k: usize) -> u64 {
    match end.saturating_sub(64 * k) {
        64.. => u64::MAX,
        bits => (1 << bits) - 1,
    }
}

/// The first bit of a row, from `from` on, that is set, or not, as asked.
fn find_bit(row: &[u64], from: usize, set: bool) -> Option<usize> {
    let wanted = |word: u64| if set { word } else { !word };
    let mut k = from / 64;
    let mut word = wanted(*row.get(k)?) & !bits_below(from, k);
    while word == 0 {
        k += 1;
        word = wanted(*row.get(k)?);
    }
    Some(64 * k + word.trailing_zeros() as usize)
}

/// Word `k` of a row whose every bit is its left neighbour.
#[inline(always)]
fn left(row: &[u64], k: usize) -> u64 {
    let carry = if k > 0 { row[k - 1] >> 63 } else { 0 };
    row[k] << 1 | carry
}

/// Word `k` of a row whose every bit is its right neighbour.
#[inline(always)]
fn right(row: &[u64], k: usize) -> u64 {
    let carry = row.get(k + 1).map_or(0, |next| next << 63);
    row[k] >> 1 | carry
}

/// Where none, one, two and three of four bits are set.
#[inline(always)]
fn count_of_4([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let (odd_ab, both_ab) = (a ^ b, a & b);
    let (odd_cd, both_cd) = (c ^ d, c & d);
    let odd = odd_ab ^ odd_cd;
    // Two or three: the pairs carry once.
    let carry = both_ab ^ both_cd ^ (odd_ab & odd_cd);
    let four = both_ab & both_cd;
    [
        !odd & !carry & !four,
        odd & !carry,
        !odd & carry,
        odd & carry,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask as rows of pixels inside a rim of one empty pixel, and what it comes to pixel by pixel.
    struct Plain {
        rows: Vec<Vec<bool>>,
    }

    impl Plain {
        fn new(width: usize, height: usize, mut inside: impl FnMut(usize, usize) -> bool) -> Self {
            let mut rows = vec![vec![false; width + 2]; height + 2];
            for (y, row) in rows.iter_mut().enumerate().skip(1).take(height) {
                let row = row.iter_mut().enumerate().skip(1).take(width);
                row.for_each(|(x, pixel)| *pixel = inside(x - 1, y - 1));
            }
            Self { rows }
        }

        fn drawn(rows: &[&str]) -> Self {
            let inside = |x, y: usize| rows[y].as_bytes()[x] == b'#';
            Self::new(rows[0].len(), rows.len(), inside)
        }

        fn image(&self) -> MaskImage {
            let (width, height) = (self.rows[0].len() - 2, self.rows.len() - 2);
            let mut mask = vec![0u8; (width * height).div_ceil(8)];
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let bit = y * width + x;
                mask[bit / 8] |= u8::from(self.rows[y + 1][x + 1]) << (bit % 8);
            }
            MaskImage::from_bits(&mask, width, height)
        }

        fn places(&self) -> impl Iterator<Item = (usize, usize)> {
            let (width, height) = (self.rows[0].len() - 2, self.rows.len() - 2);
            (1..=height).flat_map(move |y| (1..=width).map(move |x| (x, y)))
        }

        fn perimeter(&self) -> f64 {
            let sides = |x: usize, y: usize| [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)];
            let corners = |x: usize, y: usize| {
                [
                    (x - 1, y - 1),
                    (x + 1, y - 1),
                    (x - 1, y + 1),
                    (x + 1, y + 1),
                ]
            };
            let is_in = |(x, y): (usize, usize)| self.rows[y][x];
            let border = Plain {
                rows: (0..self.rows.len())
                    .map(|y| {
                        let is_border =
                            |x: usize| is_in((x, y)) && !sides(x, y).into_iter().all(is_in);
                        (0..self.rows[0].len()).map(is_border).collect()
                    })
                    .collect(),
            };
            let count = |near: [(usize, usize); 4]| {
                near.iter().filter(|(x, y)| border.rows[*y][*x]).count()
            };
            let mut counts = [0u32; 3];
            for (x, y) in border.places().filter(|(x, y)| border.rows[*y][*x]) {
                match (count(sides(x, y)), count(corners(x, y))) {
                    (2 | 3, 0..=2) => counts[0] += 1,
                    (0, 2) | (1, 3) => counts[1] += 1,
                    (1, 1 | 2) => counts[2] += 1,
                    _ => {}
                }
            }
            let [straight, diagonal, mixed] = counts.map(f64::from);
            straight + diagonal * SQRT_2 + mixed * (1.0 + SQRT_2) / 2.0
        }

        fn euler_number(&self) -> i32 {
            let mut euler = 0;
            for pair in self.rows.windows(2) {
                for x in 0..pair[0].len() - 1 {
                    match (pair[0][x], pair[0][x + 1], pair[1][x], pair[1][x + 1]) {
                        (true, false, false, false) => euler += 1,
                        (_, true, true, false) => euler -= 1,
                        _ => {}
                    }
                }
            }
            euler
        }

        /// What a walk from a corner of the rim over the eight neighbours does not reach.
        fn filled_area(&self) -> usize {
            let (width, height) = (self.rows[0].len(), self.rows.len());
            let mut reached = vec![vec![false; width]; height];
            let mut open = vec![(0usize, 0usize)];
            while let Some((x, y)) = open.pop() {
                if std::mem::replace(&mut reached[y][x], true) {
                    continue;
                }
                let near = |at: usize, len: usize| at.saturating_sub(1)..(at + 2).min(len);
                let around = near(y, height).flat_map(|ny| near(x, width).map(move |nx| (nx, ny)));
                open.extend(around.filter(|&(nx, ny)| !self.rows[ny][nx] && !reached[ny][nx]));
            }
            reached
                .iter()
                .flatten()
                .filter(|reached| !**reached)
                .count()
        }
    }

    #[test]
    fn a_hole_that_leaks_over_a_corner_is_no_hole_to_filling_but_one_to_euler() {
        let leaky = Plain::drawn(&["####", "#..#", "#.#.", "###."]).image();
        // 8-connected object, 4-connected background: the ring is closed for Euler, open for
        // filling.
        assert_eq!(leaky.euler_number(), 0);
        assert_eq!(leaky.filled_area(), 11);
        let tight = Plain::drawn(&["####", "#..#", "####"]).image();
        assert_eq!(tight.euler_number(), 0);
        assert_eq!(tight.filled_area(), 12);
    }

    #[test]
    fn words_of_pixels_measure_as_single_pixels_do() {
        let mut random = fastrand::Rng::with_seed(4);
        // Rows of one word and of several, and those that end where a word does.
        for width in [1, 2, 5, 11, 61, 62, 63, 64, 65, 126, 127, 190] {
            for density in [0.1, 0.5, 0.8, 0.95, 1.0] {
                for _ in 0..12 {
                    let height = random.usize(1..12);
                    let plain = Plain::new(width, height, |_, _| random.f64() < density);
                    let image = plain.image();
                    assert_eq!(image.perimeter(), plain.perimeter(), "{:?}", plain.rows);
                    assert_eq!(image.euler_number(), plain.euler_number());
                    assert_eq!(image.filled_area(), plain.filled_area());
                    let inside = |y: usize| {
                        let row = plain.rows[y + 1][1..=width].iter().enumerate();
                        row.filter(|(_, inside)| **inside).map(|(x, _)| x)
                    };
                    assert_eq!(image.area(), (0..height).flat_map(inside).count());
                    for y in 0..height {
                        let runs = image.runs(y).flat_map(|[first, end]| first..end);
                        assert!(runs.eq(inside(y)));
                        let ends = inside(y).min().zip(inside(y).max());
                        let ends = ends.map(|(first, last)| [first as i32, last as i32]);
                        assert_eq!(image.extents()[y], ends);
                    }
                }
            }
        }
    }

    #[test]
    fn bits_and_extents_agree_on_a_convex_mask() {
        let extents = [Some([1, 2]), Some([0, 3]), None];
        let image = MaskImage::from_extents(&extents, 4);
        assert_eq!(image.extents(), extents);
        assert_eq!(image, MaskImage::from_bits(&[0b1111_0110, 0], 4, 3));
        let wide = [Some([0, 129]), None, Some([60, 70]), Some([5, 5])];
        assert_eq!(MaskImage::from_extents(&wide, 130).extents(), wide);
    }
}
