//! The table of nuclei: which columns, in which order, in which unit.
//!
//! In: a [`SlideResult`]. Out: rows in order of id, measured in parallel and handed on one after the other, and the
//! medians of the features. Formats (CSV, …) only write what this page gives. docs/features.md explains each column.

use rayon::prelude::*;

use super::summary_json::Medians;
use super::{Record, SlideResult};
use crate::config::Units;
use crate::features::{
    Neighbourhood, Shape, Stain, neighbours, neighbours_among, shape_of, shape_um, stain,
    type_entropy,
};

/// Nuclei measured at a time.
const CHUNK: usize = 8192;

/// What the features of one nucleus are taken from.
struct Measured<'a> {
    /// In the chosen unit.
    shape: Shape,
    stain: Stain,
    around: &'a Neighbourhood,
    /// µm a unit of length.
    um_a_unit: f64,
}

/// One column: its name in µm, its name in px, how it is taken. NaN: no value.
type Feature = (&'static str, &'static str, fn(&Measured<'_>) -> f64);

/// In the order of the table.
#[rustfmt::skip]
const FEATURES: &[Feature] = &[
    ("area_um2", "area", |m| m.shape.area),
    ("bbox_area_um2", "bbox_area", |m| m.shape.bbox_area),
    ("convex_area_um2", "convex_area", |m| m.shape.convex_area),
    ("eccentricity", "eccentricity", |m| m.shape.eccentricity),
    ("equivalent_diameter_um", "equivalent_diameter", |m| m.shape.equivalent_diameter),
    ("euler_number", "euler_number", |m| f64::from(m.shape.euler_number)),
    ("extent", "extent", |m| m.shape.extent),
    ("filled_area_um2", "filled_area", |m| m.shape.filled_area),
    ("inertia_eigval_x_um2", "inertia_eigval_x", |m| m.shape.inertia_eigval_x),
    ("inertia_eigval_y_um2", "inertia_eigval_y", |m| m.shape.inertia_eigval_y),
    ("major_axis_length_um", "major_axis_length", |m| m.shape.major_axis_length),
    ("minor_axis_length_um", "minor_axis_length", |m| m.shape.minor_axis_length),
    ("orientation", "orientation", |m| m.shape.orientation),
    ("perimeter_um", "perimeter", |m| m.shape.perimeter),
    ("solidity", "solidity", |m| m.shape.solidity),
    ("circularity", "circularity", |m| m.shape.circularity),
    ("feret_max_um", "feret_max", |m| m.shape.feret_max),
    ("feret_min_um", "feret_min", |m| m.shape.feret_min),
    ("roughness", "roughness", |m| m.shape.roughness),
    ("hematoxylin_od_mean", "hematoxylin_od_mean", |m| m.stain.hematoxylin_od_mean),
    ("hematoxylin_od_std", "hematoxylin_od_std", |m| m.stain.hematoxylin_od_std),
    ("eosin_od_mean", "eosin_od_mean", |m| m.stain.eosin_od_mean),
    ("eosin_od_std", "eosin_od_std", |m| m.stain.eosin_od_std),
    ("red_mean", "red_mean", |m| m.stain.rgb_mean[0]),
    ("green_mean", "green_mean", |m| m.stain.rgb_mean[1]),
    ("blue_mean", "blue_mean", |m| m.stain.rgb_mean[2]),
    ("nearest_um", "nearest", |m| m.around.nearest_um.unwrap_or(f64::NAN) / m.um_a_unit),
    ("neighbours_50um", "neighbours_50um", |m| f64::from(m.around.within_50um)),
];

/// One nucleus with its numbers.
pub struct Row<'a> {
    pub record: Record<'a>,
    /// Centroid, level-0 px, edge frame.
    pub centroid_level0_px: [f64; 2],
    /// In the order of [`feature_names`]; NaN where there is no value.
    pub features: Vec<f64>,
}

/// All rows at a glance, in order of id: what summaries and pages are made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measurements {
    /// [`feature_names`].
    pub names: Vec<String>,
    /// A column a name; NaN where there is no value.
    pub columns: Vec<Vec<f32>>,
    pub types: Vec<Option<usize>>,
    /// Centroids as shares of the slide's width and height, 0 to 1.
    pub places: Vec<[f32; 2]>,
    pub medians: Medians,
}

