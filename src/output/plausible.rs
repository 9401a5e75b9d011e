//! Signs that a result is wrong.
//!
//! In: a [`SlideResult`]. Out: warnings for people. A wrong µm/px makes nuclei of impossible size and nothing
//! else shows it. Never changes or drops a nucleus.

use crate::result::SlideResult;

/// Median equivalent diameters of nuclei that tissue has, µm: lymphocytes have 6 to 7, tumour nuclei up to 13.
const DIAMETER_UM: std::ops::RangeInclusive<f64> = 4.0..=15.0;
/// Fewer nuclei than this have no median worth a warning.
const FEWEST_NUCLEI: usize = 20;

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
         (from: {}) right? --mpp sets another",
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
}
