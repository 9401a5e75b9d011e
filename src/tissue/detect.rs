//! Tissue by its colour.
//!
//! In: a slide. Out: a [`TissueMask`] with cells of about 8 µm. H&E absorbs green more than red or
//! blue, while glass and dust absorb all channels alike, so the measure is the spread of the
//! optical density over the channels; the brightness of the lamp does not change it. Otsu's method
//! gives the threshold, within limits that also suit slides that are almost empty or all tissue.
//! Parts that cannot be read count as tissue, so that the run accounts for them.

use image::{Rgb, RgbImage};

use super::clean::drop_small;
use super::otsu::otsu;
use super::{TissueError, TissueMask};
use crate::slide::{SlideReader, overview};

/// Side of a mask cell, µm (never less than a level-0 px).
pub const CELL_UM: f64 = 8.0;
/// Smaller pieces of tissue are dropped, µm²: about 50 x 50 µm.
const MIN_TISSUE_UM2: f64 = 2_500.0;
/// Smaller holes are filled, µm²: glands and vessels belong to the tissue around them.
const MAX_HOLE_UM2: f64 = 10_000.0;
/// On small slides neither limit exceeds this share of the slide.
const MAX_CLEANED_SHARE: f64 = 0.05;
/// Limits of the threshold, spread of optical density. Glass is below 0.01 at 8 µm. Of the cells of
/// H&E fields, 87 to 98 % are above the lower limit and 79 to 95 % above the upper (CoNSeP with its
/// fat, NuInsSeg, BRCA-M2C; 661 fields).
const THRESHOLD: [f64; 2] = [0.015, 0.04];
/// Glass has a smaller spread than this. Its colour is taken as white.
const GLASS_SPREAD: f64 = 0.02;
/// Glass has at least this share of the brightness of the slide's bright pixels (99th percentile).
const GLASS_SHARE: f64 = 0.85;
/// In black px (borders, missing parts) every channel is below this.
const BLACK: u8 = 40;
/// The optical density of blue and green ink in red is more than this many times that in green.
/// That of stain is not (but in 0.13 % of the tissue cells of the same fields at most).
const INK_RATIO: f64 = 2.0;
/// The spread of ink's optical density is above this.
const INK_SPREAD: f64 = 0.15;
/// A slide of at most this many cells is all tissue or all glass.
const FEW_CELLS: usize = 16;
/// Bins of the histogram for Otsu's method.
const BINS: usize = 256;
/// The histogram covers spreads of 0 to this.
const BINS_SPREAD: f64 = 0.4;

/// Level-0 px per cell, (x, y), and the numbers of columns and rows of cells that cover a slide.
pub(super) fn mask_grid(level0_size_px: [u64; 2], level0_mpp: [f64; 2]) -> ([f64; 2], [u32; 2]) {
    let cell_level0_px = level0_mpp.map(|mpp| (CELL_UM / mpp).max(1.0));
    let count = |px: u64, cell: f64| {
        (px as f64 / cell - 1e-9)
            .ceil()
            .clamp(1.0, f64::from(u32::MAX)) as u32
    };
    let [width, height] = [
        count(level0_size_px[0], cell_level0_px[0]),
        count(level0_size_px[1], cell_level0_px[1]),
    ];
    (cell_level0_px, [width, height])
}

/// Finds the tissue of a slide. `level0_mpp`: µm per level-0 px, (x, y).
///
/// # Errors
/// [`TissueError::Slide`] if nothing of the slide can be read.
pub fn detect(reader: &dyn SlideReader, level0_mpp: [f64; 2]) -> Result<TissueMask, TissueError> {
    let size_px = reader
        .info()
        .levels
        .first()
        .map_or([1, 1], |l| [l.width_px, l.height_px]);
    let mut mask = TissueMask::uniform(size_px, level0_mpp, false);
    let seen = overview(reader, [mask.width, mask.height], mask.cell_level0_px)?;
    mask.tissue = classify(&seen.image);
    clean(&mut mask, level0_mpp);
    for rect in seen.unreadable {
        for row in rect.y..rect.bottom() {
            let start = row as usize * mask.width as usize + rect.x as usize;
            if let Some(cells) = mask.tissue.get_mut(start..start + rect.w as usize) {
                cells.fill(true);
            }
        }
    }
    Ok(mask)
}

