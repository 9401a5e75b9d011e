//! What a finished slide comes to, in a few lines for whoever waits at the terminal; and a batch, in one.
//!
//! In: a folder of results with its summary.json; how the slides of a batch ended. Out: text. A summary that is not there
//! or says less gives fewer lines, never an error.

use std::path::Path;

use serde_json::Value;

use crate::run::{Ending, SlideConfig};

/// Failed slides that the last line of a batch names.
const NAMED: usize = 20;
/// Letters of a reason that it repeats.
const REASON_LETTERS: usize = 200;

/// Nuclei by type, density, warnings and the page to open; the first two in one string for a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closing {
    /// `1,234 epithelial (50 %), 800 inflammatory (33 %)`.
    pub types: Option<String>,
    /// `1,643 nuclei per mm² of tissue`.
    pub density: Option<String>,
    /// As in summary.json.
    pub warnings: Vec<String>,
    /// `open out/a/report.html`.
    pub page: Option<String>,
}

/// What stands in `folder`.
pub fn of_folder(folder: &Path) -> Closing {
    let report = folder.join("report.html");
    let page = report
        .is_file()
        .then(|| format!("open {}", report.display()));
    let text = std::fs::read_to_string(folder.join("summary.json")).unwrap_or_default();
    let summary: Value = serde_json::from_str(&text).unwrap_or_default();
    Closing {
        page,
        ..of_summary(&summary)
    }
}

fn of_summary(summary: &Value) -> Closing {
    let warnings = summary["warnings"].as_array().into_iter().flatten();
    Closing {
        types: types(&summary["types"]),
        density: density(&summary["nuclei"]),
        warnings: warnings
            .filter_map(|w| w.as_str())
            .map(str::to_owned)
            .collect(),
        page: None,
    }
}

/// The line about warnings that were told before; `None` without any.
pub fn of_told(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 warning, see above and summary.json".to_owned()),
        n => Some(format!("{n} warnings, see above and summary.json")),
    }
}

/// The most frequent first.
fn types(types: &Value) -> Option<String> {
    let entries = types.as_object()?.iter();
    let mut counts: Vec<(&String, u64)> = entries
        .filter_map(|(name, entry)| Some((name, entry["count"].as_u64()?)))
        .filter(|(_, count)| *count > 0)
        .collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let one = |(name, count): &(&String, u64)| {
        let percent = 100.0 * *count as f64 / all as f64;
        format!("{} {name} ({percent:.0} %)", grouped(*count))
    };
    let text = counts.iter().map(one).collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

fn density(nuclei: &Value) -> Option<String> {
    let value = nuclei["density_per_mm2_tissue"].as_f64()?;
    let count = grouped(value.round() as u64);
    Some(format!("{count} nuclei per mm² of tissue"))
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `498 done, 2 failed: b: …; c: …` of the slides of a batch; those that were not reached are counted too.
pub fn of_batch(slides: &[SlideConfig], endings: &[Ending]) -> String {
    let count = |is: fn(&Ending) -> bool| endings.iter().filter(|ending| is(ending)).count();
    let done = count(|e| matches!(e, Ending::Done { .. } | Ending::Share { .. }));
    let stopped = endings.contains(&Ending::Stopped);
    let not_reached = slides.len() - endings.len().min(slides.len()) + usize::from(stopped);
    let mut parts = vec![format!("{done} done")];
    for (what, is) in [
        (
            "incomplete",
            (|e| matches!(e, Ending::Incomplete { .. })) as fn(&Ending) -> bool,
        ),
        ("failed", |e| {
            matches!(e, Ending::Failed(_) | Ending::Refused(_))
        }),
    ] {
        let these = slides.iter().zip(endings).filter(|(_, ending)| is(ending));
        let named: Vec<String> = these.map(|(slide, ending)| named(slide, ending)).collect();
        if named.is_empty() {
            continue;
        }
        let more = match named.len() {
            n if n > NAMED => format!("; and {} more", n - NAMED),
            _ => String::new(),
        };
        let list = named.iter().take(NAMED).cloned().collect::<Vec<_>>();
        parts.push(format!("{} {what}: {}{more}", named.len(), list.join("; ")));
    }
    if not_reached > 0 {
        parts.push(format!(
            "{not_reached} not done yet: the same command goes on"
        ));
    }
    parts.join(", ")
}

fn named(slide: &SlideConfig, ending: &Ending) -> String {
    let reason = ending.reason().unwrap_or_default();
    let first = reason.lines().next().unwrap_or_default();
    // Most reasons begin with the path, which the name says already.
    let path = format!("{}: ", slide.path.display());
    let first = first.strip_prefix(&path).unwrap_or(first);
    let cut: String = first.chars().take(REASON_LETTERS).collect();
    let dots = if cut.len() < first.len() { "…" } else { "" };
    match cut.is_empty() {
        true => slide.stem.clone(),
        false => format!("{} ({cut}{dots})", slide.stem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunConfig;
    use crate::run::inputs;
    use serde_json::json;

    #[test]
    fn a_summary_in_a_few_words() {
        let summary = json!({
            "nuclei": {"count": 2466, "density_per_mm2_tissue": 1642.6},
            "types": {
                "inflammatory": {"id": 2, "count": 822},
                "epithelial": {"id": 1, "count": 1644},
                "other": {"id": 4, "count": 0},
            },
            "warnings": ["the stain is pale"],
        });
        let closing = of_summary(&summary);
        let types = "1,644 epithelial (67 %), 822 inflammatory (33 %)";
        assert_eq!(closing.types.as_deref(), Some(types));
        assert_eq!(
            closing.density.as_deref(),
            Some("1,643 nuclei per mm² of tissue")
        );
        assert_eq!(closing.warnings, ["the stain is pale"]);
        assert_eq!(of_summary(&Value::Null), Closing::default());
        let numbers = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_batch_in_one_line() {
        let paths: Vec<_> = ["a.svs", "b.svs", "c.svs", "d.svs"].map(Into::into).into();
        let slides = inputs::from_paths(&paths, false, &["svs"], &RunConfig::default()).unwrap();
        let done = Ending::Done { nuclei: 3 };
        let broken = Ending::Failed("b.svs: cannot be opened: cut short\nsecond line".into());
        let all = [done.clone(), broken.clone(), done.clone(), done.clone()];
        let said = of_batch(&slides, &all);
        assert_eq!(said, "3 done, 1 failed: b (cannot be opened: cut short)");
        let said = of_batch(&slides, &[done, broken, Ending::Stopped]);
        assert!(said.starts_with("1 done, 1 failed: b ("), "{said}");
        assert!(
            said.ends_with(", 2 not done yet: the same command goes on"),
            "{said}"
        );
    }
}
