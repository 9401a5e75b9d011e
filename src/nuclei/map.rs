//! A whole prediction map, or all foreground of one, to nuclei.

use image::RgbImage;
use rayon::prelude::*;

use super::{Foreground, Nucleus, PostprocParams, components, segment};
use crate::geometry::Rect;
use crate::prediction::PredictionMap;

/// Finds the nuclei of one map by the default rules, sorted by first pixel in raster order. `rgb` are the pixels
/// `[height, width]` that the map was made from; `mpp`: µm per px in x and y.
///
/// ```
/// use wsi_nuclei::{PostprocParams, PredictionMap, segment_map};
///
/// // One disc of 9 px radius; h and v rise from -1 to 1 across it.
/// let offset = |i: usize| (i % 40) as f32 - 20.0;
/// let (h, v): (Vec<f32>, Vec<f32>) = (0..1600).map(|i| (offset(i), offset(i / 40))).unzip();
/// let np = h.iter().zip(&v).map(|(x, y)| if x * x + y * y <= 81.0 { 1.0 } else { 0.0 });
/// let map = PredictionMap {
///     width: 40,
///     height: 40,
///     np: np.collect(),
///     h: h.iter().map(|x| x / 9.0).collect(),
///     v: v.iter().map(|y| y / 9.0).collect(),
///     types: 0,
///     tp: Vec::new(),
/// };
/// let rgb = image::RgbImage::new(40, 40);
/// let nuclei = segment_map(&map, &rgb, &PostprocParams::default(), [0.25, 0.25]);
/// assert_eq!(nuclei.len(), 1);
/// assert_eq!(nuclei[0].area_px, 253);
/// ```
pub fn segment_map(
    map: &PredictionMap,
    rgb: &RgbImage,
    params: &PostprocParams,
    mpp: [f64; 2],
) -> Vec<Nucleus> {
    let clip = Rect::new(0, 0, map.width as i32, map.height as i32);
    let foreground =
        Foreground::from_patch(&map.quantised(), rgb, 0, (0, 0), clip, params.np_threshold);
    segment_foreground(&foreground, params, mpp)
}

/// Finds the nuclei of all blobs of `foreground`, sorted by first pixel in raster order. `mpp`: µm per px in x and y.
pub fn segment_foreground(
    foreground: &Foreground,
    params: &PostprocParams,
    mpp: [f64; 2],
) -> Vec<Nucleus> {
    let mut nuclei: Vec<Nucleus> = components(foreground)
        .par_iter()
        .map(|blob| segment(blob, params, mpp))
        .collect::<Vec<_>>()
        .into_iter()
        .flatten()
        .collect();
    nuclei.sort_by_key(Nucleus::first_pixel);
    nuclei
}