/// Names of the feature columns: those of every slide, then the neighbourhood by type, background left out.
pub fn feature_names(result: &SlideResult, units: Units) -> Vec<String> {
    let mut names: Vec<String> = FEATURES
        .iter()
        .map(|(um, px, _)| match units {
            Units::Um => (*um).to_owned(),
            Units::Px => (*px).to_owned(),
        })
        .collect();
    let suffix = match units {
        Units::Um => "_um",
        Units::Px => "",
    };
    for kind in result.meta.model.types.iter().skip(1) {
        names.push(format!("nearest_{}{suffix}", kind.name));
        names.push(format!("neighbours_50um_{}", kind.name));
    }
    names
}

/// Measures every nucleus, hands the rows to `each` in order of id, and returns what they come to.
///
/// # Errors
/// The first that `each` gives.
pub fn for_each_row<E>(
    result: &SlideResult,
    units: Units,
    mut each: impl FnMut(&Row<'_>) -> Result<(), E>,
) -> Result<Measurements, E> {
    let mpp = result.frames().proc_mpp();
    // px of a table are square: the geometric mean of the two, as in shapes.
    let um_a_unit = match units {
        Units::Um => 1.0,
        Units::Px => (mpp[0] * mpp[1]).sqrt(),
    };
    let centroids_um = centroids_um(result);
    let neighbourhoods = neighbours(&centroids_um);
    let by_type = neighbours_by_type(result, &centroids_um);
    let names = feature_names(result, units);
    let mut columns: Vec<Vec<f32>> = vec![Vec::with_capacity(result.nuclei.len()); names.len()];
    let mut types: Vec<Option<usize>> = Vec::with_capacity(result.nuclei.len());
    let mut places: Vec<[f32; 2]> = Vec::with_capacity(result.nuclei.len());
    let [width_px, height_px] = result.frames().level0_size_px.map(|px| px.max(1) as f32);
    let chunks = result
        .nuclei
        .chunks(CHUNK)
        .zip(neighbourhoods.chunks(CHUNK));
    for (first_id, (nuclei, around)) in (1u64..).step_by(CHUNK).zip(chunks) {
        let rows: Vec<Row<'_>> = nuclei
            .par_iter()
            .zip(around)
            .enumerate()
            .map(|(i, (nucleus, around))| {
                let id = first_id + i as u64;
                let record = Record::new(id, nucleus, result);
                let mut row = row(record, around, mpp, units, um_a_unit);
                for around in by_type.iter().filter_map(|all| all.get(id as usize - 1)) {
                    let nearest = around.nearest_um.unwrap_or(f64::NAN) / um_a_unit;
                    row.features
                        .extend([nearest, f64::from(around.within_50um)]);
                }
                row
            })
            .collect();
        for row in &rows {
            each(row)?;
            types.push(row.record.type_id);
            let [x, y] = row.centroid_level0_px.map(|v| v as f32);
            places.push([x / width_px, y / height_px]);
            for (column, value) in columns.iter_mut().zip(&row.features) {
                column.push(*value as f32);
            }
        }
    }
    Ok(Measurements {
        medians: medians(&names, &columns, &types),
        names,
        columns,
        types,
        places,
    })
}

fn row<'a>(
    record: Record<'a>,
    around: &Neighbourhood,
    mpp: [f64; 2],
    units: Units,
    um_a_unit: f64,
) -> Row<'a> {
    let px = shape_of(record.nucleus);
    let shape = match units {
        Units::Um => shape_um(&px, mpp),
        Units::Px => px,
    };
    let measured = Measured {
        shape,
        stain: stain(record.nucleus),
        around,
        um_a_unit,
    };
    Row {
        record,
        centroid_level0_px: record.to_edge(px.centroid),
        features: FEATURES
            .iter()
            .map(|(_, _, take)| take(&measured))
            .collect(),
    }
}

fn centroids_um(result: &SlideResult) -> Vec<[f64; 2]> {
    let mpp = result.frames().proc_mpp();
    result
        .records()
        .map(|record| {
            let [x, y] = record.centroid_proc_px();
            [x * mpp[0], y * mpp[1]]
        })
        .collect()
}

/// For every type but background, the neighbourhoods in which only its nuclei count.
fn neighbours_by_type(result: &SlideResult, centroids_um: &[[f64; 2]]) -> Vec<Vec<Neighbourhood>> {
    let types: Vec<Option<usize>> = result.nuclei.iter().map(|n| n.type_id()).collect();
    (1..result.meta.model.types.len())
        .map(|id| neighbours_among(centroids_um, |i| types.get(i) == Some(&Some(id))))
        .collect()
}

