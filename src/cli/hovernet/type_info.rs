//! type_info.json: `{"0": ["nolabe", [0, 0, 0]], "1": ["neopla", [255, 0, 0]], …}`, an entry for every type.

use std::collections::BTreeMap;
use std::path::Path;

use wsi_nuclei::model::TypeInfo;

use super::super::Failure;

/// Names and colours of the types 0 to `count` - 1.
pub fn read(path: &Path, count: usize) -> Result<Vec<TypeInfo>, Failure> {
    let wrong =
        |reason: String| Failure::usage(format!("--type_info_path {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    parse(&text, count).map_err(wrong)
}

fn parse(text: &str, count: usize) -> Result<Vec<TypeInfo>, String> {
    let entries: BTreeMap<String, (String, [u8; 3])> = serde_json::from_str(text)
        .map_err(|e| format!("{e}: each entry is as \"1\": [\"neopla\", [255, 0, 0]]"))?;
    (0..count)
        .map(|id| match entries.get(&id.to_string()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_needs_its_entry() {
        let text = r#"{"1": ["neopla", [255, 0, 0]], "0": ["nolabe", [0, 0, 0]]}"#;
        let types = parse(text, 2).unwrap();
        assert_eq!(
            (types[1].name.as_str(), types[1].color),
            ("neopla", [255, 0, 0])
        );
        assert!(parse(text, 3).unwrap_err().contains("no entry \"2\""));
        assert!(
            parse(r#"{"0": ["x", [0, 0, 256]]}"#, 1)
                .unwrap_err()
                .contains("line 1")
        );
        assert!(parse(text, 0).unwrap().is_empty());
    }
}
