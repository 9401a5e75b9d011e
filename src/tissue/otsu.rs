//! Otsu's threshold.
//!
//! In: a histogram. Out: the bin at which the variance between the two classes is greatest (N.
//! Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9, 1979,
//! equation 18).

/// The last bin of the lower class; the first such bin if several are equally good. `None` with
/// fewer than two filled bins.
pub fn otsu(histogram: &[u64]) -> Option<usize> {
    let total: u64 = histogram.iter().sum();
    let moment = |(bin, &count): (usize, &u64)| bin as f64 * count as f64;
    let total_moment: f64 = histogram.iter().enumerate().map(moment).sum();
    let (mut below, mut below_moment) = (0u64, 0.0);
    let mut best = None;
    let mut best_variance = 0.0;
    for (bin, &count) in histogram.iter().enumerate() {
        below += count;
        below_moment += moment((bin, &count));
        let above = total - below;
        if below == 0 || above == 0 {
            continue;
        }
        let apart = below_moment / below as f64 - (total_moment - below_moment) / above as f64;
        let variance = below as f64 * above as f64 * apart * apart;
        // Rounding errors must not move the threshold along a run of empty bins.
        if variance > best_variance * (1.0 + 1e-12) {
            best_variance = variance;
            best = Some(bin);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_than_two_bins_give_none() {
        assert_eq!(otsu(&[]), None);
        assert_eq!(otsu(&[0, 9, 0]), None);
    }

    #[test]
    fn agrees_with_scikit_image() {
        // skimage.filters.threshold_otsu(hist=(counts, arange(n))) of these counts.
        assert_eq!(otsu(&[5, 9, 3, 0, 0, 1, 7, 8]), Some(2));
        assert_eq!(otsu(&[100, 60, 30, 20, 10, 9, 8, 7, 30, 50, 2]), Some(4));
        assert_eq!(otsu(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), Some(5));
    }
}
