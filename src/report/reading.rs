//! What a reader may take from a slide's page, and what not: the first thing on it.
//!
//! In: summary.json, with the model's held-out scores and the images that its types were taught on. Out: HTML. It says
//! what is not known where a model brings no scores. Never judges a nucleus.

use std::fmt::Write;

use serde_json::Value;

use super::boxes::number;
use super::page::escape;
use super::type_counts::TypeCount;

/// A type with a lower F1 on any held-out set is not to be read without looking.
const RELIABLE_F1: f64 = 0.6;

/// F1 of one type on one set of held-out images.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// The tissue of the set, or its name.
    pub set: String,
    pub f1: f64,
    /// 95 % interval, where there is one.
    pub interval: Option<[f64; 2]>,
}

/// The images of one tissue on which types were taught.
#[derive(Debug, Clone, PartialEq)]
struct Taught {
    tissue: String,
    /// Column of the table, its name in words, its unit, and the range of the images' medians.
    ranges: Vec<(&'static Measure, [f64; 2])>,
}

/// A median by which a slide is compared with the images that types were taught on.
#[derive(Debug, PartialEq)]
struct Measure {
    column: &'static str,
    words: &'static str,
    unit: &'static str,
}

const MEASURES: [Measure; 3] = [
    Measure {
        column: "area_um2",
        words: "nuclear area",
        unit: " µm²",
    },
    Measure {
        column: "hematoxylin_od_mean",
        words: "hematoxylin in nuclei",
        unit: " OD",
    },
    Measure {
        column: "eosin_od_mean",
        words: "eosin in nuclei",
        unit: " OD",
    },
];

/// Held-out F1 of a type by data set, from its entry in summary.json.
pub fn held_out_of(entry: &Value) -> Vec<HeldOut> {
    let sets = entry["held_out_f1"].as_array();
    sets.into_iter()
        .flatten()
        .filter_map(|score| {
            let bound = |name: &str| score[name].as_f64();
            Some(HeldOut {
                set: score["tissue"].as_str().or(score["set"].as_str())?.into(),
                f1: score["f1"].as_f64()?,
                interval: bound("low").zip(bound("high")).map(|(a, b)| [a, b]),
            })
        })
        .collect()
}

/// The section at the top of the page.
pub fn section(summary: &Value, types: &[TypeCount]) -> String {
    let mut html = String::from(
        "<section class=\"reading\" role=\"note\"><h2>What this page can tell you</h2>\n<div class=\"two\"><div>\n\
         <h3>You may conclude</h3><ul>\n\
         <li>Where nuclei lie, how many there are and how large they are, as far as the fields under “A closer look” \
         show them outlined correctly. Look at them first.</li>\n\
         <li>That slides differ, if they were stained and scanned alike, and if they differ by more than the fields of \
         one slide do.</li>\n</ul></div><div>\n<h3>You may not conclude</h3><ul>\n\
         <li>A diagnosis, a grade or a treatment. This is research software, not a medical device.</li>\n\
         <li>That a single nucleus has the type in whose colour it is drawn.</li>\n",
    );
    for line in cannot_tell(summary) {
        let _ = writeln!(html, "<li>{}</li>", escape(&line));
    }
    let unreliable = unreliable_types(types);
    if !unreliable.is_empty() {
        let _ = writeln!(
            html,
            "<li>Anything from the counts of {} without checking them by eye: held-out F1 is below {RELIABLE_F1} on at \
             least one tissue.</li>",
            escape(&joined(&unreliable))
        );
    }
    html.push_str("</ul></div></div>\n");
    if summary["types"]
        .as_object()
        .is_some_and(|types| !types.is_empty())
    {
        html.push_str(&caution(summary, types));
    }
    html.push_str("</section>\n");
    html
}

/// What the model cannot tell apart, in its own words.
fn cannot_tell(summary: &Value) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let sets = summary["provenance"]["taught_on"].as_array();
    for set in sets.into_iter().flatten() {
        if let Some(note) = set["cannot_tell"].as_str()
            && !lines.iter().any(|line| line == note)
        {
            lines.push(note.to_owned());
        }
    }
    lines
}

fn unreliable_types(types: &[TypeCount]) -> Vec<String> {
    let below = |kind: &&TypeCount| kind.held_out.iter().any(|score| score.f1 < RELIABLE_F1);
    types
        .iter()
        .filter(below)
        .map(|kind| kind.name.clone())
        .collect()
}

