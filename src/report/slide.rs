//! report.html: one slide for a pathologist and a statistician.
//!
//! In: [`SlideReport`], plain data. Out: one HTML page with everything in it; what matters needs no script. Quantiles
//! and small pictures only, so a million nuclei stay small. Never reads a store, a slide or a clock.

use std::fmt::Write;

use image::{ImageError, RgbImage};
use serde_json::Value;

use super::boxes::{Group, bars, count, number};
use super::features::{self, Columns};
use super::figures::{crops_section, maps_section, with_scale_bar};
use super::maps::{CARD_SIDE_PX, Mask, at_most, draw_region, outline_tissue};
use super::page::{escape, jpeg_tag, page_with};
use super::reading;
pub use super::type_counts::{TypeCount, types_of};
use super::type_counts::{swatch, tissue_source};
use crate::tissue::Region;

const STYLE: &str = include_str!("slide.css");

/// A field at full resolution, nuclei outlined.
#[derive(Debug, Clone, PartialEq)]
pub struct Crop {
    pub picture: RgbImage,
    pub caption: String,
    /// Width on the slide, where it is known.
    pub width_um: Option<f64>,
}

/// What the page is made from.
pub struct SlideReport<'a> {
    /// summary.json.
    pub summary: &'a Value,
    pub types: Vec<TypeCount>,
    /// Each nucleus's place in `types`, as shares of the slide's width and height, and its features.
    pub columns: Columns<'a>,
    pub thumb: &'a RgbImage,
    /// Tissue in the region asked for.
    pub mask: Mask<'a>,
    /// The region asked for, if the run was restricted to one.
    pub region: Option<&'a Region>,
    pub crops: Vec<Crop>,
}

/// The page.
pub fn html(report: &SlideReport<'_>) -> Result<String, ImageError> {
    let stem = report.summary["slide"].as_str().unwrap_or("slide");
    let mut body = String::new();
    body.push_str(&reading::section(report.summary, &report.types));
    body.push_str(&card(report)?);
    body.push_str(&types_section(report));
    body.push_str(&features::sections(&report.columns, &report.types));
    body.push_str(&maps_section(report)?);
    body.push_str(&crops_section(report)?);
    body.push_str(&settings_section(report.summary));
    body.push_str(&cite_section(report.summary));
    let style = format!("{STYLE}{}", features::style(&report.columns));
    Ok(page_with(stem, &style, &body))
}

fn card(report: &SlideReport<'_>) -> Result<String, ImageError> {
    let summary = report.summary;
    let mut picture = at_most(report.thumb, CARD_SIDE_PX);
    outline_tissue(&mut picture, &report.mask);
    let (alt, caption) = match report.region {
        Some(region) => {
            let size = ["width", "height"].map(|name| summary[name].as_u64().unwrap_or(1));
            draw_region(&mut picture, region, size);
            (
                "The slide with the region asked for and the tissue in it outlined",
                "Thick line: the region asked for. Thin line: the tissue in it. Nothing outside was examined.",
            )
        }
        None => (
            "The slide with its tissue outlined",
            "Thin line: the tissue.",
        ),
    };
    let picture = with_scale_bar(&jpeg_tag(&picture, alt)?, slide_um(summary)[0]);
    let mut html = format!(
        "<section class=\"card\"><figure>{picture}<figcaption>{caption}</figcaption></figure><div>\n<dl>\n"
    );
    for (name, value) in facts(summary) {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value));
    }
    html.push_str("</dl>\n");
    let warnings = summary["warnings"].as_array();
    let warnings: Vec<&str> = warnings
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !warnings.is_empty() {
        html.push_str("<div class=\"warnings\" role=\"note\"><h2>Warnings</h2><ul>\n");
        for warning in warnings {
            let _ = writeln!(html, "<li>{}</li>", escape(warning));
        }
        html.push_str("</ul></div>\n");
    }
    html.push_str("</div></section>\n");
    Ok(html)
}

