//! The pictures of a slide's page: density maps with their scales, and fields at full size.
//!
//! In: [`SlideReport`]. Out: HTML. A field opens at full size by a checkbox and style rules, so that neither script nor
//! network is needed. Never reads a file.

use std::fmt::Write;

use image::ImageError;

use super::boxes::{hex, number};
use super::maps::{Density, length_text, scale_bar_um};
use super::page::{escape, jpeg_tag};
use super::slide::{SlideReport, slide_um};
use super::type_counts::{TypeCount, swatch};

/// A picture that is `width_um` wide, with a scale bar over its lower left corner.
pub(super) fn with_scale_bar(picture: &str, width_um: f64) -> String {
    let bar_um = scale_bar_um(width_um);
    format!(
        "<span class=\"scaled\">{picture}<span class=\"bar\" style=\"width:{:.2}%\">{}</span></span>",
        100.0 * bar_um / width_um,
        length_text(bar_um)
    )
}

pub(super) fn maps_section(report: &SlideReport<'_>) -> Result<String, ImageError> {
    let slide_um = slide_um(report.summary);
    let mut html = String::from("<section><h2>Where they are</h2>\n<div class=\"pictures\">\n");
    let mut cell_um = [0.0; 2];
    for (id, kind) in report.types.iter().enumerate() {
        if kind.count == 0 {
            continue;
        }
        let columns = &report.columns;
        let places = columns.places.iter().zip(columns.type_of);
        let places = places.filter(|(_, of)| usize::from(**of) == id);
        let density = Density::of(places.map(|(place, _)| *place), slide_um);
        cell_um = density.cell_um;
        let most = density.most_per_mm2();
        let picture = jpeg_tag(
            &density.draw(report.thumb, kind.colour),
            &format!("Density of {}", kind.name),
        )?;
        let _ = writeln!(
            html,
            "<figure>{}<figcaption>{}{}<span class=\"ramp\" style=\"background:linear-gradient(90deg,#e4e4e4,{})\">\
             </span><span class=\"ticks\"><span>0</span><span>{}</span><span>{}</span></span>nuclei per mm² of map\
             </figcaption></figure>",
            with_scale_bar(&picture, slide_um[0]),
            swatch(kind.colour),
            escape(&kind.name),
            hex(kind.colour),
            number(most / 2.0),
            number(most)
        );
    }
    let _ = write!(
        html,
        "</div>\n<p class=\"note\">Nuclei in squares of {} × {} µm, per mm² of the square, whether it is tissue or not. \
         So the numbers are lower than those above wherever a square holds glass. Each map has its own scale.</p>\
         </section>\n",
        number(cell_um[0]),
        number(cell_um[1])
    );
    Ok(html)
}

pub(super) fn crops_section(report: &SlideReport<'_>) -> Result<String, ImageError> {
    if report.crops.is_empty() {
        return Ok(String::new());
    }
    let key = colour_key(&report.types);
    let mut html = format!(
        "<section><h2>A closer look</h2>\n<p class=\"key\">{key}</p>\n<div class=\"pictures crops\">\n"
    );
    for (place, crop) in report.crops.iter().enumerate() {
        let picture = jpeg_tag(&crop.picture, &crop.caption)?;
        let picture = match crop.width_um {
            Some(width_um) => with_scale_bar(&picture, width_um),
            None => picture,
        };
        let _ = writeln!(
            html,
            "<figure><input type=\"checkbox\" id=\"crop{place}\" aria-label=\"Show at full size: {caption}\">\
             <label for=\"crop{place}\">{picture}<span class=\"key\">{key}</span>\
             <span class=\"close\">Click to close</span></label><figcaption>{caption}</figcaption></figure>",
            caption = escape(&crop.caption),
        );
    }
    html.push_str(
        "</div>\n<p class=\"note\">Click a field to see it at full size. Fields are chosen by rule, never by hand, and \
         lie where something was examined. Uncertainty: how evenly the \
         probabilities of a nucleus are spread over the types; 0 is certain. The same fields without outlines are in the folder crops/.</p></section>\n",
    );
    Ok(html)
}

/// Each type's colour beside its name.
fn colour_key(types: &[TypeCount]) -> String {
    types
        .iter()
        .map(|kind| format!("<span>{}{}</span>", swatch(kind.colour), escape(&kind.name)))
        .collect::<Vec<_>>()
        .join(" ")
}
