//! Binary images as bits: opening and holes, 64 pixels at a time.
//!
//! In: which pixels of a box are set. Out: the same after erosion, dilation or filling of holes, as
//! [`super::morphology`] does it on bytes. Pixels outside the box count as not set. Never labels
//! nuclei.

use super::blobs::join_runs;
use super::foreground::Run;
use super::morphology::DiscRow;

/// Pixels per word.
const BITS: usize = 64;

/// A box of bits, row by row; the first pixel of a word is its lowest bit. Bits right of the box are
/// 0.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct BitPlane {
    width: usize,
    height: usize,
    /// Words per row.
    words: usize,
    bits: Vec<u64>,
}

impl BitPlane {
    /// Makes it a box in which no pixel is set.
    pub fn reset(&mut self, width: usize, height: usize) {
        self.width = width;
        self.height = height;
        self.words = width.div_ceil(BITS);
        self.bits.clear();
        self.bits.resize(self.words * height, 0);
    }

    fn row(&self, y: usize) -> &[u64] {
        &self.bits[y * self.words..][..self.words]
    }

    /// Sets those of the pixels from column `x` of row `y` on whose value is below `limit`.
    pub fn set_below(&mut self, x: usize, y: usize, values: &[u8], limit: u8) {
        let row = &mut self.bits[y * self.words..][..self.words];
        for (chunk, from) in values.chunks(BITS).zip((x..).step_by(BITS)) {
            let below = pack_below(chunk, limit);
            let (word, bit) = (from / BITS, from % BITS);
            row[word] |= below << bit;
            if bit > 0 && below >> (BITS - bit) != 0 {
                row[word + 1] |= below >> (BITS - bit);
            }
        }
    }

    /// Sets columns `x0..x1`, not none, of row `y`.
    fn set(&mut self, x0: usize, x1: usize, y: usize) {
        let row = &mut self.bits[y * self.words..][..self.words];
        let (first, last) = (x0 / BITS, (x1 - 1) / BITS);
        let from = u64::MAX << (x0 % BITS);
        let to = u64::MAX >> (BITS - 1 - (x1 - 1) % BITS);
        if first == last {
            row[first] |= from & to;
            return;
        }
        row[first] |= from;
        row[first + 1..last].fill(u64::MAX);
        row[last] |= to;
    }

    /// Calls `found` with the first column and the one after the last of each run of set pixels
    /// within columns `x0..x1` of row `y`.
    pub fn runs_within(&self, x0: usize, x1: usize, y: usize, found: impl FnMut(usize, usize)) {
        runs_of(self.row(y), 0, x0, x1, found);
    }

    /// Sets every pixel that is not 4-connected to the outside of the box through pixels that are
    /// not set. `runs` and `roots` are buffers.
    pub fn fill_holes(&mut self, runs: &mut Vec<Run>, roots: &mut Vec<u32>) {
        runs.clear();
        let width = self.width as i32;
        let full_row = |y| Run {
            y,
            x0: -1,
            x1: width + 1,
        };
        runs.push(full_row(-1));
        for y in 0..self.height {
            self.push_gaps(y, runs);
        }
        runs.push(full_row(self.height as i32));
        join_runs(runs, roots);
        for (run, &root) in runs.iter().zip(roots.iter()) {
            if root != 0 {
                self.set(run.x0 as usize, run.x1 as usize, run.y as usize);
            }
        }
    }

    /// Appends the runs of a row's pixels that are not set, one column on either side included.
    fn push_gaps(&self, y: usize, runs: &mut Vec<Run>) {
        let width = self.width as i32;
        let first = runs.len();
        runs_of(self.row(y), u64::MAX, 0, self.width, |x0, x1| {
            runs.push(Run {
                y: y as i32,
                x0: x0 as i32,
                x1: x1 as i32,
            });
        });
        let column = |x0| Run {
            y: y as i32,
            x0,
            x1: x0 + 1,
        };
        match runs.get_mut(first) {
            Some(run) if run.x0 == 0 => run.x0 = -1,
            _ => runs.insert(first, column(-1)),
        }
        match runs.last_mut() {
            Some(run) if run.x1 == width => run.x1 += 1,
            _ => runs.push(column(width)),
        }
    }

    /// Sets in `out` the pixels around which the whole disc fits: `AND of self[p + d]`. `wide` is a
    /// buffer.
    pub fn erode(&self, disc: &[DiscRow], out: &mut BitPlane, wide: &mut BitPlane) {
        self.combine(disc, u64::MAX, |a, b| a & b, out, wide);
    }

