//! The three frames and the only place that converts between them.
//!
//! `level0` px: canonical, origin at level-0 (0, 0). `proc` px: the model's µm/px. µm. Pixel (i, j) covers
//! [i, i+1) x [j, j+1) in either pixel frame (edge frame).

use serde::{Deserialize, Serialize};

use crate::geometry::Rect;

/// How a slide's level-0 pixels, the model's proc pixels and µm relate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    /// Level-0 width and height, px.
    pub level0_size_px: [u64; 2],
    /// Level-0 µm/px in x and y.
    pub level0_mpp: [f64; 2],
    /// Proc width and height, px: `max(1, round(level0 * proc_per_level0))`.
    pub proc_size_px: [i32; 2],
    /// Proc px a level-0 px, x and y.
    pub proc_per_level0: [f64; 2],
}

impl Frames {
    /// µm a proc px, x and y. Equals the model's µm/px, or the level's where they differ by less than the snap
    /// tolerance (then no pixel is resampled).
    pub fn proc_mpp(&self) -> [f64; 2] {
        [
            self.level0_mpp[0] / self.proc_per_level0[0],
            self.level0_mpp[1] / self.proc_per_level0[1],
        ]
    }

    /// The slide's extent in proc px.
    pub fn proc_rect(&self) -> Rect {
        Rect::new(0, 0, self.proc_size_px[0], self.proc_size_px[1])
    }

    /// mm² of `px` proc pixels.
    pub fn mm2(&self, proc_px: u64) -> f64 {
        let [x, y] = self.proc_mpp();
        proc_px as f64 * x * y / 1e6
    }

    /// A point of the proc edge frame in the level-0 edge frame.
    pub fn to_level0(&self, x_proc: f64, y_proc: f64) -> [f64; 2] {
        [
            x_proc / self.proc_per_level0[0],
            y_proc / self.proc_per_level0[1],
        ]
    }

    /// A point of the level-0 edge frame in the proc edge frame.
    pub fn to_proc(&self, x_level0: f64, y_level0: f64) -> [f64; 2] {
        [
            x_level0 * self.proc_per_level0[0],
            y_level0 * self.proc_per_level0[1],
        ]
    }
}
