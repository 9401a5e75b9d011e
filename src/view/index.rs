//! What a view gets: which nuclei, and in how much detail.
//!
//! In: every nucleus's box and centroid, level-0 px, once; then boxes of the slide and what a screen px is. Out: places
//! to be drawn as outlines or points, or counts in cells, never more than a page can draw at once. Nothing is left out:
//! where there are too many for one kind of drawing, the next coarser kind holds them all.

use std::collections::BTreeMap;

use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

/// Most nuclei drawn as outlines.
pub const MOST_OUTLINES: usize = 3000;
/// Most nuclei drawn as points.
pub const MOST_POINTS: usize = 20_000;
/// A nucleus of median size that is narrower, screen px, is no outline but a point.
const LEAST_OUTLINE_PX: f64 = 5.0;
/// Side of a density cell, screen px at least.
const CELL_PX: f64 = 8.0;
/// Most density cells over a view, and so, nearly, in an answer.
const MOST_CELLS: f64 = 32_768.0;

/// What a page looks at, level-0 px, edge frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewBox {
    /// Left and top.
    pub min: [f64; 2],
    /// Right and bottom.
    pub max: [f64; 2],
    /// Level-0 px a screen px.
    pub level0_per_px: f64,
}

/// A nucleus as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot {
    /// Left and top, level-0 px.
    pub min: [f32; 2],
    /// Right and bottom, level-0 px.
    pub max: [f32; 2],
    /// Level-0 px.
    pub centroid: [f32; 2],
    pub type_id: Option<usize>,
}

/// Nuclei in cells of one grid, whose lines do not depend on the view.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Density {
    /// Level-0 px: a power of two.
    pub cell_px: f64,
    /// By column and row from level-0 (0, 0): nuclei whose centroid lies there, and the type most of them have.
    pub cells: BTreeMap<(i64, i64), (u32, Option<usize>)>,
}

/// How the nuclei of a view are drawn. Places are sorted.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    Outlines(Vec<usize>),
    Points(Vec<usize>),
    Density(Density),
}

/// What a view gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Wanted nuclei whose box meets the view.
    pub count: usize,
    pub detail: Detail,
}

/// All nuclei of a slide by where they are.
pub struct Index {
    spots: Vec<Spot>,
    tree: RTree<GeomWithData<Rectangle<[f32; 2]>, u32>>,
    /// Of all boxes, level-0 px.
    extent: [[f32; 2]; 2],
    /// Median of the boxes' longer sides, level-0 px.
    median_side_px: f64,
}

impl Index {
    /// An index over the nuclei in the order of their places.
    pub fn new(spots: Vec<Spot>) -> Self {
        let boxes = (0u32..).zip(&spots);
        let tree = RTree::bulk_load(
            boxes
                .map(|(place, s)| GeomWithData::new(Rectangle::from_corners(s.min, s.max), place))
                .collect(),
        );
        let corners = |corner: fn(&Spot) -> [f32; 2], better: fn(f32, f32) -> f32, worst: f32| {
            spots
                .iter()
                .map(corner)
                .fold([worst; 2], |[x, y], [a, b]| [better(x, a), better(y, b)])
        };
        let extent = [
            corners(|s| s.min, f32::min, f32::INFINITY),
            corners(|s| s.max, f32::max, f32::NEG_INFINITY),
        ];
        let mut sides: Vec<f32> = spots
            .iter()
            .map(|s| (s.max[0] - s.min[0]).max(s.max[1] - s.min[1]))
            .collect();
        let middle = sides.len() / 2;
        let median_side_px = match sides.is_empty() {
            true => 0.0,
            false => f64::from(*sides.select_nth_unstable_by(middle, f32::total_cmp).1),
        };
        Self {
            spots,
            tree,
            extent,
            median_side_px,
        }
    }

    /// The nucleus at a place.
    pub fn spot(&self, place: usize) -> Option<&Spot> {
        self.spots.get(place)
    }

