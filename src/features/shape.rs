//! The region properties of one mask.
//!
//! In: mask bits. Out: a [`Shape`], equal to scikit-image 0.26 `regionprops` for the properties
//! that it has. Sums are exact integers, so the order of summation changes nothing. Never knows the
//! slide.

use std::f64::consts::PI;

use super::convex;
use super::mask_image::MaskImage;
use crate::nuclei::Nucleus;

/// Shape of one nucleus: in px and px² from [`shape`], in µm and µm² from [`shape_um`].
///
/// Fields name the property of scikit-image 0.26 that they equal. All are zero for an empty mask.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// `area`.
    pub area: f64,
    /// `area_bbox`.
    pub bbox_area: f64,
    /// `area_convex`.
    pub convex_area: f64,
    /// `eccentricity` of the ellipse with the same second moments; 0 for a disc.
    pub eccentricity: f64,
    /// `equivalent_diameter_area`.
    pub equivalent_diameter: f64,
    /// `euler_number`: objects (8-connected) minus holes.
    pub euler_number: i32,
    /// `extent`: area over bbox area.
    pub extent: f64,
    /// `area_filled`.
    pub filled_area: f64,
    /// `inertia_tensor_eigvals[0]`, the larger.
    pub inertia_eigval_x: f64,
    /// `inertia_tensor_eigvals[1]`, the smaller.
    pub inertia_eigval_y: f64,
    /// `axis_major_length`.
    pub major_axis_length: f64,
    /// `axis_minor_length`.
    pub minor_axis_length: f64,
    /// `orientation`: angle between the y axis (rows) and the major axis, -π/2..=π/2,
    /// counter-clockwise.
    pub orientation: f64,
    /// `perimeter` (4-neighbourhood).
    pub perimeter: f64,
    /// `solidity`: area over convex area.
    pub solidity: f64,
    /// 4π area / perimeter². NaN where the perimeter is 0 (one or two pixels).
    pub circularity: f64,
    /// `feret_diameter_max`: the longest distance between two points of the convex image's outline.
    pub feret_max: f64,
    /// Least distance between two parallel lines with the convex image's outline between them.
    pub feret_min: f64,
    /// Perimeter of the convex image over perimeter, by the same estimator: 1 for a convex nucleus,
    /// less for a rough one. NaN where the perimeter is 0.
    pub roughness: f64,
    /// Mean of the pixels' centres, x and y, edge frame: `centroid` + 0.5. From the corner of the
    /// mask's box in [`shape`], of the slide in [`shape_of`].
    pub centroid: [f64; 2],
}

/// Shape, in px, of the `width * height` bits of `mask` (layout of [`Nucleus::mask`]). The centroid
/// counts from the mask's upper left corner.
///
/// ```
/// use wsi_nuclei::{measure_mask, shape_in_um};
///
/// // Rows 110, 111 and 011; bit 0 is the upper left pixel.
/// let mask = [0b1011_1011, 0b1];
/// let shape = measure_mask(&mask, 3, 3);
/// assert_eq!(shape.area, 7.0);
/// assert_eq!(shape.bbox_area, 9.0);
/// assert_eq!(shape.centroid, [1.5, 1.5]);
/// assert_eq!(shape_in_um(&shape, [0.5, 0.5]).area, 7.0 * 0.25);
/// ```
pub fn shape(mask: &[u8], width: usize, height: usize) -> Shape {
    let image = MaskImage::from_bits(mask, width, height);
    let sums = Moments::of(&image);
    if sums.n == 0 {
        return Shape::default();
    }
    let area = sums.n as f64;
    let bbox_area = (width * height) as f64;

    let convex = convex::convex_image(&convex::hull(&image.extents()), height);
    let convex_area: f64 = convex
        .iter()
        .flatten()
        .map(|[a, b]| f64::from(b - a + 1))
        .sum();
    let [feret_max, feret_min] = convex::feret(&convex::hull(&convex));
    let perimeter = image.perimeter();
    let over_perimeter = |value: f64| {
        if perimeter > 0.0 {
            value / perimeter
        } else {
            f64::NAN
        }
    };

    let [large, small] = sums.inertia_eigvals();
    Shape {
        area,
        bbox_area,
        convex_area,
        eccentricity: if large == 0.0 {
            0.0
        } else {
            (1.0 - small / large).sqrt()
        },
        equivalent_diameter: (4.0 * area / PI).sqrt(),
        euler_number: image.euler_number(),
        extent: area / bbox_area,
        filled_area: image.filled_area() as f64,
        inertia_eigval_x: large,
        inertia_eigval_y: small,
        major_axis_length: 4.0 * large.sqrt(),
        minor_axis_length: 4.0 * small.sqrt(),
        orientation: sums.orientation(),
        perimeter,
        solidity: area / convex_area,
        circularity: over_perimeter(4.0 * PI * area / perimeter),
        feret_max,
        feret_min,
        roughness: over_perimeter(MaskImage::from_extents(&convex, width).perimeter()),
        centroid: [sums.x as f64 / area + 0.5, sums.y as f64 / area + 0.5],
    }
}

