//! The three frames and the only place that converts between them.
//!
//! The frames are level-0 px (canonical, origin at level-0 (0, 0)), proc px (the model's µm/px),
//! and µm. Pixel (i, j) covers [i, i+1) x [j, j+1) in either pixel frame (edge frame).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::level::{SCALE_TOLERANCE, coarsest_fine_enough, level0_per_level};
use super::{Level, SlideError, SlideInfo};
use crate::geometry::Rect;

/// Largest side of a slide, proc px: sums of two coordinates still fit into i32.
pub const MAX_PROC_SIDE_PX: i32 = 1 << 30;
/// Most level px per proc px: a block's source window (512 times as wide) must fit in memory.
pub const MAX_LEVEL_PX_PER_PROC: f64 = 16.0;
/// A slide whose level 0 is coarser shows a nucleus as 3 px or fewer.
pub const COARSEST_UM_PER_PX: f64 = 2.0;

/// How a slide's level-0 pixels, the model's proc pixels and µm relate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    /// Level-0 width and height, px.
    pub level0_size_px: [u64; 2],
    /// Level-0 µm/px in x and y.
    pub level0_mpp: [f64; 2],
    /// Proc width and height, px: `max(1, round(level0 * proc_per_level0))`.
    pub proc_size_px: [i32; 2],
    /// Proc px per level-0 px, x and y.
    pub proc_per_level0: [f64; 2],
}

impl Frames {
    /// The frames of a slide for a model of `model_mpp` µm/px, and the level its proc px come from.
    ///
    /// The level is the coarsest that is at least as fine as the model (5 % tolerance). Where it is
    /// within 5 % of the model, proc px are that level's px and nothing is resampled; otherwise
    /// they are resampled to the model's µm/px (enlarged if even level 0 is coarser). Sizes beyond
    /// 2^30 px per side are clamped: [`Frames::for_slide`] refuses them.
    pub fn new(
        level0_size_px: [u64; 2],
        level0_mpp: [f64; 2],
        model_mpp: f64,
        levels: &[Level],
    ) -> (Self, usize) {
        let level = coarsest_fine_enough(levels, level0_mpp.map(|mpp| model_mpp / mpp));
        let level0_per_level = level0_per_level(levels, level);
        let axis = |i: usize| (level0_mpp[i], level0_per_level[i], level0_size_px[i] as f64);
        let axes = [axis(0), axis(1)];
        let same_scale = axes
            .iter()
            .all(|(mpp, ratio, _)| (mpp * ratio / model_mpp - 1.0).abs() <= SCALE_TOLERANCE);
        let proc_per_level0 = axes.map(|(mpp, ratio, _)| {
            if same_scale {
                1.0 / ratio
            } else {
                mpp / model_mpp
            }
        });
        let size = |px: f64, scale: f64| {
            (px * scale).round().clamp(1.0, f64::from(MAX_PROC_SIDE_PX)) as i32
        };
        let frames = Self {
            level0_size_px,
            level0_mpp,
            proc_size_px: [
                size(axes[0].2, proc_per_level0[0]),
                size(axes[1].2, proc_per_level0[1]),
            ],
            proc_per_level0,
        };
        (frames, level)
    }

    /// [`Frames::new`] for an opened slide, checked.
    ///
    /// # Errors
    /// [`SlideError::Invalid`] if the scales are so far apart that the slide would have more than
    /// 2^30 proc px per side, or that a block's source would not fit in memory: then the µm/px is
    /// wrong.
    pub fn for_slide(
        info: &SlideInfo,
        level0_mpp: [f64; 2],
        model_mpp: f64,
    ) -> Result<(Self, usize), SlideError> {
        let size_px = info
            .levels
            .first()
            .map_or([0, 0], |l| [l.width_px, l.height_px]);
        let (frames, level) = Self::new(size_px, level0_mpp, model_mpp, &info.levels);
        let level_px = frames.level_per_proc(&info.levels, level);
        let too_fine = level_px.iter().any(|&s| s > MAX_LEVEL_PX_PER_PROC);
        let too_large = frames.proc_size_px.contains(&MAX_PROC_SIDE_PX);
        if too_fine || too_large {
            let [x, y] = level0_mpp;
            let reason = format!(
                "{x} x {y} µm/px is too far from the model's {model_mpp} for {} x {} px: check --mpp",
                size_px[0], size_px[1]
            );
            return Err(SlideError::invalid(&info.path, reason));
        }
        Ok((frames, level))
    }

    /// Px of `level` per proc px, x and y; exactly 1 where proc px are that level's px.
    pub fn level_per_proc(&self, levels: &[Level], level: usize) -> [f64; 2] {
        let [x, y] = level0_per_level(levels, level);
        let per_proc = |ratio: f64, proc_per_level0: f64| {
            let px = 1.0 / (proc_per_level0 * ratio);
            if (px - 1.0).abs() < 1e-12 { 1.0 } else { px }
        };
        [
            per_proc(x, self.proc_per_level0[0]),
            per_proc(y, self.proc_per_level0[1]),
        ]
    }

