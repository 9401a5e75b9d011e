//! Cells and columns of a few nuclei.

use super::*;
use crate::result::fixture;

fn measured(ratio: f64, units: Units) -> (Vec<Vec<f64>>, Medians) {
    let result = fixture::result(ratio);
    let mut rows = Vec::new();
    let measured = for_each_chunk(&result, units, |chunk| {
        rows.extend(chunk.iter().map(|row| row.features.clone()));
        Ok::<(), std::convert::Infallible>(())
    });
    (rows, measured.unwrap().medians)
}

fn column(units: Units, name: &str) -> usize {
    feature_names(&fixture::result(1.0), units)
        .iter()
        .position(|n| n == name)
        .unwrap()
}

#[test]
fn units_differ_by_the_models_scale() {
    let (um, _) = measured(1.996, Units::Um);
    let (px, _) = measured(1.996, Units::Px);
    let area = column(Units::Um, "area_um2");
    assert_eq!(px[1][area], 96.0);
    assert!((um[1][area] - 96.0 * 0.25 * 0.25).abs() < 1e-9);
    let nearest = column(Units::Px, "nearest");
    assert!((um[1][nearest] / px[1][nearest] - 0.25).abs() < 1e-9);
    // Nucleus 2's centroid (26, 14), nucleus 3's (44.5, 24.5), proc px.
    assert!((px[1][nearest] - 18.5f64.hypot(10.5)).abs() < 1e-6);
    let within = column(Units::Px, "neighbours_50um");
    assert_eq!((um[1][within], px[1][within]), (3.0, 3.0));
    // Nuclei 1, 3 and 4 are tumour; nucleus 2 is the only lymphocyte, so it has no other.
    let by_type = ["nearest_tumour", "nearest_lymphocyte"].map(|n| column(Units::Px, n));
    assert_eq!(px[1][by_type[0]], px[1][nearest]);
    assert!(px[1][by_type[1]].is_nan());
    assert!((um[2][by_type[1]] / um[1][column(Units::Um, "nearest_um")] - 1.0).abs() < 1e-9);
    let counts = ["neighbours_50um_tumour", "neighbours_50um_lymphocyte"];
    let counts = counts.map(|n| column(Units::Um, n));
    let of = |row: usize| counts.map(|c| um[row][c]);
    assert_eq!((of(0), of(1)), ([2.0, 1.0], [3.0, 0.0]));
    assert!(
        feature_names(&fixture::result(1.0), Units::Px)
            .iter()
            .all(|n| !n.ends_with("_um") && !n.ends_with("_um2"))
    );
}

#[test]
fn medians_by_hand() {
    let (rows, medians) = measured(1.0, Units::Px);
    let area = column(Units::Px, "area");
    let areas: Vec<f64> = rows.iter().map(|row| row[area]).collect();
    assert_eq!(areas, [30.0, 96.0, 61.0, 30.0]);
    let all = |name: &str| medians.all.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(all("area"), (30.0 + 61.0) / 2.0);
    assert_eq!(all("red_mean"), 100.0);
    assert_eq!(medians.by_type[0].0, 1);
    assert_eq!(medians.by_type[0].1[area], ("area".to_owned(), 30.0));
    assert_eq!(medians.by_type[1].1[area], ("area".to_owned(), 96.0));
}
