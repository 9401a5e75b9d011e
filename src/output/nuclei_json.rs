//! nuclei.json: hover_net's schema, so that what reads its files reads ours.
//!
//! In: a [`SlideResult`]. Out: `{"mag", "nuc": {"1": {"bbox", "centroid", "contour", "type_prob", "type"}, …}, "mpp",
//! "model", …}`, in that order. Level-0 px in hover_net's centre frame: the pixel (i, j) is the point (i, j). Boxes are
//! (row, column), half-open; all else is (x, y). For hover_net's own folders: px of its processing magnification, and
//! outlines in whole numbers, as its notebooks draw them. Streamed: memory does not grow with the nuclei.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use rayon::prelude::*;
use serde_json::json;

use super::{OutputError, write_file};
use crate::nuclei::outline_through_centres;
use crate::result::push_round2;
use crate::result::{Record, SlideResult};

/// Nuclei turned into text at a time: enough to feed every core, little to hold.
const CHUNK: usize = 8192;

/// The px that a file of hover_net's folders counts in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HovernetPx {
    /// Px of the file per level-0 px, x and y.
    pub per_level0: [f64; 2],
    /// The slide's level-0 width and height.
    pub level0_size_px: [u64; 2],
}

/// Writes `path`.
pub fn write(result: &SlideResult, path: &Path) -> Result<(), OutputError> {
    write_file(path, |out| stream(result, out))
}

/// Writes `path` as hover_net does: `result` is in the px of `px`, and outlines are rounded to whole numbers.
pub fn write_for_hovernet(
    result: &SlideResult,
    px: HovernetPx,
    path: &Path,
) -> Result<(), OutputError> {
    write_file(path, |out| stream_in(result, Some(px), out))
}

/// Writes the document into `out`.
pub fn stream(result: &SlideResult, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    stream_in(result, None, out)
}

fn stream_in(
    result: &SlideResult,
    px: Option<HovernetPx>,
    out: &mut (impl Write + ?Sized),
) -> io::Result<()> {
    let mag = whole_if_whole(result.meta.slide.objective_power);
    write!(out, "{{\"mag\":{mag},\"nuc\":{{")?;
    let mut first = 0;
    for chunk in result.nuclei.chunks(CHUNK) {
        let texts: Vec<String> = chunk
            .par_iter()
            .enumerate()
            .map(|(i, nucleus)| entry(&Record::new(first + i, nucleus, result), px.is_some()))
            .collect();
        for (i, text) in texts.iter().enumerate() {
            if first + i > 0 {
                out.write_all(b",")?;
            }
            out.write_all(text.as_bytes())?;
        }
        first += chunk.len();
    }
    out.write_all(b"}")?;
    for (key, value) in extra(result, px) {
        write!(out, ",{}:{value}", json!(key))?;
    }
    out.write_all(b"}\n")
}

