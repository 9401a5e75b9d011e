//! review.html: the slides that a pathologist may want to look at again, those with most reasons first.
//!
//! In: records and summaries. Out: one page without script or network, with links to the slides' reports. Never judges
//! a slide: it says what is unusual about it.

use std::fmt::Write;

use serde_json::Value;

use super::plan::Row;
use super::record::{Record, State};

/// A figure stands out beyond this modified z-score (Iglewicz and Hoaglin), among at least [`LEAST_SLIDES`].
const OUTLIER: f64 = 3.5;
const LEAST_SLIDES: usize = 5;
/// The figures looked at, by their place in summary.json.
const FIGURES: [(&str, &str); 4] = [
    ("nuclei per mm²", "/nuclei/density_per_mm2"),
    ("median area, µm²", "/feature_medians/all/area_um2"),
    (
        "median hematoxylin, OD",
        "/feature_medians/all/hematoxylin_od_mean",
    ),
    ("median eosin, OD", "/feature_medians/all/eosin_od_mean"),
];
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
    li{margin:.6em 0}ul ul{margin:.2em 0}small{color:#555}";

/// The page.
pub fn html(slides: &[(&Row, &Record, &Value)]) -> String {
    let mut reasons: Vec<Vec<String>> = slides
        .iter()
        .map(|(_, record, summary)| own_reasons(record, summary))
        .collect();
    for (name, path) in FIGURES {
        let values: Vec<Option<f64>> = slides
            .iter()
            .map(|(_, _, summary)| summary.pointer(path).and_then(Value::as_f64))
            .collect();
        for (place, text) in unusual(name, &values) {
            reasons[place].push(text);
        }
    }
    let mut order: Vec<usize> = (0..slides.len())
        .filter(|&place| !reasons[place].is_empty())
        .collect();
    order.sort_by_key(|&place| (std::cmp::Reverse(reasons[place].len()), slides[place].0.row));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Slides to look at again</title>\
         <style>{STYLE}</style></head><body>\n<h1>Slides to look at again</h1>\n<p>{} of {} slides. A slide is here because \
         parts of it could not be read, because its run gave warnings, or because a figure lies beyond 3.5 modified z-scores \
         of all slides. For research, not for diagnosis.</p>\n<ul>\n",
        order.len(),
        slides.len()
    );
    for place in order {
        let (row, _, _) = slides[place];
        let _ = write!(
            page,
            "<li><a href=\"../{}/report.html\">{}</a> <small>row {}</small><ul>",
            crate::report::encoded(&row.stem),
            escaped(&row.stem),
            row.row
        );
        for reason in &reasons[place] {
            let _ = write!(page, "<li>{}</li>", escaped(reason));
        }
        page.push_str("</ul></li>\n");
    }
    page.push_str("</ul>\n</body></html>\n");
    page
}

fn own_reasons(record: &Record, summary: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    if record.state == State::Incomplete {
        reasons.push(format!("incomplete: {}", record.reason));
    }
    let warnings = summary["warnings"].as_array().into_iter().flatten();
    reasons.extend(warnings.filter_map(Value::as_str).map(str::to_owned));
    reasons
}

/// Where a figure is far from the middle, and what to say of it.
fn unusual(name: &str, values: &[Option<f64>]) -> Vec<(usize, String)> {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    if known.len() < LEAST_SLIDES {
        return Vec::new();
    }
    let middle = median(&known);
    let spread = median(&known.iter().map(|v| (v - middle).abs()).collect::<Vec<_>>());
    let places = values.iter().enumerate();
    places
        .filter_map(|(place, value)| {
            let value = (*value)?;
            let score = 0.6745 * (value - middle) / spread;
            let side = if value > middle { "high" } else { "low" };
            (score.is_finite() && score.abs() > OUTLIER).then(|| {
                (
                    place,
                    format!("{name} {side}: {value}; middle of all {middle}"),
                )
            })
        })
        .collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slides_with_reasons_are_listed_and_ordinary_ones_are_not() {
        let rows: Vec<Row> = (0..7)
            .map(|row| Row {
                row,
                stem: format!("<s{row}>"),
                ..Row::default()
            })
            .collect();
        let record = Record {
            state: State::Done,
            ..Record::default()
        };
        // Median 11, deviations 1 0 1 0 1 0 89: their median is 1.
        let densities = [10.0, 11.0, 12.0, 11.0, 10.0, 11.0, 100.0];
        let summaries: Vec<Value> = densities
            .iter()
            .enumerate()
            .map(|(i, density)| {
                let warnings = if i == 2 {
                    vec!["pen marks & dust"]
                } else {
                    vec![]
                };
                json!({"nuclei": {"density_per_mm2": density}, "warnings": warnings})
            })
            .collect();
        let slides: Vec<_> = rows
            .iter()
            .zip(&summaries)
            .map(|(row, summary)| (row, &record, summary))
            .collect();
        let page = html(&slides);
        assert!(page.contains("2 of 7 slides"), "{page}");
        assert!(page.contains("pen marks &amp; dust") && page.contains("&lt;s6&gt;"));
        assert!(page.contains("nuclei per mm² high: 100; middle of all 11"));
        assert!(!page.contains("s0") && page.contains("../%3Cs6%3E/report.html"));
    }
}
