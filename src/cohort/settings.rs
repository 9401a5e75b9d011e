//! The settings that all rows of a cohort share.
//!
//! In: the settings of a run. Out: those as cohort.json keeps them, a hash of what results depend on, and the flags that
//! they were. Never checks a setting: whoever made the [`RunConfig`] has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::sha256_hex;
use crate::pipeline::prepare::ALGORITHM;
use crate::run::RunConfig;

/// Settings that no result depends on: they may differ between tasks.
const FREE_SETTINGS: [&str; 16] = [
    "output",
    "device",
    "batch-size",
    "dedupe-names",
    "restart",
    "shard",
    "mix-devices",
    "stage",
    "retries",
    "requeue-exit-code",
    "tile-size",
    "threads",
    "memory",
    "progress",
    "quiet",
    "log",
];

/// Settings that each row says by itself, or that a task of a cohort never gets.
pub const ROWS_SETTINGS: [&str; 12] = [
    "output",
    "model",
    "mpp",
    "mask",
    "roi",
    "dedupe-names",
    "restart",
    "shard",
    "stage",
    "retries",
    "requeue-exit-code",
    "log",
];

/// A setting with what it is and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub value: Value,
    pub from: String,
}

/// The settings of a run.
pub(super) fn settings_of(config: &RunConfig) -> BTreeMap<String, Said> {
    let text = |from| match serde_json::to_value(from) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    };
    let settings = config.settings.iter().map(|(name, setting)| {
        let said = Said {
            value: setting.value.clone(),
            from: text(setting.from),
        };
        (name.clone(), said)
    });
    settings.collect()
}

/// SHA-256 of what results depend on: settings, weights, algorithm.
pub(super) fn settings_hash(
    settings: &BTreeMap<String, Said>,
    models: &BTreeMap<String, String>,
) -> String {
    let counted: BTreeMap<&String, &Value> = settings
        .iter()
        .filter(|(name, _)| !FREE_SETTINGS.contains(&name.as_str()))
        .map(|(name, said)| (name, &said.value))
        .collect();
    let all = json!({"algorithm": ALGORITHM, "settings": counted, "models": models});
    sha256_hex(all.to_string().as_bytes())
}

/// What is asked otherwise than before, for people.
pub(super) fn differences(
    stored: &BTreeMap<String, Said>,
    wanted: &BTreeMap<String, Said>,
) -> Vec<String> {
    let value = |settings: &BTreeMap<String, Said>, name: &str| {
        settings.get(name).map(|said| said.value.clone())
    };
    let names = stored.keys().filter(|name| {
        !FREE_SETTINGS.contains(&name.as_str()) && value(stored, name) != value(wanted, name)
    });
    let text = |value: Option<Value>| value.map_or("nothing".into(), |value| value.to_string());
    names
        .map(|name| {
            let (then, now) = (text(value(stored, name)), text(value(wanted, name)));
            format!("{name}: {then} then, {now} now")
        })
        .collect()
}

/// A setting's value as its flag takes it.
pub fn flag_text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(flag_text).collect();
            items.map(|items| items.join(","))
        }
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_knows_what_results_depend_on_and_nothing_else() {
        let said = |value: Value| Said {
            value,
            from: "flag".into(),
        };
        let of = |mpp: Value, threads: Value| {
            let settings = [("mpp", mpp), ("threads", threads)];
            let settings = settings.map(|(name, value)| (name.to_owned(), said(value)));
            settings_hash(&settings.into(), &BTreeMap::new())
        };
        assert_eq!(of(json!(0.5), json!(1)), of(json!(0.5), json!(8)));
        assert_ne!(of(json!(0.5), json!(1)), of(json!(0.25), json!(1)));
    }

    #[test]
    fn settings_become_the_flags_that_they_were() {
        assert_eq!(flag_text(&json!("otsu")).unwrap(), "otsu");
        assert_eq!(flag_text(&json!(["json", "csv"])).unwrap(), "json,csv");
        assert_eq!(flag_text(&json!(0.25)).unwrap(), "0.25");
        assert_eq!(flag_text(&json!(true)).unwrap(), "true");
        assert_eq!(flag_text(&Value::Null), None);
    }
}
