//! Traits against NumPy and SciPy (tests/fixtures/make_traits.py), and the nuclei that a rule
//! drops.

use super::*;
use crate::nuclei::confidence::measure_nuclei;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    rows: Vec<String>,
    np: Vec<u8>,
    h: Vec<i16>,
    v: Vec<i16>,
    traits: [f64; TRAITS],
}

#[test]
fn traits_are_those_of_numpy() {
    let text = std::fs::read_to_string(fixture("../traits.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let rows: Vec<&str> = case.rows.iter().map(String::as_str).collect();
        let mut blob = drawn_blob(&rows);
        (blob.np, blob.h, blob.v) = (case.np, case.h, case.v);
        let measured = measure_nuclei(&blob, &LabelledPieces::whole(&blob), MPP);
        let found = measured[0].1.as_array();
        for (i, (found, truth)) in found.iter().zip(case.traits).enumerate() {
            let name = &case.name;
            assert!((found - truth).abs() < 1e-9, "{name} {i}: {found} {truth}");
        }
    }
}

/// Any rule that drops some nuclei and keeps some.
fn rule(least: f64) -> Confidence {
    Confidence {
        least,
        bias: 0.1,
        weights: [0.5, -0.3, 0.05, -0.02, -0.1, -0.4, 0.1, 0.3],
    }
}

#[test]
fn what_a_rule_drops_is_what_its_traits_say() {
    let all = constants(EnergyRule::Eigen);
    let (mut kept, mut dropped) = (0, 0);
    for blob in components(&foreground(3, 160, 120, (5, -7))) {
        let measured = segment_with_traits(&blob, &all, MPP);
        let nuclei: Vec<_> = measured.iter().map(|(n, _)| n.clone()).collect();
        assert_eq!(nuclei, segment(&blob, &all, MPP));
        for least in [0.5, 0.6, 0.7] {
            let params = PostprocParams {
                confidence: Some(rule(least)),
                ..all.clone()
            };
            let sure: Vec<_> = measured
                .iter()
                .filter(|(_, traits)| rule(least).expected_overlap(traits) >= least)
                .map(|(nucleus, _)| nucleus.clone())
                .collect();
            (kept, dropped) = (kept + sure.len(), dropped + nuclei.len() - sure.len());
            assert_eq!(segment(&blob, &params, MPP), sure);
        }
    }
    assert!(kept > 9 && dropped > 9, "{kept} kept, {dropped} dropped");
}
