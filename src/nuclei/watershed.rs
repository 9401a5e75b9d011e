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

/// Planes of more pixels do not fit a core's cache: each pixel that is taken waits for memory,
/// unless it is fetched ahead of its turn.
const CACHED_PX: usize = 1 << 17;

/// So many pixels before its turn the surroundings of a pixel are fetched.
const FETCH_AHEAD: usize = 16;

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
    smooth_energy(blob, grid, scratch);
    if grid.len <= CACHED_PX {
        flood_by_lists(grid, scratch);
    } else {
        flood_by_arrays(grid, scratch);
    }
}

/// Fills `scratch.level` of the blob's pixels with 16 times the mean of the energy under the kernel
/// [1 2 1] x [1 2 1] / 16. The energy is 255 outside the blob.
pub(super) fn smooth_energy(blob: &Foreground, grid: &Grid, scratch: &mut Scratch) {
    if scratch.level.len() < grid.len {
        reset(&mut scratch.level, grid.len, 0);
    }
    for &run in &blob.runs {
        let at = grid.start(run);
        let row = |at: usize| scratch.energy[at - 1..at + run.len() + 1].windows(3);
        let rows = row(at - grid.stride)
            .zip(row(at))
            .zip(row(at + grid.stride));
        let levels = &mut scratch.level[at..at + run.len()];
        for (level, ((above, here), below)) in levels.iter_mut().zip(rows) {
            let column =
                |x: usize| u16::from(above[x]) + 2 * u16::from(here[x]) + u16::from(below[x]);
            *level = column(0) + 2 * column(1) + column(2);
        }
    }
}

/// First-in-first-out queues, one per level, as linked lists through one array.
#[derive(Default)]
pub(super) struct LevelLists {
    first: Vec<u32>,
    last: Vec<u32>,
    next: Vec<u32>,
    /// One bit per level: whether its list has a pixel.
    filled: Vec<u64>,
}

impl LevelLists {
    fn start(&mut self, len: usize) {
        // No list needs clearing: all are empty when a flood ends.
        self.first.resize(LEVELS, NONE);
        self.last.resize(LEVELS, NONE);
        self.filled.resize(LEVELS.div_ceil(64), 0);
        if self.next.len() < len {
            self.next.resize(len, NONE);
        }
    }

    #[inline]
    fn push(&mut self, level: usize, pixel: u32) {
        self.next[pixel as usize] = NONE;
        if self.first[level] == NONE {
            self.first[level] = pixel;
            self.filled[level / 64] |= 1 << (level % 64);
        } else {
            self.next[self.last[level] as usize] = pixel;
        }
        self.last[level] = pixel;
    }

    #[inline]
    fn pop(&mut self, level: usize) -> Option<u32> {
        let pixel = self.first[level];
        if pixel == NONE {
            self.filled[level / 64] &= !(1 << (level % 64));
            return None;
        }
        self.first[level] = self.next[pixel as usize];
        Some(pixel)
    }

    /// The lowest level whose list has a pixel; none below `level` has.
    fn lowest_from(&self, level: usize) -> Option<usize> {
        let word = (level / 64..self.filled.len()).find(|&word| self.filled[word] != 0)?;
        Some(64 * word + self.filled[word].trailing_zeros() as usize)
    }
}

/// Floods a plane that fits a cache. `scratch.runs` are the runs whose pixels have labels already,
/// in raster order, which is their age.
pub(super) fn flood_by_lists(grid: &Grid, scratch: &mut Scratch) {
    let Scratch {
        level: levels,
        label,
        lists,
        runs,
        ..
    } = scratch;
    lists.start(grid.len);
    for pixel in border_pixels(runs, label, grid) {
        lists.push(levels[pixel].into(), pixel as u32);
    }
    let mut from = 0;
    while let Some(level) = lists.lowest_from(from) {
        while let Some(pixel) = lists.pop(level) {
            let pixel = pixel as usize;
            for n in neighbours(pixel, grid.stride) {
                if label[n] == UNLABELLED {
                    label[n] = label[pixel];
                    lists.push(usize::from(levels[n]).max(level), n as u32);
                }
            }
        }
        from = level;
    }
}

/// As [`flood_by_lists`], with one array per level: the pixels whose turn comes next are known, so
/// that their surroundings are fetched from memory meanwhile.
pub(super) fn flood_by_arrays(grid: &Grid, scratch: &mut Scratch) {
    let (levels, label) = (&scratch.level, &mut scratch.label);
    let mut queues: Vec<Vec<u32>> = vec![Vec::new(); LEVELS];
    for pixel in border_pixels(&scratch.runs, label, grid) {
        queues[usize::from(levels[pixel])].push(pixel as u32);
    }
    for level in 0..LEVELS {
        // Its pixels are done when the loop ends, so their memory goes back then.
        let mut queue = std::mem::take(&mut queues[level]);
        let mut turn = 0;
        while let Some(&pixel) = queue.get(turn) {
            if let Some(&ahead) = queue.get(turn + FETCH_AHEAD) {
                let ahead = ahead as usize;
                for n in [ahead - grid.stride, ahead, ahead + grid.stride] {
                    fetch(label, n);
                    fetch(levels, n);
                }
            }
            turn += 1;
            let pixel = pixel as usize;
            for n in neighbours(pixel, grid.stride) {
                if label[n] == UNLABELLED {
                    label[n] = label[pixel];
                    match usize::from(levels[n]) {
                        higher if higher > level => queues[higher].push(n as u32),
                        _ => queue.push(n as u32),
                    }
                }
            }
        }
    }
}

/// The pixels of labelled `runs` that have a neighbour without label. The others have nothing to
/// pass their label on to.
fn border_pixels<'a>(
    runs: &'a [Run],
    label: &'a [u32],
    grid: &'a Grid,
) -> impl Iterator<Item = usize> + 'a {
    let pixels = runs.iter().flat_map(|run| {
        let from = grid.start(*run);
        from..from + run.len()
    });
    let is_border = |pixel: &usize| {
        let around = neighbours(*pixel, grid.stride);
        around.iter().any(|&n| label[n] == UNLABELLED)
    };
    pixels.filter(is_border)
}

#[inline(always)]
fn neighbours(pixel: usize, stride: usize) -> [usize; 4] {
    [pixel - stride, pixel - 1, pixel + 1, pixel + stride]
}

/// Asks for the memory of one value of a plane, and does not wait for it.
#[inline(always)]
fn fetch<T>(plane: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = plane.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching changes no value, and the address is one of the plane's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (plane, at);
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
