//! nuclei.geojson: detections for QuPath 0.5 and later.
//!
//! In: chunks of rows. Out: a FeatureCollection, one feature per line. Rings follow pixel edges and give the
//! mask back by the even-odd rule, holes too; level-0 px, from the corner of openslide.bounds where the slide
//! has them, as QuPath shows it. UUIDs are version 5 of the result's identity and the nucleus's id. Streamed;
//! the same bytes every time.

use std::fmt::Write as _;
use std::io::{self, Write};

use rayon::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::GeojsonFrame;
use super::formats::RowSink;
use super::gzip;
use super::table::Row;
use super::{pictures, significant};
use crate::features::{outline, shape_um};
use crate::nuclei::{OutlinePolygon, outline_on_edges};
use crate::result::SlideResult;
use crate::result::push_round2;
use crate::store::atomic::Partial;

/// Namespace of the version 5 UUIDs below: itself the version 5 of a name that only this program uses.
const NAMESPACE: &str = "wsi-nuclei/nuclei.geojson";

/// A collection on its way into `W`.
pub struct Writer<'a, W: Write> {
    features: Features<'a>,
    first: bool,
    out: W,
}

/// What the text of a feature depends on, beside its row.
struct Features<'a> {
    result: &'a SlideResult,
    /// Level-0 px that are taken off.
    origin_px: [f64; 2],
    namespace: Uuid,
    /// Of [`measurements`], as JSON.
    names: Vec<String>,
}

impl<'a, W: Write> Writer<'a, W> {
    pub fn new(result: &'a SlideResult, frame: GeojsonFrame, mut out: W) -> io::Result<Self> {
        out.write_all(b"{\"type\":\"FeatureCollection\",\"features\":[")?;
        Ok(Self {
            features: Features {
                result,
                origin_px: origin_px(result, frame),
                namespace: namespace(result),
                names: names(result),
            },
            first: true,
            out,
        })
    }

    pub fn rows(&mut self, rows: &[Row<'_>]) -> io::Result<()> {
        let features = &self.features;
        let texts: Vec<String> = rows.par_iter().map(|row| features.text(row)).collect();
        for text in texts {
            self.out
                .write_all(if self.first { b"\n" } else { b",\n" })?;
            self.first = false;
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// Gives `W` back, everything written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(b"\n]}\n")?;
        Ok(self.out)
    }
}

impl Features<'_> {
    fn text(&self, row: &Row<'_>) -> String {
        let id = row.record.id;
        let uuid = Uuid::new_v5(&self.namespace, id.to_string().as_bytes());
        let mut text = String::with_capacity(1024);
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "{{\"type\":\"Feature\",\"id\":\"{uuid}\",\"geometry\":"
        );
        let polygons = outline_on_edges(row.record.nucleus);
        self.geometry(row, &polygons, &mut text);
        text.push_str(",\"properties\":{\"objectType\":\"detection\"");
        if let Some(type_id) = row.record.type_id {
            let name = self.result.type_name(type_id);
            let color = pictures::colour_of(self.result, Some(type_id)).0;
            let class = json!({"name": name, "color": color});
            let _ = write!(text, ",\"classification\":{class}");
        }
        text.push_str(",\"measurements\":{");
        let values = measurements(row, &polygons, self.result);
        let numbers = self.names.iter().zip(values);
        let numbers = numbers.filter_map(|(name, value)| Some((name, significant(value)?)));
        for (i, (name, value)) in numbers.enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ = write!(text, "{comma}{name}:{value}");
        }
        let _ = write!(text, "}},\"metadata\":{{\"id\":\"{id}\"}}}}}}");
        text
    }

    /// One polygon; several where parts of a mask only touch at corners, as outlines from elsewhere may.
    fn geometry(&self, row: &Row<'_>, polygons: &[OutlinePolygon], text: &mut String) {
        let ring = |ring: &[[i32; 2]], text: &mut String| {
            text.push('[');
            for (i, point) in ring.iter().enumerate() {
                let [x, y] = row.record.to_edge(point.map(f64::from));
                text.push_str(if i > 0 { ",[" } else { "[" });
                push_round2(text, x - self.origin_px[0]);
                text.push(',');
                push_round2(text, y - self.origin_px[1]);
                text.push(']');
            }
            text.push(']');
        };
        let several = polygons.len() != 1;
        text.push_str(if several {
            "{\"type\":\"MultiPolygon\",\"coordinates\":["
        } else {
            "{\"type\":\"Polygon\",\"coordinates\":"
        });
        for (i, polygon) in polygons.iter().enumerate() {
            text.push_str(if i > 0 { ",[" } else { "[" });
            ring(&polygon.exterior, text);
            for hole in &polygon.holes {
                text.push(',');
                ring(hole, text);
            }
            text.push(']');
        }
        text.push_str(if several { "]}" } else { "}" });
    }
}

