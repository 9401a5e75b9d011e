//! The table of nuclei: which columns, in which order, in which unit.
//!
//! In: a [`SlideResult`]. Out: chunks of rows in order of id, measured in parallel and handed on one after the other,
//! their cells, rounded, and the medians of the features. Formats (CSV, Parquet, …) only write what this page gives.
//! docs/features.md explains each column.

use rayon::prelude::*;

use super::significant;
use super::summary_json::Medians;
use crate::features::{
    Neighbourhood, Ring, Shape, Stain, neighbours, neighbours_among, shape_of, shape_um, stain,
    type_entropy,
};
use crate::output::Units;
use crate::result::round2;
use crate::result::{Record, SlideResult};

/// Nuclei measured at a time.
pub const CHUNK: usize = 8192;

/// What the features of one nucleus are taken from.
struct Measured<'a> {
    /// In the chosen unit.
    shape: Shape,
    stain: &'a Stain,
    ring: Ring,
    around: &'a Neighbourhood,
    /// µm per unit of length.
    um_a_unit: f64,
}

/// What must be known to compute a feature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Mask,
    /// The slide's pixels: outlines from a file have none.
    Pixels,
    /// The pixels around it.
    Rings,
    /// µm/px.
    Scale,
}
use Needs::{Mask, Pixels, Rings, Scale};

/// One column: its name in µm, its name in px, what it needs, how it is taken. NaN: no value.
type Feature = (&'static str, &'static str, Needs, fn(&Measured<'_>) -> f64);

/// In the order of the table.
#[rustfmt::skip]
const FEATURES: &[Feature] = &[
    ("area_um2", "area", Mask, |m| m.shape.area),
    ("bbox_area_um2", "bbox_area", Mask, |m| m.shape.bbox_area),
    ("convex_area_um2", "convex_area", Mask, |m| m.shape.convex_area),
    ("eccentricity", "eccentricity", Mask, |m| m.shape.eccentricity),
    ("equivalent_diameter_um", "equivalent_diameter", Mask, |m| m.shape.equivalent_diameter),
    ("euler_number", "euler_number", Mask, |m| f64::from(m.shape.euler_number)),
    ("extent", "extent", Mask, |m| m.shape.extent),
    ("filled_area_um2", "filled_area", Mask, |m| m.shape.filled_area),
    ("inertia_eigval_x_um2", "inertia_eigval_x", Mask, |m| m.shape.inertia_eigval_x),
    ("inertia_eigval_y_um2", "inertia_eigval_y", Mask, |m| m.shape.inertia_eigval_y),
    ("major_axis_length_um", "major_axis_length", Mask, |m| m.shape.major_axis_length),
    ("minor_axis_length_um", "minor_axis_length", Mask, |m| m.shape.minor_axis_length),
    ("orientation", "orientation", Mask, |m| m.shape.orientation),
    ("perimeter_um", "perimeter", Mask, |m| m.shape.perimeter),
    ("solidity", "solidity", Mask, |m| m.shape.solidity),
    ("circularity", "circularity", Mask, |m| m.shape.circularity),
    ("feret_max_um", "feret_max", Mask, |m| m.shape.feret_max),
    ("feret_min_um", "feret_min", Mask, |m| m.shape.feret_min),
    ("roughness", "roughness", Mask, |m| m.shape.roughness),
    ("hematoxylin_od_mean", "hematoxylin_od_mean", Pixels, |m| m.stain.hematoxylin_od_mean),
    ("hematoxylin_od_std", "hematoxylin_od_std", Pixels, |m| m.stain.hematoxylin_od_std),
    ("eosin_od_mean", "eosin_od_mean", Pixels, |m| m.stain.eosin_od_mean),
    ("eosin_od_std", "eosin_od_std", Pixels, |m| m.stain.eosin_od_std),
    ("red_mean", "red_mean", Pixels, |m| m.stain.rgb_mean[0]),
    ("green_mean", "green_mean", Pixels, |m| m.stain.rgb_mean[1]),
    ("blue_mean", "blue_mean", Pixels, |m| m.stain.rgb_mean[2]),
    ("ring_hematoxylin_od_mean", "ring_hematoxylin_od_mean", Rings, |m| m.ring.hematoxylin_od()[0]),
    ("ring_hematoxylin_od_std", "ring_hematoxylin_od_std", Rings, |m| m.ring.hematoxylin_od()[1]),
    ("ring_eosin_od_mean", "ring_eosin_od_mean", Rings, |m| m.ring.eosin_od()[0]),
    ("ring_eosin_od_std", "ring_eosin_od_std", Rings, |m| m.ring.eosin_od()[1]),
    ("nearest_um", "nearest", Mask, |m| m.around.nearest_um.unwrap_or(f64::NAN) / m.um_a_unit),
    ("neighbours_50um", "neighbours_50um", Scale, |m| f64::from(m.around.within_50um)),
];

/// Features that are whole numbers.
const WHOLE: [&str; 2] = ["euler_number", "neighbours_50um"];

/// One nucleus with its numbers.
pub struct Row<'a> {
    pub record: Record<'a>,
    /// Centroid, level-0 px, edge frame.
    pub centroid_level0_px: [f64; 2],
    /// In proc px.
    pub shape_px: Shape,
    pub stain: Stain,
    /// In the order of [`feature_names`]; NaN where there is no value.
    pub features: Vec<f64>,
}

/// What the cells of a column hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, never missing.
    Id,
    /// A place or a length of the slide, never missing.
    Place,
    /// A whole number, or nothing.
    Whole,
    Text,
    /// A number to 6 significant digits, or nothing.
    Number,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// `px`, `um`, `um2`, … or nothing.
    pub unit: &'static str,
}

