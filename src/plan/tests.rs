use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::slide::Level;
use crate::tissue::TissueMask;

fn frames(width: u64, height: u64, ratio: f64) -> Frames {
    let level = Level {
        width_px: width,
        height_px: height,
        downsample: 1.0,
    };
    Frames::new([width, height], [0.25; 2], 0.25 / ratio, &[level]).0
}

fn grid(frames: &Frames, patch_in_px: i32, patch_out_px: i32) -> PatchGrid {
    PatchGrid {
        slide_px: frames.proc_size_px,
        patch_in_px,
        patch_out_px,
    }
}

/// About one cell in 400 is tissue.
fn patchy(width: u64, height: u64, seed: u64) -> Area {
    let size = [width, height];
    let mut mask = TissueMask::all(size, [0.25; 2]);
    let mut state = seed | 1;
    for cell in &mut mask.tissue {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *cell = state.is_multiple_of(400);
    }
    Area::new(mask, size, [0.25; 2])
}

fn chosen(plan: &Plan) -> Vec<PatchIndex> {
    let mut patches: Vec<_> = plan.tiles.iter().flat_map(|t| t.patches.clone()).collect();
    patches.sort_by_key(|p| (p.row, p.col));
    patches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn output_squares_tile_the_slide_exactly(
        w in 1u64..700, h in 1u64..700, out in 1i32..200, margin in 0i32..60, tile in 1i32..900,
    ) {
        let frames = frames(w, h, 1.0);
        let grid = grid(&frames, out + 2 * margin, out);
        let all = Area::new(TissueMask::all([w, h], [0.25; 2]), [w, h], [0.25; 2]);
        let plan = Plan::new(grid, tile, &frames, &all);
        let mut hits = vec![0u8; (w * h) as usize];
        for tile in &plan.tiles {
            for &patch in &tile.patches {
                let square = grid.out_rect(patch);
                prop_assert!(!square.is_empty());
                prop_assert_eq!(square.intersect(&tile.rect), square);
                let window = grid.in_rect(patch);
                prop_assert_eq!((window.w, window.h), (out + 2 * margin, out + 2 * margin));
                prop_assert_eq!((window.x + margin, window.y + margin), (square.x, square.y));
                for y in square.y..square.bottom() {
                    for x in square.x..square.right() {
                        hits[y as usize * w as usize + x as usize] += 1;
                    }
                }
            }
        }
        prop_assert!(hits.iter().all(|&n| n == 1));
        prop_assert_eq!(plan.planned_px(), w * h);
    }

    #[test]
    fn the_choice_of_patches_does_not_depend_on_the_tiles(
        w in 1u64..6000, h in 1u64..6000, ratio in 0.3f64..2.2, out in 80i32..400,
        tile in 1i32..3000, seed in any::<u64>(),
    ) {
        let frames = frames(w, h, ratio);
        let grid = grid(&frames, out + 92, out);
        let area = patchy(w, h, seed);
        let plan = Plan::new(grid, tile, &frames, &area);
        let whole = Plan::new(grid, 1 << 20, &frames, &area);
        prop_assert!(whole.tiles.len() <= 1);
        let patches = chosen(&plan);
        prop_assert_eq!(&patches, &chosen(&whole));
        let unique: BTreeSet<_> = patches.iter().collect();
        prop_assert_eq!(unique.len(), patches.len());
        prop_assert_eq!(plan.planned_px(), whole.planned_px());
        for tile in &plan.tiles {
            prop_assert!(!tile.patches.is_empty());
            prop_assert!(tile.planned_px(&grid) <= tile.rect.area());
        }
        prop_assert!(plan.tiles.is_sorted_by_key(|tile| (tile.row, tile.col)));
    }
}

#[test]
fn tiles_round_to_whole_patches_and_end_at_the_rim() {
    let frames = frames(1000, 500, 1.0);
    let grid = grid(&frames, 256, 164);
    let all = Area::new(
        TissueMask::all([1000, 500], [0.25; 2]),
        [1000, 500],
        [0.25; 2],
    );
    let plan = Plan::new(grid, 400, &frames, &all);
    // 400 / 164 = 2.4 patches: 2. 7 x 4 patches, 4 x 2 tiles.
    assert_eq!((grid.cols(), grid.rows()), (7, 4));
    assert_eq!(
        (plan.tile_patches, plan.tiles_xy, plan.tiles.len()),
        (2, [4, 2], 8)
    );
    assert_eq!(plan.patches(), 28);
    let last = &plan.tiles[7];
    assert_eq!((last.col, last.row), (3, 1));
    assert_eq!(last.rect, Rect::new(984, 328, 16, 172));
    assert_eq!(Plan::new(grid, 1, &frames, &all).tile_patches, 1);
}

#[test]
fn tiles_without_patches_are_not_run() {
    let size = [4000, 4000];
    let frames = frames(4000, 4000, 1.0);
    let grid = grid(&frames, 256, 164);
    let mut mask = TissueMask::all(size, [0.25; 2]);
    mask.tissue.fill(false);
    assert!(
        Plan::new(
            grid,
            1000,
            &frames,
            &Area::new(mask.clone(), size, [0.25; 2])
        )
        .tiles
        .is_empty()
    );
    // One cell: level-0 px 1600..1632 in both axes, widened by 64: 1536..1696.
    mask.tissue[50 * mask.width as usize + 50] = true;
    let plan = Plan::new(grid, 164, &frames, &Area::new(mask, size, [0.25; 2]));
    let patches = chosen(&plan);
    // Patch 9 covers 1476..1640, patch 10 1640..1804.
    let want = [(9, 9), (10, 9), (9, 10), (10, 10)].map(|(col, row)| PatchIndex { col, row });
    assert_eq!(patches, want);
    assert_eq!(plan.planned_px(), 4 * 164 * 164);
}
