//! An outline through pixel centres -> the mask it was drawn around.
//!
//! In: the points of a closed ring, px with centres at whole numbers. Out: every px whose centre lies inside the ring
//! or on it. What [`outline_through_centres`](crate::nuclei::outline_through_centres) draws around a mask without holes
//! gives that mask back, so its area is the ring's shoelace area + border px / 2 + 1 (Pick 1899); a hole is filled,
//! because an outline does not tell of it.

use crate::geometry::Rect;

/// Work that the outlines of a file may cost together, so that a small file with absurd ones cannot fill the memory or
/// take hours: px of boxes, px of sides, and rows of sides.
#[derive(Debug)]
pub struct Budget(u64);

/// Work of a file beyond [`PER_NUCLEUS`]: room for a blob as large as any that is stitched.
const PER_FILE: u64 = 1 << 24;
/// Work of a nucleus of 100 x 100 px, larger than usual.
const PER_NUCLEUS: u64 = 1 << 14;

impl Budget {
    /// What a file of so many nuclei may cost.
    pub fn for_nuclei(count: usize) -> Self {
        Self(PER_FILE.saturating_add(PER_NUCLEUS.saturating_mul(count as u64)))
    }

    fn spend(&mut self, work: u64) -> bool {
        let left = self.0.checked_sub(work);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// A mask as [`Nucleus`](crate::nuclei::Nucleus) holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    pub bbox: Rect,
    pub mask: Vec<u8>,
    pub area_px: u32,
}

/// Fills a ring, open or closed. Sides that run neither along a row, a column nor a diagonal are drawn as the nearest
/// px from point to point, so that a mask never falls apart; where a ring crosses itself, what it winds around counts.
///
/// # Errors
/// No points, or an outline beyond what is left of the budget.
pub fn filled(points: &[[i32; 2]], budget: &mut Budget) -> Result<Filled, String> {
    let range = |axis: usize| {
        let values = points.iter().map(move |p| p[axis]);
        Some((values.clone().min()?, values.max()?))
    };
    let (Some((x0, x1)), Some((y0, y1))) = (range(0), range(1)) else {
        return Err("has no outline".into());
    };
    let bbox = Rect::new(x0, y0, x1 - x0 + 1, y1 - y0 + 1);
    let sides = || points.iter().zip(points.iter().cycle().skip(1));
    let length: u64 = sides()
        .map(|(a, b)| u64::from(a[0].abs_diff(b[0]).max(a[1].abs_diff(b[1]))))
        .sum();
    // A row of a side costs an eighth of a px of the box.
    let rows_of_sides = bbox.h as u64 * points.len() as u64 / 8;
    if !budget.spend(bbox.area() + length + rows_of_sides) {
        return Err(format!(
            "its outline of {} points spans {} x {} px: no nucleus",
            points.len(),
            bbox.w,
            bbox.h
        ));
    }
    let mut canvas = Canvas {
        bbox,
        mask: vec![0; (bbox.area() as usize).div_ceil(8)],
    };
    let sides: Vec<[[i32; 2]; 2]> = sides().map(|(a, b)| [*a, *b]).collect();
    for side in &sides {
        canvas.draw(*side);
    }
    let mut crossings = Vec::new();
    for y in y0..=y1 {
        crossings.clear();
        crossings.extend(sides.iter().filter_map(|side| crossing(*side, y)));
        crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut winding = 0;
        for pair in crossings.windows(2) {
            winding += pair[0].1;
            if winding != 0 {
                canvas.run(y, pair[0].0.ceil() as i32, pair[1].0.floor() as i32);
            }
        }
    }
    let area_px = canvas.mask.iter().map(|byte| byte.count_ones()).sum();
    Ok(Filled {
        bbox,
        mask: canvas.mask,
        area_px,
    })
}

/// Where a side crosses row `y`, and whether down (1) or up (-1); its upper end counts, its lower does not.
fn crossing([a, b]: [[i32; 2]; 2], y: i32) -> Option<(f64, i32)> {
    let (top, bottom, way) = if a[1] < b[1] { (a, b, 1) } else { (b, a, -1) };
    if y < top[1] || y >= bottom[1] {
        return None;
    }
    let part = f64::from(y - top[1]) / f64::from(bottom[1] - top[1]);
    Some((
        f64::from(top[0]) + part * f64::from(bottom[0] - top[0]),
        way,
    ))
}

struct Canvas {
    bbox: Rect,
    mask: Vec<u8>,
}

impl Canvas {
    fn set(&mut self, x: i32, y: i32) {
        let row = (y - self.bbox.y) as usize * self.bbox.w as usize;
        let bit = row + (x - self.bbox.x) as usize;
        if let Some(byte) = self.mask.get_mut(bit / 8) {
            *byte |= 1 << (bit % 8);
        }
    }

    fn run(&mut self, y: i32, first: i32, last: i32) {
        for x in first..=last {
            self.set(x, y);
        }
    }

    /// The px from one point to the next, one a step of the longer axis.
    fn draw(&mut self, [a, b]: [[i32; 2]; 2]) {
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let steps = dx.abs().max(dy.abs());
        for step in 0..=steps {
            let along = |from: i32, d: i32| {
                let moved = f64::from(d) * f64::from(step) / f64::from(steps.max(1));
                from + moved.round() as i32
            };
            self.set(along(a[0], dx), along(a[1], dy));
        }
    }
}
