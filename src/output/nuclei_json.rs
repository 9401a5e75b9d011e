//! nuclei.json: hover_net's schema, so that what reads its files reads ours.
//!
//! In: a [`SlideResult`]. Out: `{"mag", "nuc": {"1": {"bbox", "centroid", "contour", "type_prob", "type"}, …}, "mpp",
//! "model", …}`, in that order. Level-0 px in hover_net's centre frame: the pixel (i, j) is the point (i, j). Boxes are
//! (row, column), half-open; all else is (x, y). Streamed: memory does not grow with the nuclei.

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

/// Writes `path`.
pub fn write(result: &SlideResult, path: &Path) -> Result<(), OutputError> {
    write_file(path, |out| stream(result, out))
}

/// Writes the document into `out`.
pub fn stream(result: &SlideResult, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let mag = whole_if_whole(result.meta.slide.objective_power);
    write!(out, "{{\"mag\":{mag},\"nuc\":{{")?;
    let mut first = 0;
    for chunk in result.nuclei.chunks(CHUNK) {
        let texts: Vec<String> = chunk
            .par_iter()
            .enumerate()
            .map(|(i, nucleus)| entry(&Record::new(first + i, nucleus, result)))
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
    for (key, value) in extra(result) {
        write!(out, ",{}:{value}", json!(key))?;
    }
    out.write_all(b"}\n")
}

/// The keys after hover_net's own.
fn extra(result: &SlideResult) -> Vec<(&'static str, serde_json::Value)> {
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
    vec![
        ("mpp", um(json!((mpp_x * mpp_y).sqrt()))),
        ("mpp_xy", um(json!([mpp_x, mpp_y]))),
        ("width", json!(meta.frames.level0_size_px[0])),
        ("height", json!(meta.frames.level0_size_px[1])),
        (
            // With it the outlines give the masks back exactly, resampled or not.
            "proc_per_level0",
            json!(meta.frames.proc_per_level0),
        ),
        (
            "frame",
            json!("level-0 px, pixel centres at whole numbers; bbox rows and columns, half-open"),
        ),
        ("types", json!(types)),
        (
            "model",
            json!({"name": meta.model.name, "sha256": meta.model.sha256, "mpp": um(json!(meta.model.mpp))}),
        ),
        ("bounds", json!(meta.slide.bounds_px)),
        ("slide", json!(meta.slide.quickhash)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
    ]
}

/// One nucleus, `"id":{…}`.
fn entry(record: &Record<'_>) -> String {
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
    for (i, [px, py]) in contour.iter().enumerate() {
        let [x, y] = record.to_centre([f64::from(*px) + 0.5, f64::from(*py) + 0.5]);
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
