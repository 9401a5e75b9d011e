//! Masks through outlines and back, and files that are not whole.

use super::fill::{Budget, Filled, filled};
use super::*;
use crate::geometry::Rect;
use crate::nuclei::outline_through_centres;
use crate::output::nuclei_json::{self, HovernetPx};
use crate::result::fixture;

fn options(units: Units) -> Options {
    Options {
        mpp: None,
        units,
        types: None,
        stem: "old".into(),
    }
}

/// Fills the only outline of a file.
fn filled_alone(points: &[[i32; 2]]) -> Result<Filled, String> {
    filled(points, &mut Budget::for_nuclei(1))
}

fn nucleus_of(filled: Filled) -> Nucleus {
    Nucleus {
        bbox: filled.bbox,
        mask: filled.mask,
        area_px: filled.area_px,
        prob_sums: Vec::new(),
        type_counts: Vec::new(),
        np_sum: 0,
        stain: StainSums::default(),
        cut: false,
    }
}

/// A mask from rows of text, `#` inside, its box tight.
fn drawn(rows: &[String], at: [i32; 2]) -> Nucleus {
    let w = rows[0].len() as i32;
    let bbox = Rect::new(at[0], at[1], w, rows.len() as i32);
    let mut mask = vec![0u8; (bbox.area() as usize).div_ceil(8)];
    let pixels = rows.iter().flat_map(|row| row.bytes()).enumerate();
    let inside: Vec<usize> = pixels.filter(|(_, c)| *c == b'#').map(|(i, _)| i).collect();
    for bit in &inside {
        mask[bit / 8] |= 1 << (bit % 8);
    }
    Nucleus {
        area_px: inside.len() as u32,
        ..nucleus_of(Filled {
            bbox,
            mask,
            area_px: 0,
        })
    }
}

/// A random 8-connected mask without holes: grown px by px, then what no way leads out of is filled.
fn grown(seed: u64) -> Nucleus {
    let mut dice = fastrand::Rng::with_seed(seed);
    let side = dice.i32(1..14);
    let mut inside = std::collections::BTreeSet::from([[side / 2, side / 2]]);
    for _ in 0..dice.i32(0..side * side) {
        let from: Vec<[i32; 2]> = inside.iter().copied().collect();
        let [x, y] = from[dice.usize(..from.len())];
        let next = [x + dice.i32(-1..2), y + dice.i32(-1..2)];
        if next.iter().all(|v| (0..side).contains(v)) {
            inside.insert(next);
        }
    }
    // Background that a 4-connected way joins to the outside of the box.
    let mut outside = std::collections::BTreeSet::new();
    let mut open = vec![[-1, -1]];
    while let Some([x, y]) = open.pop() {
        let within = [x, y].iter().all(|v| (-1..=side).contains(v));
        if within && !inside.contains(&[x, y]) && outside.insert([x, y]) {
            open.extend([[x + 1, y], [x - 1, y], [x, y + 1], [x, y - 1]]);
        }
    }
    let range = |axis: usize| {
        let values = inside.iter().map(move |p| p[axis]);
        values.clone().min().unwrap()..=values.max().unwrap()
    };
    let rows: Vec<String> = range(1)
        .map(|y| {
            let cell = |x| if outside.contains(&[x, y]) { '.' } else { '#' };
            range(0).map(cell).collect()
        })
        .collect();
    drawn(&rows, [*range(0).start() - 5, *range(1).start() + 100])
}

/// Shoelace area of an outline, its border px, and so Pick's count of px: the outline's own numbers, no mask.
fn picks_count(points: &[[i32; 2]]) -> f64 {
    let sides = points.iter().zip(points.iter().cycle().skip(1));
    let (mut doubled, mut border) = (0i64, 0i64);
    for (a, b) in sides {
        doubled += i64::from(a[0]) * i64::from(b[1]) - i64::from(b[0]) * i64::from(a[1]);
        let (dx, dy) = ((b[0] - a[0]).unsigned_abs(), (b[1] - a[1]).unsigned_abs());
        let (mut p, mut q) = (dx, dy);
        while q > 0 {
            (p, q) = (q, p % q);
        }
        border += i64::from(p);
    }
    doubled.abs() as f64 / 2.0 + border as f64 / 2.0 + 1.0
}

