//! Marker-controlled watershed, twice: on a blob's integer energy, and on a whole map's `f64` as scikit-image does.
//!
//! In: energies and a plane of labels in which markers have theirs, [`UNLABELLED`] pixels have none yet and
//! [`OUTSIDE`] pixels never get one. Out: the same plane with every pixel labelled that a marker can reach. Pixels
//! are taken in order of (level, age), level being the highest energy met on the way (Meyer 1991), neighbours in the
//! order up, left, right, down; a pixel gets its label when it is first met.

use super::foreground::Run;
use super::plane::Grid;

pub(super) const UNLABELLED: u32 = 0;
pub(super) const OUTSIDE: u32 = u32::MAX;

/// Levels of the smoothed energy: a 3x3 kernel of sum 16 over bytes.
const LEVELS: usize = 16 * 255 + 1;

const NONE: u32 = u32::MAX;

/// First-in-first-out queues, one a level, as linked lists through one array.
#[derive(Default)]
pub(super) struct LevelQueue {
    first: Vec<u32>,
    last: Vec<u32>,
    next: Vec<u32>,
}

impl LevelQueue {
    fn start(&mut self, len: usize) {
        // Every list is empty again when a flood ends.
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

/// Floods one blob. `energy` is 255 outside it; its 3x3 binomial (Gaussian) mean is what is flooded.
///
/// `markers` are the runs whose pixels have their labels already, in raster order, which is their age.
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
            // The others have nothing to give.
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

/// Floods a padded map in place: scikit-image 0.26's order, ties included.
///
/// Markers all have age 0 there, so among equals it is the heap's own structure that decides; the same heap is built
/// here. `label` and `value` have one pixel of margin, whose label is [`OUTSIDE`].
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

/// A binary heap that moves equal entries as scikit-image's does: a child rises only past a greater parent, a parent
/// sinks towards its left child unless the right one is smaller.
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
