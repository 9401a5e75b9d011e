//! Instances and types in MATLAB files: CoNSeP's, hover_net's and Lizard's.
//!
//! In: a .mat with `inst_map`, and types as a map (`type_map`), as a list with ids (`inst_type` with
//! `inst_uid`; Lizard's `class` with `id`), or as a list alone. Out: [`MatLabels`]. Never guesses
//! which nucleus a row of a list means.

use std::path::Path;

use super::LabelError;
use super::formats::assign_types;
use super::ids::Ids;
use super::label_map::LabelMap;
use crate::mat5::{self, Matrix};

/// The nuclei of one file.
pub struct MatLabels {
    /// Ids 1, 2, 3, … without gaps, in the order of the file's ids.
    pub map: LabelMap,
    /// The file's type number of each id, 0 where unknown; entry 0 is unused. `None`: no types.
    pub types: Option<Vec<u32>>,
}

/// Reads the file at `path`.
///
/// # Errors
/// No MATLAB 5 file, no `inst_map`, or types whose rows cannot be matched with the ids.
pub fn read(path: &Path) -> Result<MatLabels, LabelError> {
    let failed = |reason: String| LabelError::new(path, reason);
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let matrices = mat5::read(&bytes).map_err(failed)?;
    let find = |name: &str| matrices.iter().find(|m| m.name == name);
    let inst_map =
        find("inst_map").ok_or_else(|| failed("has no numeric matrix inst_map".into()))?;
    let mut map = LabelMap {
        width: inst_map.columns,
        ids: inst_map.ids_by_row(),
    };
    if let Some(type_map) = find("type_map") {
        if (type_map.rows, type_map.columns) != (inst_map.rows, inst_map.columns) {
            return Err(failed(format!(
                "type_map is {} x {}, inst_map {} x {} (rows x columns): they must be equal",
                type_map.rows, type_map.columns, inst_map.rows, inst_map.columns
            )));
        }
        let numbers = type_map.ids_by_row().into_iter();
        let types = Some(assign_types(&mut map.ids, numbers, Ok)?);
        return Ok(MatLabels { map, types });
    }
    let ids = Ids::renumber(&mut map.ids);
    let list = [("inst_type", "inst_uid"), ("class", "id")]
        .into_iter()
        .find_map(|(types, uids)| Some((find(types)?, find(uids))));
    let types = list
        .map(|(types, uids)| types_of_list(types, uids, &ids))
        .transpose()
        .map_err(failed)?;
    Ok(MatLabels { map, types })
}

/// The type of each id from a list, whose rows belong to `uids`, or else to the sorted ids.
fn types_of_list(types: &Matrix, uids: Option<&Matrix>, ids: &Ids) -> Result<Vec<u32>, String> {
    let mut of_id = ids.table(0u32);
    let nuclei = of_id.len() - 1;
    let rows = types.values.len();
    let mut set = |old: f64, kind: f64| {
        let new = (old >= 1.0 && old <= f64::from(u32::MAX))
            .then(|| ids.new_of(old as u32))
            .flatten();
        if let Some(new) = new {
            of_id[new] = kind.max(0.0) as u32;
        }
    };
    if let Some(uids) = uids {
        if uids.values.len() != rows {
            return Err(format!(
                "{} has {} rows, {} has {rows}: one row per nucleus is wanted in both",
                uids.name,
                uids.values.len(),
                types.name
            ));
        }
        for (old, kind) in uids.values.iter().zip(&types.values) {
            set(*old, *kind);
        }
    } else if rows == nuclei {
        for (new, kind) in types.values.iter().enumerate() {
            of_id[new + 1] = kind.max(0.0) as u32;
        }
    } else if u32::try_from(rows).ok() == ids.largest() {
        // A row for each number up to the largest id, also for those that no pixel has.
        for (row, kind) in types.values.iter().enumerate() {
            set((row + 1) as f64, *kind);
        }
    } else {
        return Err(format!(
            "{} has {rows} rows for {nuclei} nuclei, and nothing says whose they are: save inst_uid beside it",
            types.name
        ));
    }
    Ok(of_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, values: &[f64]) -> Matrix {
        Matrix {
            name: name.into(),
            rows: values.len(),
            columns: 1,
            values: values.to_vec(),
        }
    }

    #[test]
    fn rows_of_types_belong_to_the_named_or_the_sorted_ids() {
        let ids = Ids::renumber(&mut [0, 9, 3, 6, 6]);
        let types = column("inst_type", &[4.0, 1.0, 2.0]);
        let named = column("inst_uid", &[9.0, 3.0, 6.0]);
        assert_eq!(
            types_of_list(&types, Some(&named), &ids).unwrap(),
            [0, 1, 2, 4]
        );
        assert_eq!(types_of_list(&types, None, &ids).unwrap(), [0, 4, 1, 2]);
        let all = column("inst_type", &[0.0, 0.0, 5.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0]);
        assert_eq!(types_of_list(&all, None, &ids).unwrap(), [0, 5, 2, 1]);
        for (rows, uids) in [(vec![1.0; 4], None), (vec![1.0; 2], Some(&named))] {
            let error = types_of_list(&column("inst_type", &rows), uids, &ids).unwrap_err();
            assert!(error.contains("rows"), "{error}");
        }
    }
}
