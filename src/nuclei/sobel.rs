//! Sobel kernels of any odd side.
//!
//! In: a side in px. Out: the two one-dimensional kernels, divided by their gain so that a slope of
//! 1 per px gives 1. Gains are powers of two, so the division is exact. Never touches an image.

/// The separable pair of one side: `derive` along the direction of the derivative, `smooth` across.
///
/// Both are stored from the centre outwards, `[side / 2 + 1]`. `smooth` is symmetric. `derive` is
/// antisymmetric: `derive[k]` weighs the pixel k to the right or below, `-derive[k]` the pixel k to
/// the left or above. Undivided, the kernels are those of OpenCV's `getDerivKernels`:
/// `[1, 1]^(side - 1)` and `[-1, 1] * [1, 1]^(side - 2)`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SobelKernel {
    side: u32,
    pub smooth: Vec<f32>,
    pub derive: Vec<f32>,
}

/// Largest side, px: with a larger one the outermost weights would be lost in an `f32`.
const MAX_SIDE: u32 = 63;

impl SobelKernel {
    /// Computes the weights for a side, raised to the next odd number within `3..=MAX_SIDE`, unless
    /// the kernel has that side already.
    pub fn set_side(&mut self, side: u32) {
        let side = side.clamp(3, MAX_SIDE) | 1;
        if self.side == side {
            return;
        }
        let radius = (side / 2) as usize;
        let pairs = weights(&[1.0], side as usize - 2);
        let smooth = convolve(&pairs, [1.0, 1.0]);
        let derive = convolve(&pairs, [-1.0, 1.0]);
        let gain = 2f64.powi(side as i32 - 2);
        self.smooth = smooth[radius..]
            .iter()
            .map(|c| (c / (2.0 * gain)) as f32)
            .collect();
        self.derive = derive[radius..].iter().map(|c| (c / gain) as f32).collect();
        self.side = side;
    }

    /// Pixels on either side of the centre.
    pub fn radius(&self) -> usize {
        (self.side / 2) as usize
    }
}

/// `start` convolved `times` times with `[1, 1]`.
pub(super) fn weights(start: &[f64], times: usize) -> Vec<f64> {
    (0..times).fold(start.to_vec(), |acc, _| convolve(&acc, [1.0, 1.0]))
}

/// `signal` convolved with two taps.
pub(super) fn convolve(signal: &[f64], taps: [f64; 2]) -> Vec<f64> {
    let mut out = vec![0.0; signal.len() + 1];
    for (i, value) in signal.iter().enumerate() {
        out[i] += value * taps[0];
        out[i + 1] += value * taps[1];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(side: u32) -> SobelKernel {
        let mut kernel = SobelKernel::default();
        kernel.set_side(side);
        kernel
    }

    /// `cv2.getDerivKernels(1, 0, 9)`.
    #[test]
    fn side_9_is_opencvs() {
        let kernel = kernel(9);
        let derive: Vec<f32> = kernel.derive.iter().map(|c| c * 128.0).collect();
        let smooth: Vec<f32> = kernel.smooth.iter().map(|c| c * 256.0).collect();
        assert_eq!(derive, [0.0, 14.0, 14.0, 6.0, 1.0]);
        assert_eq!(smooth, [70.0, 56.0, 28.0, 8.0, 1.0]);
    }

    #[test]
    fn a_unit_slope_gives_1_at_every_side() {
        for side in (3..=21).step_by(2) {
            let kernel = kernel(side);
            let slope: f32 = kernel
                .derive
                .iter()
                .zip(0u8..)
                .map(|(c, k)| 2.0 * c * f32::from(k))
                .sum();
            let flat: f32 = kernel.smooth[0] + 2.0 * kernel.smooth[1..].iter().sum::<f32>();
            assert_eq!((slope, flat), (1.0, 1.0), "side {side}");
            assert_eq!(kernel.radius(), side as usize / 2);
        }
    }

    #[test]
    fn odd_sides_within_limits() {
        assert_eq!(kernel(0), kernel(3));
        assert_eq!(kernel(4), kernel(5));
        assert_eq!(kernel(9999), kernel(MAX_SIDE));
    }
}