impl Column {
    fn new(name: &str, kind: Kind, unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            unit,
        }
    }
}

/// A cell, rounded: positions to 2 decimals (px) or 3 (µm), probabilities of types to 7, other numbers to 6 significant
/// digits, so that every machine writes the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    Whole(i64),
    Number(f64),
    Text(&'a str),
    Missing,
}

fn features_of(result: &SlideResult) -> impl Iterator<Item = &'static Feature> {
    let (pixels, scale) = (result.imported.is_none(), result.scale_known());
    FEATURES.iter().filter(move |(_, _, needs, _)| match needs {
        Mask => true,
        Pixels => pixels,
        Rings => result.rings.is_some(),
        Scale => scale,
    })
}

/// All rows at a glance, in order of id: what summaries and pages are made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measurements {
    /// Names of the feature columns, in the order of the table.
    pub names: Vec<String>,
    /// One column per name; NaN where there is no value.
    pub columns: Vec<Vec<f32>>,
    /// Type of each nucleus; `None` for a model without types.
    pub types: Vec<Option<usize>>,
    /// Centroids as shares of the slide's width and height, 0 to 1.
    pub places: Vec<[f32; 2]>,
    /// Medians of the features.
    pub medians: Medians,
}

/// The feature columns: those of every slide, then the neighbourhood by type, background left out.
fn feature_columns(result: &SlideResult, units: Units) -> Vec<Column> {
    let column = |um: &str, px: &str, kind, unit| match units {
        Units::Um => Column::new(um, kind, unit),
        Units::Px => Column::new(px, kind, in_px(unit)),
    };
    let kind_of = |um: &str| match WHOLE.contains(&um) {
        true => Kind::Whole,
        false => Kind::Number,
    };
    let mut columns: Vec<Column> = features_of(result)
        .map(|(um, px, ..)| column(um, px, kind_of(um), unit_of(um)))
        .collect();
    for kind in result.meta.model.types.iter().skip(1) {
        let nearest = format!("nearest_{}", kind.name);
        columns.push(column(
            &format!("{nearest}_um"),
            &nearest,
            Kind::Number,
            "um",
        ));
        if result.scale_known() {
            let within = format!("neighbours_50um_{}", kind.name);
            columns.push(column(&within, &within, Kind::Whole, ""));
        }
    }
    columns
}

/// Names of the feature columns.
pub fn feature_names(result: &SlideResult, units: Units) -> Vec<String> {
    let columns = feature_columns(result, units).into_iter();
    columns.map(|column| column.name).collect()
}

