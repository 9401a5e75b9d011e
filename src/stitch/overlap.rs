//! Proof that no two nuclei share a pixel.
//!
//! In: nuclei. Out: nothing, or the first pair that shares a pixel. Tiles of one slide never share
//! pixels, so a pair means a mistake in this program. Never changes a nucleus.

use rayon::prelude::*;

use super::join::{build_tree, envelope};
use crate::nuclei::Nucleus;

/// Two nuclei with common pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "nuclei {a} and {b} share {pixels} px, the first at ({x_px}, {y_px}) proc px: this is a bug, please report it"
)]
pub struct Overlap {
    /// Place of the first in the list.
    pub a: usize,
    /// Place of the second, `a < b`.
    pub b: usize,
    /// Number of shared pixels.
    pub pixels: u64,
    /// Column of the first shared pixel in raster order, proc px.
    pub x_px: i32,
    /// Its row, proc px.
    pub y_px: i32,
}

/// The number of pixels that two nuclei share, and the first, (x, y).
fn count_shared(a: &Nucleus, b: &Nucleus) -> (u64, Option<[i32; 2]>) {
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

/// Proves that no two nuclei share a pixel.
///
/// # Errors
/// The first pair, in the order of the list, that shares one.
pub fn check_disjoint(nuclei: &[Nucleus]) -> Result<(), Overlap> {
    let tree = build_tree(nuclei.iter().map(|nucleus| nucleus.bbox).enumerate());
    let first = (0..nuclei.len()).into_par_iter().find_map_first(|a| {
        let mut others: Vec<usize> = tree
            .locate_in_envelope_intersecting(&envelope(nuclei[a].bbox))
            .map(|other| other.data)
            .filter(|&b| b > a)
            .collect();
        others.sort_unstable();
        others.into_iter().find_map(|b| {
            let (pixels, first) = count_shared(&nuclei[a], &nuclei[b]);
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

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn boxes_may_meet_but_pixels_may_not() {
        let hook = Nucleus::drawn(0, 0, &["###", "#..", "#.."]);
        let inside = Nucleus::drawn(1, 1, &["##", "##"]);
        assert_eq!(check_disjoint(&[hook.clone(), inside.clone()]), Ok(()));
        let wide = Nucleus::drawn(-1, 2, &["####"]);
        assert_eq!(
            check_disjoint(&[Nucleus::drawn(50, 50, &["#"]), hook, inside, wide]),
            Err(Overlap {
                a: 1,
                b: 3,
                pixels: 1,
                x_px: 0,
                y_px: 2
            })
        );
    }
}
