//! What the network should have said about a crop, and how much each pixel counts.
//!
//! np: inside a nucleus. h, v: distance to the rounded centre of mass, each sign scaled to -1..=1 per nucleus (Graham et
//! al. 2019, section 3). tp: the type. Partial labels weigh nothing where nothing is known.

use super::crops::View;
use super::data::Dot;

/// Nuclei smaller than this after the crop teach no h and v (as hover_net).
const MIN_HV_PX: u32 = 30;
/// Extra weight of pixels near another nucleus: there instances are told apart.
const TOUCH_WEIGHT: f32 = 2.0;
/// Radius in which a dot teaches presence and type, px (1.25 µm at 0.25 µm/px).
const DOT_RADIUS_PX: f32 = 5.0;
/// Distance from every dot beyond which there is no nucleus, px (9 µm at 0.25 µm/px): all nuclei of a dotted image have
/// their dot, and few are larger. Between the two radii nothing is known.
const DOT_CLEAR_PX: f32 = 36.0;
/// Weights of presence and absence as a dotted image teaches them.
const DOT_NP_WEIGHT: f32 = 0.5;
const DOT_CLEAR_WEIGHT: f32 = 0.3;
/// A dot covers a fraction of its nucleus: its pixels speak for the others.
const DOT_TYPE_WEIGHT: f32 = 2.0;

/// Targets of one crop, each `[side, side]` row by row.
pub struct Targets {
    pub np: Vec<f32>,
    pub np_weight: Vec<f32>,
    pub h: Vec<f32>,
    pub v: Vec<f32>,
    pub hv_weight: Vec<f32>,
    /// Type - 1 where known, 0 elsewhere.
    pub tp: Vec<i64>,
    pub tp_weight: Vec<f32>,
}

/// Targets of a crop of `side` px.
pub fn of(view: &View, side: usize) -> Targets {
    let n = side * side;
    let mut t = Targets {
        np: vec![0.0; n],
        np_weight: vec![0.0; n],
        h: vec![0.0; n],
        v: vec![0.0; n],
        hv_weight: vec![0.0; n],
        tp: vec![0; n],
        tp_weight: vec![0.0; n],
    };
    match &view.dots {
        Some(_) => from_dots(view, side, &mut t),
        None => from_instances(view, side, &mut t),
    }
    t
}

fn from_dots(view: &View, side: usize, t: &mut Targets) {
    for (i, &id) in view.ids.iter().enumerate() {
        if id >= 0 {
            t.np_weight[i] = DOT_CLEAR_WEIGHT;
        }
    }
    let dots = || view.dots.iter().flatten();
    for dot in dots() {
        for i in disc(dot, DOT_CLEAR_PX, side) {
            t.np_weight[i] = 0.0;
        }
    }
    for dot in dots() {
        for i in disc(dot, DOT_RADIUS_PX, side) {
            t.np[i] = 1.0;
            t.np_weight[i] = DOT_NP_WEIGHT;
            if dot.type_id > 0 {
                t.tp[i] = i64::from(dot.type_id) - 1;
                t.tp_weight[i] = DOT_TYPE_WEIGHT;
            }
        }
    }
}

/// Pixels whose centres lie within `radius_px` of a dot.
fn disc(dot: &Dot, radius_px: f32, side: usize) -> impl Iterator<Item = usize> {
    let reach = radius_px.ceil() as i64;
    let (dot_x, dot_y) = (dot.x_px, dot.y_px);
    let span = move |c: f32| {
        let c = c.floor() as i64;
        (c - reach).max(0)..(c + reach + 1).min(side as i64)
    };
    span(dot_y)
        .flat_map(move |y| span(dot_x).map(move |x| (x, y)))
        .filter(move |&(x, y)| {
            let (dx, dy) = (x as f32 + 0.5 - dot_x, y as f32 + 0.5 - dot_y);
            dx * dx + dy * dy <= radius_px * radius_px
        })
        .map(move |(x, y)| y as usize * side + x as usize)
}

/// Extent of one instance within the crop.
#[derive(Clone, Copy, Default)]
struct Extent {
    pixels: u32,
    x_sum: f64,
    y_sum: f64,
    /// Largest distance from the centre to the left, right, top and bottom.
    reach: [f32; 4],
}

fn from_instances(view: &View, side: usize, t: &mut Targets) {
    let mut extents = vec![Extent::default(); view.types.len()];
    for (i, &id) in view.ids.iter().enumerate().filter(|(_, id)| **id > 0) {
        let e = &mut extents[id as usize];
        e.pixels += 1;
        e.x_sum += (i % side) as f64;
        e.y_sum += (i / side) as f64;
    }
    let offset = |i: usize, e: &Extent| {
        let n = f64::from(e.pixels);
        let dx = (i % side) as f64 - (e.x_sum / n).round();
        let dy = (i / side) as f64 - (e.y_sum / n).round();
        (dx as f32, dy as f32)
    };
    for (i, &id) in view.ids.iter().enumerate().filter(|(_, id)| **id > 0) {
        let e = extents[id as usize];
        let (dx, dy) = offset(i, &e);
        let reach = &mut extents[id as usize].reach;
        reach[0] = reach[0].max(-dx);
        reach[1] = reach[1].max(dx);
        reach[2] = reach[2].max(-dy);
        reach[3] = reach[3].max(dy);
    }
    for (i, &id) in view.ids.iter().enumerate() {
        if id < 0 {
            continue;
        }
        let weight = if near_other(&view.ids, side, i) {
            1.0 + TOUCH_WEIGHT
        } else {
            1.0
        };
        t.np_weight[i] = weight;
        if id == 0 {
            continue;
        }
        t.np[i] = 1.0;
        let e = extents[id as usize];
        if e.pixels >= MIN_HV_PX {
            let (dx, dy) = offset(i, &e);
            t.h[i] = dx / e.reach[usize::from(dx > 0.0)].max(1.0);
            t.v[i] = dy / e.reach[2 + usize::from(dy > 0.0)].max(1.0);
            t.hv_weight[i] = weight;
        }
        let type_id = view.types[id as usize];
        if type_id > 0 {
            t.tp[i] = i64::from(type_id) - 1;
            t.tp_weight[i] = 1.0;
        }
    }
}

/// Whether two different nuclei lie within 3 px of pixel `i` (itself counted).
fn near_other(ids: &[i32], side: usize, i: usize) -> bool {
    let (x, y) = ((i % side) as i64, (i / side) as i64);
    let mut first = ids[i].max(0);
    for radius in [1i64, 3] {
        for (dx, dy) in [
            (1, 0),
            (0, 1),
            (-1, 0),
            (0, -1),
            (1, 1),
            (-1, 1),
            (1, -1),
            (-1, -1),
        ] {
            let (nx, ny) = (x + dx * radius, y + dy * radius);
            if nx < 0 || ny < 0 || nx >= side as i64 || ny >= side as i64 {
                continue;
            }
            let id = ids[ny as usize * side + nx as usize].max(0);
            if id > 0 && first > 0 && id != first {
                return true;
            }
            first = first.max(id);
        }
    }
    false
}