/// The keys after hover_net's own.
fn extra(result: &SlideResult, px: Option<HovernetPx>) -> Vec<(&'static str, serde_json::Value)> {
    let meta = &result.meta;
    let um = |value: serde_json::Value| {
        if result.scale_known() {
            value
        } else {
            json!(null)
        }
    };
    let [mpp_x, mpp_y] = meta.frames.level0_mpp;
    let types: serde_json::Map<String, serde_json::Value> = meta
        .model
        .types
        .iter()
        .enumerate()
        .map(|(i, kind)| (i.to_string(), json!([kind.name, kind.color])))
        .collect();
    let per_level0 = px.map_or([1.0; 2], |px| px.per_level0);
    let per_file = meta.frames.proc_per_level0;
    let mut keys = vec![
        ("mpp", um(json!((mpp_x * mpp_y).sqrt()))),
        ("mpp_xy", um(json!([mpp_x, mpp_y]))),
        ("width", json!(meta.frames.level0_size_px[0])),
        ("height", json!(meta.frames.level0_size_px[1])),
        (
            // With it the outlines give the masks back exactly, resampled or not.
            "proc_per_level0",
            json!([per_file[0] * per_level0[0], per_file[1] * per_level0[1]]),
        ),
        ("frame", json!(frame_text(result, per_level0))),
        ("types", json!(types)),
        (
            "model",
            json!({"name": meta.model.name, "sha256": meta.model.sha256, "mpp": um(json!(meta.model.mpp))}),
        ),
        ("bounds", json!(meta.slide.bounds_px)),
        ("slide", json!(meta.slide.quickhash)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
    ];
    // Without these keys, px of the file are level-0 px.
    if let Some(px) = px.filter(|px| px.per_level0 != [1.0; 2]) {
        keys.push(("px_per_level0", json!(px.per_level0)));
        keys.push(("level0_size", json!(px.level0_size_px)));
    }
    keys
}

/// In words, what the coordinates count.
fn frame_text(result: &SlideResult, per_level0: [f64; 2]) -> String {
    let px = match per_level0 {
        [1.0, 1.0] => "level-0 px".to_owned(),
        [x, y] => {
            let power = result.meta.slide.objective_power.unwrap_or_default();
            format!(
                "px of {power}x, {x} x {y} per level-0 px (px_per_level0), from the slide's corner"
            )
        }
    };
    format!("{px}, pixel centres at whole numbers; bbox rows and columns, half-open")
}

/// One nucleus, `"id":{…}`; `whole`: its outline in whole numbers.
fn entry(record: &Record<'_>, whole: bool) -> String {
    let contour = outline_through_centres(record.nucleus);
    let mut text = String::with_capacity(128 + 14 * contour.len());
    let [[r0, c0], [r1, c1]] = record.bbox_rows_columns();
    let [x, y] = record.to_centre(record.centroid_proc_px());
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\"{}\":{{\"bbox\":[[{r0},{c0}],[{r1},{c1}]],\"centroid\":[{x},{y}],\"contour\":[",
        record.id
    );
    let points = contour.iter().map(|point| {
        let [x, y] = record.to_centre(point.map(|v| f64::from(v) + 0.5));
        match whole {
            true => [x.round(), y.round()],
            false => [x, y],
        }
    });
    let mut points: Vec<[f64; 2]> = points.collect();
    if whole {
        // Rounded, two neighbours may be one.
        points.dedup();
    }
    for (i, [x, y]) in points.into_iter().enumerate() {
        text.push_str(if i > 0 { ",[" } else { "[" });
        push_round2(&mut text, x);
        text.push(',');
        push_round2(&mut text, y);
        text.push(']');
    }
    let prob = record
        .type_prob
        .map_or("null".to_owned(), |p| ((p * 1e4).round() / 1e4).to_string());
    let kind = record
        .type_id
        .map_or("null".to_owned(), |id| id.to_string());
    let _ = write!(text, "],\"type_prob\":{prob},\"type\":{kind}}}");
    text
}