/// Every column of the table, in order, the slide's name and what a manifest says of it at the end. Where outlines came from a file, columns that need the network's maps or the
/// slide's pixels are left out; where µm/px is not known, those in µm.
pub fn columns(result: &SlideResult, units: Units) -> Vec<Column> {
    let column = Column::new;
    let mut columns = vec![
        column("id", Kind::Id, ""),
        column("x_px", Kind::Place, "level-0 px"),
        column("y_px", Kind::Place, "level-0 px"),
    ];
    if result.scale_known() {
        columns.push(column("x_um", Kind::Place, "um"));
        columns.push(column("y_um", Kind::Place, "um"));
    }
    columns.push(column("type", Kind::Whole, ""));
    columns.push(column("type_name", Kind::Text, ""));
    columns.push(column("type_prob", Kind::Number, ""));
    if result.imported.is_none() {
        let types = result.meta.model.types.iter();
        columns.extend(types.map(|t| column(&format!("prob_{}", t.name), Kind::Number, "")));
        columns.push(column("type_entropy", Kind::Number, "nat"));
        columns.push(column("type_share", Kind::Number, ""));
    }
    for name in ["min_x", "min_y", "max_x", "max_y"] {
        columns.push(column(name, Kind::Place, "level-0 px"));
    }
    columns.extend(feature_columns(result, units));
    // Last, so that no column of before has another place.
    columns.push(column("slide", Kind::Text, ""));
    for (name, _) in &result.meta.manifest {
        let taken = columns.iter().any(|column| column.name == *name);
        let name = match taken {
            true => format!("manifest_{name}"),
            false => name.clone(),
        };
        columns.push(column(&name, Kind::Text, ""));
    }
    columns
}

/// The unit of a feature, from its name in µm.
fn unit_of(name: &str) -> &'static str {
    let unit = [("_um2", "um2"), ("_um", "um"), ("orientation", "rad")]
        .into_iter()
        .chain([("_od_mean", "OD"), ("_od_std", "OD")])
        .find(|(ending, _)| name.ends_with(ending));
    unit.map_or("", |(_, unit)| unit)
}

/// The same unit in px.
fn in_px(unit: &'static str) -> &'static str {
    match unit {
        "um" => "px",
        "um2" => "px2",
        other => other,
    }
}

/// The cells of a row, in the order of [`columns`].
pub fn cells<'a>(row: &Row<'_>, result: &'a SlideResult, columns: &[Column]) -> Vec<Cell<'a>> {
    let record = &row.record;
    let kinds = &result.meta.model.types;
    let [mpp_x, mpp_y] = result.frames().level0_mpp;
    let [x, y] = row.centroid_level0_px;
    let bbox = record.nucleus.bbox;
    let [min_x, min_y] = record.to_edge([f64::from(bbox.x), f64::from(bbox.y)]);
    let [max_x, max_y] = record.to_edge([f64::from(bbox.right()), f64::from(bbox.bottom())]);
    let px = |v: f64| Cell::Number(round2(v));
    let um = |v: f64| Cell::Number((v * 1e3).round() / 1e3);
    let mut cells = Vec::with_capacity(columns.len());
    cells.extend([Cell::Whole(record.id as i64), px(x), px(y)]);
    if result.scale_known() {
        cells.extend([um(x * mpp_x), um(y * mpp_y)]);
    }
    let kind = record.type_id.and_then(|id| kinds.get(id));
    cells.push(match record.type_id {
        Some(id) => Cell::Whole(id as i64),
        None => Cell::Missing,
    });
    cells.push(kind.map_or(Cell::Missing, |kind| Cell::Text(&kind.name)));
    cells.push(optional(record.type_prob));
    if result.imported.is_none() {
        // To 7 decimals: the probabilities of up to nine types add up to 1 within 1e-6.
        let probability =
            |id| Cell::Number((record.nucleus.mean_probability(id) * 1e7).round() / 1e7);
        cells.extend((0..kinds.len()).map(probability));
        cells.push(optional(entropy(record)));
        cells.push(optional(record.nucleus.type_share()));
    }
    cells.extend([min_x, min_y, max_x, max_y].map(px));
    let feature_columns = columns.get(cells.len()..).unwrap_or_default();
    for (value, column) in row.features.iter().zip(feature_columns) {
        cells.push(match column.kind {
            Kind::Whole if value.is_finite() => Cell::Whole(*value as i64),
            _ => number(*value),
        });
    }
    cells.push(Cell::Text(&result.meta.stem));
    let of_manifest = result.meta.manifest.iter().map(|(_, cell)| cell.as_str());
    cells.extend(of_manifest.map(|text| match text.is_empty() {
        true => Cell::Missing,
        false => Cell::Text(text),
    }));
    cells
}

fn optional(value: Option<f64>) -> Cell<'static> {
    value.map_or(Cell::Missing, number)
}