fn origin_px(result: &SlideResult, frame: GeojsonFrame) -> [f64; 2] {
    match (frame, result.meta.slide.bounds_px) {
        (GeojsonFrame::Qupath, Some([x, y, ..])) => [x as f64, y as f64],
        _ => [0.0; 2],
    }
}

/// Of this result's nuclei: what the store must match, or, where nuclei have no store, what they come from.
fn namespace(result: &SlideResult) -> Uuid {
    let meta = &result.meta;
    let stem = meta.identity.is_empty().then_some(&meta.stem);
    let model = (&meta.model.name, &meta.model.sha256);
    let identity = json!([meta.identity, meta.slide.quickhash, model, stem]).to_string();
    let program = Uuid::new_v5(&Uuid::NAMESPACE_OID, NAMESPACE.as_bytes());
    Uuid::new_v5(&program, identity.as_bytes())
}

/// What [`measurements`] are called, as JSON. A name of QuPath's has QuPath's meaning (docs/formats.md); what only we
/// measure, or measure otherwise, has the name of its column in the tables.
fn names(result: &SlideResult) -> Vec<String> {
    let (unit, ending) = match result.scale_known() {
        true => ("µm", "_um"),
        false => ("px", ""),
    };
    let mut names: Vec<String> = [
        "Area {unit}^2",
        "Length {unit}",
        "Circularity",
        "Solidity",
        "Max diameter {unit}",
        "Min diameter {unit}",
        "Eccentricity",
    ]
    .map(|name| format!("Nucleus: {}", name.replace("{unit}", unit)))
    .into();
    names.extend([format!("perimeter{ending}"), "circularity".into()]);
    if result.imported.is_none() {
        names.extend(["mean", "std dev"].map(|what| format!("Nucleus: Hematoxylin OD {what}")));
        names.extend(["eosin_od_mean", "eosin_od_std"].map(str::to_owned));
        let types = result.meta.model.types.iter();
        names.extend(types.map(|kind| format!("Probability: {}", kind.name)));
    }
    names.push("Type probability".into());
    names.iter().map(|name| json!(name).to_string()).collect()
}

/// A nucleus's numbers in the order of [`names`]; NaN where there is none.
fn measurements(row: &Row<'_>, polygons: &[OutlinePolygon], result: &SlideResult) -> Vec<f64> {
    let (shape, px) = match result.scale_known() {
        true => {
            let mpp = result.frames().proc_mpp();
            (shape_um(&row.shape_px, mpp), mpp)
        }
        false => (row.shape_px, [1.0; 2]),
    };
    let outline = outline(polygons, px);
    let mut all = vec![
        shape.area,
        outline.length,
        outline.circularity,
        outline.solidity,
        outline.max_diameter,
        outline.min_diameter,
        shape.eccentricity,
        shape.perimeter,
        shape.circularity,
    ];
    if result.imported.is_none() {
        let stain = &row.stain;
        // QuPath's optical densities are decadic.
        let hematoxylin = [stain.hematoxylin_od_mean, stain.hematoxylin_od_std];
        all.extend(hematoxylin.map(|od| od / std::f64::consts::LN_10));
        all.extend([stain.eosin_od_mean, stain.eosin_od_std]);
        let types = 0..result.meta.model.types.len();
        all.extend(types.map(|id| row.record.nucleus.mean_probability(id)));
    }
    all.push(row.record.type_prob.unwrap_or(f64::NAN));
    all
}

