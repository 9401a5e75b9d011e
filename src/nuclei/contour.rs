//! Mask of a nucleus -> outlines.
//!
//! In: a [`Nucleus`]. Out, in proc px: a contour through pixel centres as hover_net gives it, or
//! rings along pixel edges from which the mask can be restored exactly. Drops points on straight
//! lines; never smooths or simplifies otherwise.

use super::Nucleus;

/// (dx, dy) of the eight directions, counter-clockwise on screen, from the right.
const DIRECTIONS: [(i32, i32); 8] = [
    (1, 0),
    (1, -1),
    (0, -1),
    (-1, -1),
    (-1, 0),
    (-1, 1),
    (0, 1),
    (1, 1),
];

/// The outer boundary through pixel centres: an open ring of (x, y), proc px with centres at
/// integers.
///
/// Border following of Suzuki & Abe 1985, with points only where the direction changes: the points,
/// start and order of OpenCV's `findContours(RETR_EXTERNAL, CHAIN_APPROX_SIMPLE)`. Holes are not
/// followed. If the mask has several 8-connected parts, the largest is followed, the first of
/// equals. The ring's area is smaller than the mask's by about half the boundary: measure the mask
/// instead. Empty for an empty mask.
pub fn outline_through_centres(nucleus: &Nucleus) -> Vec<[i32; 2]> {
    let Some(start) = largest_part(nucleus) else {
        return Vec::new();
    };
    let inside = |[x, y]: [i32; 2], d: usize| {
        let (dx, dy) = DIRECTIONS[d % 8];
        nucleus.contains(x + dx, y + dy)
    };
    let step = |[x, y]: [i32; 2], d: usize| {
        let (dx, dy) = DIRECTIONS[d % 8];
        [x + dx, y + dy]
    };
    // The walk ends at the first pixel inside, clockwise from the left of the start.
    let Some(last_direction) = (0..8).map(|k| (11 - k) % 8).find(|&d| inside(start, d)) else {
        return vec![start];
    };
    let last = step(start, last_direction);
    let mut points = Vec::new();
    let (mut pixel, mut back) = (start, last_direction);
    let mut previous = (last_direction + 4) % 8;
    loop {
        // Counter-clockwise from the direction back; in a dead end the walk goes back.
        let direction = (1..=8)
            .map(|k| (back + k) % 8)
            .find(|&d| inside(pixel, d))
            .unwrap_or(back);
        if direction != previous {
            points.push(pixel);
        }
        let next = step(pixel, direction);
        if next == start && pixel == last {
            return points;
        }
        previous = direction;
        back = (direction + 4) % 8;
        pixel = next;
    }
}

/// The first pixel, in raster order, of the largest 8-connected part.
fn largest_part(nucleus: &Nucleus) -> Option<[i32; 2]> {
    let bbox = nucleus.bbox;
    let width = bbox.w.max(0) as usize;
    let mut seen = vec![false; width * bbox.h.max(0) as usize];
    let index = |[x, y]: [i32; 2]| (y - bbox.y) as usize * width + (x - bbox.x) as usize;
    let mut best: Option<(u32, [i32; 2])> = None;
    let mut stack = Vec::new();
    for y in bbox.y..bbox.bottom() {
        for x in bbox.x..bbox.right() {
            let first = [x, y];
            if seen[index(first)] || !nucleus.contains(x, y) {
                continue;
            }
            seen[index(first)] = true;
            stack.push(first);
            let mut pixels = 0u32;
            while let Some([x, y]) = stack.pop() {
                pixels += 1;
                for (dx, dy) in DIRECTIONS {
                    let n = [x + dx, y + dy];
                    if nucleus.contains(n[0], n[1]) && !seen[index(n)] {
                        seen[index(n)] = true;
                        stack.push(n);
                    }
                }
            }
            if best.is_none_or(|(most, _)| pixels > most) {
                best = Some((pixels, first));
            }
            if pixels == nucleus.area_px {
                return Some(first);
            }
        }
    }
    best.map(|(_, first)| first)
}

/// An exterior ring and its holes, on pixel edges: pixel (i, j) is the square
/// `[i, i + 1] x [j, j + 1]`, proc px.
///
/// Rings are closed (the last point repeats the first), simple, and have points (x, y) only where
/// they turn. The shoelace area `sum(x_i y_i+1 - x_i+1 y_i) / 2` is positive for the exterior and
/// negative for a hole. That is the order of RFC 7946 for a reader that takes y as pointing up; on
/// screen exteriors run clockwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polygon {
    pub exterior: Vec<[i32; 2]>,
    pub holes: Vec<Vec<[i32; 2]>>,
}

/// The mask's outline along pixel edges. Filled by the even-odd rule it gives the mask back.
///
/// One polygon per 4-connected part, ordered by first pixel. Rings may touch at corners but share
/// no edge.
pub fn outline_on_edges(nucleus: &Nucleus) -> Vec<Polygon> {
    let mut polygons: Vec<Polygon> = Vec::new();
    let mut holes = Vec::new();
    for ring in simple_rings(nucleus) {
        if doubled_area(&ring) > 0 {
            polygons.push(Polygon {
                exterior: ring,
                holes: Vec::new(),
            });
        } else {
            holes.push(ring);
        }
    }
    for hole in holes {
        // A part may lie in a hole of another: the smallest exterior around a hole is its own.
        let owner = polygons
            .iter_mut()
            .filter(|p| encloses(&p.exterior, &hole))
            .min_by_key(|p| doubled_area(&p.exterior));
        if let Some(polygon) = owner {
            polygon.holes.push(hole);
        }
    }
    polygons
}