/// Class probabilities' entropy, nats; `None` for a model without types.
pub fn entropy(record: &Record<'_>) -> Option<f64> {
    record.type_id.map(|_| type_entropy(record.nucleus))
}

fn medians(names: &[String], columns: &[Vec<f32>], types: &[Option<usize>]) -> Medians {
    let of = |keep: &dyn Fn(Option<usize>) -> bool| -> Vec<(String, f64)> {
        names
            .iter()
            .zip(columns)
            .filter_map(|(name, column)| {
                let values = column.iter().zip(types).filter(|(_, kind)| keep(**kind));
                let value = median(values.map(|(value, _)| *value).collect())?;
                Some((name.clone(), value))
            })
            .collect()
    };
    let mut ids: Vec<usize> = types.iter().flatten().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    Medians {
        all: of(&|_| true),
        by_type: ids
            .into_iter()
            .map(|id| (id, of(&|kind| kind == Some(id))))
            .collect(),
    }
}

/// The middle of what is a number; the mean of the two middles of an even count.
fn median(mut values: Vec<f32>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f32::total_cmp);
    let upper = f64::from(*values.get(values.len() / 2)?);
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = f64::from(*values.get(values.len() / 2 - 1)?);
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn measured(ratio: f64, units: Units) -> (Vec<Vec<f64>>, Medians) {
        let result = fixture::result(ratio);
        let mut rows = Vec::new();
        let measured = for_each_row(&result, units, |row| {
            rows.push(row.features.clone());
            Ok::<(), std::convert::Infallible>(())
        });
        (rows, measured.unwrap().medians)
    }

    fn column(units: Units, name: &str) -> usize {
        feature_names(&fixture::result(1.0), units)
            .iter()
            .position(|n| n == name)
            .unwrap()
    }

    #[test]
    fn units_differ_by_the_models_scale() {
        let (um, _) = measured(1.996, Units::Um);
        let (px, _) = measured(1.996, Units::Px);
        let area = column(Units::Um, "area_um2");
        assert_eq!(px[1][area], 96.0);
        assert!((um[1][area] - 96.0 * 0.25 * 0.25).abs() < 1e-9);
        let nearest = column(Units::Px, "nearest");
        assert!((um[1][nearest] / px[1][nearest] - 0.25).abs() < 1e-9);
        // Nucleus 2's centroid (26, 14), nucleus 3's (44.5, 24.5), proc px.
        assert!((px[1][nearest] - 18.5f64.hypot(10.5)).abs() < 1e-6);
        let within = column(Units::Px, "neighbours_50um");
        assert_eq!((um[1][within], px[1][within]), (3.0, 3.0));
        // Nuclei 1, 3 and 4 are tumour; nucleus 2 is the only lymphocyte, so it has no other.
        let by_type = ["nearest_tumour", "nearest_lymphocyte"].map(|n| column(Units::Px, n));
        assert_eq!(px[1][by_type[0]], px[1][nearest]);
        assert!(px[1][by_type[1]].is_nan());
        assert!((um[2][by_type[1]] / um[1][column(Units::Um, "nearest_um")] - 1.0).abs() < 1e-9);
        let counts = ["neighbours_50um_tumour", "neighbours_50um_lymphocyte"];
        let counts = counts.map(|n| column(Units::Um, n));
        let of = |row: usize| counts.map(|c| um[row][c]);
        assert_eq!((of(0), of(1)), ([2.0, 1.0], [3.0, 0.0]));
        assert!(
            feature_names(&fixture::result(1.0), Units::Px)
                .iter()
                .all(|n| !n.ends_with("_um") && !n.ends_with("_um2"))
        );
    }

    #[test]
    fn medians_by_hand() {
        let (rows, medians) = measured(1.0, Units::Px);
        let area = column(Units::Px, "area");
        let areas: Vec<f64> = rows.iter().map(|row| row[area]).collect();
        assert_eq!(areas, [30.0, 96.0, 61.0, 30.0]);
        let all = |name: &str| medians.all.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(all("area"), (30.0 + 61.0) / 2.0);
        assert_eq!(all("red_mean"), 100.0);
        assert_eq!(medians.by_type[0].0, 1);
        assert_eq!(medians.by_type[0].1[area], ("area".to_owned(), 30.0));
        assert_eq!(medians.by_type[1].1[area], ("area".to_owned(), 96.0));
    }
}
