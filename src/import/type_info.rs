//! type_info.json: `{"0": ["nolabe", [0, 0, 0]], "1": ["neopla", [255, 0, 0]], …}`, an entry for every type.
//!
//! In: the text. Out: names and colours by id. Never knows which model they are for.

use std::collections::BTreeMap;

use crate::model::TypeInfo;
use crate::model::spec::MAX_TYPES;

/// Names and colours of the types 0 to the greatest; a number for one that has no entry.
///
/// # Errors
/// What is wrong, with its line.
pub fn parse(text: &str) -> Result<Vec<TypeInfo>, String> {
    let entries = entries(text)?;
    let count = entries.keys().max().map_or(0, |most| most + 1);
    let kind = |id: usize| match entries.get(&id) {
        Some((name, color)) => TypeInfo {
            name: name.clone(),
            color: *color,
        },
        None => TypeInfo {
            name: format!("type {id}"),
            color: [0; 3],
        },
    };
    Ok((0..count).map(kind).collect())
}

/// Names and colours of the types 0 to `count` - 1.
///
/// # Errors
/// What is wrong, with its line; a type without an entry.
pub fn parse_all(text: &str, count: usize) -> Result<Vec<TypeInfo>, String> {
    let entries = entries(text)?;
    (0..count)
        .map(|id| match entries.get(&id) {
            Some((name, color)) => Ok(TypeInfo {
                name: name.clone(),
                color: *color,
            }),
            None => Err(format!(
                "has no entry \"{id}\": the model has {count} types, 0 (background) to {}",
                count - 1
            )),
        })
        .collect()
}

fn entries(text: &str) -> Result<BTreeMap<usize, (String, [u8; 3])>, String> {
    let entries: BTreeMap<usize, (String, [u8; 3])> = serde_json::from_str(text)
        .map_err(|e| format!("{e}: each entry is as \"1\": [\"neopla\", [255, 0, 0]]"))?;
    match entries.keys().find(|id| **id >= MAX_TYPES) {
        Some(id) => Err(format!("type {id} is beyond {}", MAX_TYPES - 1)),
        None => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_needs_its_entry() {
        let text = r#"{"1": ["neopla", [255, 0, 0]], "0": ["nolabe", [0, 0, 0]]}"#;
        let types = parse_all(text, 2).unwrap();
        assert_eq!(
            (types[1].name.as_str(), types[1].color),
            ("neopla", [255, 0, 0])
        );
        assert!(parse_all(text, 3).unwrap_err().contains("no entry \"2\""));
        assert!(
            parse_all(r#"{"0": ["x", [0, 0, 256]]}"#, 1)
                .unwrap_err()
                .contains("line 1")
        );
        assert!(parse_all(text, 0).unwrap().is_empty());
    }

    #[test]
    fn a_gap_gets_its_number() {
        let types = parse(r#"{"2": ["inflam", [0, 255, 0]]}"#).unwrap();
        let names: Vec<&str> = types.iter().map(|kind| kind.name.as_str()).collect();
        assert_eq!(names, ["type 0", "type 1", "inflam"]);
        assert!(parse(r#"{"64": ["x", [0, 0, 0]]}"#).is_err());
    }
}
