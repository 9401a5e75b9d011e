//! Neighbouring nuclei.
//!
//! In: all centroids of a slide, µm. Out: the [`Neighbourhood`] of each, in the same order.
//! Distances are compared, never summed, so neither grid, tree nor threads can change the result.

use std::sync::LazyLock;

use rayon::prelude::*;
use rstar::RTree;
use rstar::primitives::GeomWithData;

/// Radius in which neighbours are counted, µm.
pub const NEIGHBOURHOOD_UM: f64 = 50.0;

/// Where a cell begins is rounded: so much wider cells see all that is near.
const SPARE: f64 = 1.001;

/// The surroundings of one nucleus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbourhood {
    /// Distance to the nearest other centroid, µm; `None` where there is no other.
    pub nearest_um: Option<f64>,
    /// Number of other centroids at most [`NEIGHBOURHOOD_UM`] away.
    pub within_50um: u32,
}

/// The neighbourhood of every centroid, (x, y) in µm.
pub fn neighbours(centroids_um: &[[f64; 2]]) -> Vec<Neighbourhood> {
    neighbours_among(centroids_um, |_| true)
}

/// As [`neighbours`], but only centroids whose place `counts` accepts are counted as neighbours.
pub fn neighbours_among(
    centroids_um: &[[f64; 2]],
    counts: impl Fn(usize) -> bool,
) -> Vec<Neighbourhood> {
    let counted: Vec<Point> = centroids_um
        .iter()
        .enumerate()
        .filter(|(i, _)| counts(*i))
        .map(|(place, &um)| Point { um, place })
        .collect();
    let grid = Grid::new(&counted);
    // Almost all have a neighbour in the next cells; for the others empty cells would be many.
    let tree = LazyLock::new(|| {
        let entries = counted.iter().map(|p| GeomWithData::new(p.um, p.place));
        RTree::bulk_load(entries.collect())
    });
    let nearest_sq = |um: &[f64; 2], place: usize| {
        let mut others = tree.nearest_neighbor_iter_with_distance_2(um);
        let other = others.find(|(other, _)| other.data != place);
        other.map(|(_, squared)| squared)
    };
    centroids_um
        .par_iter()
        .enumerate()
        .map(|(place, um)| {
            let near = grid.look_around(*um, place);
            let nearest = near.nearest_sq.or_else(|| nearest_sq(um, place));
            Neighbourhood {
                nearest_um: nearest.map(f64::sqrt),
                within_50um: near.within_50um,
            }
        })
        .collect()
}

#[derive(Clone, Copy)]
struct Point {
    um: [f64; 2],
    place: usize,
}

/// Points by square cells, row by row, of at least [`NEIGHBOURHOOD_UM`]. There are at most a few times as many cells as
/// points.
struct Grid {
    origin_um: [f64; 2],
    side_um: f64,
    columns: usize,
    rows: usize,
    /// By cell, and once more: the place in `points` of its first point.
    starts: Vec<usize>,
    points: Vec<Point>,
}

/// What the cell of a point and the eight around it hold.
struct Near {
    /// `None` where a point in another cell may be nearer.
    nearest_sq: Option<f64>,
    within_50um: u32,
}

impl Grid {
    fn new(points: &[Point]) -> Self {
        let [mut least, mut most] = [[f64::INFINITY; 2], [f64::NEG_INFINITY; 2]];
        for point in points {
            for axis in 0..2 {
                least[axis] = least[axis].min(point.um[axis]);
                most[axis] = most[axis].max(point.um[axis]);
            }
        }
        let [w, h] = [0, 1].map(|axis| (most[axis] - least[axis]).max(0.0));
        let n = points.len().max(1) as f64;
        let side_um = (NEIGHBOURHOOD_UM * SPARE)
            .max((w * h / n).sqrt())
            .max(w / n)
            .max(h / n);
        let mut grid = Self {
            origin_um: least,
            side_um,
            columns: (w / side_um) as usize + 1,
            rows: (h / side_um) as usize + 1,
            starts: Vec::new(),
            points: points.to_vec(),
        };
        let cell_of = |grid: &Self, point: &Point| {
            let [column, row] = grid.cell(point.um).map(|at| at.max(0) as usize);
            row.min(grid.rows - 1) * grid.columns + column.min(grid.columns - 1)
        };
        let mut sorted = std::mem::take(&mut grid.points);
        sorted.sort_by_cached_key(|point| cell_of(&grid, point));
        let mut starts = vec![0; grid.columns * grid.rows + 1];
        for point in &sorted {
            starts[cell_of(&grid, point) + 1] += 1;
        }
        for cell in 1..starts.len() {
            starts[cell] += starts[cell - 1];
        }
        (grid.starts, grid.points) = (starts, sorted);
        grid
    }

    /// Column and row of the cell that holds a point; next to the grid for points that were not counted.
    fn cell(&self, um: [f64; 2]) -> [i64; 2] {
        let lens = [self.columns, self.rows];
        [0, 1].map(|axis| {
            let at = (um[axis] - self.origin_um[axis]) / self.side_um;
            at.floor().clamp(-2.0, lens[axis] as f64 + 1.0) as i64
        })
    }

