//! Where on a slide nuclei were looked for.
//!
//! In: the patches that were read and predicted, the tissue among them. Out: whether a box was examined, which nuclei
//! lie on tissue, how many mm² of it there are. Never says which nuclei are reported.

use std::collections::HashSet;

use crate::geometry::Rect;
use crate::plan::{PatchGrid, PatchIndex};

/// What was examined of a slide.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// mm² of tissue in the region asked for, less what could not be read or is not done yet.
    pub tissue_mm2: f64,
    /// One per nucleus, in their order: whether the tissue mask holds its centroid.
    pub on_tissue: Vec<bool>,
    /// µm per cell of the tissue mask, x and y.
    pub cell_um: [f64; 2],
    /// The slide's patches.
    pub grid: PatchGrid,
    /// Those that were read and predicted.
    pub patches: HashSet<PatchIndex>,
}

impl Examined {
    /// Whether every proc pixel of a box on the slide was predicted.
    pub fn covers(&self, rect_proc: Rect) -> bool {
        let side = self.grid.patch_out_px.max(1);
        let [width, height] = self.grid.slide_px;
        let rect = rect_proc.intersect(&Rect::new(0, 0, width, height));
        let last = |end: i32| (end - 1).div_euclid(side);
        !rect.is_empty()
            && (rect.y.div_euclid(side)..=last(rect.bottom())).all(|row| {
                (rect.x.div_euclid(side)..=last(rect.right()))
                    .all(|col| self.patches.contains(&PatchIndex { col, row }))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_covered_where_all_its_patches_are_done() {
        let examined = Examined {
            tissue_mm2: 0.0,
            on_tissue: Vec::new(),
            cell_um: [8.0; 2],
            grid: PatchGrid {
                slide_px: [250, 100],
                patch_in_px: 120,
                patch_out_px: 100,
            },
            patches: HashSet::from([PatchIndex { col: 0, row: 0 }, PatchIndex { col: 2, row: 0 }]),
        };
        assert!(examined.covers(Rect::new(0, 0, 100, 100)));
        assert!(!examined.covers(Rect::new(0, 0, 101, 10)));
        assert!(!examined.covers(Rect::new(199, 0, 10, 10)));
        // Beyond the rim there is nothing to examine.
        assert!(examined.covers(Rect::new(200, 0, 100, 200)));
        assert!(!examined.covers(Rect::new(300, 0, 10, 10)));
    }
}