/// 40 for 40.0: hover_net writes whole numbers.
fn whole_if_whole(value: Option<f64>) -> serde_json::Value {
    match value {
        Some(v) if v.fract() == 0.0 && v.abs() < 1e9 => json!(v as i64),
        Some(v) => json!(v),
        None => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::fixture;
    use serde_json::Value;

    fn parse(ratio: f64) -> Value {
        let mut bytes = Vec::new();
        stream(&fixture::result(ratio), &mut bytes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn keys_stand_in_hover_nets_order() {
        let value = parse(1.0);
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys[..4], ["mag", "nuc", "mpp", "mpp_xy"]);
        let nuc = value["nuc"].as_object().unwrap();
        assert_eq!(nuc.keys().collect::<Vec<_>>(), ["1", "2", "3", "4"]);
        for nucleus in nuc.values() {
            let keys: Vec<&String> = nucleus.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["bbox", "centroid", "contour", "type_prob", "type"]);
        }
        assert_eq!(value["mag"].to_string(), "20");
        assert_eq!(
            value["types"]["1"],
            serde_json::json!(["tumour", [255, 0, 0]])
        );
    }

    #[test]
    fn a_whole_file_at_ratio_1() {
        let value = parse(1.0);
        let second = &value["nuc"]["2"];
        assert_eq!(second["bbox"].to_string(), "[[10,20],[18,32]]");
        assert_eq!(second["centroid"].to_string(), "[25.5,13.5]");
        assert_eq!(second["type"], 2);
        assert_eq!(second["type_prob"], 0.6);
        // The outline runs through the centres of the mask's rim, so in whole numbers, within the box.
        let points = second["contour"].as_array().unwrap();
        assert!(points.len() >= 4);
        assert!(
            points
                .iter()
                .flat_map(|p| p.as_array().unwrap())
                .all(Value::is_u64)
        );
        let xs: Vec<u64> = points.iter().map(|p| p[0].as_u64().unwrap()).collect();
        assert_eq!((xs.iter().min(), xs.iter().max()), (Some(&20), Some(&31)));
        assert_eq!(value["nuc"]["3"]["centroid"].to_string(), "[44,24]");
        assert_eq!(value["nuc"]["1"]["bbox"].to_string(), "[[0,0],[6,5]]");
    }

    #[test]
    fn resampled_coordinates_are_in_the_centre_frame_and_inside() {
        let value = parse(1.996);
        // Column 20 of proc px has its centre at (20.5 / 1.996) - 0.5 = 9.77 of level 0.
        let xs: Vec<f64> = value["nuc"]["2"]["contour"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p[0].as_f64().unwrap())
            .collect();
        assert!(xs.contains(&9.77) && xs.contains(&15.28), "{xs:?}");
        assert_eq!(value["nuc"]["2"]["centroid"].to_string(), "[12.53,6.51]");
        for nucleus in value["nuc"].as_object().unwrap().values() {
            let bbox = &nucleus["bbox"];
            for point in nucleus["contour"].as_array().unwrap() {
                let (x, y) = (point[0].as_f64().unwrap(), point[1].as_f64().unwrap());
                assert!((0.0..=29.0).contains(&x) && (0.0..=19.0).contains(&y));
                assert!(bbox[0][0].as_f64().unwrap() <= y && y < bbox[1][0].as_f64().unwrap());
                assert!(bbox[0][1].as_f64().unwrap() <= x && x < bbox[1][1].as_f64().unwrap());
            }
        }
    }

    #[test]
    fn hover_nets_files_have_whole_outlines_and_say_their_px() {
        // 2 px of the file per level-0 px; the model's px are 1.3 and 0.5 times as many as the file's.
        for ratio in [1.3, 0.998, 0.5] {
            let px = HovernetPx {
                per_level0: [2.0; 2],
                level0_size_px: [30, 20],
            };
            let mut bytes = Vec::new();
            let mut result = fixture::result(ratio);
            result.meta.slide.objective_power = Some(40.0);
            stream_in(&result, Some(px), &mut bytes).unwrap();
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            let frame = value["frame"].as_str().unwrap();
            assert!(
                frame.starts_with("px of 40x, 2 x 2 per level-0 px"),
                "{frame}"
            );
            assert_eq!(value["px_per_level0"].to_string(), "[2.0,2.0]");
            assert_eq!(value["level0_size"].to_string(), "[30,20]");
            assert_eq!(value["proc_per_level0"][0].as_f64(), Some(2.0 * ratio));
            for nucleus in value["nuc"].as_object().unwrap().values() {
                let bbox = &nucleus["bbox"];
                let points = nucleus["contour"].as_array().unwrap();
                assert!(points.windows(2).all(|pair| pair[0] != pair[1]));
                for point in points {
                    let (x, y) = (point[0].as_u64().unwrap(), point[1].as_u64().unwrap());
                    assert!(bbox[0][0].as_u64().unwrap() <= y && y < bbox[1][0].as_u64().unwrap());
                    assert!(bbox[0][1].as_u64().unwrap() <= x && x < bbox[1][1].as_u64().unwrap());
                }
            }
        }
        // The slide's own px need no such keys.
        let px = HovernetPx {
            per_level0: [1.0; 2],
            level0_size_px: [60, 40],
        };
        let (mut own, mut hovernets) = (Vec::new(), Vec::new());
        stream(&fixture::result(1.0), &mut own).unwrap();
        stream_in(&fixture::result(1.0), Some(px), &mut hovernets).unwrap();
        assert_eq!(own, hovernets);
    }

    #[test]
    fn no_nuclei_and_no_types_are_fine() {
        let mut result = fixture::result(1.0);
        result.meta.model.types.clear();
        result.meta.slide.objective_power = None;
        result.nuclei[0].prob_sums.clear();
        result.nuclei.truncate(1);
        let mut bytes = Vec::new();
        stream(&result, &mut bytes).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["mag"], Value::Null);
        assert_eq!(value["nuc"]["1"]["type"], Value::Null);
        assert_eq!(value["nuc"]["1"]["type_prob"], Value::Null);
        result.nuclei.clear();
        let mut bytes = Vec::new();
        stream(&result, &mut bytes).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["nuc"].as_object().unwrap().len(), 0);
    }

    #[test]
    fn chunks_join_without_a_seam() {
        let mut result = fixture::result(1.0);
        let one = result.nuclei[1].clone();
        result.nuclei = vec![one; CHUNK + 3];
        let mut bytes = Vec::new();
        stream(&result, &mut bytes).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let nuc = value["nuc"].as_object().unwrap();
        assert_eq!(nuc.len(), CHUNK + 3);
        assert_eq!(nuc.keys().next_back().unwrap(), &(CHUNK + 3).to_string());
    }
}