fn number(value: f64) -> Cell<'static> {
    significant(value).map_or(Cell::Missing, Cell::Number)
}

/// Measures every nucleus, hands the rows to `each`, a chunk at a time in order of id, and returns what they come to.
///
/// # Errors
/// The first that `each` gives.
pub fn for_each_chunk<E>(
    result: &SlideResult,
    units: Units,
    mut each: impl FnMut(&[Row<'_>]) -> Result<(), E>,
) -> Result<Measurements, E> {
    let mpp = result.frames().proc_mpp();
    // px of a table are square: the geometric mean of the two, as in shapes.
    let um_a_unit = match units {
        Units::Um => 1.0,
        Units::Px => (mpp[0] * mpp[1]).sqrt(),
    };
    let around = Around::of(result);
    let names = feature_names(result, units);
    let n = result.nuclei.len();
    let mut columns: Vec<Vec<f32>> = vec![Vec::with_capacity(n); names.len()];
    let mut types: Vec<Option<usize>> = Vec::with_capacity(n);
    let mut places: Vec<[f32; 2]> = Vec::with_capacity(n);
    let [width_px, height_px] = result.frames().level0_size_px.map(|px| px.max(1) as f32);
    for (first, nuclei) in (0..).step_by(CHUNK).zip(result.nuclei.chunks(CHUNK)) {
        let rows: Vec<Row<'_>> = nuclei
            .par_iter()
            .enumerate()
            .map(|(i, nucleus)| {
                let record = Record::new(first + i, nucleus, result);
                row(record, &around, first + i, result, units, um_a_unit)
            })
            .collect();
        each(&rows)?;
        for row in &rows {
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

/// Who lies near each nucleus, by its place in the result.
struct Around {
    all: Vec<Neighbourhood>,
    /// For every type but background, the neighbourhoods in which only its nuclei count.
    by_type: Vec<Vec<Neighbourhood>>,
}

impl Around {
    fn of(result: &SlideResult) -> Self {
        let centroids_um = centroids_um(result);
        let types: Vec<Option<usize>> = records(result).map(|r| r.type_id).collect();
        let of_type = |id| neighbours_among(&centroids_um, |i| types.get(i) == Some(&Some(id)));
        Self {
            all: neighbours(&centroids_um),
            by_type: (1..result.meta.model.types.len()).map(of_type).collect(),
        }
    }
}

fn row<'a>(
    record: Record<'a>,
    around: &Around,
    place: usize,
    result: &SlideResult,
    units: Units,
    um_a_unit: f64,
) -> Row<'a> {
    let shape_px = shape_of(record.nucleus);
    let stain = stain(record.nucleus);
    let measured = Measured {
        shape: match units {
            Units::Um => shape_um(&shape_px, result.frames().proc_mpp()),
            Units::Px => shape_px,
        },
        stain: &stain,
        ring: result.ring(place),
        around: &around.all[place],
        um_a_unit,
    };
    let mut features: Vec<f64> = features_of(result)
        .map(|(.., take)| take(&measured))
        .collect();
    for of_type in around.by_type.iter().map(|all| &all[place]) {
        features.push(of_type.nearest_um.unwrap_or(f64::NAN) / um_a_unit);
        if result.scale_known() {
            features.push(f64::from(of_type.within_50um));
        }
    }
    Row {
        record,
        centroid_level0_px: record.to_edge(shape_px.centroid),
        features,
        shape_px,
        stain,
    }
}

/// The nuclei in order of id, on every core.
fn records(result: &SlideResult) -> impl IndexedParallelIterator<Item = Record<'_>> {
    let nuclei = result.nuclei.par_iter().enumerate();
    nuclei.map(|(place, nucleus)| Record::new(place, nucleus, result))
}

fn centroids_um(result: &SlideResult) -> Vec<[f64; 2]> {
    let mpp = result.frames().proc_mpp();
    records(result)
        .map(|record| {
            let [x, y] = record.centroid_proc_px();
            [x * mpp[0], y * mpp[1]]
        })
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
mod tests;
