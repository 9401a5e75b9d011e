//! Signs that a slide is not an H&E section on glass.
//!
//! In: the mask and the thumbnail. Out: warnings, with the cure. Never changes the mask.

use image::RgbImage;

use super::TissueMask;

/// The usual share of a slide that is tissue.
const TISSUE_SHARE: std::ops::RangeInclusive<f64> = 0.002..=0.98;
/// With fewer px of tissue in the thumbnail the stain is not judged.
const FEWEST_PX: usize = 50;
/// Tissue whose mean optical density (log10) is below this in every channel is hardly stained.
const PALE: f64 = 0.02;
/// Tissue is grey if the spread of the channels' densities is below this share of the largest.
const GREY: f64 = 0.15;
/// Red density over green density above which the stain is not H&E. Hematoxylin alone has 0.93,
/// blue ink and Alcian blue twice that.
const BLUE: f64 = 1.4;
/// Tissue full of nuclei absorbs so much red, and so much of what it absorbs of green (0.93 for pure hematoxylin, 0.07
/// for pure eosin).
const RICH_RED: f64 = 0.12;
const RICH_RATIO: f64 = 0.5;
/// The background is dark if the brightest channel is below this in half of the px.
const DARK: u8 = 60;

/// A warning if the share of tissue is unusual.
pub fn share_warning(mask: &TissueMask) -> Option<String> {
    let tissue = mask.tissue.iter().filter(|&&cell| cell).count();
    let share = tissue as f64 / mask.tissue.len().max(1) as f64;
    let percent = 100.0 * share;
    if tissue == 0 || TISSUE_SHARE.contains(&share) {
        // A slide without any tissue has a warning of its own elsewhere.
        None
    } else if share > 0.5 {
        Some(format!(
            "{percent:.0} % of the picture counts as tissue: right for a cut-out field, odd for a whole slide; look at \
             mask.png, and give a --mask if it is wrong"
        ))
    } else {
        Some(format!(
            "only {percent:.2} % of the slide counts as tissue: look at mask.png, and give a --mask if it is wrong"
        ))
    }
}

/// A warning if the colours of the tissue are not those of H&E.
pub fn stain_warning(thumb: &RgbImage, mask: &TissueMask) -> Option<String> {
    let mut brightest: Vec<u8> = thumb
        .pixels()
        .map(|px| px.0.into_iter().max().unwrap_or(0))
        .collect();
    let middle = brightest.len() / 2;
    if brightest.is_empty() || *brightest.select_nth_unstable(middle).1 < DARK {
        return Some(
            "the background is dark, as in fluorescence: this program reads bright-field H&E alone, do not \
                trust the nuclei"
                .into(),
        );
    }
    let [red, green, blue] = tissue_density(thumb, mask)?;
    let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
    let seen = format!("optical densities of red {red:.2}, green {green:.2}, blue {blue:.2}");
    if most < PALE {
        Some(format!(
            "the tissue is hardly stained ({seen}): nuclei may be missed"
        ))
    } else if most - least < GREY * most {
        Some(format!(
            "the tissue is grey, not stained with H&E ({seen}): do not trust the nuclei"
        ))
    } else if blue > green || red > BLUE * green {
        Some(format!(
            "the tissue has not the colours of H&E ({seen}; H&E absorbs green most): is it another stain? do \
                not trust the nuclei"
        ))
    } else {
        None
    }
}

/// Optical density (log10) of a channel's value against white.
pub fn optical_density(value: u8) -> f64 {
    (256.0 / (f64::from(value) + 1.0)).log10()
}

/// Whether the tissue is full of hematoxylin, and so of nuclei: it absorbs red, which eosin hardly does.
pub fn is_rich_in_hematoxylin(thumb: &RgbImage, mask: &TissueMask) -> bool {
    tissue_density(thumb, mask)
        .is_some_and(|[red, green, _]| red > RICH_RED && red > RICH_RATIO * green)
}

/// Mean optical density of the thumbnail's tissue against white, per channel; `None` with too
/// little tissue.
fn tissue_density(thumb: &RgbImage, mask: &TissueMask) -> Option<[f64; 3]> {
    let cell = |at: u32, side_px: u32, cells: u32| {
        (u64::from(at) * u64::from(cells) / u64::from(side_px.max(1))) as u32
    };
    let (width, height) = thumb.dimensions();
    let (mut sums, mut count) = ([0.0; 3], 0usize);
    for (x, y, px) in thumb.enumerate_pixels() {
        if mask.is_tissue(cell(x, width, mask.width), cell(y, height, mask.height)) {
            for (sum, &value) in sums.iter_mut().zip(&px.0) {
                *sum += optical_density(value);
            }
            count += 1;
        }
    }
    (count >= FEWEST_PX).then(|| sums.map(|sum| sum / count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn mask(tissue: impl Fn(usize) -> bool) -> TissueMask {
        TissueMask {
            width: 40,
            height: 25,
            cell_level0_px: [2.0, 2.0],
            tissue: (0..1000).map(tissue).collect(),
        }
    }

    #[test]
    fn shares_near_nothing_and_all_are_odd() {
        assert_eq!(share_warning(&mask(|_| false)), None);
        assert_eq!(share_warning(&mask(|i| i < 300)), None);
        assert!(share_warning(&mask(|i| i < 1)).unwrap().contains("0.10 %"));
        assert!(share_warning(&mask(|_| true)).unwrap().contains("100 %"));
    }

    #[test]
    fn stains_by_their_published_colours() {
        let all = mask(|_| true);
        let of = |colour: [u8; 3]| {
            let thumb = RgbImage::from_fn(80, 50, |x, _| match x % 2 {
                0 => Rgb([240; 3]),
                _ => Rgb(colour),
            });
            stain_warning(&thumb, &all).unwrap_or_default()
        };
        // Ruifrok and Johnston's vectors as colours of optical density 0.6: hematoxylin, eosin,
        // DAB.
        let colour =
            |vector: [f64; 3]| vector.map(|v: f64| (256.0 * 10f64.powf(-0.6 * v) - 1.0) as u8);
        assert_eq!(of(colour([0.65, 0.70, 0.29])), "");
        assert_eq!(of(colour([0.07, 0.99, 0.11])), "");
        let rich = |colour: [u8; 3]| {
            is_rich_in_hematoxylin(&RgbImage::from_pixel(80, 50, Rgb(colour)), &all)
        };
        assert!(rich(colour([0.65, 0.70, 0.29])));
        assert!(!rich(colour([0.07, 0.99, 0.11])) && !rich([240; 3]));
        assert!(of(colour([0.27, 0.57, 0.78])).contains("another stain"));
        assert!(of([70, 150, 190]).contains("another stain"));
        assert!(of([120; 3]).contains("grey"));
        assert!(of([250; 3]).contains("grey") || of([250; 3]).contains("hardly"));
        let dark = RgbImage::from_fn(80, 50, |x, _| Rgb([10, 10, (x * 2) as u8 % 50]));
        assert!(stain_warning(&dark, &all).unwrap().contains("fluorescence"));
    }
}