/// On what the types were taught, and louder where this slide looks different from all of it.
fn caution(summary: &Value, types: &[TypeCount]) -> String {
    let taught = taught_on(summary);
    if taught.is_empty() && types.iter().all(|kind| kind.held_out.is_empty()) {
        return "<p class=\"caution\"><b>Types: not tested.</b> This model brings no held-out scores. How often its types \
                are right is not known: check them by eye.</p>\n"
            .into();
    }
    let tissues: Vec<String> = taught.iter().map(|set| set.tissue.clone()).collect();
    let where_taught = match tissues.is_empty() {
        true => "It is not known on which tissue the types were taught.".to_owned(),
        false => format!(
            "The types were taught on {} only. In other tissue they may be wrong more often than the F1 below says.",
            joined(&tissues)
        ),
    };
    let differences = differences(summary, &taught);
    if differences.is_empty() {
        return format!("<p class=\"caution\">{}</p>\n", escape(&where_taught));
    }
    let mut html = format!(
        "<div class=\"caution strong\"><p><b>Do not trust the types here before you have checked them.</b> {} This \
         slide looks different from all of it:</p><ul>\n",
        escape(&where_taught)
    );
    for line in differences {
        let _ = writeln!(html, "<li>{}</li>", escape(&line));
    }
    html.push_str("</ul></div>\n");
    html
}

fn taught_on(summary: &Value) -> Vec<Taught> {
    let sets = summary["provenance"]["taught_on"].as_array();
    sets.into_iter()
        .flatten()
        .filter_map(|set| {
            let range = |measure: &'static Measure| {
                let ends = set[measure.column].as_array()?;
                Some((measure, [ends.first()?.as_f64()?, ends.get(1)?.as_f64()?]))
            };
            Some(Taught {
                tissue: set["tissue"].as_str()?.to_owned(),
                ranges: MEASURES.iter().filter_map(range).collect(),
            })
        })
        .collect()
}

/// The medians of this slide that lie outside the range of every taught tissue.
fn differences(summary: &Value, taught: &[Taught]) -> Vec<String> {
    let mut lines = Vec::new();
    for measure in &MEASURES {
        let Some(median) = summary["feature_medians"]["all"][measure.column].as_f64() else {
            continue;
        };
        let ranges: Vec<(&str, [f64; 2])> = taught
            .iter()
            .flat_map(|set| {
                set.ranges
                    .iter()
                    .map(|(m, range)| (set.tissue.as_str(), *m, *range))
            })
            .filter(|(_, of, _)| *of == measure)
            .map(|(tissue, _, range)| (tissue, range))
            .collect();
        let outside = |[low, high]: [f64; 2]| median < low || median > high;
        if ranges.is_empty() || !ranges.iter().all(|(_, range)| outside(*range)) {
            continue;
        }
        let known: Vec<String> = ranges
            .iter()
            .map(|(tissue, [low, high])| format!("{tissue} {} to {}", number(*low), number(*high)))
            .collect();
        lines.push(format!(
            "median {}: {}{} (taught on {})",
            measure.words,
            number(median),
            measure.unit,
            known.join("; ")
        ));
    }
    lines
}

/// `a`, `a and b`, `a, b and c`.
fn joined(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::type_counts::types_of;
    use super::*;

    /// A slide of colon-trained types with this median nuclear area.
    fn page(area_um2: f64) -> String {
        let summary = json!({
            "types": {
                "good": {"id": 1, "count": 9, "held_out_f1": [{"set": "c", "tissue": "colon", "f1": 0.8}]},
                "bad": {"id": 2, "count": 9, "held_out_f1": [
                    {"set": "c", "tissue": "colon", "f1": 0.7, "low": 0.6, "high": 0.8},
                    {"set": "b", "f1": 0.5}
                ]},
            },
            "feature_medians": {"all": {"area_um2": area_um2}},
            "provenance": {"taught_on": [
                {"tissue": "colon", "area_um2": [20.0, 30.0], "cannot_tell": "Good from evil."},
                {"tissue": "breast", "area_um2": [28.0, 40.0], "cannot_tell": "Good from evil."},
            ]},
        });
        section(&summary, &types_of(&summary))
    }

    #[test]
    fn the_caution_is_louder_where_the_slide_differs_from_all_that_was_taught() {
        let usual = page(39.0);
        assert!(usual.contains("taught on colon and breast only") && !usual.contains("strong"));
        let odd = page(12.0);
        assert!(odd.contains("caution strong"), "{odd}");
        assert!(odd.contains("nuclear area: 12 µm² (taught on colon 20 to 30; breast 28 to 40)"));
    }

    #[test]
    fn types_with_a_low_score_are_named_and_notes_stand_once() {
        let html = page(25.0);
        assert!(html.contains("counts of bad without checking") && !html.contains("good and"));
        assert_eq!(html.matches("Good from evil.").count(), 1);
    }

    #[test]
    fn a_model_without_scores_says_so() {
        let summary = json!({"types": {"dark": {"id": 1, "count": 9}}});
        let html = section(&summary, &types_of(&summary));
        assert!(html.contains("not known") && !html.contains("taught on"));
        let untyped = json!({"nuclei": {"count": 3}});
        assert!(!section(&untyped, &types_of(&untyped)).contains("caution"));
    }
}
