//! The convex hull of a mask and its measures, in exact integers.
//!
//! In: the first and last pixel of each row. Out: the hull polygon, the convex image, Feret
//! diameters. Follows `skimage.morphology.convex_hull_image`: the hull is of the middles of the
//! four sides of each pixel, and the convex image has every pixel whose centre is inside the hull
//! or on it. Never sees the mask itself.

/// A convex polygon as its left and right boundary. Points are (x, y) in half px; the centre of
/// pixel (i, j) is (2 i, 2 j). In both chains y increases strictly and no three points are on a
/// line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hull {
    left: Vec<[i64; 2]>,
    right: Vec<[i64; 2]>,
}

/// Positive where a -> b -> c turns to larger x.
fn turn(a: [i64; 2], b: [i64; 2], c: [i64; 2]) -> i64 {
    (c[0] - a[0]) * (b[1] - a[1]) - (b[0] - a[0]) * (c[1] - a[1])
}

/// Adds `point` to the chain whose outside is towards `sign * x`, and drops points that are no
/// longer corners.
fn extend(chain: &mut Vec<[i64; 2]>, point: [i64; 2], sign: i64) {
    if let Some(last) = chain.last_mut()
        && last[1] == point[1]
    {
        if (point[0] - last[0]) * sign <= 0 {
            return;
        }
        chain.pop();
    }
    while let [.., a, b] = chain[..]
        && turn(a, b, point) * sign >= 0
    {
        chain.pop();
    }
    chain.push(point);
}

/// The hull of the middles of the sides of all pixels, from the first and last pixel of each row.
pub fn hull(extents: &[Option<[i32; 2]>]) -> Hull {
    // Each row adds one point at most at its own height and one below it.
    let most = 2 * extents.len() + 1;
    let mut hull = Hull {
        left: Vec::with_capacity(most),
        right: Vec::with_capacity(most),
    };
    for (y, extent) in extents.iter().enumerate() {
        let Some([first, last]) = *extent else {
            continue;
        };
        let (y, first, last) = (2 * y as i64, 2 * i64::from(first), 2 * i64::from(last));
        for (dx, dy) in [(0, -1), (1, 0), (0, 1)] {
            extend(&mut hull.left, [first - dx, y + dy], -1);
            extend(&mut hull.right, [last + dx, y + dy], 1);
        }
    }
    hull
}

/// First and last pixel of each of `height` rows whose centre is inside the hull or on it.
pub fn convex_image(hull: &Hull, height: usize) -> Vec<Option<[i32; 2]>> {
    let (mut left, mut right) = (&hull.left[..], &hull.right[..]);
    (0..height as i64)
        .map(|y| {
            let (x0, den0) = cross_x(&mut left, 2 * y)?;
            let (x1, den1) = cross_x(&mut right, 2 * y)?;
            let first = -(-x0).div_euclid(2 * den0);
            let last = x1.div_euclid(2 * den1);
            (first <= last).then_some([first as i32, last as i32])
        })
        .collect()
}

/// The x at which the chain crosses row `y`, as (numerator, denominator); `None` above and below
/// it. Drops the points that later rows do not need.
fn cross_x(chain: &mut &[[i64; 2]], y: i64) -> Option<(i64, i64)> {
    while let [_, b, ..] = chain
        && b[1] <= y
    {
        *chain = &chain[1..];
    }
    match **chain {
        [a, ..] if a[1] == y => Some((a[0], 1)),
        [a, b, ..] if a[1] < y => {
            let den = b[1] - a[1];
            Some((a[0] * den + (b[0] - a[0]) * (y - a[1]), den))
        }
        _ => None,
    }
}

/// Largest and smallest distance between two parallel lines with the hull between them, px.
///
/// The largest equals scikit-image's `feret_diameter_max` if `hull` is the hull of the convex
/// image. The smallest is searched over the hull's edges, because one of the two lines then lies on
/// an edge.
pub fn feret(hull: &Hull) -> [f64; 2] {
    let corners = || hull.left.iter().chain(hull.right.iter().rev());
    let mut max_sq = 0;
    let mut min = f64::INFINITY;
    let mut before = hull.left.first().or(hull.right.first());
    // Once around the polygon: down the left side, up the right side, back to the start.
    for b in corners().chain(hull.left.first()) {
        let Some(a) = before.replace(b) else { continue };
        let edge = [b[0] - a[0], b[1] - a[1]];
        let length = ((edge[0] * edge[0] + edge[1] * edge[1]) as f64).sqrt();
        let mut across = 0;
        for p in corners() {
            let [dx, dy] = [p[0] - b[0], p[1] - b[1]];
            max_sq = max_sq.max(dx * dx + dy * dy);
            across = across.max((edge[0] * dy - edge[1] * dx).abs());
        }
        if length > 0.0 {
            min = min.min(across as f64 / length);
        }
    }
    if !min.is_finite() {
        return [0.0, 0.0];
    }
    [(max_sq as f64).sqrt() / 2.0, min / 2.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pixel_is_a_diamond() {
        let hull = hull(&[Some([0, 0])]);
        assert_eq!(hull.left, [[0, -1], [-1, 0], [0, 1]]);
        assert_eq!(hull.right, [[0, -1], [1, 0], [0, 1]]);
        assert_eq!(convex_image(&hull, 1), [Some([0, 0])]);
        let [max, min] = feret(&hull);
        assert_eq!(max, 1.0);
        assert!((min - 0.5f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn a_row_has_its_length_and_a_height_of_one() {
        assert_eq!(feret(&hull(&[Some([0, 6])])), [7.0, 1.0]);
    }

    #[test]
    fn the_notch_of_an_l_is_filled_up_to_the_hull() {
        let mut extents = vec![Some([0, 0]); 5];
        extents[4] = Some([0, 4]);
        let image = convex_image(&hull(&extents), 5);
        assert_eq!(image, [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4]].map(Some));
    }

    #[test]
    fn nothing_has_no_hull() {
        assert_eq!(convex_image(&hull(&[None, None]), 2), [None, None]);
        assert_eq!(feret(&hull(&[])), [0.0, 0.0]);
    }
}
