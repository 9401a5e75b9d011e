//! Which type number of the truth is which of the predictions.
//!
//! In: what the numbers are called on both sides, how often they occur, and what `--types` says. Out: for each number of
//! the truth the predictions' number, and the names of the scores. Never matches bare numbers that nothing vouches for:
//! CoNSeP's 1 is "other", a model's 1 may be "epithelial".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::import::hovernet_json;
use crate::import::type_info::mean_the_same;
use crate::labels::Annotation;

/// What `--types` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeMatch {
    /// The numbers mean the same on both sides.
    Same,
    /// Pairs of a type of the truth and one of the predictions, each a number or a name.
    Pairs(Vec<(String, String)>),
}

impl FromStr for TypeMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "same" {
            return Ok(Self::Same);
        }
        let pair = |part: &str| match part.split_once('=') {
            Some((truth, pred)) if !truth.trim().is_empty() && !pred.trim().is_empty() => {
                Ok((truth.trim().to_owned(), pred.trim().to_owned()))
            }
            _ => Err(format!(
                "`{part}` is no pair: write TRUTH=PREDICTION, as 1=4,2=2,3=epithelial, or same"
            )),
        };
        text.split(',')
            .map(pair)
            .collect::<Result<_, _>>()
            .map(Self::Pairs)
    }
}

/// The types of one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbering {
    /// Names by number, where the files have them.
    pub names: Option<Vec<String>>,
    /// Nuclei of each number above 0.
    pub counts: BTreeMap<u8, usize>,
}

impl Numbering {
    /// Of a side's annotations; `files` are where they come from.
    ///
    /// # Errors
    /// Files whose names contradict each other.
    pub fn of<'a>(
        annotations: impl Iterator<Item = &'a Annotation>,
        files: impl Iterator<Item = &'a Path>,
    ) -> Result<Self, String> {
        let mut counts = BTreeMap::new();
        for kind in annotations.flat_map(|a| &a.detections.types) {
            if *kind > 0 {
                *counts.entry(*kind).or_default() += 1;
            }
        }
        let mut found: Option<(PathBuf, Vec<String>)> = None;
        for file in files {
            let Some((path, names)) = names_of(file) else {
                continue;
            };
            match &found {
                Some((other, earlier)) if *earlier != names => {
                    return Err(format!(
                        "{} and {} have other types: score them one by one",
                        other.display(),
                        path.display()
                    ));
                }
                Some(_) => {}
                None => found = Some((path, names)),
            }
        }
        let names = found.map(|(_, names)| names);
        Ok(Self { names, counts })
    }

    fn name(&self, id: u8) -> Option<&str> {
        let names = self.names.as_ref()?;
        names.get(usize::from(id)).map(String::as_str)
    }

    /// The number that a number or a name stands for.
    fn number(&self, text: &str) -> Option<u8> {
        let names = self.names.as_deref().unwrap_or_default();
        let known = |id: &u8| *id == 0 || names.is_empty() || usize::from(*id) < names.len();
        let named = || {
            names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(text))
        };
        match text.parse() {
            Ok(id) => Some(id).filter(known),
            Err(_) => named().and_then(|id| u8::try_from(id).ok()),
        }
    }

    /// `1 epithelial (300), 2 inflammatory (40)`.
    fn text(&self) -> String {
        let named = self.names.iter().flat_map(|names| 1..names.len() as u8);
        let mut ids: Vec<u8> = self.counts.keys().copied().chain(named).collect();
        ids.sort_unstable();
        ids.dedup();
        let one = |id: &u8| {
            let name = self
                .name(*id)
                .map_or(String::new(), |name| format!(" {name}"));
            format!("{id}{name} ({})", self.counts.get(id).copied().unwrap_or(0))
        };
        ids.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// The type names beside an annotation: in its nuclei.json, or in json/ beside hover_net's mat/.
fn names_of(file: &Path) -> Option<(PathBuf, Vec<String>)> {
    let json = match file.extension().and_then(|e| e.to_str()) {
        Some("json") => file.to_path_buf(),
        Some("mat") => {
            let stem = file.file_stem()?.to_string_lossy().into_owned();
            let folder = file.parent()?.parent()?.join("json");
            folder.join(format!("{stem}.json"))
        }
        _ => file.join("nuclei.json"),
    };
    if !json.is_file() {
        return None;
    }
    // What cannot be read here has been read before, or is not needed for more than its names.
    let types = hovernet_json::header(&json).ok()?.types?;
    let names = types.into_iter().map(|kind| kind.name).collect();
    Some((json, names))
}

/// How the truth's numbers become the predictions'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    /// The predictions' number of each number of the truth.
    numbers: Vec<u8>,
    /// Names of the scores by the predictions' number.
    pub names: Vec<String>,
}

