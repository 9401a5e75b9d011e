//! The types of nuclei as pages show them: name, count, colour.

use serde_json::Value;

use super::boxes::hex;
use super::reading::{HeldOut, held_out_of};
use crate::tissue::TissueSource;

/// A type with its nuclei, as summary.json counts them.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeCount {
    pub name: String,
    pub colour: [u8; 3],
    pub count: usize,
    pub share: Option<f64>,
    /// Per mm² of tissue.
    pub density_per_mm2: Option<f64>,
    /// F1 on images that were never shown in training, by data set.
    pub held_out: Vec<HeldOut>,
}

/// What the tissue of a summary.json is.
pub fn tissue_source(summary: &Value) -> TissueSource {
    serde_json::from_value(summary["tissue"]["from"].clone()).unwrap_or_default()
}

/// The types of a summary.json in its order; one unnamed type for a model without any.
pub fn types_of(summary: &Value) -> Vec<TypeCount> {
    let entries = summary["types"].as_object();
    let typed: Vec<TypeCount> = entries
        .into_iter()
        .flatten()
        .map(|(name, entry)| TypeCount {
            name: name.clone(),
            colour: colour(&entry["color"]),
            count: entry["count"].as_u64().unwrap_or(0) as usize,
            share: entry["share"].as_f64(),
            density_per_mm2: entry["density_per_mm2_tissue"].as_f64(),
            held_out: held_out_of(entry),
        })
        .collect();
    if !typed.is_empty() {
        return typed;
    }
    let nuclei = &summary["nuclei"];
    vec![TypeCount {
        name: "nuclei".into(),
        colour: colour(&Value::Null),
        count: nuclei["count"].as_u64().unwrap_or(0) as usize,
        share: Some(1.0),
        density_per_mm2: nuclei["density_per_mm2_tissue"].as_f64(),
        held_out: Vec::new(),
    }]
}

fn colour(value: &Value) -> [u8; 3] {
    serde_json::from_value(value.clone()).unwrap_or([86, 180, 233])
}

/// A square of a type's colour beside its name.
pub fn swatch(colour: [u8; 3]) -> String {
    format!(
        "<span class=\"swatch\" style=\"background:{}\"></span>",
        hex(colour)
    )
}