/// What stands on the slide card, in its order.
fn facts(summary: &Value) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mm2 = |name: &str| {
        let value = summary["area_mm2"][name].as_f64();
        format!("{} mm²", number(value.unwrap_or(f64::NAN)))
    };
    let nuclei = &summary["nuclei"];
    let mut facts = vec![
        (
            "Nuclei",
            count(nuclei["count"].as_u64().unwrap_or(0) as usize),
        ),
        (
            "Density",
            format!(
                "{} per mm² of {}",
                number(
                    nuclei["density_per_mm2_tissue"]
                        .as_f64()
                        .unwrap_or(f64::NAN)
                ),
                denominator(summary)
            ),
        ),
        ("Tissue", tissue_fact(summary)),
        (
            "Examined",
            format!(
                "{} of {} planned: the squares that were predicted, with glass at the tissue’s edge",
                mm2("done"),
                mm2("planned")
            ),
        ),
    ];
    if let Some(value) = summary["area_mm2"]["roi"].as_f64() {
        facts.push(("Region asked for", format!("{} mm²", number(value))));
    }
    for (name, key) in [("Unreadable", "unreadable"), ("Not done yet", "missing")] {
        if summary["area_mm2"][key].as_f64().is_some_and(|v| v > 0.0) {
            facts.push((name, mm2(key)));
        }
    }
    let size = |name: &str| count(summary[name].as_u64().unwrap_or(0) as usize);
    facts.extend([
        ("Size", format!("{} × {} px", size("width"), size("height"))),
        (
            "Scale",
            format!(
                "{} µm/px, from the {}",
                number(summary["mpp"][0].as_f64().unwrap_or(f64::NAN)),
                text(&summary["mpp_from"])
            ),
        ),
        ("Model", text(&summary["model"])),
        (
            "Licence of its weights",
            text(&summary["provenance"]["licence"]),
        ),
        (
            "Learned from",
            text(&summary["provenance"]["training_data"]),
        ),
    ]);
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// What densities are per mm² of, as summary.json has it.
fn denominator(summary: &Value) -> String {
    let text = summary["tissue"]["density_denominator"].as_str();
    let text = text.unwrap_or("tissue");
    text.strip_prefix("mm² of ").unwrap_or(text).to_owned()
}

/// How much tissue there is, and how finely it was found.
fn tissue_fact(summary: &Value) -> String {
    let tissue = &summary["tissue"];
    let found = summary["area_mm2"]["tissue"].as_f64().unwrap_or(f64::NAN);
    let mut text = format!("{} mm²", number(found));
    if let Some(examined) = tissue["examined_mm2"].as_f64()
        && (examined - found).abs() > 1e-5 * found
    {
        let _ = write!(
            text,
            ", of which {} mm² could be examined",
            number(examined)
        );
    }
    if let Some(cell) = tissue["mask_um_per_px"][0].as_f64() {
        let _ = write!(text, " (mask of {} µm per px)", number(cell));
    }
    text
}

/// Width and height of the slide, µm.
pub(super) fn slide_um(summary: &Value) -> [f64; 2] {
    [(0, "width"), (1, "height")].map(|(axis, name)| {
        let mpp = summary["mpp"][axis].as_f64().unwrap_or(1.0);
        summary[name].as_f64().unwrap_or(1.0).max(1.0) * mpp
    })
}

