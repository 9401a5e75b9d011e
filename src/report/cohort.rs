//! index.html: several slides beside each other: a table to sort, a small picture each, and who stands out.
//!
//! In: their summary.json and thumbnails. Out: one HTML page with links to their reports. The script only sorts the
//! table. Never reads a file.

use std::fmt::Write;
use std::sync::Arc;

use image::{ImageError, RgbImage};
use serde_json::Value;

use super::boxes::{count, hex, number, strip};
use super::maps::at_most;
use super::page::{escape, jpeg_tag, page_with};
use super::type_counts::{TypeCount, swatch, tissue_source, types_of};
use crate::tissue::TissueSource;

const STYLE: &str = concat!(include_str!("slide.css"), include_str!("cohort.css"));
const SCRIPT: &str = include_str!("sort.js");
/// Longest side of a slide's picture, px.
const THUMB_SIDE_PX: u32 = 220;
/// A slide stands out beyond this modified z-score (Iglewicz and Hoaglin), among at least [`LEAST_SLIDES`].
const OUTLIER: f64 = 3.5;
const LEAST_SLIDES: usize = 5;

/// One slide of the page.
pub struct CohortSlide {
    /// Its report, relative to the page.
    pub href: String,
    /// summary.json.
    pub summary: Arc<Value>,
    pub thumb: Option<RgbImage>,
}

impl CohortSlide {
    fn stem(&self) -> &str {
        self.summary["slide"].as_str().unwrap_or("slide")
    }
}

/// One number per slide.
struct Metric {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
    /// Modified z-score; 0 where there are too few slides.
    scores: Vec<f64>,
}

/// The page.
pub fn html(slides: &[CohortSlide]) -> Result<String, ImageError> {
    let kinds: Vec<Vec<TypeCount>> = slides.iter().map(|s| types_of(&s.summary)).collect();
    let metrics = metrics(slides, &kinds);
    let mut body = format!("<p>Slides: {}.</p>\n", slides.len());
    body.push_str(&outliers_section(slides, &metrics));
    body.push_str(&table_section(slides, &metrics));
    body.push_str("<section><h2>Slide by slide</h2>\n<div class=\"pictures\">\n");
    for (slide, kinds) in slides.iter().zip(&kinds) {
        body.push_str(&small_multiple(slide, kinds)?);
    }
    body.push_str(
        "</div></section>\n<section><h2>Spread over the slides</h2>\n<div class=\"figures\">\n",
    );
    for metric in &metrics {
        let values: Vec<(&str, f64, bool)> = slides
            .iter()
            .zip(metric.values.iter().zip(&metric.scores))
            .map(|(slide, (value, score))| (slide.stem(), *value, score.abs() > OUTLIER))
            .collect();
        let label = [metric.name.as_str(), metric.unit].join(" ");
        let _ = writeln!(
            body,
            "<figure>{}</figure>",
            strip("", label.trim(), &values)
        );
    }
    let _ = write!(body, "</div></section>\n<script>\n{SCRIPT}</script>");
    Ok(page_with("Nuclei of several slides", STYLE, &body))
}

/// A thumbnail of the page's size: many slides' are held at once.
pub fn small(thumb: &RgbImage) -> RgbImage {
    at_most(thumb, THUMB_SIDE_PX)
}

/// What the densities of all slides are per mm² of.
fn density_unit(slides: &[CohortSlide]) -> &'static str {
    match sources(slides).as_slice() {
        [TissueSource::Everything] => "per mm², glass included",
        [TissueSource::Image] => "per mm² of image",
        [] | [_] => "per mm² of tissue",
        [..] => "per mm², not comparable",
    }
}

/// What counts as tissue in these slides, each kind once.
fn sources(slides: &[CohortSlide]) -> Vec<TissueSource> {
    let mut kinds: Vec<TissueSource> = Vec::new();
    for slide in slides {
        let source = tissue_source(&slide.summary);
        if !kinds.contains(&source) {
            kinds.push(source);
        }
    }
    kinds
}

