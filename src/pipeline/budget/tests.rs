use super::*;
use crate::geometry::Rect;
use crate::model::TypesFrom;
use crate::model::analytic::fine_spec;
use crate::plan::{PatchGrid, PatchIndex, Tile};

/// A plan of `tiles` tiles of 3 x 3 patches of the default model's size.
fn plan(tiles: i32) -> Plan {
    let grid = PatchGrid {
        slide_px: [2112 * tiles, 2112],
        patch_in_px: 768,
        patch_out_px: 704,
    };
    let tile = |tile: i32| Tile {
        col: tile,
        row: 0,
        rect: Rect::new(2112 * tile, 0, 2112, 2112),
        patches: (0..9)
            .map(|i| PatchIndex {
                col: 3 * tile + i % 3,
                row: i / 3,
            })
            .collect(),
    };
    Plan {
        grid,
        tile_patches: 3,
        tiles_xy: [tiles, 1],
        tiles: (0..tiles).map(tile).collect(),
    }
}

fn budget(mib: u64, threads: usize, feed: Option<Feed>) -> Result<Budget, PipelineError> {
    let resources = Resources {
        memory_bytes: mib << 20,
        threads,
        feed,
    };
    divide(resources, &fine_spec(), &plan(30))
}

const ONE_GPU: Feed = Feed {
    workers: 2,
    batch: 16,
};

#[test]
fn a_device_has_all_cores_behind_it() {
    let found = budget(64 << 10, 16, Some(ONE_GPU)).unwrap();
    assert_eq!((found.infer_workers, found.readers), (2, 16));
    assert_eq!((found.post_workers, found.commit_workers), (8, 2));
    // Every worker's next batch can be ready, and the open tiles hold enough patches for all that are on the way.
    assert_eq!(found.queue_patches, 32);
    assert!(9 * found.tiles_in_flight >= 16 + 2 * 32 + 2 * 16 + 8);
    let two = Feed {
        workers: 4,
        batch: 16,
    };
    let found = budget(64 << 10, 16, Some(two)).unwrap();
    assert_eq!((found.infer_workers, found.queue_patches), (4, 64));
}

#[test]
fn a_cpu_that_runs_the_network_has_the_workers_it_had() {
    let found = budget(64 << 10, 2, None).unwrap();
    assert_eq!(
        (found.infer_workers, found.readers, found.post_workers),
        (2, 1, 1)
    );
    assert_eq!((found.queue_patches, found.tiles_in_flight), (8, 4));
    assert_eq!(found.commit_workers, 1);
    let found = budget(64 << 10, 16, None).unwrap();
    assert_eq!(
        (found.infer_workers, found.readers, found.post_workers),
        (16, 8, 8)
    );
    assert_eq!((found.queue_patches, found.tiles_in_flight), (32, 4));
}

#[test]
fn blocks_stay_for_the_second_look_where_memory_allows() {
    // 30 tiles of 2112 px: 401 MB of pixels.
    let pixels = 3 * 30 * 2112 * 2112;
    let large = budget(64 << 10, 16, Some(ONE_GPU)).unwrap();
    assert!(large.keeps_blocks && large.cache_bytes >= pixels && large.ring_bytes == 0);
    let cpu = budget(64 << 10, 2, None).unwrap();
    assert!(cpu.keeps_blocks && cpu.cache_bytes < pixels && cpu.ring_bytes > 0);
    for mib in (500..4000).step_by(100) {
        if let Ok(found) = budget(mib, 2, None)
            && found.keeps_blocks
        {
            let end = end_bytes(&plan(30), 0);
            assert!(end + found.cache_bytes <= mib << 20, "{found:?}");
        }
    }
}

#[test]
fn every_budget_is_kept_and_more_memory_never_means_less() {
    for feed in [None, Some(ONE_GPU)] {
        let mut before: Option<Budget> = None;
        for mib in (300..6000).step_by(50) {
            match budget(mib, 8, feed) {
                Ok(found) => {
                    assert!(found.expected_bytes <= mib << 20, "{mib} MiB: {found:?}");
                    if let Some(before) = before {
                        // One more worker of a CPU's network may take the room of a tile.
                        let grows = found.infer_workers > before.infer_workers
                            || found.infer_workers == before.infer_workers
                                && found.readers >= before.readers
                                && found.queue_patches >= before.queue_patches
                                && found.tiles_in_flight >= before.tiles_in_flight;
                        assert!(grows, "{mib} MiB: {found:?} after {before:?}");
                    }
                    before = Some(found);
                }
                Err(PipelineError::Memory { given, least }) => {
                    assert!(before.is_none() && given < least, "{mib} MiB");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(before.is_some());
    }
}

#[test]
fn a_second_network_needs_room_only_where_it_is_the_larger_one() {
    let spec = |first: Architecture, second: Option<Architecture>| ModelSpec {
        architecture: first,
        types_from: second.map(|architecture| TypesFrom {
            model: "second".into(),
            architecture,
            weights: "types.safetensors".into(),
            sha256: "0".repeat(64),
            share: 0.5,
            temperature: 1.0,
        }),
        ..fine_spec()
    };
    let (lite, wide) = (Architecture::HovernetLite, Architecture::HovernetWide);
    let alone = activation_bytes(&spec(wide, None), 640);
    assert_eq!(activation_bytes(&spec(wide, Some(lite)), 640), alone);
    // The maps of the first network wait beside it: np, h, v and three types, 4 bytes each.
    let behind_lite = activation_bytes(&spec(lite, Some(wide)), 640);
    assert_eq!(behind_lite, alone + 24 * 640 * 640);
}
