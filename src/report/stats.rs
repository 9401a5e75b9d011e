//! What a statistician asks of two groups of nuclei: quantiles, Cliff's delta, the difference of medians.
//!
//! In: sorted values. Out: numbers, the same on every machine. No p-value: with 100,000 nuclei every p is tiny, and the
//! nuclei of one slide are no independent sample. Intervals come from drawing whole fields of the slide again, because
//! neighbours resemble each other.

/// Draws behind an interval.
pub const REPLICATES: usize = 200;
/// Fewest fields that say something about the slide's own spread.
const LEAST_FIELDS: usize = 5;
const SEED: u64 = 0x5eed;

/// A group at a glance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    pub count: usize,
    /// 5 %, 25 %, 50 %, 75 %, 95 %.
    pub at: [f64; 5],
}

/// Quantiles of sorted values, interpolated linearly (NumPy's default); `None` of nothing.
pub fn quantiles(sorted: &[f32]) -> Option<Quantiles> {
    let last = sorted.len().checked_sub(1)?;
    let at = |share: f64| {
        let place = share * last as f64;
        let below = f64::from(*sorted.get(place.floor() as usize).unwrap_or(&f32::NAN));
        let above = f64::from(*sorted.get(place.ceil() as usize).unwrap_or(&f32::NAN));
        below + (above - below) * place.fract()
    };
    Some(Quantiles {
        count: sorted.len(),
        at: [0.05, 0.25, 0.5, 0.75, 0.95].map(at),
    })
}

/// Cliff's delta of two sorted groups: how often a value of `a` is above one of `b`, less how often below; -1 to 1.
pub fn cliffs_delta(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let (mut below, mut not_above, mut score) = (0usize, 0usize, 0i128);
    for &value in a {
        while b.get(below).is_some_and(|&other| other < value) {
            below += 1;
        }
        while b.get(not_above).is_some_and(|&other| other <= value) {
            not_above += 1;
        }
        score += below as i128 - (b.len() - not_above) as i128;
    }
    Some(score as f64 / (a.len() as f64 * b.len() as f64))
}

/// Romano's words for Cliff's delta.
pub fn magnitude(delta: f64) -> &'static str {
    match delta.abs() {
        d if d < 0.147 => "negligible",
        d if d < 0.33 => "small",
        d if d < 0.474 => "medium",
        _ => "large",
    }
}

/// How often each field of a slide is drawn, replicate after replicate.
pub struct Draws {
    fields: usize,
    /// `REPLICATES` rows of `fields` counts.
    counts: Vec<u16>,
}

impl Draws {
    /// As many fields as the slide has, drawn with replacement; always the same for as many fields.
    pub fn new(fields: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut counts = vec![0u16; REPLICATES * fields];
        if fields > 0 {
            for row in counts.chunks_exact_mut(fields) {
                for _ in 0..fields {
                    if let Some(count) = row.get_mut(rng.usize(..fields)) {
                        *count = count.saturating_add(1);
                    }
                }
            }
        }
        Self { fields, counts }
    }

    /// The median of each replicate. `fields`: each sorted value's field. NaN where a replicate draws none of them.
    pub fn medians(&self, sorted: &[f32], fields: &[u32]) -> Vec<f32> {
        let mut sizes = vec![0u64; self.fields];
        for &field in fields {
            if let Some(size) = sizes.get_mut(field as usize) {
                *size += 1;
            }
        }
        if sizes.iter().filter(|&&size| size > 0).count() < LEAST_FIELDS {
            return vec![f32::NAN; REPLICATES];
        }
        self.counts
            .chunks_exact(self.fields)
            .map(|draw| {
                let drawn: u64 = draw
                    .iter()
                    .zip(&sizes)
                    .map(|(&d, &s)| u64::from(d) * s)
                    .sum();
                let mut before = 0;
                let middle = fields.iter().position(|&field| {
                    before += 2 * u64::from(draw.get(field as usize).copied().unwrap_or(0));
                    before >= drawn && drawn > 0
                });
                middle
                    .and_then(|i| sorted.get(i))
                    .copied()
                    .unwrap_or(f32::NAN)
            })
            .collect()
    }
}

/// The middle 95 % of `a - b` over the replicates that have both; `None` where fewer than 9 of 10 have.
pub fn interval(a: &[f32], b: &[f32]) -> Option<[f64; 2]> {
    let mut differences: Vec<f64> = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) - f64::from(*b))
        .filter(|d| d.is_finite())
        .collect();
    if differences.len() * 10 < REPLICATES * 9 {
        return None;
    }
    differences.sort_unstable_by(f64::total_cmp);
    let last = differences.len() - 1;
    let at = |share: f64| {
        differences
            .get((share * last as f64).round() as usize)
            .copied()
    };
    Some([at(0.025)?, at(0.975)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(values: &serde_json::Value) -> Vec<f32> {
        let mut values: Vec<f32> = values
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap() as f32)
            .collect();
        values.sort_unstable_by(f32::total_cmp);
        values
    }

    /// NumPy's quantiles and SciPy's Mann-Whitney U (tests/fixtures/make_report_stats.py).
    #[test]
    fn quantiles_and_deltas_are_those_of_numpy_and_scipy() {
        let text = include_str!("../../tests/fixtures/report_stats.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 8);
        for case in &cases {
            let (a, b) = (sorted(&case["a"]), sorted(&case["b"]));
            for (found, expected) in quantiles(&a).unwrap().at.iter().zip(0..) {
                let expected: f64 = case["quantiles"][expected as usize].as_f64().unwrap();
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0));
            }
            let delta = case["delta"].as_f64().unwrap();
            assert!((cliffs_delta(&a, &b).unwrap() - delta).abs() < 1e-12);
            assert!((cliffs_delta(&b, &a).unwrap() + delta).abs() < 1e-12);
        }
        assert_eq!((quantiles(&[]), cliffs_delta(&[], &[1.0])), (None, None));
    }

    #[test]
    fn medians_of_replicates_are_those_of_values_written_out() {
        let draws = Draws::new(9);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut pairs: Vec<(f32, u32)> = (0..157)
            .map(|_| (rng.u32(..40) as f32, rng.u32(..9)))
            .collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (values, fields): (Vec<f32>, Vec<u32>) = pairs.into_iter().unzip();
        let found = draws.medians(&values, &fields);
        for (draw, found) in draws.counts.chunks_exact(9).zip(&found) {
            assert_eq!(draw.iter().map(|&n| usize::from(n)).sum::<usize>(), 9);
            let written_out: Vec<f32> = values
                .iter()
                .zip(&fields)
                .flat_map(|(&v, &f)| vec![v; usize::from(draw[f as usize])])
                .collect();
            assert_eq!(*found, written_out[(written_out.len() - 1) / 2]);
        }
        let [low, high] = interval(&found, &[0.0; REPLICATES]).unwrap();
        assert!(low <= high && (0.0..40.0).contains(&low) && high < 40.0);
        assert_eq!(Draws::new(9).counts, draws.counts);
    }

    #[test]
    fn a_few_fields_give_no_interval() {
        let medians = Draws::new(4).medians(&[1.0, 2.0, 3.0, 4.0], &[0, 1, 2, 3]);
        assert_eq!(interval(&medians, &[0.0; REPLICATES]), None);
        assert!(Draws::new(0).medians(&[], &[]).iter().all(|m| m.is_nan()));
    }
}
