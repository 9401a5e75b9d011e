//! HoVer-Net's own post-processing, for one map taken as a whole.
//!
//! In: one [`PredictionMap`] and its image. Out: nuclei and the instance map. Scales by the least
//! and greatest value of the whole map (Graham et al. 2019; vqdang/hover_net 67e2ce5), so the
//! result depends on the map's extent: use it for single images, never for a slide. One departure:
//! holes of markers are filled inside each blob alone, so a ring-shaped blob does not swallow what
//! lies inside it.

use image::RgbImage;

use super::Nucleus;
use super::blobs::join_runs;
use super::filter::{filter_separable, normalise_f32, normalise_f64};
use super::foreground::{Foreground, Run};
use super::morphology::{Window, dilate, disc, erode, fill_holes};
use super::pieces::{LabelledPieces, Piece};
use super::sobel::weights;
use super::watershed::{OUTSIDE, UNLABELLED, flood_like_skimage};
use crate::geometry::Rect;
use crate::prediction::PredictionMap;

/// Side of the Sobel kernel, px.
const SOBEL_PX: usize = 21;
/// Blobs and markers of fewer pixels are dropped.
const MIN_PX: usize = 10;
/// Pixels of markers have less energy than this.
const MARKER_ENERGY: f64 = 0.4;
/// Diameter of the opening of markers, px.
const OPEN_PX: u32 = 5;
/// Rows and columns around the map in padded planes: the opening's radius.
const MARGIN: usize = 2;

/// The nuclei of a whole map by HoVer-Net's rules, and the instance map, `[height, width]` row by
/// row: 0 for background, i + 1 for nucleus i. Nuclei are ordered by first pixel in raster order.
///
/// np >= 0.5 is nucleus, before any quantisation; NaN counts as 0. As in HoVer-Net, a blob without
/// a marker is lost. Sums follow the quantisation of [`Foreground::from_patch`].
///
/// # Panics
/// If the size of `rgb` or the length of a plane does not match `map.width` and `map.height`.
pub fn segment_map(map: &PredictionMap, rgb: &RgbImage) -> (Vec<Nucleus>, Vec<u32>) {
    if map.width == 0 || map.height == 0 {
        return (Vec::new(), Vec::new());
    }
    let frame = Frame::new(map.width, map.height);
    let blobs = frame.blobs(&map.np);
    let overall = overall_energy(map, &frame, &blobs);
    let mut label = frame.markers(&blobs, &overall);
    let distance = frame.distance(&blobs, &overall);
    flood_like_skimage(&distance, &mut label, frame.window.stride);
    extract_nuclei(map, rgb, &frame, &label)
}

/// The geometry of planes padded by [`MARGIN`].
struct Frame {
    width: usize,
    height: usize,
    /// The map within a padded plane.
    window: Window,
}

impl Frame {
    fn new(width: usize, height: usize) -> Frame {
        let stride = width + 2 * MARGIN;
        Frame {
            width,
            height,
            window: Window {
                start: MARGIN * stride + MARGIN,
                stride,
                width,
                height,
            },
        }
    }

    fn plane<T: Clone>(&self, value: T) -> Vec<T> {
        vec![value; self.window.stride * (self.height + 2 * MARGIN)]
    }

    /// Index of a run's first pixel in a padded plane.
    fn start(&self, run: Run) -> usize {
        self.window.start + run.y as usize * self.window.stride + run.x0 as usize
    }

    /// Index of a run's first pixel in a map.
    fn map_start(&self, run: Run) -> usize {
        run.y as usize * self.width + run.x0 as usize
    }

    /// The 4-connected components of np >= 0.5 with at least [`MIN_PX`] pixels: their runs.
    fn blobs(&self, np: &[f32]) -> Vec<Vec<Run>> {
        let mut runs = Vec::new();
        for (y, row) in np.chunks_exact(self.width).enumerate() {
            for_each_run(row.iter().map(|&p| p >= 0.5), y, |run, inside| {
                if inside {
                    runs.push(run);
                }
            });
        }
        let mut roots = Vec::new();
        join_runs(&runs, &mut roots);
        let mut blobs = vec![Vec::new(); runs.len()];
        for (&run, &root) in runs.iter().zip(&roots) {
            blobs[root as usize].push(run);
        }
        blobs.retain(|blob| blob.iter().map(Run::len).sum::<usize>() >= MIN_PX);
        blobs
    }

    /// Padded labels: markers from 1, [`UNLABELLED`] on the rest of the blobs, [`OUTSIDE`]
    /// elsewhere.
    fn markers(&self, blobs: &[Vec<Run>], overall: &[f64]) -> Vec<u32> {
        let mut owner: Vec<u32> = self.plane(0);
        let mut marker: Vec<u8> = self.plane(0);
        for (number, blob) in (1..).zip(blobs) {
            for &run in blob {
                let at = self.start(run);
                owner[at..at + run.len()].fill(number);
            }
        }
        for (number, blob) in (1..).zip(blobs) {
            self.fill_blob(blob, number, overall, &mut owner, &mut marker);
        }
        self.open(&mut marker);
        let mut label = self.label(&marker, &owner);
        let mut mask: Vec<bool> = self.plane(false);
        for &run in blobs.iter().flatten() {
            let at = self.start(run);
            mask[at..at + run.len()].fill(true);
        }
        for (l, inside) in label.iter_mut().zip(mask) {
            // A filled hole joined its marker for the opening, but is not part of the blob.
            if !inside {
                *l = OUTSIDE;
            }
        }
        label
    }