impl Matching {
    /// Gives the annotation of a truth the predictions' numbers.
    pub fn apply(&self, truth: &mut Annotation) {
        let types = truth.detections.types.iter_mut();
        for kind in types.chain(&mut truth.id_types) {
            *kind = self.numbers.get(usize::from(*kind)).copied().unwrap_or(0);
        }
    }
}

/// Which number of the truth is which of the predictions.
///
/// # Errors
/// Numbers that nothing vouches for: both numberings, and the cure. A pair that names no type; a type of the truth
/// without a pair.
pub fn match_types(
    choice: Option<&TypeMatch>,
    truth: &Numbering,
    pred: &Numbering,
) -> Result<Matching, String> {
    let mut numbers: Vec<u8> = (0..=u8::MAX).collect();
    match choice {
        Some(TypeMatch::Same) => {}
        Some(TypeMatch::Pairs(pairs)) => numbers = from_pairs(pairs, truth, pred)?,
        // One side says no types: nothing is matched.
        None if truth.counts.is_empty() || pred.counts.is_empty() => {}
        None if names_agree(truth, pred) => {}
        None => {
            return Err(format!(
                "nothing says that a type's number means the same on both sides\n  truth:       {}\n  predictions: {}\n\
                 give --types with a pair TRUTH=PREDICTION for each type of the truth, as --types {} (0: of no type), or \
                 --types same",
                truth.text(),
                pred.text(),
                example(truth, pred)
            ));
        }
    }
    let mapped = truth.counts.keys().map(|id| numbers[usize::from(*id)]);
    let most = mapped.chain(pred.counts.keys().copied()).max().unwrap_or(0);
    let same = numbers
        .iter()
        .enumerate()
        .all(|(i, id)| i == usize::from(*id));
    let name = |id: u8| {
        let other = || truth.name(id).filter(|_| same);
        let name = pred.name(id).or_else(other);
        name.map_or(format!("type {id}"), str::to_owned)
    };
    let names = (0..=most).map(name).collect();
    Ok(Matching { numbers, names })
}

fn from_pairs(
    pairs: &[(String, String)],
    truth: &Numbering,
    pred: &Numbering,
) -> Result<Vec<u8>, String> {
    let mut numbers = vec![None; 256];
    for (a, b) in pairs {
        let unknown = |text: &str, side: &str, of: &Numbering| {
            format!(
                "--types {a}={b}: `{text}` is no type of the {side}: {}",
                of.text()
            )
        };
        let from = truth.number(a).ok_or_else(|| unknown(a, "truth", truth))?;
        let to = pred
            .number(b)
            .ok_or_else(|| unknown(b, "predictions", pred))?;
        let place = &mut numbers[usize::from(from)];
        if place.is_some_and(|earlier| earlier != to) {
            return Err(format!(
                "--types: {a} of the truth has two partners: give one"
            ));
        }
        *place = Some(to);
    }
    if let Some((id, count)) = truth
        .counts
        .iter()
        .find(|(id, _)| numbers[usize::from(**id)].is_none())
    {
        return Err(format!(
            "--types has no pair for type {id} of the truth ({count} nuclei): add {id}=… (predictions: {}), or {id}=0 for \
             no type",
            pred.text()
        ));
    }
    Ok(numbers.into_iter().map(|id| id.unwrap_or(0)).collect())
}

/// Whether both sides name their numbers, and alike wherever one occurs.
fn names_agree(truth: &Numbering, pred: &Numbering) -> bool {
    let mut ids = truth.counts.keys().chain(pred.counts.keys());
    ids.all(|id| {
        let names = truth.name(*id).zip(pred.name(*id));
        names.is_some_and(|(a, b)| mean_the_same(a, b))
    })
}