    /// A warning where the slide is much coarser than the model expects.
    pub fn scale_warning(&self, model_mpp: f64) -> Option<String> {
        let coarsest = self.level0_mpp[0].max(self.level0_mpp[1]);
        (coarsest > 2.0 * model_mpp).then(|| {
            format!(
                "the slide has {coarsest} µm/px, the model expects {model_mpp}: \
                 it is enlarged, and most nuclei will be missed"
            )
        })
    }

    /// Refuses a slide on which nuclei cannot be seen, unless `force`.
    ///
    /// # Errors
    /// [`SlideError::Invalid`] beyond 2 µm/px.
    pub fn refuse_coarse(&self, path: &Path, force: bool) -> Result<(), SlideError> {
        let coarsest = self.level0_mpp[0].max(self.level0_mpp[1]);
        if force || coarsest <= COARSEST_UM_PER_PX {
            return Ok(());
        }
        let reason = format!(
            "its finest level has {coarsest} µm/px: beyond {COARSEST_UM_PER_PX} µm/px nuclei cannot be told apart, and \
             enlarging it takes long for nothing; scan it at 20x or 40x, correct the scale with --mpp if it is wrong, or \
             take --force-scale to run it all the same"
        );
        Err(SlideError::invalid(path, reason))
    }

    /// A proc box in level-0 px, edge frame: left, top, right, bottom.
    pub fn rect_to_level0(&self, rect_proc: Rect) -> [f64; 4] {
        let [left, top] = self.to_level0(rect_proc.x.into(), rect_proc.y.into());
        let [right, bottom] = self.to_level0(
            f64::from(rect_proc.x) + f64::from(rect_proc.w),
            f64::from(rect_proc.y) + f64::from(rect_proc.h),
        );
        [left, top, right, bottom]
    }

    /// µm per proc px, x and y: the model's µm/px, or the level's where the two differ by less than
    /// 5 % (then no pixel is resampled).
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

    /// Area of `proc_px` proc pixels, mm².
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slide::testing::slide_info;

    #[test]
    fn a_level_near_the_model_is_taken_as_it_is() {
        let info = slide_info(&[[10_001, 8003], [2500, 2000]]);
        // Level 1 has 4.0004 x 4.0015 level-0 px per px: 0.25 µm/px -> 1.0001.
        let (frames, level) = Frames::for_slide(&info, [0.25, 0.25], 1.0).unwrap();
        assert_eq!(level, 1);
        assert_eq!(frames.proc_size_px, [2500, 2000]);
        assert_eq!(frames.level_per_proc(&info.levels, level), [1.0, 1.0]);
        let [x, y] = frames.to_level0(2500.0, 2000.0);
        assert!((x - 10_001.0).abs() < 1e-6 && (y - 8003.0).abs() < 1e-6);
        // 4 % off: still as it is, and the frames say so.
        let (frames, level) = Frames::for_slide(&info, [0.26, 0.26], 0.25).unwrap();
        assert_eq!((level, frames.proc_size_px), (0, [10_001, 8003]));
        assert!((frames.proc_mpp()[0] - 0.26).abs() < 1e-12);
    }

    #[test]
    fn other_scales_are_resampled_from_the_next_finer_level() {
        let info = slide_info(&[[10_001, 8003], [2500, 2000]]);
        let (frames, level) = Frames::for_slide(&info, [0.25, 0.25], 0.5).unwrap();
        assert_eq!((level, frames.proc_size_px), (0, [5001, 4002]));
        assert_eq!(frames.proc_per_level0, [0.5, 0.5]);
        let (frames, level) = Frames::for_slide(&info, [0.25, 0.25], 1.5).unwrap();
        assert_eq!((level, frames.proc_size_px), (1, [1667, 1334]));
        assert!((frames.proc_mpp()[1] - 1.5).abs() < 1e-12);
        // Even level 0 is too coarse: enlarged.
        let (frames, level) = Frames::for_slide(&info, [0.5, 0.5], 0.25).unwrap();
        assert_eq!((level, frames.proc_size_px), (0, [20_002, 16_006]));
    }

    #[test]
    fn unequal_axes_keep_their_own_scale() {
        let info = slide_info(&[[1000, 1000]]);
        let (frames, _) = Frames::for_slide(&info, [0.25, 0.5], 0.5).unwrap();
        assert_eq!(frames.proc_size_px, [500, 1000]);
        assert_eq!(frames.proc_mpp(), [0.5, 0.5]);
    }

    #[test]
    fn one_pixel_stays_one_and_absurd_scales_are_refused() {
        let (frames, _) = Frames::for_slide(&slide_info(&[[1, 1]]), [0.1, 0.1], 0.5).unwrap();
        assert_eq!(frames.proc_size_px, [1, 1]);
        for mpp in [0.01, 1000.0] {
            let error =
                Frames::for_slide(&slide_info(&[[900_000, 9]]), [mpp, mpp], 0.25).unwrap_err();
            assert!(error.to_string().contains("--mpp"), "{error}");
        }
    }
}
