//! The features of a slide's nuclei by type: the tutorial's three figures, then every feature to choose from.
//!
//! In: columns of values. Out: HTML with box plots, quantiles and effect sizes. The choice is a group of radio buttons
//! and style sheet rules: it works from the keyboard and without script.

use std::fmt::Write;

use rayon::prelude::*;

use super::boxes::{Group, boxes, count, number};
use super::page::escape;
use super::stats::{Draws, Quantiles, cliffs_delta, interval, magnitude, quantiles};
use super::type_counts::{TypeCount, swatch};

/// Figures of hover_net users' usual tutorial, by the start of the column's name.
const TUTORIAL: [&str; 3] = ["area", "convex_area", "equivalent_diameter"];
/// With fewer nuclei a type has no box, quantile or effect size: they would be chance.
pub const LEAST_NUCLEI: usize = 20;
/// Types compared with each other: the most frequent.
const MOST_COMPARED: usize = 6;
/// Fields an axis for the intervals: at most this many cells, about [`FIELD_UM`] wide.
const FIELDS_PER_SIDE: f64 = 40.0;
const FIELD_UM: f64 = 250.0;

/// All nuclei, column by column.
pub struct Columns<'a> {
    /// Place in the report's types.
    pub type_of: &'a [u8],
    /// Shares of the slide's width and height, 0 to 1.
    pub places: &'a [[f32; 2]],
    pub slide_um: [f64; 2],
    pub names: Vec<String>,
    pub values: Vec<&'a [f32]>,
}

/// One feature of all types.
struct Panel {
    name: String,
    /// A type at its place in the report's types.
    quantiles: Vec<Option<Quantiles>>,
    effects: Vec<Effect>,
}

/// Two types compared.
struct Effect {
    a: usize,
    b: usize,
    delta: Option<f64>,
    difference: f64,
    interval: Option<[f64; 2]>,
}

/// The rules that show the chosen panel.
pub fn style(columns: &Columns<'_>) -> String {
    let rules: Vec<String> = (0..columns.names.len())
        .map(|i| format!("#f{i}:checked~.p{i}"))
        .collect();
    if rules.is_empty() {
        return String::new();
    }
    format!("{}{{display:block}}\n", rules.join(","))
}

/// Both sections.
pub fn sections(columns: &Columns<'_>, types: &[TypeCount]) -> String {
    let panels = panels(columns, types);
    if panels.is_empty() || columns.type_of.is_empty() {
        return String::new();
    }
    let mut html = String::from("<section><h2>Size by type</h2>\n<div class=\"figures\">\n");
    let stem = |name: &str| unit_of(name).0.to_owned();
    for panel in TUTORIAL
        .iter()
        .filter_map(|t| panels.iter().find(|p| stem(&p.name) == *t))
    {
        let _ = writeln!(html, "<figure>{}</figure>", plot(panel, types));
    }
    html.push_str(
        "</div>\n<p class=\"note\">Box: quartiles with the median; whiskers: 5 % to 95 %. A type with fewer than 20 nuclei has \
         no box.</p></section>\n\
         <section><h2>Every feature</h2>\n<div class=\"picker\" role=\"group\" aria-label=\"Feature\">\n",
    );
    for (i, panel) in panels.iter().enumerate() {
        let checked = if i == 0 { " checked" } else { "" };
        let _ = writeln!(
            html,
            "<input type=\"radio\" name=\"feature\" id=\"f{i}\"{checked}><label for=\"f{i}\">{}</label>",
            escape(&readable(&panel.name).0)
        );
    }
    for (i, panel) in panels.iter().enumerate() {
        let _ = write!(
            html,
            "<div class=\"panel p{i}\"><h3>{}</h3>\n<div class=\"beside\"><figure>{}</figure>\n{}</div>\n{}</div>\n",
            escape(&title(&panel.name)),
            plot(panel, types),
            quantile_table(panel, types),
            effect_table(panel, types)
        );
    }
    html.push_str(
        "</div>\n<p class=\"note\">Cliff’s δ: how often a nucleus of the first type has the larger value, minus \
            how often it has the smaller \
         (0: no difference; ±1: no overlap). Types with fewer than 20 nuclei are not compared. The interval covers 95 % of \
         200 draws of whole fields of the slide, because neighbouring nuclei resemble each other. There are no p-values: \
         with so many nuclei every p-value is tiny, and the nuclei of one slide are not independent. To test a \
         difference, compare slides or patients.</p></section>\n",
    );
    html
}