    /// Sets in `out` the pixels where the mirrored disc meets the image: `OR of self[p - d]`. `wide`
    /// is a buffer.
    pub fn dilate(&self, disc: &[DiscRow], out: &mut BitPlane, wide: &mut BitPlane) {
        let mirrored: Vec<DiscRow> = disc.iter().map(DiscRow::mirrored).collect();
        self.combine(&mirrored, 0, |a, b| a | b, out, wide);
    }

    fn combine(
        &self,
        disc: &[DiscRow],
        neutral: u64,
        join: impl Fn(u64, u64) -> u64,
        out: &mut BitPlane,
        wide: &mut BitPlane,
    ) {
        out.reset(self.width, self.height);
        out.bits.fill(neutral);
        // Rows of the disc that are as wide share one pass along the image's rows.
        let mut widths: Vec<(i32, i32)> = disc.iter().map(|row| (row.left, row.right)).collect();
        widths.sort_unstable();
        widths.dedup();
        for (left, right) in widths {
            wide.reset(self.width, self.height);
            for y in 0..self.height {
                let (from, to) = (self.row(y), &mut wide.bits[y * self.words..]);
                for (word, to) in to[..self.words].iter_mut().enumerate() {
                    *to =
                        (left..=right).fold(neutral, |all, dx| join(all, shifted(from, word, dx)));
                }
            }
            let same = disc
                .iter()
                .filter(|row| (row.left, row.right) == (left, right));
            for dy in same.map(|row| row.dy) {
                out.join_rows(wide, dy, &join);
            }
        }
        out.clear_right_of_box();
    }

    /// Joins each row with the row `dy` further down of `other`, outside of which nothing is set.
    fn join_rows(&mut self, other: &BitPlane, dy: i32, join: impl Fn(u64, u64) -> u64) {
        for y in 0..self.height {
            let to = &mut self.bits[y * self.words..][..self.words];
            let from = y as i64 + i64::from(dy);
            if (0..self.height as i64).contains(&from) {
                let pairs = to.iter_mut().zip(other.row(from as usize));
                pairs.for_each(|(to, from)| *to = join(*to, *from));
            } else {
                to.iter_mut().for_each(|to| *to = join(*to, 0));
            }
        }
    }

    fn clear_right_of_box(&mut self) {
        let beyond = self.words * BITS - self.width;
        if beyond > 0 {
            for row in self.bits.chunks_exact_mut(self.words) {
                row[self.words - 1] &= u64::MAX >> beyond;
            }
        }
    }
}

/// One bit per value, the lowest first: whether it is below `limit`. At most 64 values.
fn pack_below(values: &[u8], limit: u8) -> u64 {
    let mut below = [0u8; BITS];
    for (below, value) in below.iter_mut().zip(values) {
        *below = u8::from(*value < limit);
    }
    let (eights, _) = below.as_chunks::<8>();
    let pack = |word: u64, (eight, at): (&[u8; 8], usize)| {
        // The multiplication moves bit 0 of byte i to bit 56 + i.
        let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word | bits << (8 * at)
    };
    eights.iter().zip(0..).fold(0, pack)
}

/// Word `word` of a row moved by `dx` columns to the left: bit i is the row's bit
/// `64 * word + i + dx`.
#[inline(always)]
fn shifted(row: &[u64], word: usize, dx: i32) -> u64 {
    let from = (BITS * word) as i64 + i64::from(dx);
    let (at, bit) = (from.div_euclid(BITS as i64), from.rem_euclid(BITS as i64));
    let word = |at: i64| {
        let at = usize::try_from(at).ok();
        at.and_then(|at| row.get(at)).copied().unwrap_or(0)
    };
    match bit {
        0 => word(at),
        _ => word(at) >> bit | word(at + 1) << (BITS as i64 - bit),
    }
}

/// Calls `found` with each run, within columns `from..to`, of the pixels that are set in the words of
/// `row` XOR `flip`.
fn runs_of(row: &[u64], flip: u64, from: usize, to: usize, mut found: impl FnMut(usize, usize)) {
    let mut x = from;
    while let Some(x0) = next_set(row, flip, x, to) {
        x = next_set(row, !flip, x0, to).unwrap_or(to);
        found(x0, x);
    }
}

/// The first column of `from..to` that is set in the words of `row` XOR `flip`.
#[inline(always)]
fn next_set(row: &[u64], flip: u64, from: usize, to: usize) -> Option<usize> {
    if from >= to {
        return None;
    }
    let mut word = from / BITS;
    let mut bits = (row[word] ^ flip) & (u64::MAX << (from % BITS));
    while bits == 0 {
        word += 1;
        if word * BITS >= to {
            return None;
        }
        bits = row[word] ^ flip;
    }
    Some(word * BITS + bits.trailing_zeros() as usize).filter(|&x| x < to)
}
