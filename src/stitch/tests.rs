//! Stitched tiles against the slide as a single tile, whose components a flood fill finds.

use proptest::prelude::*;

use super::stitcher::HELD_PX;
use super::*;
use crate::geometry::Rect;
use crate::nuclei::{CutRule, Run, components, cut_along_grid};
use crate::store::TileResult;
use crate::store::tests::{mask, meta, thumb};

/// A picture of nuclei and its place on the slide.
struct Picture {
    rect: Rect,
    cells: Vec<bool>,
}

impl Picture {
    fn drawn(rows: &[&str]) -> Self {
        let rect = Rect::new(100, 200, rows[0].len() as i32, rows.len() as i32);
        let cells = rows
            .iter()
            .flat_map(|row| row.bytes().map(|c| c == b'#'))
            .collect();
        Self { rect, cells }
    }

    /// Discs and specks.
    fn random(seed: u64, w: i32, h: i32) -> Self {
        let mut state = seed;
        let mut next = |below: i32| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 33) % below as u64) as i32
        };
        let mut picture = Self {
            rect: Rect::new(-20, 7, w, h),
            cells: vec![false; (w * h) as usize],
        };
        for _ in 0..w * h / 60 {
            let (cx, cy, r) = (next(w), next(h), next(5));
            for (at, cell) in picture.cells.iter_mut().enumerate() {
                let (dx, dy) = (at as i32 % w - cx, at as i32 / w - cy);
                *cell |= dx * dx + dy * dy <= r * r;
            }
        }
        picture
    }

    fn inside(&self, x: i32, y: i32) -> bool {
        let r = self.rect;
        r.contains(x, y) && self.cells[((y - r.y) * r.w + x - r.x) as usize]
    }

    /// The 4-connected components of the part in `window`.
    fn components(&self, window: Rect) -> Vec<Foreground> {
        let mut seen = std::collections::BTreeSet::new();
        let mut found = Vec::new();
        for y in window.y..window.bottom() {
            for x in window.x..window.right() {
                let mut pixels = std::collections::BTreeSet::new();
                let mut open = vec![(y, x)];
                while let Some((y, x)) = open.pop() {
                    if window.contains(x, y) && self.inside(x, y) && seen.insert((y, x)) {
                        pixels.insert((y, x));
                        open.extend([(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]);
                    }
                }
                if !pixels.is_empty() {
                    found.push(foreground(pixels.into_iter()));
                }
            }
        }
        found
    }

    /// Cut along a grid of tiles of `tile_px`, as the pipeline would commit it.
    fn tiles(&self, tile_px: [i32; 2]) -> Vec<TileResult> {
        self.tiles_of(tile_px, segment)
    }

    /// [`Picture::tiles`] where closed blobs may be above [`SMALL_CUT`].
    fn cut_tiles(&self, tile_px: [i32; 2]) -> Vec<TileResult> {
        self.tiles_of(tile_px, segment_cut)
    }

    fn tiles_of(
        &self,
        tile_px: [i32; 2],
        segment: impl Fn(&Foreground, Extent) -> Vec<Nucleus>,
    ) -> Vec<TileResult> {
        let mut tiles = Vec::new();
        for (row, y) in (self.rect.y..self.rect.bottom())
            .step_by(tile_px[1] as usize)
            .enumerate()
        {
            for (col, x) in (self.rect.x..self.rect.right())
                .step_by(tile_px[0] as usize)
                .enumerate()
            {
                let rect = Rect::new(x, y, tile_px[0], tile_px[1]).intersect(&self.rect);
                let (fragments, closed): (Vec<_>, Vec<_>) = self
                    .components(rect)
                    .into_iter()
                    .partition(|blob| self.is_open(blob, rect));
                tiles.push(TileResult {
                    col: col as i32,
                    row: row as i32,
                    rect,
                    done_px: rect.area(),
                    unreadable_px: 1,
                    outside_px: 2,
                    unreadable: vec![],
                    read_errors: vec![format!("row {row}")],
                    nuclei: closed
                        .iter()
                        .flat_map(|b| segment(b, Extent::Whole))
                        .collect(),
                    fragments,
                });
            }
        }
        tiles
    }

    /// Whether a blob touches a border that its tile shares with another tile.
    fn is_open(&self, blob: &Foreground, tile: Rect) -> bool {
        let slide = self.rect;
        blob.runs.iter().any(|run| {
            run.x0 == tile.x && tile.x > slide.x
                || run.x1 == tile.right() && tile.right() < slide.right()
                || run.y == tile.y && tile.y > slide.y
                || run.y == tile.bottom() - 1 && tile.bottom() < slide.bottom()
        })
    }

    fn uncut(&self) -> Vec<Nucleus> {
        self.nuclei(|blob| segment(blob, Extent::Whole))
    }

    fn nuclei(&self, segment: impl Fn(&Foreground) -> Vec<Nucleus>) -> Vec<Nucleus> {
        let blobs = self.components(self.rect);
        let mut nuclei: Vec<Nucleus> = blobs.iter().flat_map(segment).collect();
        nuclei.sort_by_key(Nucleus::first_pixel);
        nuclei
    }
}