    /// The nuclei in order of their places.
    pub fn spots(&self) -> &[Spot] {
        &self.spots
    }

    /// What the view gets of the nuclei that `keeps` accepts by their place.
    pub fn look(&self, view: &ViewBox, keeps: impl Fn(usize) -> bool) -> Shown {
        let mut places = self.meeting(view.min, view.max);
        places.retain(|&place| keeps(place));
        let count = places.len();
        let near = self.median_side_px >= LEAST_OUTLINE_PX * view.level0_per_px;
        let detail = if near && count <= MOST_OUTLINES {
            places.sort_unstable();
            Detail::Outlines(places)
        } else if count <= MOST_POINTS {
            places.sort_unstable();
            Detail::Points(places)
        } else {
            Detail::Density(self.density(view, &places))
        };
        Shown { count, detail }
    }

    /// Places of all nuclei whose box meets the box, in no order.
    pub fn meeting(&self, min: [f64; 2], max: [f64; 2]) -> Vec<usize> {
        let [min, max] = [min, max].map(|corner| corner.map(|v| v as f32));
        // From far away the view holds everything: then the tree would only be a slow list.
        let all = (0..2)
            .all(|axis| min[axis] <= self.extent[0][axis] && max[axis] >= self.extent[1][axis]);
        if all {
            return (0..self.spots.len()).collect();
        }
        let found = self
            .tree
            .locate_in_envelope_intersecting(&AABB::from_corners(min, max));
        found.map(|spot| spot.data as usize).collect()
    }

    fn density(&self, view: &ViewBox, places: &[usize]) -> Density {
        let cell_px = cell_px(view);
        let mut counts: BTreeMap<(i64, i64), BTreeMap<Option<usize>, u32>> = BTreeMap::new();
        for spot in places.iter().filter_map(|&place| self.spot(place)) {
            let [column, row] = spot
                .centroid
                .map(|v| (f64::from(v) / cell_px).floor() as i64);
            let cell = counts.entry((column, row)).or_default();
            *cell.entry(spot.type_id).or_default() += 1;
        }
        let sum_up = |types: BTreeMap<Option<usize>, u32>| {
            let most = types.iter().rev().max_by_key(|(_, n)| **n);
            (types.values().sum(), most.and_then(|(kind, _)| *kind))
        };
        let cells = counts.into_iter().map(|(at, types)| (at, sum_up(types)));
        Density {
            cell_px,
            cells: cells.collect(),
        }
    }
}

