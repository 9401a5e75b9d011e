//! GeoJSON as drawing programs write it, which is not always as RFC 7946 has it.
//!
//! In: a path. Out: its features as JSON values, in their order. Read are FeatureCollections (also nested), bare lists of
//! features, single features and bare geometries; UTF-8 with or without a byte order mark, UTF-16 with one; gzip; `NaN`
//! and `Infinity` in place of numbers, which become null. Never looks at coordinates or properties.

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::lenient_json::LenientJson;

/// Most bytes that a compressed file may come to.
const MOST_BYTES: u64 = 1 << 28;

/// The features of a file. A bare geometry is a feature without properties.
///
/// # Errors
/// What is wrong with the file: that it cannot be read, is no JSON, or no GeoJSON.
pub fn read_features(path: &Path) -> Result<Vec<Value>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{error}: check the path"))?;
    parse_features(&bytes)
}

/// [`read_features`] of a file's bytes.
pub fn parse_features(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let text = decode(bytes)?;
    let value: Value = serde_json::from_reader(LenientJson::new(text.as_bytes()))
        .map_err(|error| format!("not GeoJSON: {error}: export it again as GeoJSON"))?;
    let mut features = Vec::new();
    collect(value, &mut features)?;
    Ok(features)
}

fn decode(bytes: &[u8]) -> Result<String, String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(bytes)
            .take(MOST_BYTES + 1)
            .read_to_end(&mut unpacked)
            .map_err(|error| format!("its gzip is damaged: {error}"))?;
        if unpacked.len() as u64 > MOST_BYTES {
            return Err(format!(
                "comes to more than {} MiB unpacked",
                MOST_BYTES >> 20
            ));
        }
        return decode(&unpacked);
    }
    let utf16 = |order: fn([u8; 2]) -> u16| {
        let units = bytes[2..]
            .chunks_exact(2)
            .map(|pair| order([pair[0], pair[1]]));
        char::decode_utf16(units)
            .collect::<Result<String, _>>()
            .map_err(|_| "is no UTF-16 text: export it again as GeoJSON".to_owned())
    };
    match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        _ => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| "is no UTF-8 text: export it again as GeoJSON".to_owned())?;
            Ok(text.trim_start_matches('\u{feff}').to_owned())
        }
    }
}

fn collect(value: Value, features: &mut Vec<Value>) -> Result<(), String> {
    match value {
        Value::Array(items) => items
            .into_iter()
            .try_for_each(|item| collect(item, features)),
        Value::Object(mut object) => match object.get("type").and_then(Value::as_str) {
            Some("FeatureCollection") => match object.remove("features") {
                Some(Value::Array(items)) => items
                    .into_iter()
                    .try_for_each(|item| collect(item, features)),
                _ => Err("not GeoJSON: its FeatureCollection has no list of features".into()),
            },
            Some("Feature") => {
                features.push(Value::Object(object));
                Ok(())
            }
            Some(_) if object.contains_key("coordinates") || object.contains_key("geometries") => {
                features.push(json!({"type": "Feature", "properties": null, "geometry": object}));
                Ok(())
            }
            _ => Err("not GeoJSON: neither features nor geometries are in it".into()),
        },
        _ => Err("not GeoJSON: neither features nor geometries are in it".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const FEATURE: &str =
        r#"{"type":"Feature","properties":{"a":"NaN \"-Infinity\""},"geometry":null}"#;

    fn count(bytes: &[u8]) -> usize {
        parse_features(bytes).unwrap().len()
    }

    #[test]
    fn every_wrapping_gives_the_same_features() {
        let list = format!("[{FEATURE},{FEATURE}]");
        let collection = format!(r#"{{"type":"FeatureCollection","features":{list}}}"#);
        let nested = format!(r#"{{"type":"FeatureCollection","features":[{collection}]}}"#);
        for text in [&list, &collection, &nested] {
            assert_eq!(count(text.as_bytes()), 2);
            assert_eq!(count(format!("\u{feff}{text}").as_bytes()), 2);
            let utf16 = |bytes: fn(u16) -> [u8; 2], mark: [u8; 2]| {
                let units = text.encode_utf16().flat_map(bytes);
                count(&mark.into_iter().chain(units).collect::<Vec<u8>>())
            };
            assert_eq!(utf16(u16::to_le_bytes, [0xff, 0xfe]), 2);
            assert_eq!(utf16(u16::to_be_bytes, [0xfe, 0xff]), 2);
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(text.as_bytes()).unwrap();
            assert_eq!(count(&gz.finish().unwrap()), 2);
        }
        let first = &parse_features(FEATURE.as_bytes()).unwrap()[0];
        assert_eq!(first["properties"]["a"], "NaN \"-Infinity\"");
        let bare = parse_features(br#"{"type":"Point","coordinates":[1,2]}"#).unwrap();
        assert_eq!(bare[0]["geometry"]["coordinates"][1], 2);
    }

    #[test]
    fn numbers_that_are_none_become_null() {
        let text = r#"[{"type":"Feature","properties":{"a":NaN,"b":-Infinity,"c":-1.5,"d":Infinity},"geometry":null}]"#;
        let features = parse_features(text.as_bytes()).unwrap();
        assert_eq!(
            features[0]["properties"],
            json!({"a": null, "b": null, "c": -1.5, "d": null})
        );
    }

    #[test]
    fn what_is_no_geojson_is_refused() {
        for (bytes, said) in [
            (&b"{"[..], "not GeoJSON"),
            (b"12", "neither features"),
            (br#"{"nuc": {}}"#, "neither features"),
            (br#"{"type":"Polygon"}"#, "neither features"),
            (br#"{"type":"FeatureCollection"}"#, "no list of features"),
            (&[0x1f, 0x8b, 8, 0], "gzip"),
            (&[0xc3, 0x28], "UTF-8"),
            (br#"["\"#, "not GeoJSON"),
        ] {
            let error = parse_features(bytes).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
