//! Nuclei that share pixels.
//!
//! In: nuclei. Out: the first pair that shares a pixel, or the nuclei without doubles. Tiles of one slide never share
//! pixels; [`check_disjoint`] proves it at the end, and [`dedupe`] is for views that overlap (models that give
//! instances, merged stores).

use rayon::prelude::*;
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

use crate::nuclei::Nucleus;

/// Two nuclei with common pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "nuclei {a} and {b} share {pixels} px, the first at ({x_px}, {y_px}) proc px: this is a bug, please report it"
)]
pub struct Overlap {
    /// Their places in the list, `a < b`.
    pub a: usize,
    pub b: usize,
    /// How many pixels they share.
    pub pixels: u64,
    /// The first of them in raster order.
    pub x_px: i32,
    pub y_px: i32,
}

/// Common pixels of two nuclei: how many, and the first (x, y).
fn shared(a: &Nucleus, b: &Nucleus) -> (u64, Option<[i32; 2]>) {
    let common = a.bbox.intersect(&b.bbox);
    let mut pixels = 0;
    let mut first = None;
    for y in common.y..common.bottom() {
        for x in common.x..common.right() {
            if a.contains(x, y) && b.contains(x, y) {
                pixels += 1;
                first.get_or_insert([x, y]);
            }
        }
    }
    (pixels, first)
}

/// Finds nuclei by their boxes.
struct Boxes {
    tree: RTree<GeomWithData<Rectangle<[i32; 2]>, usize>>,
}

fn envelope(nucleus: &Nucleus) -> AABB<[i32; 2]> {
    let bbox = nucleus.bbox;
    AABB::from_corners([bbox.x, bbox.y], [bbox.right() - 1, bbox.bottom() - 1])
}

impl Boxes {
    fn of(nuclei: &[Nucleus]) -> Self {
        let boxes = nuclei
            .iter()
            .enumerate()
            .map(|(i, nucleus)| GeomWithData::new(Rectangle::from_aabb(envelope(nucleus)), i));
        Self {
            tree: RTree::bulk_load(boxes.collect()),
        }
    }

    /// Places of the other nuclei whose box meets that of `nuclei[i]`, sorted.
    fn meeting(&self, nuclei: &[Nucleus], i: usize) -> Vec<usize> {
        let mut places: Vec<usize> = self
            .tree
            .locate_in_envelope_intersecting(&envelope(&nuclei[i]))
            .map(|other| other.data)
            .filter(|&j| j != i)
            .collect();
        places.sort_unstable();
        places
    }
}

/// Proves that no two nuclei share a pixel; else names the first pair in the list's order.
pub fn check_disjoint(nuclei: &[Nucleus]) -> Result<(), Overlap> {
    let boxes = Boxes::of(nuclei);
    let first = (0..nuclei.len()).into_par_iter().find_map_first(|a| {
        let others = boxes.meeting(nuclei, a).into_iter().filter(|&b| b > a);
        others.into_iter().find_map(|b| {
            let (pixels, first) = shared(&nuclei[a], &nuclei[b]);
            first.map(|[x_px, y_px]| Overlap {
                a,
                b,
                pixels,
                x_px,
                y_px,
            })
        })
    });
    first.map_or(Ok(()), Err)
}

/// Keeps one of nuclei that are the same: those with an intersection over union above 0.5, or with one inside the
/// other. The larger stays, of equal ones that with the smaller first pixel; so the order of the list does not count.
/// The result is sorted by first pixel.
pub fn dedupe(nuclei: Vec<Nucleus>) -> Vec<Nucleus> {
    let boxes = Boxes::of(&nuclei);
    let same: Vec<Vec<usize>> = (0..nuclei.len())
        .into_par_iter()
        .map(|i| {
            let mut others = boxes.meeting(&nuclei, i);
            others.retain(|&j| are_the_same(&nuclei[i], &nuclei[j]));
            others
        })
        .collect();
    let mut order: Vec<usize> = (0..nuclei.len()).collect();
    // Equal masks go by their content; beyond it two nuclei differ in nothing that is seen.
    order.par_sort_by_cached_key(|&i| {
        let nucleus = &nuclei[i];
        (
            std::cmp::Reverse(nucleus.area_px),
            nucleus.first_pixel(),
            nucleus.bbox,
            nucleus.mask.clone(),
            (nucleus.np_sum, nucleus.prob_sums.clone()),
        )
    });
    let mut kept = vec![false; nuclei.len()];
    for i in order {
        kept[i] = !same[i].iter().any(|&j| kept[j]);
    }
    let mut result: Vec<Nucleus> = nuclei
        .into_iter()
        .zip(kept)
        .filter_map(|(nucleus, keep)| keep.then_some(nucleus))
        .collect();
    result
        .sort_by_cached_key(|nucleus| (nucleus.first_pixel(), nucleus.bbox, nucleus.mask.clone()));
    result
}

fn are_the_same(a: &Nucleus, b: &Nucleus) -> bool {
    let (common, _) = shared(a, b);
    let [a, b] = [a, b].map(|nucleus| u64::from(nucleus.area_px));
    common > 0 && (2 * common > a + b - common || common == a.min(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Rect;
    use crate::nuclei::StainSums;

    /// `#` is inside.
    fn nucleus(x: i32, y: i32, rows: &[&str]) -> Nucleus {
        let w = rows[0].len();
        let mut mask = vec![0; (w * rows.len()).div_ceil(8)];
        let bits = rows.iter().flat_map(|row| row.bytes());
        for (at, _) in bits.enumerate().filter(|&(_, c)| c == b'#') {
            mask[at / 8] |= 1 << (at % 8);
        }
        Nucleus {
            bbox: Rect::new(x, y, w as i32, rows.len() as i32),
            area_px: mask.iter().map(|b: &u8| b.count_ones()).sum(),
            mask,
            prob_sums: vec![],
            type_counts: vec![],
            np_sum: 0,
            stain: StainSums::default(),
            cut: false,
        }
    }

    #[test]
    fn boxes_may_meet_but_pixels_may_not() {
        let hook = nucleus(0, 0, &["###", "#..", "#.."]);
        let inside = nucleus(1, 1, &["##", "##"]);
        assert_eq!(check_disjoint(&[hook.clone(), inside.clone()]), Ok(()));
        let wide = nucleus(-1, 2, &["####"]);
        assert_eq!(
            check_disjoint(&[nucleus(50, 50, &["#"]), hook, inside, wide]),
            Err(Overlap {
                a: 1,
                b: 3,
                pixels: 1,
                x_px: 0,
                y_px: 2
            })
        );
    }

    #[test]
    fn doubles_go_whatever_the_order() {
        let large = nucleus(10, 10, &["####"; 4]);
        let within = nucleus(11, 11, &["#"]);
        // 12 of 20 px shared: the same nucleus, with the later first pixel.
        let shifted = nucleus(10, 11, &["####"; 4]);
        // 4 of 28 px shared: a neighbour, though it overlaps both.
        let neighbour = nucleus(13, 10, &["####"; 4]);
        let apart = nucleus(40, 10, &["##"]);
        let all = [
            shifted,
            apart.clone(),
            within,
            large.clone(),
            neighbour.clone(),
        ];
        let expected = vec![large, neighbour, apart];
        for turn in 0..all.len() {
            let mut list = all.to_vec();
            list.rotate_left(turn);
            assert_eq!(dedupe(list.clone()), expected);
            list.reverse();
            assert_eq!(dedupe(list), expected);
        }
    }
}