/// Pixels in raster order as a foreground; the values of all maps follow from the place.
fn foreground(pixels: impl Iterator<Item = (i32, i32)>) -> Foreground {
    let mut blob = Foreground {
        types: 2,
        ..Default::default()
    };
    for (y, x) in pixels {
        match blob.runs.last_mut() {
            Some(run) if run.y == y && run.x1 == x => run.x1 += 1,
            _ => blob.runs.push(Run {
                y,
                x0: x,
                x1: x + 1,
            }),
        }
        let mix = (x.wrapping_mul(7919) ^ y.wrapping_mul(104_729)) as u32;
        blob.np.push(mix as u8);
        blob.h.push((mix >> 3) as i16);
        blob.v.push((mix >> 7) as i16);
        blob.tp.extend([(mix >> 2) as u8, (mix >> 4) as u8]);
        blob.rgb
            .extend([(mix >> 1) as u8, (mix >> 5) as u8, (mix >> 6) as u8]);
    }
    blob
}

fn pixels(blob: &Foreground) -> impl Iterator<Item = (i32, i32)> + '_ {
    blob.runs
        .iter()
        .flat_map(|run| (run.x0..run.x1).map(move |x| (run.y, x)))
}

/// A pure function of one blob that may give several nuclei: one per six rows, counted from the
/// first. Checks the values of the blob, which follow from the place.
fn segment(blob: &Foreground, _: Extent) -> Vec<Nucleus> {
    assert_eq!(*blob, foreground(pixels(blob)));
    let top = blob.runs[0].y;
    let bands = blob
        .runs
        .chunk_by(|a, b| (a.y - top) / 6 == (b.y - top) / 6);
    bands
        .map(|runs| Nucleus {
            prob_sums: vec![0, 1],
            type_counts: vec![blob.len() as u32, 0],
            np_sum: blob.np.iter().map(|&p| u32::from(p)).sum(),
            ..Nucleus::from_runs(runs)
        })
        .collect()
}

/// A rule that cuts the larger blobs of these pictures.
const SMALL_CUT: CutRule = CutRule {
    over_px: 120,
    grid_px: 8,
};

/// [`segment`] of the components of each cell of a blob above [`SMALL_CUT`].
fn segment_cut(blob: &Foreground, extent: Extent) -> Vec<Nucleus> {
    if extent == Extent::Whole && blob.bounds().area() <= SMALL_CUT.over_px {
        return segment(blob, extent);
    }
    cut_along_grid(blob, SMALL_CUT.grid_px)
        .values()
        .flat_map(components)
        .flat_map(|part| segment(&part, extent))
        .collect()
}

/// Joins rows of tiles as [`load`] does, with at most `held_px` pixels in memory; `segment` cuts as
/// `cut` says. Calls `look` after each row, with the row below it and the fragments that are open.
fn stitched_by_rows(
    tiles: &[TileResult],
    cut: CutRule,
    held_px: usize,
    segment: impl Fn(&Foreground, Extent) -> Vec<Nucleus> + Sync,
    look: impl Fn(i32, &[fragment::Fragment]),
) -> Stitched {
    let read_again = |place: [i32; 2]| {
        let tile = tiles.iter().find(|t| [t.col, t.row] == place).unwrap();
        Ok(tile.fragments.clone())
    };
    let mut stitcher = Stitcher::new(cut, held_px, read_again, |blob: Foreground, extent| {
        segment(&blob, extent)
    });
    for row in tiles.chunk_by(|a, b| a.row == b.row) {
        let bottom = row[0].rect.bottom();
        row.iter().for_each(|tile| stitcher.add(tile.clone()));
        stitcher.close_above(bottom).unwrap();
        look(bottom, &stitcher.open);
    }
    stitcher.finish().unwrap()
}