fn metrics(slides: &[CohortSlide], kinds: &[Vec<TypeCount>]) -> Vec<Metric> {
    let metric = |name: String, unit, take: &dyn Fn(usize) -> Option<f64>| {
        let values: Vec<f64> = (0..slides.len())
            .map(|i| take(i).unwrap_or(f64::NAN))
            .collect();
        let scores = modified_z(&values);
        Metric {
            name,
            unit,
            values,
            scores,
        }
    };
    let of = |path: &'static str| {
        move |i: usize| slides[i].summary.pointer(path).and_then(Value::as_f64)
    };
    let mut metrics = vec![
        metric("nuclei".into(), "", &of("/nuclei/count")),
        metric("tissue".into(), "mm²", &of("/tissue/examined_mm2")),
        metric("examined".into(), "mm²", &of("/area_mm2/done")),
        metric(
            "density".into(),
            density_unit(slides),
            &of("/nuclei/density_per_mm2_tissue"),
        ),
    ];
    let mut names: Vec<&str> = Vec::new();
    for kind in kinds.iter().flatten() {
        if !names.contains(&kind.name.as_str()) {
            names.push(&kind.name);
        }
    }
    for name in names {
        let share = |i: usize| {
            let kind = kinds[i].iter().find(|kind| kind.name == name)?;
            Some(kind.share? * 100.0)
        };
        metrics.push(metric(name.to_owned(), "%", &share));
    }
    for (name, unit, path) in [
        ("median area", "µm²", "/feature_medians/all/area_um2"),
        (
            "median hematoxylin",
            "OD",
            "/feature_medians/all/hematoxylin_od_mean",
        ),
        ("median eosin", "OD", "/feature_medians/all/eosin_od_mean"),
    ] {
        metrics.push(metric(name.into(), unit, &of(path)));
    }
    metrics.retain(|m| m.values.iter().any(|v| v.is_finite()));
    metrics
}

