//! Marker-controlled watershed: on a blob's integer energy, and on a whole map's `f64` values in
//! the way of scikit-image.
//!
//! In: energies and a plane of labels. Pixels of markers have a label, [`UNLABELLED`] pixels have
//! none yet and [`OUTSIDE`] pixels never get one. Out: the same plane with a label on every pixel
//! that a marker can reach. Pixels are taken in order of (level, age), where level is the highest
//! energy met on the way (Meyer 1991). Neighbours are visited in the order up, left, right, down; a
//! pixel gets its label when it is first met.

use super::foreground::{Foreground, Run};
use super::plane::{Grid, Scratch, reset};

pub(super) const UNLABELLED: u32 = 0;
pub(super) const OUTSIDE: u32 = u32::MAX;

/// Number of levels: the energy is smoothed by a 3x3 kernel of sum 16 over bytes.
const LEVELS: usize = 16 * 255 + 1;

/// No pixel: the end of a list.
const NONE: u32 = u32::MAX;

/// Labels the pixels of a blob by the watershed of its energy, from the markers that `scratch`
/// holds (`runs`, labels in `roots`), into `scratch.label`.
pub(super) fn label_pixels(blob: &Foreground, grid: &Grid, scratch: &mut Scratch) {
    reset(&mut scratch.label, grid.len, OUTSIDE);
    for &run in &blob.runs {
        let at = grid.start(run);
        scratch.label[at..at + run.len()].fill(UNLABELLED);
    }
    for (&run, &label) in scratch.runs.iter().zip(&scratch.roots) {
        let at = grid.start(run);
        scratch.label[at..at + run.len()].fill(label);
    }
    flood(
        &scratch.energy,
        &mut scratch.label,
        grid,
        &scratch.runs,
        &mut scratch.queue,
    );
}

/// First-in-first-out queues, one per level, as linked lists through one array.
#[derive(Default)]
pub(super) struct LevelQueue {
    first: Vec<u32>,
    last: Vec<u32>,
    next: Vec<u32>,
}

impl LevelQueue {
    fn start(&mut self, len: usize) {
        // No list needs clearing: all are empty when a flood ends.
        self.first.resize(LEVELS, NONE);
        self.last.resize(LEVELS, NONE);
        if self.next.len() < len {
            self.next.resize(len, NONE);
        }
    }

    #[inline]
    fn push(&mut self, level: usize, pixel: u32) {
        self.next[pixel as usize] = NONE;
        if self.first[level] == NONE {
            self.first[level] = pixel;
        } else {
            self.next[self.last[level] as usize] = pixel;
        }
        self.last[level] = pixel;
    }

    #[inline]
    fn pop(&mut self, level: usize) -> Option<u32> {
        let pixel = self.first[level];
        if pixel == NONE {
            return None;
        }
        self.first[level] = self.next[pixel as usize];
        Some(pixel)
    }
}

/// Floods one blob over the 3x3 binomial (Gaussian) mean of `energy`, which is 255 outside the
/// blob.
///
/// `markers` are the runs whose pixels have labels already, in raster order, which is their age.
pub(super) fn flood(
    energy: &[u8],
    label: &mut [u32],
    grid: &Grid,
    markers: &[Run],
    queue: &mut LevelQueue,
) {
    let stride = grid.stride;
    queue.start(grid.len);
    for run in markers {
        for pixel in grid.start(*run)..grid.start(*run) + run.len() {
            // A pixel without unlabelled neighbours has nothing to pass its label on to.
            if neighbours(pixel, stride)
                .iter()
                .any(|&n| label[n] == UNLABELLED)
            {
                queue.push(smoothed(energy, pixel, stride), pixel as u32);
            }
        }
    }
    for level in 0..LEVELS {
        while let Some(pixel) = queue.pop(level) {
            let pixel = pixel as usize;
            for n in neighbours(pixel, stride) {
                if label[n] == UNLABELLED {
                    label[n] = label[pixel];
                    queue.push(smoothed(energy, n, stride).max(level), n as u32);
                }
            }
        }
    }
}

#[inline(always)]
fn neighbours(pixel: usize, stride: usize) -> [usize; 4] {
    [pixel - stride, pixel - 1, pixel + 1, pixel + stride]
}

/// 16 times the mean under the kernel [1 2 1] x [1 2 1] / 16.
#[inline(always)]
pub(super) fn smoothed(energy: &[u8], pixel: usize, stride: usize) -> usize {
    let row = |at: usize| {
        let row = &energy[at - 1..at + 2];
        usize::from(row[0]) + 2 * usize::from(row[1]) + usize::from(row[2])
    };
    row(pixel - stride) + 2 * row(pixel) + row(pixel + stride)
}

/// Floods a padded map in place, in the order of scikit-image 0.26, ties included.
///
/// All markers have age 0 there, so the structure of its heap decides between equal values; this
/// function builds the same heap. `label` and `value` have one pixel of margin, whose label is
/// [`OUTSIDE`].
pub(super) fn flood_like_skimage(value: &[f64], label: &mut [u32], stride: usize) {
    let mut heap = Heap::default();
    for (pixel, &l) in label.iter().enumerate() {
        if l != UNLABELLED && l != OUTSIDE {
            heap.push(Entry {
                value: value[pixel],
                age: 0,
                pixel,
            });
        }
    }
    let mut age = 0;
    while let Some(entry) = heap.pop() {
        for n in neighbours(entry.pixel, stride) {
            if label[n] == UNLABELLED {
                label[n] = label[entry.pixel];
                age += 1;
                heap.push(Entry {
                    value: value[n].max(entry.value),
                    age,
                    pixel: n,
                });
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    value: f64,
    age: u64,
    pixel: usize,
}

impl Entry {
    fn before(&self, other: &Entry) -> bool {
        self.value < other.value || (self.value == other.value && self.age < other.age)
    }
}

/// A binary heap that moves equal entries as scikit-image's does: a child rises only past a greater
/// parent, and a parent sinks towards its left child unless the right child is smaller.
#[derive(Default)]
struct Heap {
    entries: Vec<Entry>,
}

impl Heap {
    fn push(&mut self, entry: Entry) {
        let entries = &mut self.entries;
        entries.push(entry);
        let mut child = entries.len() - 1;
        while child > 0 {
            let parent = (child - 1) / 2;
            if !entries[child].before(&entries[parent]) {
                break;
            }
            entries.swap(child, parent);
            child = parent;
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let entries = &mut self.entries;
        if entries.is_empty() {
            return None;
        }
        let top = entries.swap_remove(0);
        let mut parent = 0;
        loop {
            let (left, right) = (2 * parent + 1, 2 * parent + 2);
            let mut least = parent;
            if left < entries.len() && entries[left].before(&entries[least]) {
                least = left;
            }
            if right < entries.len() && entries[right].before(&entries[least]) {
                least = right;
            }
            if least == parent {
                return Some(top);
            }
            entries.swap(parent, least);
            parent = least;
        }
    }
}
