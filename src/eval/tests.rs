//! Scores compared with those of hover_net's own code (tests/fixtures/make_eval_cases.py).

use super::scores::score_image;
use crate::labels::Annotation;

#[derive(serde::Deserialize)]
struct Cases {
    side: usize,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    truth: Vec<(u32, usize)>,
    pred: Vec<(u32, usize)>,
    truth_types: Vec<u8>,
    pred_types: Vec<u8>,
    dice: f64,
    aji: f64,
    aji_plus: f64,
    dq: f64,
    sq: f64,
    pq: f64,
    f1d: f64,
    f1: std::collections::BTreeMap<String, f64>,
}

/// The ids of runs of (id, length).
fn expand(runs: &[(u32, usize)]) -> Vec<u32> {
    let ids = runs.iter().flat_map(|&(id, n)| std::iter::repeat_n(id, n));
    ids.collect()
}

fn annotation(runs: &[(u32, usize)], types: &[u8], side: usize) -> Annotation {
    let id_types = std::iter::once(0).chain(types.iter().copied()).collect();
    Annotation::of_map(expand(runs), id_types, side)
}

#[test]
fn scores_equal_those_of_hover_net() {
    let text = include_str!("../../tests/fixtures/eval_cases.json");
    let fixture: Cases = serde_json::from_str(text).unwrap();
    assert_eq!(fixture.cases.len(), 6);
    for case in &fixture.cases {
        let truth = annotation(&case.truth, &case.truth_types, fixture.side);
        let pred = annotation(&case.pred, &case.pred_types, fixture.side);
        let ours = score_image("case", &truth, &pred, 3, 12.0);
        let s = ours.segmentation.unwrap();
        for (name, ours, theirs) in [
            ("dice", s.dice, case.dice),
            ("aji", s.aji, case.aji),
            ("aji_plus", s.aji_plus, case.aji_plus),
            ("dq", s.dq, case.dq),
            ("sq", s.sq, case.sq),
            ("pq", s.pq, case.pq),
            ("f1d", ours.detections.f1d(), case.f1d),
            ("f1 of 1", ours.detections.f1_type(1), case.f1["1"]),
            ("f1 of 2", ours.detections.f1_type(2), case.f1["2"]),
        ] {
            assert!(
                (ours - theirs).abs() < 1e-6,
                "{name}: {ours}, reference {theirs}"
            );
        }
    }
}

/// Two predictions have an IoU of 1/3: 4 of 12 px, and 5 of 15. hover_net takes the second (5 / 19,
/// not 4 / 20).
#[test]
fn of_equal_overlaps_aji_takes_the_larger() {
    let truth = expand(&[(1, 12), (0, 8)]);
    let pred = expand(&[(1, 4), (0, 3), (2, 8), (0, 5)]);
    let aji = super::segmentation::score_maps(&truth, &pred).aji;
    assert!((aji - 5.0 / 19.0).abs() < 1e-12, "{aji}");
}