fn panels(columns: &Columns<'_>, types: &[TypeCount]) -> Vec<Panel> {
    let (field_of, fields) = fields(columns);
    let draws = Draws::new(fields);
    let mut compared: Vec<usize> = (0..types.len())
        .filter(|&id| types[id].count >= LEAST_NUCLEI)
        .collect();
    compared.sort_by_key(|&id| std::cmp::Reverse(types[id].count));
    compared.truncate(MOST_COMPARED);
    compared.sort_unstable();
    columns
        .names
        .par_iter()
        .zip(&columns.values)
        .map(|(name, values)| {
            let groups: Vec<(Vec<f32>, Vec<u32>)> = (0..types.len())
                .map(|id| group(columns, values, &field_of, id))
                .collect();
            let medians: Vec<Vec<f32>> = groups
                .iter()
                .enumerate()
                .map(|(id, (values, fields))| match compared.contains(&id) {
                    true => draws.medians(values, fields),
                    false => Vec::new(),
                })
                .collect();
            let quantiles: Vec<_> = groups
                .iter()
                .map(|(values, _)| match values.len() >= LEAST_NUCLEI {
                    true => quantiles(values),
                    false => None,
                })
                .collect();
            let median = |id: usize| quantiles[id].map_or(f64::NAN, |q| q.at[2]);
            let pairs = compared
                .iter()
                .flat_map(|&a| compared.iter().map(move |&b| (a, b)))
                .filter(|(a, b)| a < b)
                .filter(|&(a, b)| quantiles[a].is_some() && quantiles[b].is_some());
            let effects = pairs
                .map(|(a, b)| Effect {
                    a,
                    b,
                    delta: cliffs_delta(&groups[a].0, &groups[b].0),
                    difference: median(a) - median(b),
                    interval: interval(&medians[a], &medians[b]),
                })
                .collect();
            Panel {
                name: name.clone(),
                quantiles,
                effects,
            }
        })
        .collect()
}

/// The finite values of a type, sorted, and the field of each.
fn group(
    columns: &Columns<'_>,
    values: &[f32],
    field_of: &[u32],
    id: usize,
) -> (Vec<f32>, Vec<u32>) {
    let of_type = columns.type_of.iter().zip(values).zip(field_of);
    let mut pairs: Vec<(f32, u32)> = of_type
        .filter(|((kind, value), _)| usize::from(**kind) == id && value.is_finite())
        .map(|((_, value), field)| (*value, *field))
        .collect();
    pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    pairs.into_iter().unzip()
}

/// Each nucleus's field, numbered without gaps, and how many there are.
fn fields(columns: &Columns<'_>) -> (Vec<u32>, usize) {
    let cells = columns
        .slide_um
        .map(|um| (um / FIELD_UM).ceil().clamp(1.0, FIELDS_PER_SIDE));
    let cell_of = |place: &[f32; 2]| {
        let at = |axis: usize| {
            let cell = (f64::from(place[axis]) * cells[axis]).max(0.0).floor();
            cell.min(cells[axis] - 1.0) as usize
        };
        at(1) * cells[0] as usize + at(0)
    };
    let mut number_of = vec![u32::MAX; (cells[0] * cells[1]) as usize];
    let mut used = 0;
    let field_of = columns
        .places
        .iter()
        .map(|place| {
            let number = &mut number_of[cell_of(place)];
            if *number == u32::MAX {
                *number = used;
                used += 1;
            }
            *number
        })
        .collect();
    (field_of, used as usize)
}

fn plot(panel: &Panel, types: &[TypeCount]) -> String {
    let groups: Vec<_> = types
        .iter()
        .zip(&panel.quantiles)
        .filter(|(kind, _)| kind.count > 0)
        .map(|(kind, quantiles)| {
            let group = Group {
                name: &kind.name,
                colour: kind.colour,
            };
            (group, *quantiles)
        })
        .collect();
    boxes(
        &format!("{} by type", readable(&panel.name).0),
        &title(&panel.name),
        &groups,
    )
}

fn quantile_table(panel: &Panel, types: &[TypeCount]) -> String {
    let mut html = String::from(
        "<table><thead><tr><th>type</th><th>nuclei</th><th>5 %</th><th>25 %</th><th>median</th><th>75 \
            %</th><th>95 %</th></tr></thead><tbody>\n",
    );
    for (kind, quantiles) in types.iter().zip(&panel.quantiles) {
        if kind.count == 0 {
            continue;
        }
        let cells: String = match quantiles {
            Some(q) => {
                q.at.iter()
                    .map(|v| format!("<td>{}</td>", number(*v)))
                    .collect()
            }
            None => "<td>–</td>".repeat(5),
        };
        let _ = writeln!(
            html,
            "<tr><td>{}{}</td><td>{}</td>{cells}</tr>",
            swatch(kind.colour),
            escape(&kind.name),
            count(quantiles.map_or(kind.count, |q| q.count))
        );
    }
    html.push_str("</tbody></table>\n");
    html
}

