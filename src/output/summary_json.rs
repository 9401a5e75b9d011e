//! summary.json: the figures of a slide on one page.
//!
//! In: a [`SlideResult`] and the medians of the features. Out: counts and densities, what was done of what was
//! planned in mm², warnings. No clock and no host: the same result gives the same bytes.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{OutputError, plausible, write_file};
use crate::result::SlideResult;

/// Median of each feature over all nuclei, and over those of a type, by column name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Medians {
    /// Over all nuclei.
    pub all: Vec<(String, f64)>,
    /// By type id.
    pub by_type: Vec<(usize, Vec<(String, f64)>)>,
}

/// Writes [`summary`]'s document to `path`.
pub fn write(summary: &Value, path: &Path) -> Result<(), OutputError> {
    write_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, summary)?;
        out.write_all(b"\n")
    })
}

/// The document.
pub fn summary(result: &SlideResult, medians: &Medians) -> Value {
    let meta = &result.meta;
    let area = Area::of(result);
    let covered = &result.coverage;
    let on_tissue = (0..result.nuclei.len()).filter(|&place| result.is_on_tissue(place));
    let on_tissue = on_tissue.count();
    let mut warnings = meta.warnings.clone();
    warnings.extend(result_warnings(result));
    let mut summary = json!({
        "slide": meta.stem,
        "version": env!("CARGO_PKG_VERSION"),
        "model": meta.model.name,
        "mpp": meta.frames.level0_mpp,
        "mpp_from": meta.mpp_from,
        "width": meta.frames.level0_size_px[0],
        "height": meta.frames.level0_size_px[1],
        "complete": covered.missing_tiles == 0 && covered.unreadable_px == 0,
        "nuclei": {
            "count": result.nuclei.len(),
            "on_tissue": on_tissue,
            "density_per_mm2_tissue": density(on_tissue, result.examined_tissue_mm2()),
        },
        "types": types(result),
        "tissue": tissue(result),
        "area_mm2": {
            "tissue": number(meta.tissue_mm2),
            "tiles": number(area.tiles_mm2),
            "planned": number(area.planned_mm2()),
            "done": number(area.done_mm2),
            "unreadable": number(area.unreadable_mm2),
            "missing": number(area.missing_mm2),
            "outside": number(area.outside_mm2),
        },
        // The same in px at the model's µm/px, exact: planned = done + unreadable + missing, tiles = planned + outside.
        "area_px": {
            "tiles": area.tiles_px,
            "planned": covered.done_px + covered.unreadable_px + area.missing_px,
            "done": covered.done_px,
            "unreadable": covered.unreadable_px,
            "missing": area.missing_px,
            "outside": covered.outside_px,
        },
        "tiles": {"planned": covered.planned_tiles, "missing": covered.missing_tiles},
        "feature_medians": {
            "all": median_map(&medians.all),
            "types": Value::Object(medians.by_type.iter().map(|(id, list)| {
                (result.type_name(*id), median_map(list))
            }).collect()),
        },
        "warnings": warnings,
        "read_errors": result.read_errors,
        "provenance": {
            "sha256": meta.model.sha256,
            "licence": meta.model.licence,
            "citation": meta.model.citation,
            "training_data": meta.model.training_data,
            "taught_on": taught_on(&meta.model.scores),
            "settings": meta.identity,
        },
    });
    if !meta.manifest.is_empty() {
        let columns = meta.manifest.iter();
        let columns = columns.map(|(name, cell)| (name.clone(), Value::from(cell.as_str())));
        summary["manifest"] = Value::Object(columns.collect());
    }
    if let Some(region) = &meta.region {
        summary["area_mm2"]["roi"] = number(region.mm2);
    }
    summary
}

/// The warnings that follow from the result itself; those about the input are in its meta.
pub fn result_warnings(result: &SlideResult) -> Vec<String> {
    let mut warnings = Area::of(result).warnings(result);
    warnings.extend(plausible::warnings(result));
    warnings
}

/// What became of the planned tiles' area. Done, unreadable and outside (no planned patch there) are counted by the
/// tiles; missing is what is left of the tiles that have no result.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    tiles_px: u64,
    missing_px: u64,
    tiles_mm2: f64,
    done_mm2: f64,
    unreadable_mm2: f64,
    outside_mm2: f64,
    missing_mm2: f64,
    /// Proc px of the tiles that nobody accounts for, with no tile missing: 0, or something is wrong.
    astray_px: i128,
}

impl Area {
    fn of(result: &SlideResult) -> Self {
        let frames = result.frames();
        let covered = &result.coverage;
        let tiles_px = covered.tiles_px;
        let accounted = covered.done_px + covered.unreadable_px + covered.outside_px;
        let rest = i128::from(tiles_px) - i128::from(accounted);
        let missing_px = if covered.missing_tiles > 0 {
            rest.max(0)
        } else {
            0
        };
        Self {
            tiles_px,
            missing_px: missing_px as u64,
            tiles_mm2: frames.mm2(tiles_px),
            done_mm2: frames.mm2(covered.done_px),
            unreadable_mm2: frames.mm2(covered.unreadable_px),
            outside_mm2: frames.mm2(covered.outside_px),
            missing_mm2: frames.mm2(missing_px as u64),
            astray_px: rest - missing_px,
        }
    }

