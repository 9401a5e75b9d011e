//! The part of a slide that was asked for, and so the part that is reported.
//!
//! In: polygons, a level-0 box, a drawn mask. Out: whether a nucleus counts, by its centroid, and the
//! region's mm² (measured by [`super::Area`]). It is kept in the store, so that every output has the same nuclei. Never chooses
//! patches: [`super::Area`] does, with a margin.

use serde::{Deserialize, Serialize};

use super::TissueMask;
use super::regions::{Polygons, Regions};

/// What a run was restricted to. A nucleus counts where all that is given holds its centroid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// In level-0 px, edge frame.
    pub polygons: Option<Polygons>,
    /// Left, top, right, bottom, level-0 px.
    pub level0_box: Option<[f64; 4]>,
    /// Whether only what the mask calls tissue counts: somebody drew it.
    pub by_mask: bool,
    /// Area of the region on the slide, tissue or not.
    pub mm2: f64,
    /// Area of the region that the mask calls tissue.
    pub tissue_mm2: f64,
}

impl Region {
    /// Answers whether a point (level-0 px, edge frame) is inside; made once for many points.
    pub fn test<'a>(&self, mask: &'a TissueMask) -> impl Fn([f64; 2]) -> bool + use<'a> {
        let regions = self.polygons.as_deref().map(Regions::from_polygons);
        let (level0_box, by_mask) = (self.level0_box, self.by_mask);
        move |point| {
            level0_box.is_none_or(|b| box_contains(b, point))
                && regions.as_ref().is_none_or(|r| r.contains(point))
                && (!by_mask || mask.contains(point))
        }
    }

    /// The box around polygons and box, clipped to the slide, on whole px.
    pub fn bounds(&self, level0_size_px: [u64; 2]) -> [f64; 4] {
        let mut bounds = [0.0, 0.0, level0_size_px[0] as f64, level0_size_px[1] as f64];
        let mut clip = |b: [f64; 4]| {
            bounds[0] = bounds[0].max(b[0].floor());
            bounds[1] = bounds[1].max(b[1].floor());
            bounds[2] = bounds[2].min(b[2].ceil());
            bounds[3] = bounds[3].min(b[3].ceil());
        };
        if let Some(level0_box) = self.level0_box {
            clip(level0_box);
        }
        if let Some(polygons) = &self.polygons {
            let start = [
                f64::INFINITY,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::NEG_INFINITY,
            ];
            let around = polygons.iter().flatten().flatten().fold(start, |b, p| {
                [
                    b[0].min(p[0]),
                    b[1].min(p[1]),
                    b[2].max(p[0]),
                    b[3].max(p[1]),
                ]
            });
            clip(around);
        }
        bounds
    }

    /// Whether polygons and box have something in common with the slide.
    pub fn is_on_slide(&self, level0_size_px: [u64; 2]) -> bool {
        let [left, top, right, bottom] = self.bounds(level0_size_px);
        left < right && top < bottom
    }
}

/// Half-open: a point on the left or upper side is inside.
pub(super) fn box_contains([left, top, right, bottom]: [f64; 4], [x, y]: [f64; 2]) -> bool {
    x >= left && x < right && y >= top && y < bottom
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [u64; 2] = [400, 300];
    const MPP: [f64; 2] = [0.5, 0.25];

    fn square(left: f64, top: f64, side: f64) -> Vec<Vec<[f64; 2]>> {
        let (right, bottom) = (left + side, top + side);
        vec![vec![
            [left, top],
            [right, top],
            [right, bottom],
            [left, bottom],
        ]]
    }

    fn region(polygons: Option<Polygons>, level0_box: Option<[f64; 4]>) -> Region {
        Region {
            polygons,
            level0_box,
            by_mask: false,
            mm2: 0.0,
            tissue_mm2: 0.0,
        }
    }

    #[test]
    fn a_point_counts_where_all_that_is_given_holds_it() {
        let mut mask = TissueMask::all(SIZE, MPP);
        mask.tissue[0] = false;
        let both = Region {
            by_mask: true,
            ..region(
                Some(vec![square(0.0, 0.0, 200.0)]),
                Some([0.0, 0.0, 100.0, 50.0]),
            )
        };
        let inside = both.test(&mask);
        assert!(inside([99.5, 49.5]));
        assert!(!inside([100.0, 49.5]) && !inside([99.5, 50.0]));
        // The first cell of the mask is no tissue.
        assert!(!inside([1.0, 1.0]));
    }
}
