//! report.html: one slide for a pathologist and a statistician.
//!
//! In: [`SlideReport`], plain data. Out: one HTML page with everything in it; what matters needs no script. Quantiles
//! and small pictures only, so a million nuclei stay small. Never reads a store, a slide or a clock.

use std::fmt::Write;

use image::{ImageError, RgbImage};
use serde_json::Value;

use super::boxes::{Group, bars, count, hex, number};
use super::features::{self, Columns};
use super::maps::{CARD_SIDE_PX, Density, Mask, at_most, outline_tissue};
use super::page::{escape, jpeg_tag, page_with};
use super::type_counts::swatch;
pub use super::type_counts::{TypeCount, types_of};

const STYLE: &str = include_str!("slide.css");

/// A field at full resolution, nuclei outlined.
#[derive(Debug, Clone, PartialEq)]
pub struct Crop {
    pub picture: RgbImage,
    pub caption: String,
}

/// What the page is made from.
pub struct SlideReport<'a> {
    /// summary.json.
    pub summary: &'a Value,
    pub types: Vec<TypeCount>,
    /// Each nucleus's place in `types`, as shares of the slide's width and height, and its features.
    pub columns: Columns<'a>,
    pub thumb: &'a RgbImage,
    pub mask: Mask<'a>,
    pub crops: Vec<Crop>,
}

/// The page.
pub fn html(report: &SlideReport<'_>) -> Result<String, ImageError> {
    let stem = report.summary["slide"].as_str().unwrap_or("slide");
    let mut body = String::new();
    body.push_str(&card(report)?);
    body.push_str(&types_section(&report.types));
    body.push_str(&features::sections(&report.columns, &report.types));
    body.push_str(&maps_section(report)?);
    body.push_str(&crops_section(&report.crops)?);
    body.push_str(&settings_section(report.summary));
    body.push_str(&cite_section(report.summary));
    let style = format!("{STYLE}{}", features::style(&report.columns));
    Ok(page_with(stem, &style, &body))
}

fn card(report: &SlideReport<'_>) -> Result<String, ImageError> {
    let summary = report.summary;
    let mut picture = at_most(report.thumb, CARD_SIDE_PX);
    outline_tissue(&mut picture, &report.mask);
    let tag = jpeg_tag(&picture, "The slide with its tissue outlined")?;
    let mut html = format!("<section class=\"card\"><figure>{tag}</figure><div>\n<dl>\n");
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
                "{} / mm²",
                number(nuclei["density_per_mm2"].as_f64().unwrap_or(f64::NAN))
            ),
        ),
        ("Tissue found", mm2("tissue")),
        (
            "Examined",
            format!("{} of {} planned", mm2("done"), mm2("planned")),
        ),
    ];
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

fn types_section(types: &[TypeCount]) -> String {
    let mut html = String::from(
        "<section><h2>Types</h2>\n<div class=\"beside\"><table><thead><tr><th>type</th><th>nuclei</th>\
         <th>share</th><th>a mm²</th></tr></thead><tbody>\n",
    );
    for kind in types {
        let _ = writeln!(
            html,
            "<tr><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            swatch(kind.colour),
            escape(&kind.name),
            count(kind.count),
            kind.share
                .map_or("–".into(), |share| format!("{:.1} %", share * 100.0)),
            number(kind.density_per_mm2.unwrap_or(f64::NAN))
        );
    }
    html.push_str("</tbody></table>\n");
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
        (0, _) | (_, 0) => String::new(),
        (t, l) if t >= l => format!(": {} to 1", number(t as f64 / l as f64)),
        (t, l) => format!(": 1 to {}", number(l as f64 / t as f64)),
    };
    format!("Nuclei by type. {tumour_name} against {lymphocyte_name}{ratio}.")
}

fn maps_section(report: &SlideReport<'_>) -> Result<String, ImageError> {
    let summary = report.summary;
    let side = |axis: usize, name: &str| {
        let mpp = summary["mpp"][axis].as_f64().unwrap_or(1.0);
        summary[name].as_f64().unwrap_or(1.0).max(1.0) * mpp
    };
    let slide_um = [side(0, "width"), side(1, "height")];
    let mut html = String::from("<section><h2>Where they are</h2>\n<div class=\"pictures\">\n");
    let mut cell_um = [0.0; 2];
    for (id, kind) in report.types.iter().enumerate() {
        let columns = &report.columns;
        let places = columns.places.iter().zip(columns.type_of);
        let places = places.filter(|(_, of)| usize::from(**of) == id);
        let density = Density::of(places.map(|(place, _)| *place), slide_um);
        cell_um = density.cell_um;
        let picture = density.draw(report.thumb, kind.colour);
        let _ = writeln!(
            html,
            "<figure>{}<figcaption>{} <span class=\"ramp\" style=\"background:linear-gradient(90deg,#eee,{})\"></span> \
             <span>0 to {} a mm²</span></figcaption></figure>",
            jpeg_tag(&picture, &format!("Density of {}", kind.name))?,
            escape(&kind.name),
            hex(kind.colour),
            number(density.most_per_mm2())
        );
    }
    let _ = write!(
        html,
        "</div>\n<p class=\"note\">Nuclei in cells of {} × {} µm; a mm² of the whole cell, tissue or not. Each \
            map has its own scale.</p></section>\n",
        number(cell_um[0]),
        number(cell_um[1])
    );
    Ok(html)
}

fn crops_section(crops: &[Crop]) -> Result<String, ImageError> {
    if crops.is_empty() {
        return Ok(String::new());
    }
    let mut html = String::from("<section><h2>A closer look</h2>\n<div class=\"pictures\">\n");
    for crop in crops {
        let _ = writeln!(
            html,
            "<figure>{}<figcaption>{}</figcaption></figure>",
            jpeg_tag(&crop.picture, &crop.caption)?,
            escape(&crop.caption)
        );
    }
    html.push_str(
        "</div>\n<p class=\"note\">Fields chosen by rule, never by hand; full resolution in crops/.</p></section>\n",
    );
    Ok(html)
}

fn settings_section(summary: &Value) -> String {
    let Some(settings) = summary["provenance"]["settings"].as_object() else {
        return String::new();
    };
    let mut html = String::from("<section><h2>Settings</h2>\n<table class=\"settings\"><tbody>\n");
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
                .for_each(|(key, value)| row(&format!("{name}.{key}"), value)),
            None => row(name, value),
        }
    }
    html.push_str("</tbody></table></section>\n");
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
