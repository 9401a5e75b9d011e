//! Neighbouring nuclei.
//!
//! In: all centroids of a slide, µm. Out: the [`Neighbourhood`] of each, in the same order.
//! Distances are compared, never summed, so neither the tree nor the threads can change the result.

use rayon::prelude::*;
use rstar::RTree;
use rstar::primitives::GeomWithData;

/// Radius in which neighbours are counted, µm.
pub const NEIGHBOURHOOD_UM: f64 = 50.0;

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
    let tree = RTree::bulk_load(
        centroids_um
            .iter()
            .enumerate()
            .filter(|(i, _)| counts(*i))
            .map(|(i, &point)| GeomWithData::new(point, i))
            .collect(),
    );
    centroids_um
        .par_iter()
        .enumerate()
        .map(|(i, &point)| Neighbourhood {
            nearest_um: tree
                .nearest_neighbor_iter_with_distance_2(&point)
                .find(|(other, _)| other.data != i)
                .map(|(_, squared)| squared.sqrt()),
            within_50um: tree
                .locate_within_distance(point, NEIGHBOURHOOD_UM * NEIGHBOURHOOD_UM)
                .filter(|other| other.data != i)
                .count() as u32,
        })
        .collect()
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
