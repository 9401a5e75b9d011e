//! What of a slide was examined, from its store alone.
//!
//! In: the joined tiles, the store's layout, region and mask. Out: [`Examined`]. Patches are chosen again by the rule
//! that planned them, so no list of them has to be stored. Never reads a pixel.

use std::collections::HashSet;

use crate::plan::{PatchGrid, PatchIndex, Plan};
use crate::result::Examined;
use crate::stitch::Loaded;
use crate::store::StoreMeta;
use crate::tissue::{Area, TissueMask};

/// What was examined; nuclei outside the region must be gone already.
pub fn of(loaded: &Loaded, meta: &StoreMeta, mask: TissueMask) -> Examined {
    let frames = &meta.frames;
    let cell_um = [0, 1].map(|axis| mask.cell_level0_px[axis] * frames.level0_mpp[axis]);
    let on_tissue = loaded
        .slide
        .records()
        .map(|record| mask.contains(record.to_edge(record.centroid_proc_px())))
        .collect();
    let area = Area::of_region(
        mask,
        meta.region.as_ref(),
        frames.level0_size_px,
        frames.level0_mpp,
    );
    let grid = PatchGrid {
        slide_px: frames.proc_size_px,
        patch_in_px: meta.layout.patch_in_px,
        patch_out_px: meta.layout.patch_out_px,
    };
    let tile_px = meta.layout.tile_patches * grid.patch_out_px;
    let unreadable: HashSet<PatchIndex> = loaded.unreadable.iter().copied().collect();
    let planned: HashSet<[i32; 2]> = meta.layout.planned_tiles.iter().copied().collect();
    let mut patches = HashSet::new();
    let mut tissue_mm2 = area.tissue_mm2();
    for tile in Plan::new(grid, tile_px, frames, &area).tiles {
        let place = [tile.col, tile.row];
        // A run that had nothing to do planned nothing.
        if !planned.contains(&place) {
            continue;
        }
        let is_done = loaded.tiles.contains(&place);
        for patch in tile.patches {
            if is_done && !unreadable.contains(&patch) {
                patches.insert(patch);
            } else {
                tissue_mm2 -= area.tissue_mm2_in(frames.rect_to_level0(grid.out_rect(patch)));
            }
        }
    }
    Examined {
        // What is left of sums and differences of the same squares is no tissue.
        tissue_mm2: if patches.is_empty() {
            0.0
        } else {
            tissue_mm2.max(0.0)
        },
        on_tissue,
        cell_um,
        grid,
        patches,
    }
}