#[test]
fn a_mask_without_holes_survives_its_outline_and_has_picks_area() {
    let shapes = [
        &["#"][..],
        &["#####"],
        &["#", "#", "#"],
        &["#..", ".#.", "..#"],
        &["#.#", ".#.", "#.#"],
        &["##..", "##..", "..##", "..##"],
        &["..#..", ".###.", "#####"],
        &["#..#", "####", "#..#"],
    ];
    let by_hand = shapes.iter().map(|rows| {
        let rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
        drawn(&rows, [3, 7])
    });
    let mut cases = 0;
    for nucleus in by_hand.chain((0..2000).map(grown)) {
        let outline = outline_through_centres(&nucleus);
        let back = filled_alone(&outline).unwrap();
        assert_eq!((back.bbox, &back.mask), (nucleus.bbox, &nucleus.mask));
        assert_eq!(back.area_px, nucleus.area_px);
        assert_eq!(
            picks_count(&outline),
            f64::from(nucleus.area_px),
            "{outline:?}"
        );
        cases += 1;
    }
    assert_eq!(cases, 2008);
}

#[test]
fn an_outline_drawn_by_hand_never_falls_apart() {
    let thin = nucleus_of(filled_alone(&[[0, 0], [9, 2], [0, 1]]).unwrap());
    let outline = outline_through_centres(&thin);
    assert_eq!(filled_alone(&outline).unwrap().area_px, thin.area_px);
    assert!(filled_alone(&[]).unwrap_err().contains("no outline"));
    assert!(
        filled_alone(&[[0, 0], [1 << 20, 1 << 20]])
            .unwrap_err()
            .contains("no nucleus")
    );
}

#[test]
fn our_own_json_gives_the_masks_back_at_any_ratio() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nuclei.json");
    for ratio in [1.0, 1.996, 0.5, 0.37] {
        let result = fixture::result(ratio);
        nuclei_json::write(&result, &path).unwrap();
        let read = read(&path, &options(Units::Um)).unwrap();
        assert_eq!(read.frames(), result.frames(), "{ratio}");
        for (a, b) in read.records().zip(result.records()) {
            assert_eq!((a.id, a.type_id), (b.id, b.type_id));
            assert!((a.type_prob.unwrap() - b.type_prob.unwrap()).abs() <= 5.001e-5);
            assert_eq!(
                (a.nucleus.bbox, &a.nucleus.mask, a.nucleus.area_px),
                (b.nucleus.bbox, &b.nucleus.mask, b.nucleus.area_px),
                "{ratio}"
            );
        }
        assert_eq!(read.meta.model.types, result.meta.model.types);
        // Repaired and written again it is the same file.
        let again = folder.path().join("again.json");
        nuclei_json::write(&read, &again).unwrap();
        let bytes = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(bytes(&again), bytes(&path));
    }
}

