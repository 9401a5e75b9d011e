//! Segments a prediction map that it makes, measures the nuclei and scores them. Needs no file.
//!
//! ```console
//! . .deps/env && cargo run --example segment_map
//! ```

use image::RgbImage;
use wsi_nuclei::{
    Nucleus, PostprocParams, PredictionMap, measure_nucleus, score_maps, segment_map, shape_in_um,
};

const WIDTH: usize = 64;
const HEIGHT: usize = 48;
const RADIUS_PX: f32 = 10.0;
/// Centres of two discs that touch, x and y, px.
const CENTRES: [[f32; 2]; 2] = [[22.0, 24.0], [41.0, 24.0]];
/// µm per px, x and y.
const MPP: [f64; 2] = [0.25, 0.25];

fn main() {
    let (map, truth) = map_and_truth();
    // The colours under the map: stain features would come from them.
    let rgb = RgbImage::new(WIDTH as u32, HEIGHT as u32);
    let nuclei = segment_map(&map, &rgb, &PostprocParams::default(), MPP);

    for (place, nucleus) in nuclei.iter().enumerate() {
        let shape = shape_in_um(&measure_nucleus(nucleus), MPP);
        println!(
            "nucleus {}: {:.2} µm², perimeter {:.2} µm, major axis {:.2} µm, solidity {:.3}",
            place + 1,
            shape.area,
            shape.perimeter,
            shape.major_axis_length,
            shape.solidity
        );
    }
    let scores = score_maps(&truth, &id_map(&nuclei));
    println!(
        "against the truth: DICE {:.3}, AJI {:.3}, PQ {:.3}",
        scores.dice, scores.aji, scores.pq
    );
}

/// What a good network would say of the two discs, and their ids, `[HEIGHT, WIDTH]`.
fn map_and_truth() -> (PredictionMap, Vec<u32>) {
    let mut map = PredictionMap {
        width: WIDTH,
        height: HEIGHT,
        np: vec![0.0; WIDTH * HEIGHT],
        h: vec![0.0; WIDTH * HEIGHT],
        v: vec![0.0; WIDTH * HEIGHT],
        types: 0,
        tp: Vec::new(),
    };
    let mut truth = vec![0; WIDTH * HEIGHT];
    for (id, [centre_x, centre_y]) in (1..).zip(CENTRES) {
        for (at, true_id) in truth.iter_mut().enumerate() {
            let x = (at % WIDTH) as f32 - centre_x;
            let y = (at / WIDTH) as f32 - centre_y;
            if x.hypot(y) <= RADIUS_PX && *true_id == 0 {
                *true_id = id;
                map.np[at] = 1.0;
                map.h[at] = x / RADIUS_PX;
                map.v[at] = y / RADIUS_PX;
            }
        }
    }
    (map, truth)
}

/// The id of the nucleus at each pixel, from 1, `[HEIGHT, WIDTH]`; 0 is background.
fn id_map(nuclei: &[Nucleus]) -> Vec<u32> {
    let mut ids = vec![0; WIDTH * HEIGHT];
    for (id, nucleus) in (1..).zip(nuclei) {
        for run in nucleus.runs() {
            let row = run.y as usize * WIDTH;
            ids[row + run.x0 as usize..row + run.x1 as usize].fill(id);
        }
    }
    ids
}
