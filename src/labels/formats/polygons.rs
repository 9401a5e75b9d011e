//! Polygons as instances: which pixels they cover, and which of them hold others.
//!
//! In: rings in px of the image, pixel (i, j) covering [i, i + 1) x [j, j + 1). Out: ids in an
//! instance map. A pixel belongs to the polygon that holds its centre (even-odd rule). Never reads
//! files.

/// A closed line; the first point need not be repeated at the end.
pub type Ring = Vec<[f64; 2]>;

/// The polygons of one object, each a list of rings: the outline and its holes.
pub type Shape = Vec<Vec<Ring>>;

/// Times by which the area of a region exceeds that of the single object in it.
const MIN_REGION_RATIO: f64 = 10.0;

/// Writes `id` into free pixels whose centres an odd number of rings hold; returns how many of
/// these pixels were taken.
pub fn fill_polygons(
    ids: &mut [u32],
    (w, h): (u32, u32),
    polygons: &[Vec<Ring>],
    id: u32,
) -> usize {
    let mut taken = 0;
    for rings in polygons {
        let ys = || rings.iter().flatten().map(|p| p[1]);
        let top = ys()
            .fold(f64::INFINITY, f64::min)
            .floor()
            .clamp(0.0, f64::from(h));
        let bottom = ys().fold(0.0, f64::max).ceil().clamp(0.0, f64::from(h));
        for y in top as usize..bottom as usize {
            let mut crossings = find_crossings(rings, y as f64 + 0.5);
            crossings.sort_by(f64::total_cmp);
            for pair in crossings.chunks_exact(2) {
                // Centres at x + 0.5 in [left, right).
                let first = |c: f64| (c - 0.5).ceil().clamp(0.0, f64::from(w)) as usize;
                for x in first(pair[0])..first(pair[1]) {
                    let px = &mut ids[y * w as usize + x];
                    match *px {
                        0 => *px = id,
                        _ => taken += 1,
                    }
                }
            }
        }
    }
    taken
}

/// The x at which the rings cross the horizontal line at `y`.
fn find_crossings(rings: &[Ring], y: f64) -> Vec<f64> {
    let mut found = Vec::new();
    for ring in rings {
        for (i, a) in ring.iter().enumerate() {
            let b = ring[(i + 1) % ring.len()];
            if (a[1] <= y) != (b[1] <= y) {
                found.push(a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
            }
        }
    }
    found
}

/// Area of a shape, px²: shoelace formula, holes taken off.
fn area_px2(shape: &Shape) -> f64 {
    let of_ring = |ring: &Ring| {
        let next = ring.iter().cycle().skip(1);
        let twice: f64 = ring
            .iter()
            .zip(next)
            .map(|(a, b)| a[0] * b[1] - b[0] * a[1])
            .sum();
        (twice / 2.0).abs()
    };
    let of_polygon = |rings: &Vec<Ring>| {
        let mut areas = rings.iter().map(of_ring);
        areas.next().unwrap_or(0.0) - areas.sum::<f64>()
    };
    shape.iter().map(of_polygon).sum()
}

/// The smallest box around a shape: left, top, right, bottom.
fn bounds(shape: &Shape) -> [f64; 4] {
    let mut found = [
        f64::INFINITY,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NEG_INFINITY,
    ];
    for [x, y] in shape.iter().flatten().flatten() {
        found = [
            found[0].min(*x),
            found[1].min(*y),
            found[2].max(*x),
            found[3].max(*y),
        ];
    }
    found
}

/// For each shape, whether it is a region drawn around other shapes: it holds the centres of two
/// smaller ones, or that of one at most a tenth as large.
pub fn find_regions(shapes: &[Shape]) -> Vec<bool> {
    let areas: Vec<f64> = shapes.iter().map(area_px2).collect();
    let boxes: Vec<[f64; 4]> = shapes.iter().map(bounds).collect();
    let holds = |outer: usize, inner: usize| {
        let [left, top, right, bottom] = boxes[inner];
        let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        let around = boxes[outer];
        areas[inner] < areas[outer]
            && (around[0]..=around[2]).contains(&x)
            && (around[1]..=around[3]).contains(&y)
            && shapes[outer].iter().any(|rings| contains(rings, x, y))
    };
    (0..shapes.len())
        .map(|outer| {
            let held: Vec<usize> = (0..shapes.len())
                .filter(|&inner| inner != outer && holds(outer, inner))
                .collect();
            match held[..] {
                [] => false,
                [only] => MIN_REGION_RATIO * areas[only] <= areas[outer],
                _ => true,
            }
        })
        .collect()
}

/// Whether the rings hold a point: even-odd test with a ray to the right, after Shimrat 1962.
fn contains(rings: &[Ring], x: f64, y: f64) -> bool {
    find_crossings(rings, y).iter().filter(|&&c| c > x).count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polygon_covers_the_pixels_whose_centres_it_holds() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..50 {
            let mut ring = || -> Ring {
                (0..5)
                    .map(|_| [rng.f64() * 24.0 - 2.0, rng.f64() * 24.0 - 2.0])
                    .collect()
            };
            let rings = vec![ring(), ring()];
            let mut ids = vec![0; 400];
            assert_eq!(
                fill_polygons(&mut ids, (20, 20), std::slice::from_ref(&rings), 7),
                0
            );
            for (i, id) in ids.iter().enumerate() {
                let inside = contains(&rings, (i % 20) as f64 + 0.5, (i / 20) as f64 + 0.5);
                assert_eq!(*id == 7, inside, "{} {} {rings:?}", i % 20, i / 20);
            }
        }
    }

    #[test]
    fn of_two_overlapping_squares_the_first_keeps_the_overlap() {
        let corners = [[0.0, 1.0], [2.0, 1.0], [2.0, 3.0], [0.0, 3.0], [0.0, 1.0]];
        let square = |left: f64| vec![corners.map(|[x, y]| [left + x, y]).to_vec()];
        let mut ids = vec![0; 36];
        assert_eq!(fill_polygons(&mut ids, (6, 6), &[square(1.0)], 1), 0);
        assert_eq!(fill_polygons(&mut ids, (6, 6), &[square(2.0)], 2), 2);
        assert_eq!(ids[6..12], [0, 1, 1, 2, 0, 0]);
        assert_eq!(ids.iter().filter(|id| **id == 1).count(), 4);
    }

    #[test]
    fn a_region_holds_others_and_a_nucleus_beside_another_does_not() {
        let square = |left: f64, top: f64, side: f64| -> Shape {
            vec![vec![vec![
                [left, top],
                [left + side, top],
                [left + side, top + side],
                [left, top + side],
            ]]]
        };
        let image = square(0.0, 0.0, 100.0);
        let nuclei = [square(5.0, 5.0, 8.0), square(20.0, 5.0, 8.0)];
        // One nucleus drawn within another, and two that overlap.
        let inner = square(6.0, 6.0, 4.0);
        let overlapping = square(26.0, 5.0, 9.0);
        let all = [vec![image], nuclei.to_vec(), vec![inner, overlapping]].concat();
        assert_eq!(find_regions(&all), [true, false, false, false, false]);
        let lone = [square(0.0, 0.0, 40.0), square(1.0, 1.0, 8.0)];
        assert_eq!(find_regions(&lone), [true, false]);
        assert_eq!(area_px2(&lone[1]), 64.0);
    }
}
