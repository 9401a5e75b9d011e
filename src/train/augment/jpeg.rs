//! The artefacts of JPEG without a JPEG: blocks of cosines with quantised coefficients.
//!
//! In: crops and a quality each. Out: the crops as a baseline JPEG without chroma subsampling would
//! show them (ITU T.81: transform A.3.3, tables K.1 and K.2; scaling by quality as libjpeg does).

use std::f64::consts::PI;

use tch::{Device, Kind, Tensor};

const BLOCK: i64 = 8;
/// Steps of the luminance (table K.1).
const LUMINANCE: [u8; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
/// The first four rows and columns of the steps of the colour differences (table K.2); elsewhere 99.
const CHROMINANCE: [[u8; 4]; 4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
];
/// From red, green and blue to Y, Cb and Cr less 128 (T.871).
const TO_YCC: [f32; 9] = [
    0.299, 0.587, 0.114, -0.168_736, -0.331_264, 0.5, 0.5, -0.418_688, -0.081_312,
];
const TO_RGB: [f32; 9] = [
    1.0, 0.0, 1.402, 1.0, -0.344_136, -0.714_136, 1.0, 1.772, 0.0,
];

/// `x` (float `[N, 3, H, W]`, 0 to 255) after JPEG of a `quality` (1 to 100) per crop.
pub fn compress(x: &Tensor, qualities: &[u8]) -> Tensor {
    let device = x.device();
    let (height, width) = (x.size()[2], x.size()[3]);
    let whole = |n: i64| (n + BLOCK - 1) / BLOCK * BLOCK;
    // As an encoder does, the last px are repeated up to whole blocks.
    let padded = x.replication_pad2d([0, whole(width) - width, 0, whole(height) - height]);
    let grey = Tensor::from_slice(&[128f32, 0.0, 0.0])
        .view([1, 3, 1, 1])
        .to_device(device);
    let ycc = mix(&padded, &TO_YCC).round() - &grey;
    let cosines = cosines(device);
    let steps = steps(qualities, device);
    let sizes = ycc.size();
    let blocks = |t: &Tensor| {
        let [n, rows, columns] = [sizes[0] * 3, sizes[2] / BLOCK, sizes[3] / BLOCK];
        t.view([n, rows, BLOCK, columns, BLOCK]).transpose(2, 3)
    };
    let blocks = blocks(&ycc);
    let coefficients = cosines.matmul(&blocks).matmul(&cosines.tr());
    let units = coefficients / &steps;
    // Halves away from zero, as libjpeg rounds them: means of blocks often lie there.
    let kept = units.sign() * (units.abs() + 0.5).floor() * &steps;
    let found = cosines.tr().matmul(&kept).matmul(&cosines);
    let found = found.transpose(2, 3).reshape(&sizes) + grey;
    let rgb = mix_about_grey(&found);
    rgb.narrow(2, 0, height).narrow(3, 0, width)
}

/// Each px of `x` times a 3 x 3 matrix.
fn mix(x: &Tensor, matrix: &[f32; 9]) -> Tensor {
    let matrix = Tensor::from_slice(matrix)
        .view([3, 3])
        .to_device(x.device());
    matrix.matmul(&x.flatten(2, 3)).view_as(x)
}

/// Red, green and blue of Y, Cb and Cr less 128, rounded to bytes first as a decoder does.
fn mix_about_grey(ycc: &Tensor) -> Tensor {
    let lowest = Tensor::from_slice(&[0f32, -128.0, -128.0]).view([1, 3, 1, 1]);
    let lowest = lowest.to_device(ycc.device());
    let bytes = ycc.round().maximum(&lowest).minimum(&(&lowest + 255.0));
    mix(&bytes, &TO_RGB)
}

/// The orthonormal cosines of 8 points, `[8, 8]`: a row per frequency.
fn cosines(device: Device) -> Tensor {
    let cosine = |i: usize| {
        let (frequency, place) = ((i / 8) as f64, (i % 8) as f64);
        let scale = if i < 8 { 8f64.sqrt().recip() } else { 0.5 };
        (scale * ((2.0 * place + 1.0) * frequency * PI / 16.0).cos()) as f32
    };
    let all: [f32; 64] = std::array::from_fn(cosine);
    Tensor::from_slice(&all)
        .view([BLOCK, BLOCK])
        .to_device(device)
}

/// Quantisation steps of the three channels of each crop, `[N * 3, 1, 1, 8, 8]`.
fn steps(qualities: &[u8], device: Device) -> Tensor {
    let of_crop = |quality: &u8| {
        let quality = i32::from(*quality);
        let percent = if quality < 50 {
            5000 / quality
        } else {
            200 - 2 * quality
        };
        let scaled = move |step: u8| ((i32::from(step) * percent + 50) / 100).clamp(1, 255) as f32;
        let chrominance = |i: usize| {
            let row = CHROMINANCE.get(i / 8);
            row.and_then(|row| row.get(i % 8)).copied().unwrap_or(99)
        };
        let luminance = LUMINANCE.into_iter();
        let both = (0..128).map(move |i| chrominance(i % 64));
        luminance.chain(both).map(scaled).collect::<Vec<f32>>()
    };
    let all: Vec<f32> = qualities.iter().flat_map(of_crop).collect();
    let all = Tensor::from_slice(&all).view([-1, 1, 1, BLOCK, BLOCK]);
    all.to_kind(Kind::Float).to_device(device)
}