/// Which px of an image at 8 µm/px are tissue, before cleaning.
fn classify(image: &RgbImage) -> Vec<bool> {
    let glass = glass_colour(image);
    // NaN stands for none, and is above no threshold: a large slide has more than 10^7 cells, and
    // an Option would take twice the memory.
    let spreads: Vec<f64> = image
        .pixels()
        .map(|&px| stain_spread(px, glass).unwrap_or(f64::NAN))
        .collect();
    let mut histogram = [0u64; BINS];
    for spread in spreads.iter().filter(|spread| !spread.is_nan()) {
        let bin = (spread / BINS_SPREAD * BINS as f64) as usize;
        if let Some(count) = histogram.get_mut(bin.min(BINS - 1)) {
            *count += 1;
        }
    }
    let [lowest, highest] = THRESHOLD;
    let threshold = otsu(&histogram).map_or(lowest, |bin| {
        ((bin + 1) as f64 / BINS as f64 * BINS_SPREAD).clamp(lowest, highest)
    });
    let is_tissue = |spread: &f64| *spread >= threshold;
    if spreads.len() <= FEW_CELLS {
        let white = |px: &Rgb<u8>| px.0.iter().all(|&c| c >= 235);
        let any = spreads.iter().any(is_tissue) || !image.pixels().all(white);
        return vec![any; spreads.len()];
    }
    spreads.iter().map(is_tissue).collect()
}

/// The median colour of bright, colourless px; white if they are fewer than 1 in 200.
fn glass_colour(image: &RgbImage) -> [f64; 3] {
    let mut brightness: Vec<u8> = image.pixels().map(|px| px.0[1]).collect();
    brightness.sort_unstable();
    let bright = brightness
        .get(brightness.len() * 99 / 100)
        .copied()
        .unwrap_or(255);
    let mut glass: [Vec<u8>; 3] = Default::default();
    for px in image.pixels() {
        let bright_enough = f64::from(px.0[1]) >= GLASS_SHARE * f64::from(bright);
        if bright_enough && spread(optical_density(*px, [255.0; 3])) < GLASS_SPREAD {
            for (channel, &value) in glass.iter_mut().zip(&px.0) {
                channel.push(value);
            }
        }
    }
    if glass[1].is_empty() || glass[1].len() * 200 < brightness.len() {
        return [255.0; 3];
    }
    glass.map(|mut values| {
        let middle = values.len() / 2;
        f64::from(*values.select_nth_unstable(middle).1)
    })
}

fn optical_density(px: Rgb<u8>, glass: [f64; 3]) -> [f64; 3] {
    let [r, g, b] = px.0.map(f64::from);
    [(r, 0), (g, 1), (b, 2)].map(|(value, i)| ((glass[i] + 1.0) / (value + 1.0)).log10())
}

fn spread([r, g, b]: [f64; 3]) -> f64 {
    r.max(g).max(b) - r.min(g).min(b)
}

/// The spread of optical density of one px: `None` for black, 0 for ink.
fn stain_spread(px: Rgb<u8>, glass: [f64; 3]) -> Option<f64> {
    if px.0.iter().all(|&c| c < BLACK) {
        return None;
    }
    let [r, g, b] = optical_density(px, glass);
    let spread = spread([r, g, b]);
    let ink = spread > INK_SPREAD && r > INK_RATIO * g;
    Some(if ink { 0.0 } else { spread })
}

/// Fills small holes, then drops small pieces.
fn clean(mask: &mut TissueMask, level0_mpp: [f64; 2]) {
    let cell_um2 = mask.cell_level0_px[0] * level0_mpp[0] * mask.cell_level0_px[1] * level0_mpp[1];
    let at_most = mask.tissue.len() as f64 * MAX_CLEANED_SHARE;
    let min_cells = |um2: f64| (um2 / cell_um2).min(at_most).ceil() as usize;
    let width = mask.width as usize;
    drop_small(&mut mask.tissue, width, false, min_cells(MAX_HOLE_UM2));
    drop_small(&mut mask.tissue, width, true, min_cells(MIN_TISSUE_UM2));
}
