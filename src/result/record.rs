//! One nucleus as writers and viewers see it: its id, its type, its place at level 0.
//!
//! In: a [`Nucleus`] in proc px. Out: level-0 px, in the edge frame of tables (pixel i covers [i, i+1)) or in
//! hover_net's centre frame (pixel centres at integers). All clamping and rounding of coordinates happens here.

use crate::nuclei::Nucleus;

use super::{ImportedLabel, SlideResult};

/// A nucleus with its id and its slide.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Counts from 1, or is the id in the file that the nuclei were read from.
    pub id: u64,
    /// Its mask and sums, proc px.
    pub nucleus: &'a Nucleus,
    /// Place in the model's types; `None` for a model without types.
    pub type_id: Option<usize>,
    /// Mean probability of the type over the pixels, or the imported file's own value.
    pub type_prob: Option<f64>,
    /// Level-0 width and height, px.
    size_px: [u64; 2],
    /// Proc px per level-0 px.
    ratio: [f64; 2],
}

impl<'a> Record<'a> {
    /// The nucleus at `place`, from 0.
    pub fn new(place: usize, nucleus: &'a Nucleus, result: &SlideResult) -> Self {
        let frames = result.frames();
        let imported = result.imported.as_ref();
        let label = imported.and_then(|imported| imported.labels.get(place).copied());
        let label = label.unwrap_or_else(|| ImportedLabel {
            id: place as u64 + 1,
            type_id: nucleus.type_id(),
            type_prob: nucleus.type_prob(),
        });
        Self {
            id: label.id,
            nucleus,
            type_id: label.type_id,
            type_prob: label.type_prob,
            size_px: frames.level0_size_px,
            ratio: frames.proc_per_level0,
        }
    }

    /// Centroid of the mask, proc px, edge frame.
    pub fn centroid_proc_px(&self) -> [f64; 2] {
        let [mut sum_x, mut sum_y, mut n] = [0i64; 3];
        for run in self.nucleus.runs() {
            let px = i64::from(run.x1 - run.x0);
            // The sum of x0..x1; the product is even.
            sum_x += i64::from(run.x0 + run.x1 - 1) * px / 2;
            sum_y += i64::from(run.y) * px;
            n += px;
        }
        [sum_x, sum_y].map(|sum| sum as f64 / n.max(1) as f64 + 0.5)
    }

    /// A point of the proc edge frame in the level-0 edge frame, within [0, W] x [0, H].
    pub fn to_edge(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            (x / self.ratio[0]).clamp(0.0, self.size_px[0] as f64),
            (y / self.ratio[1]).clamp(0.0, self.size_px[1] as f64),
        ]
    }

    /// A point of the proc edge frame in level 0's centre frame, within [0, W-1] x [0, H-1], to 2 decimals (exact
    /// where no pixel was resampled and the point is a pixel's centre).
    pub fn to_centre(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let last = |size: u64| size.saturating_sub(1) as f64;
        [
            round2(x / self.ratio[0] - 0.5).clamp(0.0, last(self.size_px[0])),
            round2(y / self.ratio[1] - 0.5).clamp(0.0, last(self.size_px[1])),
        ]
    }

    /// hover_net's box, `[[row min, column min], [row max, column max]]`, half-open, whole level-0 px: the smallest
    /// that covers every pixel the mask touches and every point of the outline in the centre frame.
    pub fn bbox_rows_columns(&self) -> [[u64; 2]; 2] {
        let b = self.nucleus.bbox;
        let span = |axis: usize, first: i32, end: i32| {
            let ratio = self.ratio[axis];
            let size = self.size_px[axis];
            let edge = [f64::from(first) / ratio, f64::from(end) / ratio];
            let centre = [
                round2((f64::from(first) + 0.5) / ratio - 0.5),
                round2((f64::from(end) - 0.5) / ratio - 0.5),
            ];
            let min = edge[0].min(centre[0]).floor().max(0.0) as u64;
            let max = edge[1].ceil().max(centre[1].floor() + 1.0).max(1.0) as u64;
            [min.min(size.saturating_sub(1)), max.min(size)]
        };
        let rows = span(1, b.y, b.bottom());
        let columns = span(0, b.x, b.right());
        [[rows[0], columns[0]], [rows[1], columns[1]]]
    }
}

/// To 2 decimals: a hundredth of a pixel.
pub fn round2(v: f64) -> f64 {
    (v * 100.0).round() / 100.0
}

/// Appends [`round2`] of a number as `Display` writes it, several times as fast: outlines have 100 million of them.
pub fn push_round2(text: &mut String, v: f64) {
    let hundredths = (v * 100.0).round();
    // Up to here every hundredth has its own double, whose shortest text it is.
    if hundredths.is_nan() || hundredths.abs() >= 1e13 {
        text.push_str(&round2(v).to_string());
        return;
    }
    if hundredths.is_sign_negative() {
        text.push('-');
    }
    let hundredths = hundredths.abs() as u64;
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    let mut rest = hundredths / 100;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend(digits[first..].iter().map(|&digit| char::from(digit)));
    let digit = |value: u64| char::from(b'0' + value as u8);
    match (hundredths / 10 % 10, hundredths % 10) {
        (0, 0) => {}
        (tenth, 0) => text.extend(['.', digit(tenth)]),
        (tenth, hundredth) => text.extend(['.', digit(tenth), digit(hundredth)]),
    }
}

#[cfg(test)]
mod tests {
    use super::{push_round2, round2};
    use crate::result::fixture;

    #[test]
    fn boxes_cover_the_mask_and_the_outline() {
        for ratio in [1.0, 1.996, 0.5, 0.37, 4.0] {
            let result = fixture::result(ratio);
            let [w, h] = result.frames().level0_size_px;
            for record in result.records() {
                let b = record.nucleus.bbox;
                let [[r0, c0], [r1, c1]] = record.bbox_rows_columns();
                assert!(r0 < r1 && c0 < c1 && r1 <= h && c1 <= w, "{ratio}");
                let [x0, y0] = record.to_centre([f64::from(b.x) + 0.5, f64::from(b.y) + 0.5]);
                let [x1, y1] =
                    record.to_centre([f64::from(b.right()) - 0.5, f64::from(b.bottom()) - 0.5]);
                assert!(
                    c0 as f64 <= x0 && x1 < c1 as f64,
                    "{ratio}: {c0} {x0} {x1} {c1}"
                );
                assert!(r0 as f64 <= y0 && y1 < r1 as f64, "{ratio}");
                let [ex, ey] = record.to_edge([f64::from(b.right()), f64::from(b.bottom())]);
                assert!(ex <= c1 as f64 && ey <= r1 as f64, "{ratio}");
            }
        }
    }

    #[test]
    fn quick_text_is_that_of_the_rounded_number() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut cases = vec![
            0.0, -0.0, -0.001, 0.005, 9.995, 99.999, -0.1, 1e12, 1e13, 1e300,
        ];
        cases.extend((0..100_000).map(|_| (rng.f64() - 0.2) * 10f64.powi(rng.i32(-3..14))));
        cases.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
        for value in cases {
            let mut text = String::new();
            push_round2(&mut text, value);
            assert_eq!(text, round2(value).to_string(), "{value:e}");
        }
    }
}