/// Pairs to type: by name where both sides have names, else one with a number to fill in.
fn example(truth: &Numbering, pred: &Numbering) -> String {
    let partner = |id: u8| -> Option<usize> {
        let name = truth.name(id)?;
        let names = pred.names.as_ref()?;
        (1..names.len()).find(|other| mean_the_same(name, &names[*other]))
    };
    let pair = |id: &u8| match partner(*id) {
        Some(other) => format!("{id}={other}"),
        None => format!("{id}=…"),
    };
    truth.counts.keys().map(pair).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(names: &[&str], counts: &[(u8, usize)]) -> Numbering {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Numbering {
            names: Some(names).filter(|names: &Vec<String>| !names.is_empty()),
            counts: counts.iter().copied().collect(),
        }
    }

    const OURS: [&str; 5] = [
        "background",
        "epithelial",
        "inflammatory",
        "spindle",
        "other",
    ];

    #[test]
    fn bare_numbers_are_refused_and_both_numberings_shown() {
        // CoNSeP: 1 other, 2 inflammatory, 3 healthy epithelial, 4 malignant, 5 to 7 spindle.
        let consep = side(&[], &[(1, 20), (3, 100), (5, 7)]);
        let pred = side(&OURS, &[(1, 90), (4, 3)]);
        let error = match_types(None, &consep, &pred).unwrap_err();
        for part in [
            "1 (20), 3 (100), 5 (7)",
            "1 epithelial (90), 2 inflammatory (0), 3 spindle (0), 4 other (3)",
            "--types 1=…,3=…,5=…",
        ] {
            assert!(error.contains(part), "{error}");
        }
        // Neither side has names.
        assert!(match_types(None, &consep, &side(&[], &[(1, 2)])).is_err());
        // Names in another order.
        let named = side(
            &["background", "other", "inflammatory", "epithelial"],
            &[(1, 5), (3, 5)],
        );
        let error = match_types(None, &named, &pred).unwrap_err();
        assert!(error.contains("--types 1=4,3=1"), "{error}");
    }

    #[test]
    fn what_vouches_for_the_numbers_lets_them_through() {
        let pred = side(&OURS, &[(1, 90), (4, 3)]);
        let same = side(&OURS, &[(1, 80), (2, 1)]);
        let matching = match_types(None, &same, &pred).unwrap();
        assert_eq!(matching.names, OURS);
        // Labels without types: only segmentation is compared.
        assert!(match_types(None, &side(&[], &[]), &pred).is_ok());
        let numbers = side(&[], &[(1, 2), (2, 2)]);
        let told = match_types(Some(&TypeMatch::Same), &numbers, &numbers).unwrap();
        assert_eq!(told.names, ["type 0", "type 1", "type 2"]);
    }

    #[test]
    fn pairs_move_the_truths_numbers() {
        let consep = side(&[], &[(1, 20), (2, 4), (3, 100), (5, 7), (6, 1)]);
        let pred = side(&OURS, &[(1, 90), (4, 3)]);
        let choice: TypeMatch = "1=4, 2=inflammatory,3=1,5=3,6=0".parse().unwrap();
        let matching = match_types(Some(&choice), &consep, &pred).unwrap();
        assert_eq!(matching.names, OURS);
        let mut truth = Annotation {
            id_types: vec![0, 1, 2, 3, 5, 6],
            ..Annotation::default()
        };
        truth.detections.types = vec![6, 5, 3, 2, 1, 0];
        matching.apply(&mut truth);
        assert_eq!(truth.id_types, [0, 4, 2, 1, 3, 0]);
        assert_eq!(truth.detections.types, [0, 3, 1, 2, 4, 0]);
        let wrong = |text: &str| {
            let choice: TypeMatch = text.parse().unwrap();
            match_types(Some(&choice), &consep, &pred).unwrap_err()
        };
        assert!(wrong("1=4,2=2").contains("no pair for type 3 of the truth (100 nuclei)"));
        assert!(wrong("1=9").contains("`9` is no type of the predictions"));
        assert!(wrong("1=4,1=3").contains("two partners"));
        assert!("1:4".parse::<TypeMatch>().unwrap_err().contains("no pair"));
    }
}