    /// Marks the marker pixels of one blob and fills their holes. `owner` holds, for each pixel, the
    /// number (from 1) of the blob that has it or whose hole it lies in. Filling never takes
    /// another blob's pixels.
    fn fill_blob(
        &self,
        blob: &[Run],
        number: u32,
        overall: &[f64],
        owner: &mut [u32],
        marker: &mut [u8],
    ) {
        let (bounds, window, mut local) = local_plane(blob);
        for &run in blob {
            let from = self.map_start(run);
            let to = local_start(&window, &bounds, run.x0, run.y);
            let energies = &overall[from..from + run.len()];
            for (m, &e) in local[to..to + run.len()].iter_mut().zip(energies) {
                *m = u8::from(e < MARKER_ENERGY);
            }
        }
        fill_holes(&mut local, window, &mut Vec::new(), &mut Vec::new());
        for y in bounds.y..bounds.bottom() {
            let row = Run {
                y,
                x0: bounds.x,
                x1: bounds.right(),
            };
            let (to, from) = (self.start(row), local_start(&window, &bounds, bounds.x, y));
            for x in 0..row.len() {
                let free = owner[to + x] == 0 || owner[to + x] == number;
                if local[from + x] == 1 && free {
                    owner[to + x] = number;
                    marker[to + x] = 1;
                }
            }
        }
    }

    /// Opens markers in place. Pixels outside the map neither erode nor dilate.
    fn open(&self, marker: &mut [u8]) {
        let disc = disc(OPEN_PX);
        let mut eroded: Vec<u8> = self.plane(0);
        self.set_border(marker, 1);
        erode(marker, &mut eroded, self.window, &disc);
        self.set_border(marker, 0);
        dilate(&eroded, marker, self.window, &disc);
    }

    fn set_border(&self, plane: &mut [u8], value: u8) {
        for (y, row) in plane.chunks_exact_mut(self.window.stride).enumerate() {
            if y < MARGIN || y >= self.height + MARGIN {
                row.fill(value);
            } else {
                row[..MARGIN].fill(value);
                row[MARGIN + self.width..].fill(value);
            }
        }
    }

    /// 4-connected markers of one owner with at least [`MIN_PX`] pixels, numbered from 1 in raster
    /// order.
    fn label(&self, marker: &[u8], owner: &[u32]) -> Vec<u32> {
        let mut label: Vec<u32> = self.plane(UNLABELLED);
        let mut next = 1;
        let mut pixels = Vec::new();
        let mut seen: Vec<bool> = marker.iter().map(|&m| m == 0).collect();
        for first in 0..marker.len() {
            if seen[first] {
                continue;
            }
            pixels.clear();
            pixels.push(first);
            seen[first] = true;
            let mut done = 0;
            while let Some(&pixel) = pixels.get(done) {
                done += 1;
                let stride = self.window.stride;
                for n in [pixel - stride, pixel - 1, pixel + 1, pixel + stride] {
                    if !seen[n] && owner[n] == owner[pixel] {
                        seen[n] = true;
                        pixels.push(n);
                    }
                }
            }
            if pixels.len() >= MIN_PX {
                pixels.iter().for_each(|&pixel| label[pixel] = next);
                next += 1;
            }
        }
        label
    }

    /// Minus the 3x3 Gaussian mean of (1 - overall) inside blobs, padded.
    fn distance(&self, blobs: &[Vec<Run>], overall: &[f64]) -> Vec<f64> {
        let mut flat = vec![0.0; overall.len()];
        for &run in blobs.iter().flatten() {
            let at = self.map_start(run);
            for i in at..at + run.len() {
                flat[i] = 1.0 - overall[i];
            }
        }
        let gaussian = [0.25, 0.5, 0.25];
        let blurred = filter_separable(&flat, self.width, &gaussian, &gaussian);
        let mut distance = self.plane(0.0);
        for (y, row) in blurred.chunks_exact(self.width).enumerate() {
            let at = self.window.start + y * self.window.stride;
            for (d, b) in distance[at..at + self.width].iter_mut().zip(row) {
                *d = -b;
            }
        }
        distance
    }
}

