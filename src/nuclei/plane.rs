//! One blob laid out as small dense planes, and the buffers that hold them from blob to blob.
//!
//! In: a blob. Out: a [`Grid`] that says where a pixel of the blob's box lies in a plane, and a [`Scratch`] with the
//! planes. Every plane of a blob has the same geometry, with a margin wide enough for every kernel, so that no
//! neighbour needs a check. Never holds anything that outlives the blob.

use super::foreground::{Foreground, Run};
use super::sobel::SobelKernel;
use super::watershed::LevelQueue;
use crate::geometry::Rect;

/// Pixels that vector loops may read or write past the end of a row.
pub(super) const LANES: usize = 8;

/// Where the pixels of a blob's box lie in its planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    /// The blob's tight box, proc px.
    pub bounds: Rect,
    /// Rows and columns around the box.
    pub margin: usize,
    /// From a pixel to the one below.
    pub stride: usize,
    /// Length of a plane.
    pub len: usize,
}

impl Grid {
    pub fn new(bounds: Rect, margin: usize) -> Grid {
        let stride = bounds.w as usize + 2 * margin;
        let rows = bounds.h as usize + 2 * margin;
        Grid {
            bounds,
            margin,
            stride,
            len: stride * rows + LANES,
        }
    }

    /// Index of the pixel at (x, y), proc px.
    #[inline]
    pub fn at(&self, x: i32, y: i32) -> usize {
        let column = (x - self.bounds.x) as usize + self.margin;
        let row = (y - self.bounds.y) as usize + self.margin;
        row * self.stride + column
    }

    /// First index of a run; its pixels follow.
    #[inline]
    pub fn start(&self, run: Run) -> usize {
        self.at(run.x0, run.y)
    }
}

/// Buffers reused from blob to blob by one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub kernel: SobelKernel,
    /// h and v, 0 outside the blob.
    pub h: Vec<f32>,
    pub v: Vec<f32>,
    /// A row of h and v after the vertical passes: smoothed and derived.
    pub rows: [Vec<f32>; 4],
    /// Ridge energy, `0..=255`; 255 outside the blob.
    pub energy: Vec<u8>,
    /// 1 where a marker is.
    pub marker: Vec<u8>,
    /// Markers after erosion.
    pub eroded: Vec<u8>,
    /// Label of each pixel; see [`super::watershed`].
    pub label: Vec<u32>,
    pub runs: Vec<Run>,
    pub roots: Vec<u32>,
    pub counts: Vec<u32>,
    pub queue: LevelQueue,
}

/// Planes larger than this are given back after use, so that one giant blob does not hold its memory for ever.
const KEEP_PX: usize = 1 << 22;

impl Scratch {
    /// Frees what an unusually large blob needed.
    pub fn trim(&mut self) {
        if self.energy.capacity() > KEEP_PX {
            *self = Scratch::default();
        }
    }
}

/// A plane of `len` times `value`.
pub(super) fn reset<T: Copy>(plane: &mut Vec<T>, len: usize, value: T) {
    plane.clear();
    plane.resize(len, value);
}

/// The runs of each row of `blob`, runs less than `gap` px apart taken as one.
pub(super) fn spans(blob: &Foreground, gap: i32) -> impl Iterator<Item = Run> + '_ {
    let mut runs = blob.runs.iter().copied().peekable();
    std::iter::from_fn(move || {
        let mut span = runs.next()?;
        while let Some(next) = runs.next_if(|next| next.y == span.y && next.x0 - span.x1 < gap) {
            span.x1 = next.x1;
        }
        Some(span)
    })
}