#[test]
fn a_file_in_px_of_40x_is_read_in_the_slides_own_px() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slide.json");
    // A slide of 20x whose px are the model's, and one of 40x whose px are half the model's: what `hovernet wsi
    // --proc_mag=40` and `--proc_mag=10` write of them.
    for (own_ratio, power, per_level0) in [(1.0, 20.0, 2.0), (0.5, 40.0, 0.25), (1.0, 20.0, 2.004)]
    {
        let truth = fixture::result(own_ratio);
        let mut scaled = truth.clone();
        let frames = &mut scaled.meta.frames;
        for axis in 0..2 {
            let side = frames.level0_size_px[axis] as f64 * per_level0;
            frames.level0_size_px[axis] = side.round() as u64;
            frames.level0_mpp[axis] /= per_level0;
            frames.proc_per_level0[axis] /= per_level0;
        }
        scaled.meta.slide.objective_power = Some(power * per_level0);
        let px = HovernetPx {
            per_level0: [per_level0; 2],
            level0_size_px: truth.frames().level0_size_px,
        };
        nuclei_json::write_for_hovernet(&scaled, px, &path).unwrap();
        let read = read(&path, &options(Units::Um)).unwrap();
        assert_eq!(
            read.frames().level0_size_px,
            truth.frames().level0_size_px,
            "{per_level0}"
        );
        assert!((read.frames().level0_mpp[0] / truth.frames().level0_mpp[0] - 1.0).abs() < 1e-12);
        let objective = read.meta.slide.objective_power.unwrap();
        assert!((objective / power - 1.0).abs() < 1e-12);
        for (a, b) in read.records().zip(truth.records()) {
            let ([ax, ay], [bx, by]) = (
                a.to_edge(a.centroid_proc_px()),
                b.to_edge(b.centroid_proc_px()),
            );
            // Whole px of 40x are fine enough for the very mask; px of a coarser power lose up to half of theirs.
            let most = if per_level0 < 1.0 {
                0.5 / per_level0
            } else {
                1e-9
            };
            assert!(
                (ax - bx).abs() <= most && (ay - by).abs() <= most,
                "{ax} {bx} {ay} {by}"
            );
            if per_level0 > 1.0 {
                assert_eq!(a.nucleus.mask, b.nucleus.mask, "{per_level0}");
            }
        }
    }
}

const OLD: &str = r#"{"mag": 40, "nuc": {
"12": {"bbox": [[1, 2], [3, 4]], "centroid": [0, 0], "contour": [[5, 5], [5, 7], [8, 7], [8, 5]], "type_prob": 0.5, "type": 2},
"3": {"bbox": [[0, 0], [0, 0]], "centroid": [0, 0], "contour": [[1, 1]], "type_prob": null, "type": null}}}"#;

fn read_text(text: &str, options: &Options) -> Result<SlideResult, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    std::fs::write(&path, text).unwrap();
    read(&path, options)
}

#[test]
fn hover_nets_ids_are_kept_its_boxes_are_not() {
    let result = read_text(OLD, &options(Units::Um)).unwrap();
    let records: Vec<_> = result.records().collect();
    assert_eq!((records[0].id, records[1].id), (3, 12));
    assert_eq!((records[0].type_id, records[0].type_prob), (None, None));
    assert_eq!(
        (records[1].type_id, records[1].type_prob),
        (Some(2), Some(0.5))
    );
    assert_eq!(records[1].bbox_rows_columns(), [[5, 5], [8, 9]]);
    assert_eq!(records[1].nucleus.area_px, 12);
    assert_eq!(result.frames().level0_mpp, [0.25; 2]);
    assert!(result.meta.warnings[0].contains("--mpp"));
    assert_eq!(result.meta.model.types[2].name, "type 2");
}

#[test]
fn the_scale_comes_from_the_flag_or_the_file_or_is_asked_for() {
    let null = OLD.replace("40", "null");
    let error = read_text(&null, &options(Units::Um))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("--mpp") && error.contains("--units px"),
        "{error}"
    );
    let px = read_text(&null, &options(Units::Px)).unwrap();
    assert!(!px.scale_known());
    let columns = crate::output::table::columns(&px, Units::Px);
    assert!(
        !columns
            .iter()
            .any(|c| c.name.contains("um") && c.name != "euler_number")
    );
    let flag = Options {
        mpp: Some(0.5),
        ..options(Units::Um)
    };
    let result = read_text(&null, &flag).unwrap();
    assert_eq!(
        (result.frames().level0_mpp, result.meta.warnings.len()),
        ([0.5; 2], 0)
    );
}

