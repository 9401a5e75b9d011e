//! Boxes of pixels.
//!
//! In: numbers. Out: numbers. A box does not know its frame of coordinates: the name of the
//! variable says it (`_proc_px`, `_level0_px`). Never converts between frames:
//! [`crate::slide::frames`] does.

use serde::{Deserialize, Serialize};

/// A half-open box of pixels: columns `x..x + w`, rows `y..y + h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rect {
    /// First column.
    pub x: i32,
    /// First row.
    pub y: i32,
    /// Width, px.
    pub w: i32,
    /// Height, px.
    pub h: i32,
}

impl Rect {
    /// The box of `w` columns and `h` rows whose upper left pixel is (`x`, `y`).
    pub const fn new(x: i32, y: i32, w: i32, h: i32) -> Self {
        Self { x, y, w, h }
    }

    /// First column right of the box.
    pub const fn right(&self) -> i32 {
        self.x + self.w
    }

    /// First row below the box.
    pub const fn bottom(&self) -> i32 {
        self.y + self.h
    }

    /// Number of pixels inside.
    pub const fn area(&self) -> u64 {
        self.w as u64 * self.h as u64
    }

    /// Whether no pixel is inside.
    pub const fn is_empty(&self) -> bool {
        self.w <= 0 || self.h <= 0
    }

    /// Whether the pixel in column `x` and row `y` is inside.
    pub const fn contains(&self, x: i32, y: i32) -> bool {
        x >= self.x && y >= self.y && x < self.right() && y < self.bottom()
    }

    /// The common part; empty (`w` or `h` 0) if there is none.
    pub fn intersect(&self, other: &Rect) -> Rect {
        let x = self.x.max(other.x);
        let y = self.y.max(other.y);
        let right = self.right().min(other.right());
        let bottom = self.bottom().min(other.bottom());
        Rect::new(x, y, (right - x).max(0), (bottom - y).max(0))
    }

    /// The smallest box around both. Neither may be empty.
    pub fn hull(&self, other: &Rect) -> Rect {
        let x = self.x.min(other.x);
        let y = self.y.min(other.y);
        let right = self.right().max(other.right());
        let bottom = self.bottom().max(other.bottom());
        Rect::new(x, y, right - x, bottom - y)
    }

    /// Whether at least one pixel is in both.
    pub fn meets(&self, other: &Rect) -> bool {
        !self.intersect(other).is_empty()
    }
}
