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

/// Names and colours for the types of a model: an entry for each of them, of the same meaning where the model's names
/// say what it means. A model without types takes any file, and nothing of it.
///
/// # Errors
/// What is wrong, with its line; a file of another length, or of other types: both numberings, and the cure.
pub fn parse_for(text: &str, model: &[TypeInfo]) -> Result<Vec<TypeInfo>, String> {
    let entries = entries(text)?;
    let count = model.len();
    let wanted = || {
        format!(
            "the model has {count} types, 0 (background) to {}",
            count - 1
        )
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    if let Some(id) = entries.keys().find(|id| **id >= count) {
        return Err(format!("has an entry \"{id}\": {}", wanted()));
    }
    let all = (0..count).map(|id| match entries.get(&id) {
        Some((name, color)) => Ok(TypeInfo {
            name: name.clone(),
            color: *color,
        }),
        None => Err(format!("has no entry \"{id}\": {}", wanted())),
    });
    let all = all.collect::<Result<Vec<TypeInfo>, String>>()?;
    // What is background is so in every file, whatever its name.
    let pairs = || model.iter().zip(&all).enumerate().skip(1);
    if pairs().all(|(_, (own, given))| mean_the_same(&own.name, &given.name)) {
        return Ok(all);
    }
    let list = pairs().map(|(id, (own, given))| format!("{id} {} / {}", own.name, given.name));
    Err(format!(
        "names other types than the model has, and the numbers would change their meaning (model / file: {}): leave the \
         flag out for the model's own names, or give the file that belongs to the model",
        list.collect::<Vec<_>>().join(", ")
    ))
}

/// Letters that two names must share from the start to count as one word and its abbreviation.
const LIKE_LETTERS: usize = 5;
/// Names of one meaning that do not begin alike.
const SYNONYMS: [&[&str]; 4] = [
    &["nonneoplastic", "noneo", "benign", "nonneo"],
    &["other", "misc", "miscellaneous"],
    &["necrotic", "dead"],
    &["lymphocyte", "lympho"],
];

/// Whether two names of types mean the same: equal but for case and signs, an abbreviation (`neopla`, `neoplastic`),
/// or synonyms. A number as a name (`type 1`) says nothing, so it fits everything.
pub fn mean_the_same(a: &str, b: &str) -> bool {
    let letters = |name: &str| -> String {
        let kept = name.chars().filter(|c| c.is_alphanumeric());
        kept.flat_map(char::to_lowercase).collect()
    };
    let (a, b) = (letters(a), letters(b));
    let numbered = |name: &str| {
        let number = name.strip_prefix("type").unwrap_or(name);
        number.chars().all(|c| c.is_ascii_digit())
    };
    let shared = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let shorter = a.chars().count().min(b.chars().count());
    let group = |name: &str| {
        let known = |words: &&[&str]| words.contains(&name);
        SYNONYMS.iter().position(known)
    };
    numbered(&a)
        || numbered(&b)
        || shared >= shorter.clamp(3, LIKE_LETTERS)
        || group(&a).is_some_and(|found| group(&b) == Some(found))
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

    fn model(names: &[&str]) -> Vec<TypeInfo> {
        let kind = |name: &&str| TypeInfo {
            name: (*name).to_owned(),
            color: [0; 3],
        };
        names.iter().map(kind).collect()
    }

    /// hover_net's own type_info.json.
    const PANNUKE: &str = r#"{"0": ["nolabe", [0, 0, 0]], "1": ["neopla", [255, 0, 0]], "2": ["inflam", [0, 255, 0]],
        "3": ["connec", [0, 0, 255]], "4": ["necros", [255, 255, 0]], "5": ["no-neo", [255, 165, 0]]}"#;

    #[test]
    fn every_type_needs_its_entry_and_none_is_over() {
        let text = r#"{"1": ["neopla", [255, 0, 0]], "0": ["nolabe", [0, 0, 0]]}"#;
        let types = parse_for(text, &model(&["background", "type 1"])).unwrap();
        assert_eq!(
            (types[1].name.as_str(), types[1].color),
            ("neopla", [255, 0, 0])
        );
        let three = model(&["background", "type 1", "type 2"]);
        assert!(
            parse_for(text, &three)
                .unwrap_err()
                .contains("no entry \"2\"")
        );
        let one = parse_for(text, &model(&["background"])).unwrap_err();
        assert!(one.contains("an entry \"1\""), "{one}");
        let colour = parse_for(r#"{"0": ["x", [0, 0, 256]]}"#, &model(&["background"]));
        assert!(colour.unwrap_err().contains("line 1"));
        assert!(parse_for(text, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_file_of_other_types_does_not_rename() {
        let pannuke = [
            "background",
            "neoplastic",
            "inflammatory",
            "connective",
            "necrotic",
            "non-neoplastic",
        ];
        assert_eq!(
            parse_for(PANNUKE, &model(&pannuke)).unwrap()[5].name,
            "no-neo"
        );
        // As many types, of another meaning: the embedded model's with one more.
        let other = [
            "background",
            "epithelial",
            "inflammatory",
            "spindle",
            "other",
            "plasma",
        ];
        let error = parse_for(PANNUKE, &model(&other)).unwrap_err();
        for part in [
            "1 epithelial / neopla",
            "3 spindle / connec",
            "4 other / necros",
        ] {
            assert!(error.contains(part), "{error}");
        }
        // The same names in another order are another numbering.
        let consep = [
            "background",
            "miscellaneous",
            "inflammatory",
            "epithelial",
            "spindle",
        ];
        let ours = r#"{"0": ["", [0, 0, 0]], "1": ["Epithelial", [0, 0, 0]], "2": ["inflam", [0, 0, 0]],
            "3": ["spindle", [0, 0, 0]], "4": ["misc", [0, 0, 0]]}"#;
        assert!(parse_for(ours, &model(&consep)).is_err());
        let own = [
            "background",
            "epithelial",
            "inflammatory",
            "spindle",
            "other",
        ];
        assert!(parse_for(ours, &model(&own)).is_ok());
    }

    #[test]
    fn a_gap_gets_its_number() {
        let types = parse(r#"{"2": ["inflam", [0, 255, 0]]}"#).unwrap();
        let names: Vec<&str> = types.iter().map(|kind| kind.name.as_str()).collect();
        assert_eq!(names, ["type 0", "type 1", "inflam"]);
        assert!(parse(r#"{"64": ["x", [0, 0, 0]]}"#).is_err());
    }
}