    /// planned = done + unreadable + missing: the tiles less what no patch was planned for.
    fn planned_mm2(&self) -> f64 {
        self.done_mm2 + self.unreadable_mm2 + self.missing_mm2
    }

    fn warnings(&self, result: &SlideResult) -> Vec<String> {
        let mut warnings = Vec::new();
        if result.nuclei.is_empty() {
            warnings.push("no nucleus was found".to_owned());
        }
        if result.coverage.unreadable_px > 0 {
            warnings.push(format!(
                "{:.4} mm² could not be read: nuclei there are missing",
                self.unreadable_mm2
            ));
        }
        if result.coverage.missing_tiles > 0 {
            warnings.push(format!(
                "{} of {} tiles are not done: run the same command again",
                result.coverage.missing_tiles, result.coverage.planned_tiles
            ));
        }
        if self.astray_px != 0 {
            warnings.push(format!(
                "{} proc px of the tiles are not accounted for: the counts may be wrong, please report it",
                self.astray_px
            ));
        }
        let cut = result.nuclei.iter().filter(|nucleus| nucleus.cut).count();
        if cut > 0 {
            warnings.push(format!(
                "{cut} nuclei lie in blobs that were cut along a fixed grid"
            ));
        }
        warnings
    }
}

/// What the densities are counted per.
fn tissue(result: &SlideResult) -> Value {
    let from = result.meta.tissue_from;
    let cell_um = result.examined.as_ref().map(|examined| examined.cell_um);
    let place = match result.meta.region {
        Some(_) => ", in the region asked for",
        None => "",
    };
    json!({
        "from": from,
        "examined_mm2": number(result.examined_tissue_mm2()),
        "mask_um_per_px": cell_um.map(|sides| sides.map(number)),
        "density_denominator": format!("mm² of {}{place}", from.denominator()),
    })
}

fn types(result: &SlideResult) -> Value {
    let kinds = &result.meta.model.types;
    // All of a type, and those on tissue.
    let mut counts = vec![[0usize; 2]; kinds.len()];
    for (place, record) in result.records().enumerate() {
        if let Some(count) = record.type_id.and_then(|id| counts.get_mut(id)) {
            count[0] += 1;
            count[1] += usize::from(result.is_on_tissue(place));
        }
    }
    let tissue_mm2 = result.examined_tissue_mm2();
    let total = result.nuclei.len();
    let entries: Map<String, Value> = counts
        .iter()
        .enumerate()
        // Background is no type of nucleus, unless the model saw nothing else.
        .filter(|(id, [count, _])| *id > 0 || *count > 0)
        .map(|(id, [count, on_tissue])| {
            let share = (total > 0).then(|| number(*count as f64 / total as f64));
            let entry = json!({
                "id": id,
                "count": count,
                "share": share,
                "on_tissue": on_tissue,
                "density_per_mm2_tissue": density(*on_tissue, tissue_mm2),
                "held_out_f1": held_out_f1(&result.meta.model.scores, &result.type_name(id)),
                "color": super::pictures::type_colour(result, id).0,
            });
            (result.type_name(id), entry)
        })
        .collect();
    Value::Object(entries)
}

/// F1 of a type on each held-out set that has it, with its 95 % interval, as model.toml states them.
fn held_out_f1(scores: &toml::Table, type_name: &str) -> Vec<Value> {
    let key = format!("f1_{type_name}");
    scores
        .iter()
        .filter_map(|(set, values)| {
            let values = values.as_table()?;
            let score = values.get(&key)?.as_array()?;
            let at = |place: usize| score.get(place).and_then(toml::Value::as_float);
            Some(json!({
                "set": set,
                "tissue": values.get("taught").and_then(|taught| taught.get("tissue")).and_then(toml::Value::as_str),
                "f1": at(0)?,
                "low": at(1),
                "high": at(2),
            }))
        })
        .collect()
}

/// What the images looked like on which the types were taught, set by set.
fn taught_on(scores: &toml::Table) -> Vec<Value> {
    let sets = scores.values().filter_map(|values| values.get("taught"));
    sets.map(|taught| json!(taught)).collect()
}

fn median_map(medians: &[(String, f64)]) -> Value {
    Value::Object(
        medians
            .iter()
            .map(|(name, value)| (name.clone(), number(*value)))
            .collect(),
    )
}

/// Nuclei per mm²; null where there is no area.
fn density(count: usize, mm2: f64) -> Value {
    if mm2 > 0.0 {
        number(count as f64 / mm2)
    } else {
        Value::Null
    }
}

