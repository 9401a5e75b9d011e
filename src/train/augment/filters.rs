//! Separable linear filters as matrices: a blur, a change of size.
//!
//! In: sizes, kernels. Out: a matrix that multiplies rows and columns alike. Each crop of a batch
//! may have its own. Outside, pictures are mirrored (blur) or end (change of size).

use tch::{Device, Tensor};

/// A matrix row by row.
type Matrix = Vec<f32>;

/// The kernel of a change of size.
#[derive(Clone, Copy)]
pub enum Kernel {
    /// Tent of 1 px to either side.
    Triangle,
    /// Keys 1981, a = -1/2: 2 px to either side.
    CatmullRom,
}

impl Kernel {
    const fn reach(self) -> f32 {
        match self {
            Self::Triangle => 1.0,
            Self::CatmullRom => 2.0,
        }
    }

    fn weight(self, distance: f32) -> f32 {
        let d = distance.abs();
        match self {
            Self::Triangle => (1.0 - d).max(0.0),
            Self::CatmullRom if d < 1.0 => (1.5 * d - 2.5) * d * d + 1.0,
            Self::CatmullRom if d < 2.0 => ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0,
            Self::CatmullRom => 0.0,
        }
    }
}

/// `matrices`, each of `rows` x `columns`, as one tensor `[N, rows, columns]`.
pub fn stack(
    matrices: impl Iterator<Item = Matrix>,
    [rows, columns]: [usize; 2],
    device: Device,
) -> Tensor {
    let flat: Vec<f32> = matrices.flatten().collect();
    let stacked = Tensor::from_slice(&flat).view([-1, rows as i64, columns as i64]);
    stacked.to_device(device)
}

/// The columns, then the rows of each picture of `x` (`[N, C, columns, columns]`) multiplied by its
/// matrix (`[N, rows, columns]`): `[N, C, rows, rows]`.
pub fn filter(x: &Tensor, matrices: &Tensor) -> Tensor {
    let m = matrices.unsqueeze(1);
    m.matmul(x).matmul(&m.transpose(2, 3))
}

/// A Gauss filter of `sigma_px` on `size` px, mirrored at the ends, in a matrix of `room` x `room`;
/// 0: none.
pub fn blur_matrix(size: usize, room: usize, sigma_px: f32) -> Matrix {
    let mut matrix = vec![0.0; room * room];
    let reach = (3.0 * sigma_px).ceil() as i64;
    let weight = |d: i64| match reach {
        0 => 1.0,
        _ => (-0.5 * (d as f32 / sigma_px).powi(2)).exp(),
    };
    let sum: f32 = (-reach..=reach).map(weight).sum();
    for at in 0..size {
        for d in -reach..=reach {
            let from = mirror(at as i64 + d, size as i64);
            matrix[at * room + from] += weight(d) / sum;
        }
    }
    matrix
}

fn mirror(i: i64, n: i64) -> usize {
    let m = i.rem_euclid(2 * n);
    (if m < n { m } else { 2 * n - 1 - m }) as usize
}

/// A change from `from` to `to` px; each comes with the room that it has in the matrix. Where the
/// picture shrinks, the kernel widens, so that all of its px count.
pub fn resize_matrix(
    [from, columns]: [usize; 2],
    [to, rows]: [usize; 2],
    kernel: Kernel,
) -> Matrix {
    let mut matrix = vec![0.0; rows * columns];
    let ratio = from as f32 / to as f32;
    let widened = ratio.max(1.0);
    for at in 0..to {
        let middle = (at as f32 + 0.5) * ratio;
        let reach = kernel.reach() * widened;
        let first = (middle - reach).floor().max(0.0) as usize;
        let end = ((middle + reach).ceil() as usize).min(from);
        let row = &mut matrix[at * columns..][..columns];
        for (i, v) in row.iter_mut().enumerate().take(end).skip(first) {
            *v = kernel.weight((i as f32 + 0.5 - middle) / widened);
        }
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
    }
    matrix
}
