//! Which fragments are parts of one blob.
//!
//! In: the runs of fragments of any tiles. Out: groups of their indices. An R-tree over their boxes finds
//! candidates, their runs decide whether they touch, union-find forms the groups: exact for any
//! number, size and order of fragments.

use rayon::prelude::*;
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

use crate::geometry::Rect;
use crate::nuclei::blobs::{flatten_sets, join_sets};
use crate::nuclei::{Run, bounds_of};

/// An R-tree over boxes; each entry holds the index of its box.
pub(super) type BoxTree = RTree<GeomWithData<Rectangle<[i32; 2]>, usize>>;

/// A box that is not empty as the tree needs it: all four sides inclusive.
pub(super) fn envelope(bbox: Rect) -> AABB<[i32; 2]> {
    AABB::from_corners([bbox.x, bbox.y], [bbox.right() - 1, bbox.bottom() - 1])
}

/// A tree of boxes that are not empty, (index, box).
pub(super) fn build_tree(boxes: impl Iterator<Item = (usize, Rect)>) -> BoxTree {
    let entry = |(i, bbox)| GeomWithData::new(Rectangle::from_aabb(envelope(bbox)), i);
    RTree::bulk_load(boxes.map(entry).collect())
}

/// Groups fragments that touch (4-connected), directly or through others.
///
/// Each index is in one group. Groups are sorted inside and by their first index. A fragment
/// without pixels is a group of its own.
pub(super) fn group_fragments(fragments: &[&[Run]]) -> Vec<Vec<usize>> {
    let boxes: Vec<Rect> = fragments.iter().map(|runs| bounds_of(runs)).collect();
    let filled = (0..boxes.len()).filter(|&i| !boxes[i].is_empty());
    let tree = build_tree(filled.map(|i| (i, boxes[i])));
    let touching: Vec<Vec<usize>> = boxes
        .par_iter()
        .enumerate()
        .map(|(i, bbox)| {
            if bbox.is_empty() {
                return Vec::new();
            }
            // One px wider on every side, so that it meets the boxes of neighbouring pixels.
            let wider = Rect::new(bbox.x - 1, bbox.y - 1, bbox.w + 2, bbox.h + 2);
            tree.locate_in_envelope_intersecting(&envelope(wider))
                .map(|other| other.data)
                .filter(|&j| j > i && touch(fragments[i], fragments[j]))
                .collect()
        })
        .collect();
    let mut roots: Vec<u32> = (0..fragments.len() as u32).collect();
    for (i, others) in touching.iter().enumerate() {
        for &j in others {
            join_sets(&mut roots, i as u32, j as u32);
        }
    }
    flatten_sets(&mut roots);
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); roots.len()];
    for (i, &root) in roots.iter().enumerate() {
        groups[root as usize].push(i);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Whether a pixel of `a` has a 4-neighbour in `b`. Runs are sorted by (y, x0); `a` and `b` share
/// no pixel.
fn touch(a: &[Run], b: &[Run]) -> bool {
    (-1..=1).any(|dy| touch_shifted(a, b, dy))
}

/// Whether a run of `a` in some row y touches one of `b` in row y + dy.
fn touch_shifted(a: &[Run], b: &[Run], dy: i32) -> bool {
    // Touching runs of one row lie end to end; touching runs of two rows overlap in x.
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
        // A run that ends before this run also ends before all later ones.
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
