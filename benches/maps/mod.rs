//! Synthetic prediction maps for the benches.

use wsi_nuclei::PredictionMap;

/// A field of discs, some of which touch: 20 % of the pixels.
pub fn discs(side: usize) -> PredictionMap {
    const SPACING: usize = 32;
    let n = side * side;
    let mut map = PredictionMap {
        width: side,
        height: side,
        np: vec![0.0; n],
        h: vec![0.0; n],
        v: vec![0.0; n],
        types: 0,
        tp: vec![],
    };
    for y in 0..side {
        for x in 0..side {
            let (column, row) = (x / SPACING, y / SPACING);
            // Every fourth disc is wide enough to meet its neighbour.
            let radius = if (column + 2 * row) % 4 == 0 {
                17.0
            } else {
                6.0 + (column * 7 + row * 3) as f32 % 5.0
            };
            let centre = |at: usize| (at % SPACING) as f32 - SPACING as f32 / 2.0 + 0.5;
            let (dx, dy) = (centre(x) / radius, centre(y) / radius);
            if dx * dx + dy * dy <= 1.0 {
                let at = y * side + x;
                (map.np[at], map.h[at], map.v[at]) = (0.9, dx, dy);
            }
        }
    }
    map
}

/// The same discs with nucleus between them as well, where h and v fall: one blob over the whole map.
#[allow(dead_code, reason = "not every bench wants it")]
pub fn one_blob(side: usize) -> PredictionMap {
    let mut map = discs(side);
    for y in 0..side {
        for x in 0..side {
            let at = y * side + x;
            if map.np[at] == 0.0 {
                let slope = |at: usize| 0.3 - (at % 32) as f32 / 53.0;
                let noise = (x.wrapping_mul(7919) ^ y.wrapping_mul(104_729)) % 97;
                let noise = noise as f32 / 970.0;
                (map.np[at], map.h[at], map.v[at]) = (0.7, slope(x) + noise, slope(y) - noise);
            }
        }
    }
    map
}