/// 0.6745 (x - median) / MAD; 0 for what is no number, for few slides and where most are equal.
fn modified_z(values: &[f64]) -> Vec<f64> {
    let finite = |values: &mut dyn Iterator<Item = f64>| -> Vec<f64> {
        let mut kept: Vec<f64> = values.filter(|v| v.is_finite()).collect();
        kept.sort_unstable_by(f64::total_cmp);
        kept
    };
    let median = |sorted: &[f64]| {
        let n = sorted.len();
        (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
    };
    let kept = finite(&mut values.iter().copied());
    if kept.len() < LEAST_SLIDES {
        return vec![0.0; values.len()];
    }
    let middle = median(&kept);
    let spread = median(&finite(&mut kept.iter().map(|v| (v - middle).abs())));
    values
        .iter()
        .map(|value| match 0.6745 * (value - middle) / spread {
            score if score.is_finite() => score,
            _ => 0.0,
        })
        .collect()
}

fn outliers_section(slides: &[CohortSlide], metrics: &[Metric]) -> String {
    if slides.len() < LEAST_SLIDES {
        return String::new();
    }
    let mut html = String::from("<section><h2>Who stands out</h2>\n<ul>\n");
    let mut found = false;
    for metric in metrics {
        for (slide, (value, score)) in slides.iter().zip(metric.values.iter().zip(&metric.scores)) {
            if score.abs() > OUTLIER {
                found = true;
                let _ = writeln!(
                    html,
                    "<li><a href=\"{}\">{}</a>: {} {} {}, modified z-score {}</li>",
                    escape(&slide.href),
                    escape(slide.stem()),
                    escape(&metric.name),
                    number(*value),
                    metric.unit,
                    number(*score)
                );
            }
        }
    }
    if !found {
        html.push_str("<li>No slide.</li>\n");
    }
    html.push_str(
        "</ul>\n<p class=\"note\">Beyond 3.5 modified z-scores (0.6745 × distance from the median over the \
            median absolute \
         deviation).</p></section>\n",
    );
    html
}

fn table_section(slides: &[CohortSlide], metrics: &[Metric]) -> String {
    let mut html = String::from(
        "<section><h2>Table</h2>\n<table class=\"sortable\"><thead><tr><th><button type=\"button\">slide</button></th>\
         <th><button type=\"button\">warnings</button></th>",
    );
    for metric in metrics {
        let _ = write!(
            html,
            "<th><button type=\"button\">{}{}{}</button></th>",
            escape(&metric.name),
            if metric.unit.is_empty() { "" } else { ", " },
            metric.unit
        );
    }
    html.push_str("</tr></thead><tbody>\n");
    for (i, slide) in slides.iter().enumerate() {
        let warnings = slide.summary["warnings"].as_array().map_or(0, Vec::len);
        let _ = write!(
            html,
            "<tr><td><a href=\"{}\">{}</a></td><td data-sort=\"{warnings}\">{warnings}</td>",
            escape(&slide.href),
            escape(slide.stem())
        );
        for metric in metrics {
            let (value, score) = (metric.values[i], metric.scores[i]);
            let class = if score.abs() > OUTLIER {
                " class=\"outlier\""
            } else {
                ""
            };
            let shown = match metric.name.as_str() {
                "nuclei" if value.is_finite() => count(value as usize),
                _ => number(value),
            };
            let sort = if value.is_finite() {
                value.to_string()
            } else {
                String::new()
            };
            let _ = write!(html, "<td data-sort=\"{sort}\"{class}>{shown}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table>\n");
    html.push_str(&table_note(slides));
    html.push_str("</section>\n");
    html
}

/// What the densities are per mm² of; slides that differ in it cannot be compared.
fn table_note(slides: &[CohortSlide]) -> String {
    let kinds: Vec<&str> = sources(slides)
        .into_iter()
        .map(TissueSource::denominator)
        .collect();
    let examined = "Examined: the squares that were predicted, with glass at the tissue’s edge.";
    let text = match kinds.as_slice() {
        [] => return String::new(),
        [one] => format!("Density: nuclei per mm² of {one}. {examined}"),
        several => format!(
            "Densities are not comparable: some slides count them per mm² of {}. {examined}",
            several.join("; others per mm² of ")
        ),
    };
    format!("<p class=\"note\">{}</p>\n", escape(&text))
}

/// Picture, counts, and the types' shares as one bar.
fn small_multiple(slide: &CohortSlide, kinds: &[TypeCount]) -> Result<String, ImageError> {
    let mut html = format!("<figure><a href=\"{}\">", escape(&slide.href));
    match &slide.thumb {
        Some(thumb) => html.push_str(&jpeg_tag(
            &at_most(thumb, THUMB_SIDE_PX),
            &format!("Report of {}", slide.stem()),
        )?),
        None => html.push_str(&escape(slide.stem())),
    }
    html.push_str("</a><div class=\"shares\">");
    for kind in kinds {
        let percent = kind.share.unwrap_or(0.0) * 100.0;
        let _ = write!(
            html,
            "<span style=\"width:{percent:.2}%;background:{}\" title=\"{} {percent:.1} %\"></span>",
            hex(kind.colour),
            escape(&kind.name)
        );
    }
    let total = slide.summary["nuclei"]["count"].as_u64().unwrap_or(0);
    let _ = write!(
        html,
        "</div><figcaption><b>{}</b><br>{} nuclei",
        escape(slide.stem()),
        count(total as usize)
    );
    for kind in kinds.iter().filter(|kind| kind.count > 0) {
        let _ = write!(
            html,
            "<br>{}{} {:.1} %",
            swatch(kind.colour),
            escape(&kind.name),
            kind.share.unwrap_or(0.0) * 100.0
        );
    }
    html.push_str("</figcaption></figure>\n");
    Ok(html)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slide(i: usize, density: f64) -> CohortSlide {
        CohortSlide {
            href: format!("s{i}/report.html"),
            summary: Arc::new(json!({
                "slide": format!("<s{i}>"),
                "nuclei": {"count": 1000 + i, "density_per_mm2_tissue": density},
                "tissue": {"from": "found"},
                "types": {"a": {"id": 1, "count": 500, "share": 0.5, "color": [1, 2, 3]}},
                "warnings": ["w"],
            })),
            thumb: None,
        }
    }

    #[test]
    fn the_slide_far_from_the_others_stands_out() {
        let values = [10.0, 11.0, 9.0, 10.0, 12.0, 30.0];
        // Median 10.5, deviations .5 .5 .5 1.5 1.5 19.5: their median is 1.
        let scores = modified_z(&values);
        assert!((scores[5] - 0.6745 * 19.5).abs() < 1e-12);
        let slides: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(i, v)| slide(i, *v))
            .collect();
        let html = html(&slides).unwrap();
        assert!(html.contains(
            "<li><a href=\"s5/report.html\">&lt;s5&gt;</a>: density 30 per mm² of tissue"
        ));
        assert_eq!(html.matches("<li>").count(), 1);
        assert!(!html.contains("<s5>"));
    }

    #[test]
    fn densities_name_their_denominator_and_unlike_ones_are_not_compared() {
        let mut slides = vec![slide(0, 10.0), slide(1, 11.0)];
        let alike = html(&slides).unwrap();
        assert!(alike.contains("nuclei per mm² of tissue found on the slide."));
        Arc::make_mut(&mut slides[1].summary)["tissue"]["from"] = json!("everything");
        let unlike = html(&slides).unwrap();
        assert!(
            unlike.contains("not comparable") && unlike.contains("others per mm² of everything")
        );
    }

    #[test]
    fn few_or_equal_slides_have_no_outlier() {
        assert_eq!(modified_z(&[1.0, 2.0, 99.0]), [0.0; 3]);
        assert_eq!(modified_z(&[1.0; 5]), [0.0; 5]);
        assert!(html(&[slide(0, f64::NAN)]).unwrap().contains("Slides: 1."));
    }
}
