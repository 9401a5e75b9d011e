//! Which fragments are parts of one blob.
//!
//! In: fragments of any tiles. Out: groups of their indices. An R-tree over their boxes finds candidates, their runs
//! decide, union-find gathers: exact for any number, size and order of fragments.

use rayon::prelude::*;
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

use crate::nuclei::{Foreground, Run};

/// Groups fragments that touch (4-connected), directly or through others. Each index is in one group; groups are sorted
/// inside and by their first index. Fragments without pixels stay alone.
pub fn join(fragments: &[Foreground]) -> Vec<Vec<usize>> {
    let boxes: Vec<Option<Bounds>> = fragments.iter().map(|f| Bounds::of(&f.runs)).collect();
    let tree = RTree::bulk_load(
        boxes
            .iter()
            .enumerate()
            .filter_map(|(i, bounds)| Some(GeomWithData::new(bounds.as_ref()?.rectangle(), i)))
            .collect(),
    );
    let touching: Vec<Vec<usize>> = boxes
        .par_iter()
        .enumerate()
        .map(|(i, bounds)| {
            let Some(bounds) = bounds else {
                return Vec::new();
            };
            tree.locate_in_envelope_intersecting(&bounds.grown())
                .map(|other| other.data)
                .filter(|&j| j > i && touch(&fragments[i].runs, &fragments[j].runs))
                .collect()
        })
        .collect();
    let mut sets = UnionFind::new(fragments.len());
    for (i, others) in touching.iter().enumerate() {
        for &j in others {
            sets.union(i, j);
        }
    }
    sets.groups()
}

/// Smallest box of the runs, all four sides inclusive.
struct Bounds {
    x0: i32,
    y0: i32,
    x1: i32,
    y1: i32,
}

impl Bounds {
    fn of(runs: &[Run]) -> Option<Self> {
        let (first, last) = (runs.first()?, runs.last()?);
        Some(Self {
            x0: runs.iter().map(|run| run.x0).min()?,
            y0: first.y,
            x1: runs.iter().map(|run| run.x1).max()?.saturating_sub(1),
            y1: last.y,
        })
    }

    fn rectangle(&self) -> Rectangle<[i32; 2]> {
        Rectangle::from_corners([self.x0, self.y0], [self.x1, self.y1])
    }

    /// Also meets the boxes of pixels next to this one's.
    fn grown(&self) -> AABB<[i32; 2]> {
        AABB::from_corners(
            [self.x0.saturating_sub(1), self.y0.saturating_sub(1)],
            [self.x1.saturating_add(1), self.y1.saturating_add(1)],
        )
    }
}

/// Whether a pixel of `a` has a 4-neighbour in `b`. Runs are sorted by (y, x0); a and b share no pixel.
pub fn touch(a: &[Run], b: &[Run]) -> bool {
    (-1..=1).any(|dy| touch_shifted(a, b, dy))
}

/// Whether a run of `a` in some row y touches one of `b` in row y + dy.
fn touch_shifted(a: &[Run], b: &[Run], dy: i32) -> bool {
    // In the same row neighbours lie end to end, in the next one they overlap.
    let reach = i32::from(dy == 0);
    let (Some(first), Some(last)) = (b.first(), b.last()) else {
        return false;
    };
    let from = a.partition_point(|run| run.y + dy < first.y);
    let to = a.partition_point(|run| run.y + dy <= last.y);
    let Some(overlap) = a.get(from..to).filter(|rows| !rows.is_empty()) else {
        return false;
    };
    let mut at = b.partition_point(|run| run.y < overlap[0].y + dy);
    for run in overlap {
        let y = run.y + dy;
        // What ends before this run does so before all later ones as well.
        while b
            .get(at)
            .is_some_and(|o| (o.y, o.x1 + reach) <= (y, run.x0))
        {
            at += 1;
        }
        if b.get(at).is_some_and(|o| o.y == y && o.x0 < run.x1 + reach) {
            return true;
        }
    }
    false
}

/// Disjoint sets; the root of a set is its smallest member.
struct UnionFind {
    parent: Vec<usize>,
}

impl UnionFind {
    fn new(n: usize) -> Self {
        Self {
            parent: (0..n).collect(),
        }
    }

    fn find(&mut self, mut i: usize) -> usize {
        while self.parent[i] != i {
            self.parent[i] = self.parent[self.parent[i]];
            i = self.parent[i];
        }
        i
    }

    fn union(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a.max(b)] = a.min(b);
    }

    fn groups(mut self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut place = vec![0; self.parent.len()];
        for i in 0..self.parent.len() {
            let root = self.find(i);
            if root == i {
                place[i] = groups.len();
                groups.push(vec![i]);
            } else {
                // The root is smaller: its group is there already.
                groups[place[root]].push(i);
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(y: i32, x0: i32, x1: i32) -> Run {
        Run { y, x0, x1 }
    }

    #[test]
    fn sides_touch_and_corners_do_not() {
        let a = [run(5, 10, 20)];
        assert!(touch(&a, &[run(5, 20, 21)]));
        assert!(touch(&a, &[run(5, 9, 10)]));
        assert!(touch(&a, &[run(4, 19, 25)]));
        assert!(touch(&a, &[run(6, 0, 11)]));
        assert!(!touch(&a, &[run(4, 20, 25)]));
        assert!(!touch(&a, &[run(6, 0, 10)]));
        assert!(!touch(&a, &[run(5, 21, 22)]));
        assert!(!touch(&a, &[run(7, 0, 30)]));
        assert!(!touch(&a, &[]));
    }

    /// Two masks without a common pixel, as runs, from a grid of 0, 1 (a) and 2 (b).
    fn masks(cells: &[u8], width: usize) -> [Vec<Run>; 2] {
        [1, 2].map(|which| {
            let mut runs: Vec<Run> = Vec::new();
            for (at, &cell) in cells.iter().enumerate() {
                let (x, y) = ((at % width) as i32, (at / width) as i32);
                match runs.last_mut() {
                    _ if cell != which => {}
                    Some(last) if last.y == y && last.x1 == x => last.x1 += 1,
                    _ => runs.push(run(y, x, x + 1)),
                }
            }
            runs
        })
    }

    proptest! {
        #[test]
        fn touching_equals_looking_at_every_pixel(
            cells in prop::collection::vec(prop_oneof![6 => Just(0u8), 1 => Just(1), 1 => Just(2)], 42),
        ) {
            let [a, b] = masks(&cells, 7);
            let differ = |p: usize, q: usize| cells[p] != 0 && cells[q] != 0 && cells[p] != cells[q];
            let expected = (0..42).any(|p| (p % 7 < 6 && differ(p, p + 1)) || (p < 35 && differ(p, p + 7)));
            prop_assert_eq!(touch(&a, &b), expected);
            prop_assert_eq!(touch(&b, &a), expected);
        }
    }
}
