//! Signs that a result is wrong.
//!
//! In: a [`SlideResult`], its thumbnail and mask. Out: warnings for people. A wrong µm/px makes nuclei of impossible
//! size, or none, and nothing else shows it. Never changes or drops a nucleus.

use image::RgbImage;

use crate::result::SlideResult;
use crate::tissue::{TissueMask, is_rich_in_hematoxylin};

/// Median equivalent diameters of nuclei that tissue has, µm: lymphocytes have 6 to 7, tumour nuclei up to 13.
const DIAMETER_UM: std::ops::RangeInclusive<f64> = 4.0..=15.0;
/// Fewer nuclei than this have no median worth a warning.
const FEWEST_NUCLEI: usize = 20;
/// Tissue that is full of hematoxylin has more nuclei per mm²: fat and tendon have about 200.
const FEWEST_PER_MM2: f64 = 100.0;
/// Less tissue than this may well have none, mm².
const LEAST_TISSUE_MM2: f64 = 0.05;
/// What helps to find the right scale.
const CURE: &str = "`slide info --estimate-mpp` finds a likely one, --mpp sets it";

/// Whether a whole slide has so few nuclei for its tissue that [`few_nuclei_warning`] should look at it.
pub fn has_few_nuclei(result: &SlideResult) -> bool {
    let mm2 = result.meta.tissue_mm2;
    let is_whole = result.coverage.missing_tiles == 0 && result.coverage.unreadable_px == 0;
    is_whole && mm2 >= LEAST_TISSUE_MM2 && (result.nuclei.len() as f64) < FEWEST_PER_MM2 * mm2
}

/// A warning about tissue full of hematoxylin in which hardly a nucleus was found.
pub fn few_nuclei_warning(
    result: &SlideResult,
    thumb: &RgbImage,
    mask: &TissueMask,
) -> Option<String> {
    if !has_few_nuclei(result) {
        return None;
    }
    let mm2 = result.meta.tissue_mm2;
    is_rich_in_hematoxylin(thumb, mask).then(|| {
        let [x, y] = result.frames().level0_mpp;
        format!(
            "only {} nuclei in {mm2:.2} mm² of tissue that is full of hematoxylin: is {x} x {y} µm/px (from: {}) right? {CURE}",
            result.nuclei.len(),
            result.meta.mpp_from
        )
    })
}

/// Warnings about the nuclei of a slide.
pub fn warnings(result: &SlideResult) -> Vec<String> {
    let Some(diameter_um) = median_diameter_um(result) else {
        return Vec::new();
    };
    if DIAMETER_UM.contains(&diameter_um) {
        return Vec::new();
    }
    let [x, y] = result.frames().level0_mpp;
    vec![format!(
        "half of the nuclei are {} than {diameter_um:.1} µm across, outside the usual {} to {} µm: is {x} x {y} µm/px \
         (from: {}) right? {CURE}",
        if diameter_um < *DIAMETER_UM.start() {
            "smaller"
        } else {
            "larger"
        },
        DIAMETER_UM.start(),
        DIAMETER_UM.end(),
        result.meta.mpp_from,
    )]
}

/// Median over the nuclei of the diameter of a disc of the same area.
fn median_diameter_um(result: &SlideResult) -> Option<f64> {
    if result.nuclei.len() < FEWEST_NUCLEI {
        return None;
    }
    let mut areas: Vec<u32> = result.nuclei.iter().map(|n| n.area_px).collect();
    let middle = areas.len() / 2;
    let (_, &mut median_px, _) = areas.select_nth_unstable(middle);
    let [x, y] = result.frames().proc_mpp();
    Some((4.0 * f64::from(median_px) * x * y / std::f64::consts::PI).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Coverage;
    use crate::result::fixture;

    #[test]
    fn nuclei_of_impossible_size_are_a_warning_with_its_cure() {
        let mut result = fixture::result(1.0);
        let nucleus = result.nuclei[0].clone();
        assert!(warnings(&result).is_empty());
        for (diameter_um, word) in [(3.0, Some("smaller")), (8.0, None), (20.0, Some("larger"))] {
            let [x, y] = result.frames().proc_mpp();
            let area_px = std::f64::consts::FRAC_PI_4 * diameter_um * diameter_um / (x * y);
            let mut one = nucleus.clone();
            one.area_px = area_px.round() as u32;
            result.nuclei = vec![one; FEWEST_NUCLEI];
            let got = warnings(&result).join("");
            match word {
                Some(word) => assert!(got.contains(word) && got.contains("--mpp"), "{got}"),
                None => assert_eq!(got, ""),
            }
        }
    }

    #[test]
    fn blue_tissue_without_nuclei_is_a_warning() {
        let mut result = fixture::result(1.0);
        result.meta.tissue_mm2 = 0.5;
        result.coverage = Coverage::whole(2400);
        let mask = TissueMask::all(result.frames().level0_size_px, result.frames().level0_mpp);
        let told = |result: &SlideResult, colour: [u8; 3]| {
            let thumb = RgbImage::from_pixel(80, 60, image::Rgb(colour));
            few_nuclei_warning(result, &thumb, &mask)
        };
        // Hematoxylin, and eosin, as Ruifrok and Johnston give them.
        let (blue, pink) = ([103, 97, 170], [230, 64, 219]);
        let text = told(&result, blue).unwrap();
        assert!(
            text.contains("in 0.50 mm² of tissue") && text.contains("--estimate-mpp"),
            "{text}"
        );
        assert_eq!(told(&result, pink), None);
        let nucleus = result.nuclei[0].clone();
        result.nuclei = vec![nucleus; 50];
        assert_eq!(told(&result, blue), None);
    }
}