/// Joins tiles in any order.
fn stitched(tiles: Vec<TileResult>) -> Stitched {
    let read_again = |_| panic!("all pixels are held");
    let mut stitcher = Stitcher::new(CUT, HELD_PX, read_again, |blob: Foreground, extent| {
        segment(&blob, extent)
    });
    tiles.into_iter().for_each(|tile| stitcher.add(tile));
    stitcher.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_tiling_in_any_order_equals_the_uncut_slide(
        seed: u64,
        w in 1i32..60, h in 1i32..60,
        tile_w in 1i32..40, tile_h in 1i32..40,
        turn: prop::sample::Index, reverse: bool, held_px in 0usize..1000,
    ) {
        let picture = Picture::random(seed, w, h);
        let mut tiles = picture.tiles([tile_w, tile_h]);
        let in_order = stitched(tiles.clone());
        prop_assert_eq!(&in_order.nuclei, &picture.uncut());
        prop_assert_eq!(in_order.done_px, picture.rect.area());
        let by_rows = stitched_by_rows(&tiles, CUT, held_px, segment, |_, open| {
            assert!(open.iter().map(fragment::Fragment::held_px).sum::<usize>() <= held_px);
        });
        prop_assert_eq!(&by_rows, &in_order);
        let turn = turn.index(tiles.len());
        tiles.rotate_left(turn);
        if reverse {
            tiles.reverse();
        }
        prop_assert_eq!(stitched(tiles), in_order);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn blobs_that_are_cut_give_the_same_by_rows_of_tiles(
        seed: u64,
        w in 1i32..70, h in 1i32..70,
        tile_w in 1i32..40, tile_h in 1i32..40,
        held_px in prop_oneof![0usize..1000, Just(HELD_PX)],
    ) {
        let picture = Picture::random(seed, w, h);
        let whole = picture.nuclei(|blob| segment_cut(blob, Extent::Whole));
        let tiles = picture.cut_tiles([tile_w, tile_h]);
        let by_rows = stitched_by_rows(&tiles, SMALL_CUT, held_px, segment_cut, |_, _| {});
        prop_assert_eq!(by_rows.nuclei, whole);
    }
}

#[test]
fn of_a_blob_that_is_cut_only_the_last_rows_are_held() {
    // A comb: only its back, segmented long before, connects its teeth.
    let row = |y: i32| match y {
        0 => "#".repeat(40),
        _ => "####.".repeat(8),
    };
    let rows: Vec<String> = (0..200).map(row).collect();
    let picture = Picture::drawn(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    let whole = picture.nuclei(|blob| segment_cut(blob, Extent::Whole));
    let tiles = picture.cut_tiles([13, 11]);
    let by_rows = stitched_by_rows(&tiles, SMALL_CUT, 100, segment_cut, |bottom, open| {
        let mut tops = open.iter().map(|part| part.runs[0].y);
        assert!(tops.all(|top| top >= bottom - SMALL_CUT.grid_px));
        assert!(open.iter().map(fragment::Fragment::held_px).sum::<usize>() <= 100);
    });
    assert_eq!(by_rows.nuclei, whole);
}

#[test]
fn a_tile_that_is_lost_before_it_is_read_again_is_an_error() {
    let picture = Picture::drawn(&["####", "####"]);
    let lost = |place| Err(unreadable_again(place, "it is gone"));
    let mut stitcher = Stitcher::new(CUT, 0, lost, |blob: Foreground, extent| {
        segment(&blob, extent)
    });
    let tiles = picture.tiles([2, 2]);
    tiles.iter().for_each(|tile| stitcher.add(tile.clone()));
    let error = stitcher.finish().unwrap_err();
    assert!(error.to_string().contains("tiles/c/0/0"), "{error}");
    let fewer = |_| Ok(vec![]);
    let mut stitcher = Stitcher::new(CUT, 0, fewer, |blob: Foreground, extent| {
        segment(&blob, extent)
    });
    tiles.into_iter().for_each(|tile| stitcher.add(tile));
    assert!(stitcher.finish().is_err());
}

#[test]
fn a_nucleus_on_a_crossing_of_four_tiles() {
    let picture = Picture::drawn(&["......", "..##..", "..##..", "......"]);
    let all = stitched(picture.tiles([3, 2]));
    assert_eq!(all.nuclei, picture.uncut());
    assert_eq!(
        all.seams,
        Seams {
            fragments: 4,
            blobs: 1,
            blobs_over_2_tiles: 1,
            nuclei_over_2_tiles: 1,
            nuclei_over_4_tiles: 1
        }
    );
}

#[test]
fn corners_across_a_crossing_stay_apart() {
    let picture = Picture::drawn(&["......", "..#...", "...#..", "......"]);
    let all = stitched(picture.tiles([3, 2]));
    assert_eq!(all.nuclei.len(), 2);
    assert_eq!(
        all.seams,
        Seams {
            fragments: 2,
            blobs: 2,
            blobs_over_2_tiles: 0,
            nuclei_over_2_tiles: 0,
            nuclei_over_4_tiles: 0
        }
    );
}

#[test]
fn a_ring_round_a_crossing_is_one_and_its_island_another() {
    let picture = Picture::drawn(&[
        "########", "#......#", "#..##..#", "#..##..#", "#......#", "########",
    ]);
    let all = stitched(picture.tiles([4, 3]));
    assert_eq!(all.nuclei, picture.uncut());
    assert_eq!(all.nuclei.len(), 2);
    assert_eq!(all.seams.blobs, 2);
    assert_eq!(all.seams.nuclei_over_4_tiles, 2);
}

#[test]
fn a_chain_runs_over_many_tiles_and_back() {
    let picture = Picture::drawn(&[
        "###################",
        "..................#",
        "###################",
        "#..................",
        "###################",
    ]);
    for tile_px in [[1, 1], [2, 5], [5, 1], [4, 2], [19, 5]] {
        let all = stitched(picture.tiles(tile_px));
        assert_eq!(all.nuclei, picture.uncut());
        assert_eq!(all.nuclei.len(), 1);
    }
    assert_eq!(stitched(picture.tiles([4, 2])).seams.blobs_over_2_tiles, 1);
}

#[test]
fn accounts_add_up_and_errors_are_named_once() {
    let picture = Picture::random(3, 20, 20);
    let all = stitched(picture.tiles([10, 10]));
    assert_eq!(
        [all.done_px, all.unreadable_px, all.outside_px],
        [400, 4, 8]
    );
    assert_eq!(all.read_errors, ["row 0", "row 1"]);
    assert_eq!(stitched(vec![]), Stitched::default());
}

#[test]
fn a_store_gives_back_the_slide_whatever_the_order_of_writing() {
    let picture = Picture::random(11, 90, 80);
    let mut tiles = picture.tiles([31, 17]);
    let planned: Vec<[i32; 2]> = tiles.iter().map(|t| [t.col, t.row]).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let store =
        Store::create(&path, &meta(planned.clone(), [3, 5]), &thumb(), &mask(true)).unwrap();
    tiles.rotate_left(7);
    for tile in &tiles[1..] {
        store.write_tile(tile, "cpu").unwrap();
    }
    let partial = load(&store, |blob, extent| segment(&blob, extent)).unwrap();
    assert_eq!(
        (partial.slide.coverage.missing_tiles, partial.damaged.len()),
        (1, 0)
    );

    store.write_tile(&tiles[0], "gpu").unwrap();
    let whole = load(&store, |blob, extent| segment(&blob, extent)).unwrap();
    assert_eq!(whole.slide.coverage.missing_tiles, 0);
    assert_eq!(whole.slide.nuclei, picture.uncut());
    assert_eq!(check_disjoint(&whole.slide.nuclei), Ok(()));
    assert_eq!(whole.slide.coverage.done_px, 90 * 80);
    assert_eq!(whole.numerics.values().sum::<usize>(), planned.len());

    let file = path.join(format!("tiles/c/{}/{}", tiles[3].row, tiles[3].col));
    let len = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0; len as usize]).unwrap();
    let damaged = load(&store, |blob, extent| segment(&blob, extent)).unwrap();
    assert_eq!(damaged.slide.coverage.missing_tiles, 1);
    assert_eq!(damaged.damaged[0].0, [tiles[3].col, tiles[3].row]);
}