#[test]
fn a_file_cut_anywhere_is_refused_where_it_ends() {
    for end in 0..OLD.len() {
        let error = read_text(&OLD[..end], &options(Units::Um)).unwrap_err();
        match &error {
            ImportError::Broken { byte, nucleus, .. } => {
                // A number that is cut says so one byte early.
                assert!(
                    [end, end - end.min(1)].contains(&(*byte as usize)),
                    "{error}"
                );
                if end > OLD.find("\"3\"").unwrap() + 4 && end < OLD.len() - 2 {
                    assert_eq!(nucleus.as_deref(), Some("3"));
                }
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn edits_are_named_with_their_byte_and_nucleus() {
    let edited = |from: &str, to: &str| {
        let text = OLD.replacen(from, to, 1);
        read_text(&text, &options(Units::Um))
            .unwrap_err()
            .to_string()
    };
    let at = OLD.find("[5, 7]").unwrap();
    let message = edited("[5, 7]", "x5, 7]");
    assert!(
        message.contains(&format!("byte {at} (nucleus 12)")),
        "{message}"
    );
    assert!(edited("\"12\"", "\"3\"").contains("two nuclei have the id 3"));
    assert!(edited("\"nuc\"", "\"nuclei\"").contains("has no `nuc`"));
    assert!(edited("}}}", "}}} {").contains(&format!("byte {}", OLD.len() + 1)));
}

#[test]
fn a_bad_nucleus_costs_itself_alone_and_is_told() {
    for (from, to, why) in [
        ("[8, 7]", "[8]", "nucleus 12"),
        ("[5, 5]", "[NaN, 5]", "nucleus 12"),
        ("\"contour\"", "\"contours\"", "missing field `contour`"),
        ("\"12\"", "\"a\"", "`a` is no whole number"),
        ("\"type\": 2", "\"type\": 2.5", "type 2.5"),
        ("\"type\": 2", "\"type\": -1", "nucleus 12"),
        ("\"type\": 2", "\"type\": \"x\"", "not a number"),
        ("[5, 5]", "[5e300, 5]", "beyond any slide"),
        ("[[1, 1]]", "[]", "no outline"),
    ] {
        let text = OLD.replacen(from, to, 1);
        let result = read_text(&text, &options(Units::Um)).unwrap();
        assert_eq!(result.nuclei.len(), 1, "{to}");
        let told = result.meta.warnings.join(";");
        assert!(told.contains("1 of 2 nuclei cannot be used"), "{told}");
        assert!(told.contains(why), "{told}");
    }
    let text = OLD.replace("contour", "contours");
    let error = read_text(&text, &options(Units::Um)).unwrap_err();
    assert!(
        error.to_string().contains("none of its 2 nuclei"),
        "{error}"
    );
}

#[test]
fn numbers_are_read_as_programs_write_them() {
    let plain = read_text(OLD, &options(Units::Um)).unwrap();
    for (from, to) in [
        ("40", "\"40\""),
        ("40", "\"40x\""),
        ("\"type\": 2", "\"type\": \"2\""),
        ("\"type\": 2", "\"type\": 2.0"),
        ("\"type\": 2", "\"type_prob\": NaN, \"type\": 2"),
    ] {
        let text = format!("\u{feff}{}", OLD.replacen(from, to, 1));
        let result = read_text(&text, &options(Units::Um)).unwrap();
        assert_eq!(result.nuclei, plain.nuclei, "{to}");
        let kinds = |r: &SlideResult| r.records().map(|n| n.type_id).collect::<Vec<_>>();
        assert_eq!(kinds(&result), kinds(&plain), "{to}");
        assert_eq!(result.frames(), plain.frames(), "{to}");
    }
}

#[test]
fn absurd_outlines_cost_no_memory_and_no_time() {
    let corner = [8191, 8191];
    let outline = [[0, 0], [corner[0], 0], corner, [0, corner[1]]];
    let mut budget = Budget::for_nuclei(2000);
    let filled_boxes = (0..2000).filter(|_| filled(&outline, &mut budget).is_ok());
    assert_eq!(filled_boxes.count(), 0);
    // Far larger than any nucleus, and still read.
    let large = [[0, 0], [3000, 0], [3000, 3000], [0, 3000]];
    assert_eq!(filled_alone(&large).unwrap().area_px, 3001 * 3001);
    let tall: Vec<[i32; 2]> = (0..3000).map(|i| [0, 67_000_000 * (i % 2)]).collect();
    assert!(filled_alone(&tall).unwrap_err().contains("no nucleus"));
}