/// hover_net's `overall`, `[height, width]`: 0..=1, high between nuclei, 0 outside blobs.
fn overall_energy(map: &PredictionMap, frame: &Frame, blobs: &[Vec<Run>]) -> Vec<f64> {
    let derive = weights(&[-1.0, 1.0], SOBEL_PX - 2);
    let smooth = weights(&[1.0], SOBEL_PX - 1);
    let scaled_slope = |plane: &[f32], across: &[f64], down: &[f64]| {
        let scaled: Vec<f64> = normalise_f32(&without_nan(plane))
            .iter()
            .copied()
            .map(f64::from)
            .collect();
        normalise_f64(&filter_separable(&scaled, map.width, across, down))
    };
    let dh_dx = scaled_slope(&map.h, &derive, &smooth);
    let dv_dy = scaled_slope(&map.v, &smooth, &derive);
    let mut overall = vec![0.0; dh_dx.len()];
    for &run in blobs.iter().flatten() {
        let at = frame.map_start(run);
        for i in at..at + run.len() {
            overall[i] = f64::from((1.0 - dh_dx[i]).max(1.0 - dv_dy[i])).max(0.0);
        }
    }
    overall
}

fn without_nan(plane: &[f32]) -> Vec<f32> {
    plane
        .iter()
        .map(|&x| if x.is_nan() { 0.0 } else { x })
        .collect()
}

/// Makes the nuclei and the instance map from the padded labels.
fn extract_nuclei(
    map: &PredictionMap,
    rgb: &RgbImage,
    frame: &Frame,
    label: &[u32],
) -> (Vec<Nucleus>, Vec<u32>) {
    let quantised = map.quantised();
    let mut fg = Foreground::with_capacity(map.types, 0);
    let mut pieces = Vec::new();
    for y in 0..map.height {
        let at = frame.window.start + y * frame.window.stride;
        let row = label[at..at + map.width].iter().copied();
        for_each_run(row, y, |run, label| {
            if label != OUTSIDE && label != UNLABELLED {
                let at = fg.len();
                pieces.push(Piece { run, at, label });
                let from = (run.x0 as usize, run.y as usize);
                fg.push_predictions(&quantised, rgb, 0, from, run.len());
            }
        });
    }
    let labelled = LabelledPieces::new(pieces);
    let mut instances = vec![0; map.width * map.height];
    for piece in &labelled.pieces {
        let from = frame.map_start(piece.run);
        instances[from..from + piece.run.len()].fill(labelled.slot(piece) as u32 + 1);
    }
    (labelled.collect_nuclei(&fg), instances)
}

/// Calls `visit` with every run of equal values in row `y`, and the value.
fn for_each_run<T: PartialEq>(
    row: impl Iterator<Item = T>,
    y: usize,
    mut visit: impl FnMut(Run, T),
) {
    let mut row = row.peekable();
    let mut x0 = 0;
    while let Some(value) = row.next() {
        let mut x1 = x0 + 1;
        while row.next_if_eq(&value).is_some() {
            x1 += 1;
        }
        visit(
            Run {
                y: y as i32,
                x0,
                x1,
            },
            value,
        );
        x0 = x1;
    }
}

/// The tight box of a blob, and an empty plane with one pixel of margin for it.
fn local_plane(blob: &[Run]) -> (Rect, Window, Vec<u8>) {
    let x0 = blob.iter().map(|r| r.x0).min().unwrap_or(0);
    let x1 = blob.iter().map(|r| r.x1).max().unwrap_or(0);
    let y0 = blob.first().map_or(0, |r| r.y);
    let y1 = blob.last().map_or(0, |r| r.y + 1);
    let (width, height) = ((x1 - x0) as usize, (y1 - y0) as usize);
    let window = Window {
        start: width + 3,
        stride: width + 2,
        width,
        height,
    };
    let plane = vec![0; window.stride * (height + 2)];
    (Rect::new(x0, y0, x1 - x0, y1 - y0), window, plane)
}

/// Index of the map's pixel (x, y) in a plane of [`local_plane`].
fn local_start(window: &Window, bounds: &Rect, x: i32, y: i32) -> usize {
    window.start + (y - bounds.y) as usize * window.stride + (x - bounds.x) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cv2.morphologyEx(image, cv2.MORPH_OPEN, 5x5 ellipse)`: beyond the border everything counts
    /// as set for erosion and as unset for dilation.
    #[test]
    fn opening_at_the_border_is_opencvs() {
        let frame = Frame::new(7, 4);
        let open = |rows: [&str; 4]| {
            let mut plane: Vec<u8> = frame.plane(0);
            for (y, row) in rows.iter().enumerate() {
                for (x, c) in row.bytes().enumerate() {
                    plane[frame.window.start + y * frame.window.stride + x] = u8::from(c == b'#');
                }
            }
            frame.open(&mut plane);
            let row = |y: usize| -> String {
                let at = frame.window.start + y * frame.window.stride;
                let pixels = plane[at..at + 7].iter();
                pixels.map(|&p| if p == 1 { '#' } else { '.' }).collect()
            };
            [0, 1, 2, 3].map(row)
        };
        assert_eq!(
            open(["###....", "###....", "###....", "......."]),
            ["###....", "###....", "#......", "......."]
        );
        assert_eq!(
            open(["#######", "#.#####", "#######", "#######"]),
            ["..#####", "#.#####", "#######", "#######"]
        );
        assert_eq!(
            open(["##.....", "##...##", "##..###", "##..###"]),
            [".......", "......#", "....###", "....###"]
        );
        assert_eq!(
            open(["..###..", ".#####.", "..###..", "......."]),
            [".......", ".......", ".......", "......."]
        );
    }
}