impl RowSink for Writer<'_, Partial> {
    fn write_rows(&mut self, rows: &[Row<'_>]) -> io::Result<()> {
        self.rows(rows)
    }

    fn commit(self: Box<Self>) -> io::Result<()> {
        self.finish()?.commit()
    }
}

impl RowSink for Writer<'_, gzip::Writer<Partial>> {
    fn write_rows(&mut self, rows: &[Row<'_>]) -> io::Result<()> {
        self.rows(rows)
    }

    fn commit(self: Box<Self>) -> io::Result<()> {
        self.finish()?.finish()?.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;
    use crate::output::Units;
    use crate::result::fixture;
    use geojson::{Feature, FeatureCollection, GeometryValue};

    fn written(result: &SlideResult, frame: GeojsonFrame) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(result, frame, &mut bytes).unwrap();
        table::for_each_chunk(result, Units::Px, |rows| writer.rows(rows)).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn features(bytes: &[u8]) -> Vec<Feature> {
        let text = std::str::from_utf8(bytes).unwrap();
        let all: FeatureCollection = text.parse().unwrap();
        all.features
    }

    fn rings(feature: &Feature) -> Vec<Vec<[f64; 2]>> {
        let polygons = match &feature.geometry.as_ref().unwrap().value {
            GeometryValue::Polygon { coordinates } => vec![coordinates.clone()],
            GeometryValue::MultiPolygon { coordinates } => coordinates.clone(),
            other => panic!("{other:?}"),
        };
        let point = |p: &geojson::Position| [p.as_slice()[0], p.as_slice()[1]];
        let rings = polygons.iter().flatten();
        rings.map(|ring| ring.iter().map(point).collect()).collect()
    }

    /// Whether a ray to the right of the point crosses the rings an odd number of times.
    fn even_odd(rings: &[Vec<[f64; 2]>], [x, y]: [f64; 2]) -> bool {
        let edges = rings.iter().flat_map(|ring| ring.windows(2));
        let crossed = edges.filter(|e| {
            let ([x0, y0], [x1, y1]) = (e[0], e[1]);
            (y0 > y) != (y1 > y) && x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
        });
        crossed.count() % 2 == 1
    }

    #[test]
    fn rings_filled_again_are_the_mask_at_any_ratio() {
        for ratio in [1.0, 1.996, 0.5] {
            let mut result = fixture::result(ratio);
            // A hole in the disc, and a part that touches the rest at a corner alone.
            let disc = &mut result.nuclei[2];
            for hole in [[44, 24], [45, 24]] {
                let bit = (hole[1] - disc.bbox.y) * disc.bbox.w + hole[0] - disc.bbox.x;
                disc.mask[bit as usize / 8] &= !(1 << (bit % 8));
                disc.area_px -= 1;
            }
            let all = features(&written(&result, GeojsonFrame::Qupath));
            assert_eq!(all.len(), result.nuclei.len());
            for (nucleus, feature) in result.nuclei.iter().zip(&all) {
                let rings = rings(feature);
                for ring in &rings {
                    assert_eq!(ring.first(), ring.last());
                    assert!(ring.len() >= 5);
                }
                for y in -1..42 {
                    for x in -1..62 {
                        let centre = [x, y].map(|v| (f64::from(v) + 0.5) / ratio);
                        assert_eq!(even_odd(&rings, centre), nucleus.contains(x, y), "{ratio}");
                    }
                }
            }
            assert_eq!(rings(&all[2]).len(), 2);
        }
    }

    #[test]
    fn a_feature_by_hand() {
        let bytes = written(&fixture::result(1.0), GeojsonFrame::Qupath);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let second = &value["features"][1];
        assert_eq!(
            second["geometry"].to_string(),
            r#"{"type":"Polygon","coordinates":[[[20,10],[32,10],[32,18],[20,18],[20,10]]]}"#
        );
        let properties = &second["properties"];
        assert_eq!(properties["objectType"], "detection");
        assert_eq!(
            properties["classification"].to_string(),
            r#"{"name":"lymphocyte","color":[0,0,255]}"#
        );
        let measured = &properties["measurements"];
        assert_eq!(measured["Nucleus: Area µm^2"], 6.0);
        assert_eq!(measured["Nucleus: Solidity"], 1.0);
        // 12 x 8 px of 0.25 µm. Length and circularity are those of the rectangle that the file draws.
        assert_eq!(measured["Nucleus: Length µm"], 2.0 * (3.0 + 2.0));
        let near = |name: &str, wanted: f64| {
            let value = measured[name].as_f64().unwrap();
            assert!(
                (value / wanted - 1.0).abs() < 1e-5,
                "{name}: {value} {wanted}"
            );
        };
        near(
            "Nucleus: Circularity",
            4.0 * std::f64::consts::PI * 6.0 / 100.0,
        );
        near("Nucleus: Max diameter µm", 13f64.sqrt());
        near("Nucleus: Min diameter µm", 2.0);
        // A natural optical density of 0.8, decadic.
        near(
            "Nucleus: Hematoxylin OD mean",
            0.8 * 10f64.log(std::f64::consts::E).recip(),
        );
        // Ours under the names of the tables: 36 border px, 4 of them corners.
        near("perimeter_um", 36.0 * 0.25);
        assert!(measured["eosin_od_mean"].is_number());
        let names: Vec<&String> = measured.as_object().unwrap().keys().collect();
        assert!(
            !names.iter().any(|name| name.contains("Eosin OD")),
            "{names:?}"
        );
        assert_eq!(measured["Probability: lymphocyte"], 0.6);
        assert!(
            measured
                .as_object()
                .unwrap()
                .values()
                .all(|v| v.is_number())
        );
        assert_eq!(properties["metadata"]["id"], "2");
    }

    #[test]
    fn ids_are_uuids_of_version_5_that_depend_on_identity_and_nucleus_alone() {
        let mut result = fixture::result(1.0);
        let ids = |result: &SlideResult| -> Vec<Uuid> {
            let all = features(&written(result, GeojsonFrame::Level0));
            let id = |f: &Feature| match &f.id {
                Some(geojson::feature::Id::String(text)) => Uuid::parse_str(text).unwrap(),
                other => panic!("{other:?}"),
            };
            all.iter().map(id).collect()
        };
        let first = ids(&result);
        assert!(first.iter().all(|id| id.get_version_num() == 5));
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(different.len(), 4);
        assert_eq!(ids(&result), first);
        result.meta.slide.path = "elsewhere.svs".into();
        assert_eq!(ids(&result), first);
        result.meta.identity.insert("mpp".into(), json!(0.5));
        assert!(ids(&result).iter().all(|id| !first.contains(id)));
    }

    #[test]
    fn qupaths_frame_begins_at_the_bounds() {
        let mut result = fixture::result(1.0);
        result.meta.slide.bounds_px = Some([4, 2, 50, 30]);
        let corner = |frame| rings(&features(&written(&result, frame))[1])[0][0];
        assert_eq!(corner(GeojsonFrame::Qupath), [16.0, 8.0]);
        assert_eq!(corner(GeojsonFrame::Level0), [20.0, 10.0]);
    }

    #[test]
    fn no_nuclei_and_no_types_are_fine() {
        let mut result = fixture::result(1.0);
        result.meta.model.types.clear();
        result.nuclei.truncate(1);
        result.nuclei[0].prob_sums.clear();
        result.nuclei[0].type_counts.clear();
        let bytes = written(&result, GeojsonFrame::Qupath);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert!(
            value["features"][0]["properties"]
                .get("classification")
                .is_none()
        );
        result.nuclei.clear();
        assert!(features(&written(&result, GeojsonFrame::Qupath)).is_empty());
    }
}