/// Side of a density cell, level-0 px: a power of two, so that cells stay where they are while the view moves.
fn cell_px(view: &ViewBox) -> f64 {
    let mut side = (CELL_PX * view.level0_per_px).max(1.0).log2().ceil().exp2();
    let cells = |side: f64| {
        let along = |axis: usize| (view.max[axis] - view.min[axis]).max(0.0) / side;
        along(0) * along(1)
    };
    while side.is_finite() && cells(side) > MOST_CELLS {
        side *= 2.0;
    }
    side
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes of 10 to 30 px in a square.
    fn spots(n: usize, side: f32) -> Vec<Spot> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..n)
            .map(|i| {
                let min = [rng.f32() * side, rng.f32() * side];
                let size = 10.0 + 20.0 * rng.f32();
                Spot {
                    min,
                    max: min.map(|v| v + size),
                    centroid: min.map(|v| v + size / 2.0),
                    type_id: (i % 4 > 0).then_some(i % 4),
                }
            })
            .collect()
    }

    fn view(min: [f64; 2], side: f64, screen_px: f64) -> ViewBox {
        ViewBox {
            min,
            max: min.map(|v| v + side),
            level0_per_px: side / screen_px,
        }
    }

    /// The same without a tree.
    fn by_hand(spots: &[Spot], v: &ViewBox, keeps: impl Fn(usize) -> bool) -> Vec<usize> {
        let meets = |s: &Spot| {
            (0..2).all(|a| f64::from(s.min[a]) <= v.max[a] && f64::from(s.max[a]) >= v.min[a])
        };
        (0..spots.len())
            .filter(|&i| meets(&spots[i]) && keeps(i))
            .collect()
    }

    #[test]
    fn a_view_gets_what_lies_in_it_and_nothing_else() {
        let spots = spots(5000, 4000.0);
        let index = Index::new(spots.clone());
        let mut rng = fastrand::Rng::with_seed(3);
        for round in 0..200 {
            let side = f64::from(rng.f32() * 3000.0);
            let min = [0, 1].map(|_| f64::from(rng.f32() * 4500.0 - 400.0).round());
            let v = view(min, side.round(), 1000.0);
            let keeps = |i: usize| round < 100 || i.is_multiple_of(3);
            let expected = by_hand(&spots, &v, keeps);
            let shown = index.look(&v, keeps);
            assert_eq!(shown.count, expected.len(), "{v:?}");
            match shown.detail {
                Detail::Outlines(places) | Detail::Points(places) => assert_eq!(places, expected),
                Detail::Density(_) => panic!("few enough for points"),
            }
        }
    }

    #[test]
    fn detail_follows_size_on_screen_and_number() {
        let index = Index::new(spots(60_000, 10_000.0));
        let detail = |side: f64, screen_px: f64| match index
            .look(&view([0.0; 2], side, screen_px), |_| true)
            .detail
        {
            Detail::Outlines(places) => {
                assert!(places.len() <= MOST_OUTLINES);
                "outlines"
            }
            Detail::Points(places) => {
                assert!(places.len() <= MOST_POINTS);
                "points"
            }
            Detail::Density(_) => "density",
        };
        assert_eq!(detail(1000.0, 1000.0), "outlines");
        // Large enough on the screen, but too many.
        assert_eq!(detail(4000.0, 4000.0), "points");
        // Few, but too small.
        assert_eq!(detail(1000.0, 100.0), "points");
        assert_eq!(detail(9000.0, 1000.0), "density");
    }

    #[test]
    fn density_counts_every_nucleus_once_and_names_the_most_frequent_type() {
        let spots = spots(60_000, 10_000.0);
        let index = Index::new(spots.clone());
        let v = view([-100.0; 2], 10_300.0, 1000.0);
        let keeps = |i: usize| !i.is_multiple_of(5);
        let shown = index.look(&v, keeps);
        let Detail::Density(density) = shown.detail else {
            panic!("too many for points")
        };
        assert_eq!(density.cell_px, 128.0);
        let total: u32 = density.cells.values().map(|(n, _)| n).sum();
        assert_eq!(total as usize, shown.count);
        for (&(column, row), &(count, kind)) in density.cells.iter().take(500) {
            let here: Vec<&Spot> = (0..spots.len())
                .filter(|&i| keeps(i))
                .map(|i| &spots[i])
                .filter(|s| s.centroid.map(|c| (c / 128.0).floor() as i64) == [column, row])
                .collect();
            assert_eq!(here.len() as u32, count);
            let of = |kind| here.iter().filter(|s| s.type_id == kind).count();
            let kinds = [None, Some(1), Some(2), Some(3)];
            assert_eq!(of(kind), kinds.map(of).into_iter().max().unwrap());
        }
    }

    #[test]
    fn cells_stay_few_and_keep_their_places() {
        let huge = ViewBox {
            min: [0.0; 2],
            max: [200_000.0; 2],
            level0_per_px: 1.0,
        };
        let side = cell_px(&huge);
        assert!((200_000.0 / side).powi(2) <= MOST_CELLS && side.log2().fract() == 0.0);
    }

    #[test]
    fn no_nucleus_is_no_error() {
        let shown = Index::new(Vec::new()).look(&view([0.0; 2], 10.0, 10.0), |_| true);
        assert_eq!(shown.count, 0);
    }
}