fn types_section(report: &SlideReport<'_>) -> String {
    let types = &report.types;
    let scored = types.iter().any(|kind| !kind.held_out.is_empty());
    let score_head = match scored {
        true => "<th>F1 on held-out images</th>",
        false => "",
    };
    let mut html = format!(
        "<section><h2>Types</h2>\n<div class=\"beside\"><div><table><thead><tr><th>type</th><th>nuclei</th>\
         <th>share</th><th>per mm² of {}</th>{score_head}</tr></thead><tbody>\n",
        tissue_source(report.summary).short()
    );
    for kind in types {
        let _ = writeln!(
            html,
            "<tr><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td>{}</tr>",
            swatch(kind.colour),
            escape(&kind.name),
            count(kind.count),
            kind.share
                .map_or("–".into(), |share| format!("{:.1} %", share * 100.0)),
            number(kind.density_per_mm2.unwrap_or(f64::NAN)),
            match scored {
                true => format!("<td>{}</td>", scores(kind)),
                false => String::new(),
            }
        );
    }
    html.push_str("</tbody></table>\n");
    html.push_str(&types_note(report.summary, scored));
    html.push_str("</div>\n");
    let groups: Vec<(Group<'_>, f64)> = ordered(types)
        .map(|kind| {
            let group = Group {
                name: &kind.name,
                colour: kind.colour,
            };
            (group, kind.count as f64)
        })
        .collect();
    let _ = writeln!(
        html,
        "<figure>{}<figcaption>{}</figcaption></figure></div></section>",
        bars("Nuclei by type", "nuclei", &groups),
        escape(&tumour_against_lymphocytes(types))
    );
    html
}

/// A type's F1 by tissue, each with its interval.
fn scores(kind: &TypeCount) -> String {
    let each: Vec<String> = kind
        .held_out
        .iter()
        .map(|score| {
            let interval = score.interval.map_or(String::new(), |[low, high]| {
                format!(" ({low:.2} to {high:.2})")
            });
            format!("{} <b>{:.2}</b>{interval}", escape(&score.set), score.f1)
        })
        .collect();
    match each.is_empty() {
        true => "–".into(),
        false => each.join("<br>"),
    }
}

/// What the columns of the table of types mean.
fn types_note(summary: &Value, scored: bool) -> String {
    let mut note = format!("Per mm² of {}.", denominator(summary));
    let nuclei = &summary["nuclei"];
    if let (Some(all), Some(on_tissue)) = (nuclei["count"].as_u64(), nuclei["on_tissue"].as_u64())
        && on_tissue < all
    {
        let _ = write!(
            note,
            " {} of the {} nuclei lie beside the tissue’s outline: they are counted, but not in densities.",
            count((all - on_tissue) as usize),
            count(all as usize)
        );
    }
    if scored {
        note.push_str(
            " F1: on images that were never shown in training; 1 is perfect, and 0.7 means that about 3 in 10 nuclei of \
             the type are missed or called something else. In brackets: 95 % interval.",
        );
    }
    format!("<p class=\"note\">{}</p>\n", escape(&note))
}

/// Tumour first, lymphocytes second, then the others.
fn ordered(types: &[TypeCount]) -> impl Iterator<Item = &TypeCount> {
    let rank = |kind: &TypeCount| match (is_tumour(&kind.name), is_lymphocyte(&kind.name)) {
        (true, _) => 0,
        (_, true) => 1,
        _ => 2,
    };
    (0..=2).flat_map(move |wanted| types.iter().filter(move |kind| rank(kind) == wanted))
}

/// By the names that published models give tumour cells; epithelial where nothing closer is known.
fn is_tumour(name: &str) -> bool {
    let name = name.to_lowercase();
    ["tumour", "tumor", "neopla", "malignant", "epithel"]
        .iter()
        .any(|word| name.contains(word))
        && !name.contains("non-")
        && !name.contains("no-neo")
}

fn is_lymphocyte(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("lympho") || name.contains("inflam")
}

fn tumour_against_lymphocytes(types: &[TypeCount]) -> String {
    let of = |is: fn(&str) -> bool| {
        let kinds: Vec<&TypeCount> = types.iter().filter(|kind| is(&kind.name)).collect();
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name.as_str()).collect();
        (
            kinds.iter().map(|kind| kind.count).sum::<usize>(),
            names.join(" + "),
        )
    };
    let ((tumour, tumour_name), (lymphocytes, lymphocyte_name)) =
        (of(is_tumour), of(is_lymphocyte));
    if tumour_name.is_empty() || lymphocyte_name.is_empty() {
        return "Nuclei by type.".into();
    }
    let ratio = match (tumour, lymphocytes) {
        (0, _) | (_, 0) => return "Nuclei by type.".into(),
        (t, l) if t > l => format!(
            "1 {lymphocyte_name} per {} {tumour_name} nuclei",
            number(t as f64 / l as f64)
        ),
        (t, l) => format!(
            "1 {tumour_name} per {} {lymphocyte_name} nuclei",
            number(l as f64 / t as f64)
        ),
    };
    format!("Nuclei by type: {ratio}.")
}