fn effect_table(panel: &Panel, types: &[TypeCount]) -> String {
    if panel.effects.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<table><thead><tr><th>first against second</th><th>Cliff’s δ</th><th></th><th>difference of \
            medians</th><th>95 % interval</th></tr></thead><tbody>\n",
    );
    for effect in &panel.effects {
        let delta = effect
            .delta
            .map_or("–".into(), |d| signed(&format!("{d:+.2}")));
        let _ = writeln!(
            html,
            "<tr><td>{} – {}</td><td>{delta}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&types[effect.a].name),
            escape(&types[effect.b].name),
            effect.delta.map_or("", magnitude),
            number(effect.difference),
            effect
                .interval
                .map_or("too few fields".into(), |[low, high]| format!(
                    "{} to {}",
                    number(low),
                    number(high)
                ))
        );
    }
    html.push_str("</tbody></table>\n");
    html
}

fn signed(text: &str) -> String {
    text.replace('-', "−")
}

/// A column's name without its unit, and the unit.
fn unit_of(name: &str) -> (&str, &'static str) {
    match (name.strip_suffix("_um2"), name.strip_suffix("_um")) {
        (Some(stem), _) => (stem, "µm²"),
        (_, Some(stem)) => (stem, "µm"),
        _ => (name, ""),
    }
}

/// The same in words.
fn readable(name: &str) -> (String, &'static str) {
    let (stem, unit) = unit_of(name);
    (stem.replace('_', " "), unit)
}

/// With its unit behind a comma.
fn title(name: &str) -> String {
    match readable(name) {
        (words, "") => words,
        (words, unit) => format!("{words}, {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, count: usize) -> TypeCount {
        TypeCount {
            name: name.into(),
            colour: [1, 2, 3],
            count,
            share: None,
            density_per_mm2: None,
            held_out: Vec::new(),
        }
    }

    #[test]
    fn types_are_compared_by_their_own_values() {
        // 100 nuclei on a diagonal of a 2 x 2 mm slide; type 1 is always 10 larger than type 0.
        let type_of: Vec<u8> = (0..100).map(|i| (i % 2) as u8).collect();
        let places: Vec<[f32; 2]> = (0..100).map(|i| [i as f32 / 100.0; 2]).collect();
        let area: Vec<f32> = (0..100)
            .map(|i| (i / 2) as f32 / 10.0 + if i % 2 == 1 { 10.0 } else { 0.0 })
            .collect();
        let columns = Columns {
            type_of: &type_of,
            places: &places,
            slide_um: [2000.0; 2],
            names: vec!["area_um2".into()],
            values: vec![&area],
        };
        assert_eq!(fields(&columns).1, 8);
        let types = [kind("a", 50), kind("b", 50), kind("rare", 0)];
        let panels = panels(&columns, &types);
        let effect = &panels[0].effects[0];
        assert_eq!((panels[0].effects.len(), effect.a, effect.b), (1, 0, 1));
        assert_eq!(effect.delta, Some(-1.0));
        assert!((effect.difference + 10.0).abs() < 1e-5);
        let [low, high] = effect.interval.unwrap();
        assert!(low <= -9.9 && high >= -10.1, "{low} {high}");
        let html = sections(&columns, &types);
        assert!(html.contains("−1.00") && html.contains("large") && html.contains("area, µm²"));
        assert!(style(&columns).starts_with("#f0:checked~.p0{"));
    }

    /// 19 nuclei give no box, no quantile and no effect size; 20 do.
    #[test]
    fn a_type_with_fewer_than_20_nuclei_is_counted_and_not_measured() {
        let html = |rare: usize| {
            let type_of: Vec<u8> = (0..60 + rare).map(|i| u8::from(i >= 60)).collect();
            let places: Vec<[f32; 2]> = (0..60 + rare).map(|i| [i as f32 / 90.0; 2]).collect();
            let area: Vec<f32> = (0..60 + rare).map(|i| i as f32).collect();
            let columns = Columns {
                type_of: &type_of,
                places: &places,
                slide_um: [2000.0; 2],
                names: vec!["area_um2".into()],
                values: vec![&area],
            };
            sections(&columns, &[kind("many", 60), kind("few", rare)])
        };
        let (without, with) = (html(LEAST_NUCLEI - 1), html(LEAST_NUCLEI));
        assert!(!without.contains("first against second") && with.contains("first against second"));
        assert!(without.contains("few</td><td>19</td><td>–</td>"));
        assert!(without.contains("fewer than 20 nuclei</text>"));
        assert!(with.contains("few</td><td>20</td><td>6") && !with.contains("nuclei</text>"));
    }

    #[test]
    fn names_are_split_from_their_units() {
        assert_eq!(title("inertia_eigval_x_um2"), "inertia eigval x, µm²");
        assert_eq!(title("solidity"), "solidity");
        assert_eq!(title("area"), "area");
    }
}
