//! Which pyramid level to read.
//!
//! In: the levels and the scale wanted. Out: an index. Never picks a level that is too coarse where
//! a finer one exists.

use super::Level;

/// Relative difference of scale up to which a level may be coarser than wanted, and up to which its
/// pixels are used without resampling.
pub const SCALE_TOLERANCE: f64 = 0.05;

/// Level-0 px per px of `level`, x and y: exactly the ratio of the sizes (a reader's own
/// `downsample` is the mean of both).
pub fn level0_per_level(levels: &[Level], level: usize) -> [f64; 2] {
    match (levels.first(), levels.get(level)) {
        (Some(zero), Some(l)) => [
            zero.width_px as f64 / l.width_px.max(1) as f64,
            zero.height_px as f64 / l.height_px.max(1) as f64,
        ],
        _ => [1.0; 2],
    }
}

/// The coarsest level that is at least as fine as `level0_per_px` level-0 px per px, with 5 %
/// tolerance; level 0 if none is.
pub fn coarsest_fine_enough(levels: &[Level], level0_per_px: [f64; 2]) -> usize {
    let ratio = |level| level0_per_level(levels, level);
    (0..levels.len())
        .filter(|&level| {
            let [x, y] = ratio(level);
            let [wanted_x, wanted_y] = level0_per_px.map(|wanted| wanted * (1.0 + SCALE_TOLERANCE));
            x <= wanted_x && y <= wanted_y
        })
        .max_by(|&a, &b| {
            let area = |level| ratio(level).iter().product::<f64>();
            // Of levels of the same size, the first.
            area(a).total_cmp(&area(b)).then(b.cmp(&a))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slide::testing::slide_info;

    #[test]
    fn picks_the_coarsest_that_is_fine_enough() {
        let levels = slide_info(&[[10_000, 8000], [2500, 2000], [625, 500]]).levels;
        let pick = |px: f64| coarsest_fine_enough(&levels, [px, px]);
        assert_eq!(pick(0.5), 0);
        assert_eq!(pick(1.0), 0);
        assert_eq!(pick(3.7), 0);
        assert_eq!(pick(3.9), 1);
        assert_eq!(pick(15.0), 1);
        assert_eq!(pick(1000.0), 2);
        assert_eq!(coarsest_fine_enough(&[], [1.0, 1.0]), 0);
    }
}