/// [`shape`] of a nucleus, with the centroid in the proc edge frame.
pub fn shape_of(nucleus: &Nucleus) -> Shape {
    let bbox = nucleus.bbox;
    let mut shape = shape(
        &nucleus.mask,
        bbox.w.max(0) as usize,
        bbox.h.max(0) as usize,
    );
    shape.centroid[0] += f64::from(bbox.x);
    shape.centroid[1] += f64::from(bbox.y);
    shape
}

/// The same shape in µm. `mpp`: µm per px, (x, y).
///
/// Lengths are scaled by the geometric mean of the two, so areas are exact: a scanner's x and y
/// differ by parts in a thousand at most, and scikit-image's perimeter knows only isotropic pixels.
/// The centroid is scaled by each axis's own value.
pub fn shape_um(shape: &Shape, mpp: [f64; 2]) -> Shape {
    let um2 = mpp[0] * mpp[1];
    let um = um2.sqrt();
    Shape {
        area: shape.area * um2,
        bbox_area: shape.bbox_area * um2,
        convex_area: shape.convex_area * um2,
        equivalent_diameter: shape.equivalent_diameter * um,
        filled_area: shape.filled_area * um2,
        inertia_eigval_x: shape.inertia_eigval_x * um2,
        inertia_eigval_y: shape.inertia_eigval_y * um2,
        major_axis_length: shape.major_axis_length * um,
        minor_axis_length: shape.minor_axis_length * um,
        perimeter: shape.perimeter * um,
        feret_max: shape.feret_max * um,
        feret_min: shape.feret_min * um,
        centroid: [shape.centroid[0] * mpp[0], shape.centroid[1] * mpp[1]],
        ..*shape
    }
}

/// Raw moments of the pixels' centres.
struct Moments {
    n: i128,
    x: i128,
    y: i128,
    xx: i128,
    xy: i128,
    yy: i128,
}

/// The sum of the squares of 0, 1, …, `end` - 1.
fn squares_below(end: u64) -> u64 {
    end * end.saturating_sub(1) * (2 * end).saturating_sub(1) / 6
}

impl Moments {
    fn of(image: &MaskImage) -> Self {
        let mut sums = Self {
            n: 0,
            x: 0,
            y: 0,
            xx: 0,
            xy: 0,
            yy: 0,
        };
        for y in 0..image.height {
            let (mut n, mut x, mut xx) = (0u64, 0u64, 0u64);
            for [first, end] in image.runs(y) {
                let [first, end] = [first as u64, end as u64];
                n += end - first;
                x += (end - first) * (first + end - 1) / 2;
                xx += squares_below(end) - squares_below(first);
            }
            let (n, x, y) = (i128::from(n), i128::from(x), y as i128);
            sums.n += n;
            sums.x += x;
            sums.y += n * y;
            sums.xx += i128::from(xx);
            sums.xy += x * y;
            sums.yy += n * y * y;
        }
        sums
    }

    /// n² times the covariance matrix: xx, xy, yy.
    fn central(&self) -> [i128; 3] {
        [
            self.n * self.xx - self.x * self.x,
            self.n * self.xy - self.x * self.y,
            self.n * self.yy - self.y * self.y,
        ]
    }

    /// Eigenvalues of the inertia tensor, pixels as points, divided by the area; the larger first.
    fn inertia_eigvals(&self) -> [f64; 2] {
        let [xx, xy, yy] = self.central();
        let n2 = (self.n * self.n) as f64;
        let large = ((xx + yy) as f64 + ((xx - yy) as f64).hypot(2.0 * xy as f64)) / 2.0;
        if large == 0.0 {
            return [0.0, 0.0];
        }
        // The smaller comes from the determinant, so that a thin nucleus loses no digits.
        let det = match (xx.checked_mul(yy), xy.checked_mul(xy)) {
            (Some(a), Some(b)) => (a - b) as f64,
            _ => xx as f64 * yy as f64 - xy as f64 * xy as f64,
        };
        [large / n2, (det / large).max(0.0).min(large) / n2]
    }

    /// scikit-image's `orientation`, with its special case of equal moments in x and y.
    fn orientation(&self) -> f64 {
        let [xx, xy, yy] = self.central();
        if xx == yy {
            return if xy > 0 { PI / 4.0 } else { -PI / 4.0 };
        }
        0.5 * (2.0 * xy as f64).atan2((yy - xx) as f64)
    }
}
