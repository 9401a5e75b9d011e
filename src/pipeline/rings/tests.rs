use std::sync::Arc;

use super::*;
use crate::slide::frames::Frames;
use crate::slide::testing::{TestSlide, busy};

const SIZE_PX: [i32; 2] = [700, 600];
/// Where the tiles meet.
const CROSS: [i32; 2] = [320, 256];

fn image() -> ProcImage {
    let slide = TestSlide::new(&[SIZE_PX.map(|px| px as u64)], busy);
    let reader: Arc<dyn crate::slide::SlideReader> = Arc::new(slide);
    let (frames, level) = Frames::for_slide(reader.info(), [0.25; 2], 0.25).unwrap();
    ProcImage::new(reader, frames, level, 64 << 20)
}

fn tiles() -> [Rect; 4] {
    let [w, h] = SIZE_PX;
    let [x, y] = CROSS;
    [
        Rect::new(0, 0, x, y),
        Rect::new(x, 0, w - x, y),
        Rect::new(0, y, x, h - y),
        Rect::new(x, y, w - x, h - y),
    ]
}

/// Discs of all sizes, some of which touch; no pixel is in two.
fn discs() -> Vec<Vec<Run>> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut taken = vec![false; (SIZE_PX[0] * SIZE_PX[1]) as usize];
    let mut all = Vec::new();
    for _ in 0..400 {
        let [x, y] = SIZE_PX.map(|px| random.i32(0..px));
        let radius = random.i32(2..14);
        let mut runs = Vec::new();
        for py in (y - radius).max(0)..(y + radius).min(SIZE_PX[1]) {
            for px in (x - radius).max(0)..(x + radius).min(SIZE_PX[0]) {
                let inside = (px - x).pow(2) + (py - y).pow(2) < radius.pow(2);
                let place = (py * SIZE_PX[0] + px) as usize;
                if inside && !std::mem::replace(&mut taken[place], true) {
                    let (x0, x1) = (px, px + 1);
                    runs.push(Run { y: py, x0, x1 });
                }
            }
        }
        if !runs.is_empty() {
            all.push(runs);
        }
    }
    all
}

/// The part of a blob in a tile.
fn part(runs: &[Run], tile: Rect) -> Foreground {
    let inside = runs.iter().filter(|run| tile.contains(run.x0, run.y));
    Foreground {
        runs: inside.copied().collect(),
        ..Foreground::default()
    }
}

/// The nuclei and fragments of a tile.
type Found = (Vec<Nucleus>, Vec<Foreground>);

/// What `of_tile` is told of each tile, and all nuclei in the end. Of the blobs that tiles cut some become no nucleus.
fn tiled() -> (Vec<Found>, Vec<Nucleus>) {
    let mut by_tile: Vec<Found> = vec![Found::default(); 4];
    let mut all = Vec::new();
    for (i, runs) in discs().iter().enumerate() {
        let nucleus = Nucleus::from_runs(runs);
        let bbox = nucleus.bbox;
        let [x, y] = CROSS;
        let touches = |first: i32, end: i32, at: i32| first <= at && end >= at;
        if touches(bbox.x, bbox.right(), x) || touches(bbox.y, bbox.bottom(), y) {
            for (tile, (_, fragments)) in tiles().into_iter().zip(&mut by_tile) {
                let part = part(runs, tile);
                if !part.runs.is_empty() {
                    fragments.push(part);
                }
            }
            if i % 3 == 0 {
                continue;
            }
        } else {
            let at = tiles()
                .iter()
                .position(|tile| tile.contains(bbox.x, bbox.y));
            by_tile[at.unwrap()].0.push(nucleus.clone());
        }
        all.push(nucleus);
    }
    all.sort_by_key(Nucleus::first_pixel);
    (by_tile, all)
}

fn rings_of_tiles(room: u64) -> Vec<TileRings> {
    let image = image();
    image.region(image.frames().proc_rect()).unwrap();
    let (by_tile, _) = tiled();
    let room = AtomicU64::new(room);
    tiles()
        .into_iter()
        .zip(&by_tile)
        .map(|(tile, (nuclei, fragments))| of_tile(tile, nuclei, fragments, &image, &room).unwrap())
        .collect()
}

/// The rings in the end, and how many px were read for them.
fn measured(tiles: Vec<TileRings>) -> (Vec<Ring>, u64) {
    let image = image();
    let (rings, unread) = measure(&tiled().1, tiles, &image, &AtomicBool::new(false)).unwrap();
    assert_eq!(unread, 0);
    (rings, image.px_read())
}

#[test]
fn rings_with_their_tiles_are_those_of_a_second_look_and_need_none() {
    let (wanted, px) = measured(Vec::new());
    let with_px = wanted.iter().filter(|ring| ring.area_px > 0).count();
    assert!(px > 0 && 2 * with_px > wanted.len());
    let tiles = rings_of_tiles(u64::MAX);
    let decided: usize = tiles.iter().map(|tile| tile.measured.len()).sum();
    assert!(
        (100..wanted.len() - 20).contains(&decided),
        "{decided} of {}",
        wanted.len()
    );
    assert_eq!(measured(tiles), (wanted, 0));
}

#[test]
fn without_room_or_without_some_tiles_the_slide_is_read_again() {
    let (wanted, _) = measured(Vec::new());
    let (rings, px) = measured(rings_of_tiles(10));
    assert!(rings == wanted && px > 0);
    for left_out in 0..4 {
        let mut tiles = rings_of_tiles(u64::MAX);
        tiles.remove(left_out);
        let (rings, px) = measured(tiles);
        assert!(rings == wanted && px > 0, "without tile {left_out}");
    }
}

#[test]
fn a_tile_whose_pixels_are_gone_says_nothing() {
    let image = image();
    let room = AtomicU64::new(u64::MAX);
    assert!(of_tile(tiles()[0], &[], &[], &image, &room).is_none());
}