/// Twice the shoelace area of a closed ring.
fn doubled_area(ring: &[[i32; 2]]) -> i64 {
    ring.windows(2)
        .map(|e| i64::from(e[0][0]) * i64::from(e[1][1]) - i64::from(e[1][0]) * i64::from(e[0][1]))
        .sum()
}

/// Whether `hole` lies inside `exterior`. Tests the middle of the pixel below and to the right of
/// the hole's topmost, leftmost corner: it is in the hole and on no edge.
fn encloses(exterior: &[[i32; 2]], hole: &[[i32; 2]]) -> bool {
    let Some(&[x, y]) = hole.iter().min_by_key(|p| (p[1], p[0])) else {
        return false;
    };
    let crossings = exterior
        .windows(2)
        .filter(|e| e[0][0] == e[1][0] && e[0][0] <= x)
        .filter(|e| {
            let (top, bottom) = (e[0][1].min(e[1][1]), e[0][1].max(e[1][1]));
            top <= y && y < bottom
        })
        .count();
    crossings % 2 == 1
}

/// (dx, dy) of right, down, left and up: each entry is a right turn, on screen, from the one
/// before.
const TURNS: [(i32, i32); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];

/// The closed rings around the mask, in raster order of their start. No ring visits a point twice.
///
/// Walks along pixel edges with the mask on the right. Where two pixels meet only at a corner, the
/// walk stays with the current pixel; a ring that comes back to such a corner is split there.
fn simple_rings(nucleus: &Nucleus) -> Vec<Vec<[i32; 2]>> {
    let (width, height) = (nucleus.bbox.w.max(0), nucleus.bbox.h.max(0));
    let mask = PaddedMask::new(nucleus);
    let corner = |[x, y]: [i32; 2]| y as usize * (width as usize + 1) + x as usize;
    let mut walked = vec![false; corner([width, height]) + 1]; // the edge to the right of a corner
    let mut position = vec![usize::MAX; walked.len()]; // of a corner in `points`
    let mut rings = Vec::new();
    let mut points: Vec<[i32; 2]> = Vec::new();
    for y in 0..height {
        for x in 0..width {
            if walked[corner([x, y])] || !mask.has_edge([x, y], 0) {
                continue;
            }
            let (mut at, mut direction) = ([x, y], 0);
            let mut turned = true;
            while direction != 0 || !walked[corner(at)] {
                if turned {
                    visit(at, corner, &mut points, &mut position, &mut rings);
                }
                if direction == 0 {
                    walked[corner(at)] = true;
                }
                at = [at[0] + TURNS[direction].0, at[1] + TURNS[direction].1];
                let next = [1, 0, 3]
                    .map(|turn| (direction + turn) % 4)
                    .into_iter()
                    .find(|&d| mask.has_edge(at, d))
                    .unwrap_or(direction);
                turned = next != direction;
                direction = next;
            }
            visit(at, corner, &mut points, &mut position, &mut rings);
            points.clear();
            position[corner(at)] = usize::MAX;
        }
    }
    for point in rings.iter_mut().flatten() {
        *point = [point[0] + nucleus.bbox.x, point[1] + nucleus.bbox.y];
    }
    rings
}

/// Adds a corner to the walk. A corner that the walk has visited closes a ring, which moves to
/// `rings`.
fn visit(
    at: [i32; 2],
    corner: impl Fn([i32; 2]) -> usize,
    points: &mut Vec<[i32; 2]>,
    position: &mut [usize],
    rings: &mut Vec<Vec<[i32; 2]>>,
) {
    let first = position[corner(at)];
    if first == usize::MAX {
        position[corner(at)] = points.len();
        points.push(at);
        return;
    }
    let mut ring = vec![at];
    for point in points.drain(first + 1..) {
        position[corner(point)] = usize::MAX;
        ring.push(point);
    }
    ring.push(at);
    rings.push(ring);
}

/// A mask with one pixel of margin.
struct PaddedMask {
    stride: usize,
    inside: Vec<bool>,
}

impl PaddedMask {
    fn new(nucleus: &Nucleus) -> PaddedMask {
        let bbox = nucleus.bbox;
        let stride = bbox.w.max(0) as usize + 2;
        let mut inside = vec![false; stride * (bbox.h.max(0) as usize + 2)];
        for run in nucleus.runs() {
            let row = (run.y - bbox.y + 1) as usize * stride;
            let at = row + (run.x0 - bbox.x + 1) as usize;
            inside[at..at + run.len()].fill(true);
        }
        PaddedMask { stride, inside }
    }

    /// Whether the pixel at column `x`, row `y` of the box is inside; both may be one outside the
    /// box.
    fn contains(&self, x: i32, y: i32) -> bool {
        self.inside[(y + 1) as usize * self.stride + (x + 1) as usize]
    }

    /// Whether the edge from corner (x, y) in direction `d` of [`TURNS`] has the mask on its right
    /// only.
    fn has_edge(&self, [x, y]: [i32; 2], d: usize) -> bool {
        let around = [(x, y), (x - 1, y), (x - 1, y - 1), (x, y - 1)];
        let (right, left) = (around[d], around[(d + 3) % 4]);
        self.contains(right.0, right.1) && !self.contains(left.0, left.1)
    }
}
