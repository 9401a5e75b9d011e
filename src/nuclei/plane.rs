//! One blob laid out as small dense planes, and the buffers that hold them from blob to blob.
//!
//! In: a blob's box. Out: a [`Grid`] that says where a pixel of the box lies in a plane, and a
//! [`Scratch`] with the planes. All planes of a blob have the same layout, with a margin wide
//! enough for every kernel, so that no neighbour needs a check. Nothing in a plane is used for the
//! next blob.

use super::bit_plane::BitPlane;
use super::foreground::Run;
use super::sobel::SobelKernel;
use super::watershed::LevelLists;
use crate::geometry::Rect;

/// Pixels that vector loops may read or write past the end of a row.
pub(super) const LANES: usize = 8;

/// Where the pixels of a blob's box lie in its planes, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// The blob's tight box, proc px.
    pub bounds: Rect,
    /// Rows and columns around the box.
    pub margin: usize,
    /// From a pixel to the one below.
    pub stride: usize,
    /// Length of a plane.
    pub len: usize,
    /// µm per px, (x, y).
    pub mpp: [f64; 2],
}

impl Grid {
    pub fn new(bounds: Rect, margin: usize, mpp: [f64; 2]) -> Grid {
        let stride = bounds.w as usize + 2 * margin;
        let rows = bounds.h as usize + 2 * margin;
        Grid {
            bounds,
            margin,
            stride,
            len: stride * rows + LANES,
            mpp,
        }
    }

    /// Index of the pixel at (x, y), proc px, in the box or its margin.
    #[inline]
    pub fn at(&self, x: i32, y: i32) -> usize {
        // In the margin the difference is negative.
        let column = (x - self.bounds.x + self.margin as i32) as usize;
        let row = (y - self.bounds.y + self.margin as i32) as usize;
        row * self.stride + column
    }

    /// Index of the first pixel of a run; the others follow it.
    #[inline]
    pub fn start(&self, run: Run) -> usize {
        self.at(run.x0, run.y)
    }
}

/// Buffers reused from blob to blob by one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub kernel: SobelKernel,
    /// h and v of a band of rows, 0 outside the blob.
    pub h: Vec<f32>,
    pub v: Vec<f32>,
    /// One row after the vertical passes: h smoothed, h derived, v smoothed, v derived.
    pub rows: [Vec<f32>; 4],
    /// Ridge energy, `0..=255`; 255 outside the blob.
    pub energy: Vec<u8>,
    /// Where a marker is, in the blob's box without margin.
    pub marker: BitPlane,
    /// Markers after erosion.
    pub eroded: BitPlane,
    /// Markers on their way to erosion or dilation.
    pub wide: BitPlane,
    /// Smoothed energy of the blob's pixels; anything elsewhere.
    pub level: Vec<u16>,
    /// Label of each pixel; see [`super::watershed`].
    pub label: Vec<u32>,
    /// Runs of markers, and a buffer for filling holes.
    pub runs: Vec<Run>,
    /// For each run, the first run of its component, or the label of its marker.
    pub roots: Vec<u32>,
    /// Pixels of each marker.
    pub counts: Vec<u32>,
    pub lists: LevelLists,
}

/// Larger planes are freed after use, so that one giant blob does not hold its memory for ever, px.
const KEEP_PX: usize = 1 << 22;

impl Scratch {
    /// Frees the planes of an unusually large blob.
    pub fn trim(&mut self) {
        if self.energy.capacity() > KEEP_PX {
            *self = Scratch::default();
        }
    }
}

/// Makes a plane of `len` times `value`.
pub(super) fn reset<T: Copy>(plane: &mut Vec<T>, len: usize, value: T) {
    plane.clear();
    if plane.capacity() < len {
        plane.reserve_exact(len);
        ask_for_large_pages(plane);
    }
    plane.resize(len, value);
}

/// Planes of more bytes are put into large pages, where the system has them: pixels of a watershed
/// are taken all over a plane, and each would wait for the place of its page.
const LARGE_PLANE_BYTES: usize = 8 << 20;

/// Must be called before a plane is written to.
fn ask_for_large_pages<T>(plane: &Vec<T>) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let bytes = plane.capacity() * size_of::<T>();
        if bytes >= LARGE_PLANE_BYTES {
            let from = plane.as_ptr().addr().next_multiple_of(PAGE);
            let end = plane.as_ptr().addr() + bytes;
            // SAFETY: the pages lie within the plane's memory, and advice changes no byte of them. A
            // system that refuses it only leaves small pages.
            unsafe { libc::madvise(from as *mut _, end - from, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = plane;
}

/// `runs`, in raster order; runs of one row that are less than `gap` px apart are joined.
pub(super) fn spans(runs: &[Run], gap: i32) -> impl Iterator<Item = Run> + '_ {
    let mut runs = runs.iter().copied().peekable();
    std::iter::from_fn(move || {
        let mut span = runs.next()?;
        while let Some(next) = runs.next_if(|next| next.y == span.y && next.x0 - span.x1 < gap) {
            span.x1 = next.x1;
        }
        Some(span)
    })
}