    fn look_around(&self, um: [f64; 2], place: usize) -> Near {
        let [column, row] = self.cell(um);
        let clamped = |at: i64, len: usize| at.clamp(0, len as i64) as usize;
        let columns = clamped(column - 1, self.columns)..clamped(column + 2, self.columns);
        let (mut nearest_sq, mut within_50um) = (f64::INFINITY, 0);
        for row in clamped(row - 1, self.rows)..clamped(row + 2, self.rows) {
            let cell = |column: usize| self.starts[row * self.columns + column];
            for other in &self.points[cell(columns.start)..cell(columns.end)] {
                if other.place != place {
                    let [dx, dy] = [0, 1].map(|axis| um[axis] - other.um[axis]);
                    let squared = dx * dx + dy * dy;
                    nearest_sq = nearest_sq.min(squared);
                    within_50um += u32::from(squared <= NEIGHBOURHOOD_UM * NEIGHBOURHOOD_UM);
                }
            }
        }
        Near {
            nearest_sq: (nearest_sq.sqrt() < self.side_um / SPARE).then_some(nearest_sq),
            within_50um,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_brute_force_with_doubles_and_points_on_the_circle() {
        let mut points = vec![[0.0, 0.0], [50.0, 0.0], [30.0, 40.0], [0.0, 0.0]];
        let mut state = 1u64;
        for _ in 0..500 {
            let mut next = || {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (state >> 40) as f64 / 65536.0 * 2.0
            };
            points.push([next(), next()]);
        }
        let found = neighbours(&points);
        for (i, a) in points.iter().enumerate() {
            let others = points.iter().enumerate().filter(|&(j, _)| j != i);
            let squared: Vec<f64> = others
                .map(|(_, b)| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2))
                .collect();
            let nearest = squared.iter().copied().fold(f64::INFINITY, f64::min).sqrt();
            assert_eq!(found[i].nearest_um, Some(nearest));
            let near = squared.iter().filter(|&&d| d <= 2500.0).count();
            assert_eq!(found[i].within_50um as usize, near);
        }
        assert_eq!(found[0].nearest_um, Some(0.0));
    }

    #[test]
    fn far_and_crowded_points_equal_brute_force() {
        let mut random = fastrand::Rng::with_seed(7);
        // Two crowds far from each other, points on a line, and one alone.
        let mut points: Vec<[f64; 2]> = (0..400)
            .map(|i| {
                let corner = f64::from(i % 2) * 20_000.0;
                [0, 1].map(|_| corner + random.f64() * 300.0)
            })
            .collect();
        points.extend((0..40).map(|i| [f64::from(i) * 50.0, 9_000.0]));
        points.push([-40_000.0, 1e6]);
        for kind in 0..2usize {
            let counts = |i: usize| i % 2 == kind;
            let found = neighbours_among(&points, counts);
            for (i, a) in points.iter().enumerate() {
                let others = (0..points.len()).filter(|&j| j != i && counts(j));
                let squared: Vec<f64> = others
                    .map(|j| (a[0] - points[j][0]).powi(2) + (a[1] - points[j][1]).powi(2))
                    .collect();
                let nearest = squared.iter().copied().fold(f64::INFINITY, f64::min);
                assert_eq!(found[i].nearest_um, Some(nearest.sqrt()));
                let within = squared.iter().filter(|&&d| d <= 2500.0).count();
                assert_eq!(found[i].within_50um as usize, within);
            }
        }
    }

    #[test]
    fn only_accepted_centroids_are_neighbours() {
        let points: Vec<[f64; 2]> = (0..300u32)
            .map(|i| [f64::from(i * 37 % 101) * 2.0, f64::from(i * 53 % 97) * 2.0])
            .collect();
        let kinds = [0usize, 1, 2];
        let by_kind = kinds.map(|kind| neighbours_among(&points, |i| i % 3 == kind));
        let all = neighbours(&points);
        for (i, a) in points.iter().enumerate() {
            for kind in kinds {
                let others = (0..points.len()).filter(|&j| j != i && j % 3 == kind);
                let nearest = others
                    .map(|j| (a[0] - points[j][0]).powi(2) + (a[1] - points[j][1]).powi(2))
                    .fold(f64::INFINITY, f64::min)
                    .sqrt();
                assert_eq!(by_kind[kind][i].nearest_um, Some(nearest), "{i} {kind}");
            }
            let within: u32 = by_kind.iter().map(|found| found[i].within_50um).sum();
            assert_eq!(within, all[i].within_50um);
        }
        assert_eq!(neighbours_among(&points, |_| false)[0].nearest_um, None);
    }

    #[test]
    fn a_single_nucleus_has_no_neighbour() {
        assert!(neighbours(&[]).is_empty());
        let only = neighbours(&[[3.0, 4.0]]);
        assert_eq!(
            only[0],
            Neighbourhood {
                nearest_um: None,
                within_50um: 0
            }
        );
    }
}
