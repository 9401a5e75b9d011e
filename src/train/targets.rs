//! Targets: the maps that the network should predict for a crop, and the weight of each pixel.
//!
//! In: a [`Crop`]. Out: [`Targets`]. np: inside a nucleus or not. h, v: see [`ideal_hv`]. tp: the
//! type. Where the labels say nothing, the weight is 0.

use super::crops::Crop;
use crate::labels::Dot;
use crate::nuclei::ideal_hv;

/// Nuclei with fewer pixels in the crop have no targets of h and v (as in hover_net).
const MIN_HV_PX: u32 = 30;
/// Extra weight of pixels where two nuclei are close: there the network must separate them.
const TOUCH_WEIGHT: f32 = 2.0;
/// Within this distance of a dot there is a nucleus of the dot's type, px (1.25 µm at 0.25 µm/px).
const DOT_RADIUS_PX: f32 = 5.0;
/// Beyond this distance of every dot there is no nucleus, px (9 µm at 0.25 µm/px): each nucleus of
/// a dotted image has its dot, and few reach farther. Between the two distances nothing is known.
const DOT_CLEAR_PX: f32 = 36.0;
/// Weight of np near a dot.
const DOT_NP_WEIGHT: f32 = 0.5;
/// Weight of np far from every dot.
const DOT_CLEAR_WEIGHT: f32 = 0.3;
/// Weight of the type near a dot: more than 1, because these pixels stand for the whole nucleus.
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
pub fn compute_targets(crop: &Crop, side: usize) -> Targets {
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
    match &crop.dots {
        Some(_) => add_dots(crop, side, &mut t),
        None => add_instances(crop, side, &mut t),
    }
    t
}

fn add_dots(crop: &Crop, side: usize, t: &mut Targets) {
    for (i, &id) in crop.ids.iter().enumerate() {
        if id >= 0 {
            t.np_weight[i] = DOT_CLEAR_WEIGHT;
        }
    }
    let dots = || crop.dots.iter().flatten();
    for dot in dots() {
        for i in disc_pixels(dot, DOT_CLEAR_PX, side) {
            t.np_weight[i] = 0.0;
        }
    }
    for dot in dots() {
        for i in disc_pixels(dot, DOT_RADIUS_PX, side) {
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
fn disc_pixels(dot: &Dot, radius_px: f32, side: usize) -> impl Iterator<Item = usize> {
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
    /// Largest distance from the rounded centre of mass to the left, right, top and bottom, px.
    reach: [i32; 4],
}

impl Extent {
    /// The place of pixel `i` from the rounded centre of mass, px.
    fn offset(&self, i: usize, side: usize) -> [i32; 2] {
        let centre = [self.x_sum, self.y_sum].map(|sum| (sum / f64::from(self.pixels)).round());
        [
            (i % side) as i32 - centre[0] as i32,
            (i / side) as i32 - centre[1] as i32,
        ]
    }
}

fn add_instances(crop: &Crop, side: usize, t: &mut Targets) {
    let mut extents = vec![Extent::default(); crop.types.len()];
    for (i, &id) in crop.ids.iter().enumerate().filter(|(_, id)| **id > 0) {
        let e = &mut extents[id as usize];
        e.pixels += 1;
        e.x_sum += (i % side) as f64;
        e.y_sum += (i / side) as f64;
    }
    for (i, &id) in crop.ids.iter().enumerate().filter(|(_, id)| **id > 0) {
        let e = &mut extents[id as usize];
        let [dx, dy] = e.offset(i, side);
        for (reach, distance) in e.reach.iter_mut().zip([-dx, dx, -dy, dy]) {
            *reach = distance.max(*reach);
        }
    }
    for (i, &id) in crop.ids.iter().enumerate() {
        if id < 0 {
            continue;
        }
        let weight = if is_between_nuclei(&crop.ids, side, i) {
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
            let [h, v] = ideal_hv(e.offset(i, side), e.reach);
            (t.h[i], t.v[i]) = (h as f32, v as f32);
            t.hv_weight[i] = weight;
        }
        let type_id = crop.types[id as usize];
        if type_id > 0 {
            t.tp[i] = i64::from(type_id) - 1;
            t.tp_weight[i] = 1.0;
        }
    }
}

/// Whether two different nuclei lie within 3 px of pixel `i`, the nucleus of `i` counted.
fn is_between_nuclei(ids: &[i32], side: usize, i: usize) -> bool {
    let (x, y) = ((i % side) as i64, (i / side) as i64);
    let is_inside = |v: i64| (0..side as i64).contains(&v);
    let mut first = 0;
    for d in [1, 3] {
        for (dx, dy) in [-d, 0, d]
            .into_iter()
            .flat_map(|dy| [-d, 0, d].map(|dx| (dx, dy)))
        {
            if !is_inside(x + dx) || !is_inside(y + dy) {
                continue;
            }
            let id = ids[(y + dy) as usize * side + (x + dx) as usize].max(0);
            if id > 0 && first > 0 && id != first {
                return true;
            }
            first = first.max(id);
        }
    }
    false
}