fn settings_section(summary: &Value) -> String {
    let Some(settings) = summary["provenance"]["settings"].as_object() else {
        return String::new();
    };
    let mut html = String::from(
        "<section><h2>Settings</h2>\n<details><summary>What this result depends on</summary>\n\
         <table class=\"settings\"><tbody>\n",
    );
    let mut row = |name: &str, value: &Value| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
            escape(name),
            escape(&value)
        );
    };
    row("version", &summary["version"]);
    for (name, value) in settings {
        match value.as_object() {
            Some(inner) => inner
                .iter()
                // Rules that were fitted to the model are lists of coefficients.
                .filter(|(_, value)| !value.is_object())
                .for_each(|(key, value)| row(&format!("{name}.{key}"), value)),
            None => row(name, value),
        }
    }
    html.push_str(
        "</tbody></table>\n<p class=\"note\">The coefficients of the model’s fitted rules are in summary.json.</p>\
         </details></section>\n",
    );
    html
}

fn cite_section(summary: &Value) -> String {
    let text = |name: &str| summary["provenance"][name].as_str().unwrap_or_default();
    let version = summary["version"].as_str().unwrap_or_default();
    let model = summary["model"].as_str().unwrap_or_default();
    let mut html = format!(
        "<section><h2>How to cite</h2>\n<p>Nuclei by wsi-nuclei {} with the model {}",
        escape(version),
        escape(model)
    );
    if !text("sha256").is_empty() {
        let _ = write!(
            html,
            " (weights’ SHA-256 <code>{}</code>)",
            escape(text("sha256"))
        );
    }
    html.push_str(".</p>\n");
    if !text("citation").is_empty() {
        let _ = writeln!(html, "<p>Model: {}.</p>", escape(text("citation")));
    }
    html.push_str(
        "<p>The maps and the first such network: Graham et al., HoVer-Net, <i>Medical Image Analysis</i> 58 \
            (2019) 101563. \
         Stains: Ruifrok and Johnston, <i>Analytical and Quantitative Cytology and Histology</i> 23 (2001) 291–299.</p>\n\
         <p class=\"note\">Research software, not a medical device. Look at the pictures before you count.</p></section>\n",
    );
    html
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ratios_are_said_as_one_per_so_many() {
        let caption = |epithelial: usize, inflammatory: usize| {
            let summary = json!({"types": {
                "epithelial": {"id": 1, "count": epithelial},
                "inflammatory": {"id": 2, "count": inflammatory},
            }});
            tumour_against_lymphocytes(&types_of(&summary))
        };
        assert_eq!(
            caption(280, 474),
            "Nuclei by type: 1 epithelial per 1.69 inflammatory nuclei."
        );
        assert_eq!(
            caption(474, 280),
            "Nuclei by type: 1 inflammatory per 1.69 epithelial nuclei."
        );
        assert_eq!(caption(0, 280), "Nuclei by type.");
    }

    #[test]
    fn settings_leave_out_the_coefficients_of_fitted_rules() {
        let summary = json!({"version": "1", "provenance": {"settings": {
            "tta": "none",
            "postproc": {"np_threshold": 0.55, "division": {"weights": [-9.9]}},
        }}});
        let html = settings_section(&summary);
        assert!(html.contains("postproc.np_threshold") && html.contains("tta"));
        assert!(!html.contains("weights") && !html.contains("-9.9"));
    }

    #[test]
    fn every_density_names_what_it_is_counted_per() {
        let facts_of = |from: &str, denominator: &str| {
            let summary = json!({
                "nuclei": {"count": 9, "density_per_mm2_tissue": 45.0},
                "area_mm2": {"tissue": 0.2, "done": 0.4, "planned": 0.4},
                "tissue": {
                    "from": from,
                    "examined_mm2": 0.1,
                    "mask_um_per_px": [8.0, 8.0],
                    "density_denominator": denominator,
                },
            });
            let facts = facts(&summary);
            let of = |name: &str| facts.iter().find(|(n, _)| *n == name).unwrap().1.clone();
            (of("Density"), of("Tissue"))
        };
        let (density, tissue) = facts_of("found", "mm² of tissue found on the slide");
        assert_eq!(density, "45 per mm² of tissue found on the slide");
        assert_eq!(
            tissue,
            "0.200 mm², of which 0.100 mm² could be examined (mask of 8 µm per px)"
        );
        assert!(
            facts_of("everything", "mm² of everything, glass")
                .0
                .ends_with("glass")
        );
    }
}
