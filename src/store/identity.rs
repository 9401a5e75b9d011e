//! Which run a store belongs to.
//!
//! In: the identity settings of two runs (docs/decisions/0002-the-store-is-the-only-truth.md). Out:
//! a hash that every chunk carries, or the list of settings that differ. Never decides what belongs
//! to the identity.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::digest::sha256_hex;

/// SHA-256 of the canonical JSON of `identity`: keys sorted at every depth, no white space.
pub fn hash(identity: &BTreeMap<String, Value>) -> [u8; 32] {
    let mut text = String::new();
    canonical_map(identity.iter(), &mut text);
    Sha256::digest(text.as_bytes()).into()
}

/// SHA-256, in hex, of the canonical JSON of any value.
pub(crate) fn hash_hex(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    sha256_hex(text.as_bytes())
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            // serde_json keeps the order of insertion, but equal maps must give equal text.
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            canonical_map(sorted.into_iter(), out);
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn canonical_map<'a>(map: impl Iterator<Item = (&'a String, &'a Value)>, out: &mut String) {
    out.push('{');
    for (i, (key, value)) in map.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        canonical(value, out);
    }
    out.push('}');
}

/// A setting that differs between two runs; `None` where one of them does not have it.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub name: String,
    pub stored: Option<Value>,
    pub wanted: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| match value {
            Some(value) => value.to_string(),
            None => "nothing".into(),
        };
        let (stored, wanted) = (show(&self.stored), show(&self.wanted));
        write!(f, "{}: stored {stored}, wanted {wanted}", self.name)
    }
}

/// Every setting that differs, sorted by name.
pub fn differences(
    stored: &BTreeMap<String, Value>,
    wanted: &BTreeMap<String, Value>,
) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> = stored.keys().chain(wanted.keys()).collect();
    names
        .into_iter()
        .filter(|&name| stored.get(name) != wanted.get(name))
        .map(|name| Difference {
            name: name.clone(),
            stored: stored.get(name).cloned(),
            wanted: wanted.get(name).cloned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_hash_knows_values_and_not_their_order() {
        let a = map(json!({"mpp": 0.25, "postproc": {"a": 1, "b": [1, 2]}}));
        let b = map(json!({"postproc": {"b": [1, 2], "a": 1}, "mpp": 0.25}));
        assert_eq!(hash(&a), hash(&b));
        assert_ne!(
            hash(&a),
            hash(&map(
                json!({"mpp": 0.25, "postproc": {"a": 1, "b": [2, 1]}})
            ))
        );
        // sha256 of {"mpp":0.25}, by coreutils.
        assert_eq!(
            hash_hex(&json!({"mpp": 0.25})),
            "7ce8032f8572c9f1fcb3eaf90f4531a1d6f4325b5e3881fc545b51935c939d23"
        );
    }

    #[test]
    fn differences_name_both_sides() {
        let stored = map(json!({"level": 0, "mask": "otsu", "mpp": 0.25}));
        let wanted = map(json!({"level": 1, "mpp": 0.25, "roi": "a.geojson"}));
        let lines: Vec<String> = differences(&stored, &wanted)
            .iter()
            .map(Difference::to_string)
            .collect();
        assert_eq!(
            lines,
            [
                "level: stored 0, wanted 1",
                "mask: stored \"otsu\", wanted nothing",
                "roi: stored nothing, wanted \"a.geojson\"",
            ]
        );
    }
}