/// To 6 significant digits; null for what is no number.
fn number(value: f64) -> Value {
    json!(super::significant(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PatchGrid;
    use crate::result::{Examined, fixture};
    use crate::tissue::TissueSource;

    #[test]
    fn counts_densities_and_areas_add_up() {
        let result = fixture::result(1.0);
        let value = summary(&result, &Medians::default());
        assert_eq!(value["nuclei"]["count"], 4);
        assert_eq!(value["types"]["tumour"]["count"], 3);
        assert_eq!(value["types"]["tumour"]["id"], 1);
        assert_eq!(value["types"]["lymphocyte"]["share"], 0.25);
        assert!(value["types"].get("background").is_none());
        // 1600 proc px of 0.25 µm: 0.0001 mm². Densities are per mm² of tissue, which is all of the slide here.
        assert_eq!(value["area_mm2"]["done"], 1e-4);
        assert_eq!(value["nuclei"]["density_per_mm2_tissue"], 26666.7);
        assert_eq!(value["types"]["tumour"]["density_per_mm2_tissue"], 20000.0);
        assert!(value["nuclei"].get("density_per_mm2").is_none());
        let area = |name: &str| value["area_mm2"][name].as_f64().unwrap();
        assert_eq!(area("tiles"), 1.5e-4);
        assert_eq!(
            area("planned"),
            area("done") + area("unreadable") + area("missing")
        );
        assert_eq!(area("missing"), 0.0);
        assert_eq!(value["complete"], false);
        let warnings = value["warnings"].to_string();
        assert!(warnings.contains("made by hand") && warnings.contains("could not be read"));
        assert!(!warnings.contains("accounted"));
    }

    #[test]
    fn densities_count_the_nuclei_on_tissue_per_mm2_of_tissue_that_was_examined() {
        let mut result = fixture::result(1.0);
        result.examined = Some(Examined {
            tissue_mm2: 5e-5,
            on_tissue: vec![false, true, true, true],
            cell_um: [8.0, 8.5],
            grid: PatchGrid {
                slide_px: [60, 40],
                patch_in_px: 64,
                patch_out_px: 32,
            },
            patches: [].into(),
        });
        let value = summary(&result, &Medians::default());
        let nuclei = &value["nuclei"];
        assert_eq!(
            (&nuclei["count"], &nuclei["on_tissue"]),
            (&json!(4), &json!(3))
        );
        assert_eq!(nuclei["density_per_mm2_tissue"], 60000.0);
        // The first nucleus is a tumour's.
        assert_eq!(value["types"]["tumour"]["density_per_mm2_tissue"], 40000.0);
        assert_eq!(value["tissue"]["mask_um_per_px"], json!([8.0, 8.5]));
        let words = |from: TissueSource| {
            let mut result = result.clone();
            result.meta.tissue_from = from;
            summary(&result, &Medians::default())["tissue"]["density_denominator"].to_string()
        };
        assert!(words(TissueSource::Found).contains("mm² of tissue found"));
        assert!(words(TissueSource::Everything).contains("--mask none"));
    }

    #[test]
    fn scores_of_the_model_stand_beside_its_types() {
        let mut result = fixture::result(1.0);
        let scores = r#"
            [colon]
            f1_tumour = [0.7, 0.6, 0.8]
            pq = [0.5, 0.4, 0.6]
            [colon.taught]
            tissue = "large bowel"
            area_um2 = [20.0, 30.0]
            [breast]
            f1_tumour = [0.5]
        "#;
        result.meta.model.scores = scores.parse().unwrap();
        let value = summary(&result, &Medians::default());
        let of = |name: &str| value["types"][name]["held_out_f1"].clone();
        let expected = json!([
            {"set": "breast", "tissue": null, "f1": 0.5, "low": null, "high": null},
            {"set": "colon", "tissue": "large bowel", "f1": 0.7, "low": 0.6, "high": 0.8},
        ]);
        assert_eq!((of("tumour"), of("lymphocyte")), (expected, json!([])));
        let taught = json!([{"tissue": "large bowel", "area_um2": [20.0, 30.0]}]);
        assert_eq!(value["provenance"]["taught_on"], taught);
    }

    #[test]
    fn area_that_nobody_accounts_for_is_a_warning() {
        let mut result = fixture::result(1.0);
        result.coverage.done_px -= 100;
        let value = summary(&result, &Medians::default());
        assert!(value["warnings"].to_string().contains("100 proc px"));
        result.coverage.missing_tiles = 1;
        let value = summary(&result, &Medians::default());
        assert!(!value["warnings"].to_string().contains("accounted"));
        assert_eq!(value["area_mm2"]["missing"], 6.25e-6);
    }

    #[test]
    fn medians_stand_under_their_types_names() {
        let medians = Medians {
            all: vec![("area_um2".into(), 12.345_678_9)],
            by_type: vec![
                (2, vec![("area_um2".into(), 3.0)]),
                (7, vec![("area_um2".into(), 4.0)]),
            ],
        };
        let value = summary(&fixture::result(1.0), &medians);
        assert_eq!(value["feature_medians"]["all"]["area_um2"], 12.3457);
        assert_eq!(
            value["feature_medians"]["types"]["lymphocyte"]["area_um2"],
            3.0
        );
        // A type that the model does not name is called as in every other file.
        assert_eq!(value["feature_medians"]["types"]["type 7"]["area_um2"], 4.0);
    }
}
