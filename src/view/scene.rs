//! Everything that one page is made from.
//!
//! In: nuclei, their table and tiles (src/view/open.rs). Out: answers to what a page asks. Never all nuclei at once.

use rayon::prelude::*;
use serde_json::{Value, json};

use super::Filter;
use super::index::{Detail, Index, Shown, Spot, ViewBox};
use super::rows::{Column, Rows};
use super::tiles::{TILE_PX, Tiles};
use crate::nuclei::outline_on_edges;
use crate::output::{pictures, significant};
use crate::result::{Record, SlideResult, round2};

/// One slide's results, ready to be asked.
pub struct Scene {
    result: SlideResult,
    rows: Rows,
    index: Index,
    tiles: Tiles,
    notes: Vec<String>,
}

impl Scene {
    /// A scene of parts that belong together: rows in order of the nuclei.
    pub(super) fn new(result: SlideResult, rows: Rows, tiles: Tiles, notes: Vec<String>) -> Self {
        let nuclei = result.nuclei.par_iter().enumerate();
        let spots = nuclei
            .map(|(place, nucleus)| spot(&Record::new(place, nucleus, &result)))
            .collect();
        Self {
            index: Index::new(spots),
            result,
            rows,
            tiles,
            notes,
        }
    }

    /// How many nuclei there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// What the user should know, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn result(&self) -> &SlideResult {
        &self.result
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub(super) fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// Whether a filter wants the nucleus at `place`.
    pub(super) fn keeps(&self, filter: &Filter, place: usize) -> bool {
        let spot = self.index.spot(place);
        spot.is_some_and(|spot| filter.keeps(place, spot.type_id, &self.rows))
    }

    /// Places of the wanted nuclei, those of a box (level-0 px) or all, sorted.
    pub(super) fn selection(&self, filter: &Filter, within: Option<&ViewBox>) -> Vec<usize> {
        let mut places = match within {
            Some(view) => self.index.meeting(view.min, view.max),
            None => (0..self.count()).collect(),
        };
        places.retain(|&place| self.keeps(filter, place));
        places.sort_unstable();
        places
    }

    /// What the page must know before it asks: slide, types, columns.
    pub(super) fn about(&self) -> Value {
        let frames = self.result.frames();
        let mut ids: Vec<Option<usize>> = self.index.spots().iter().map(|s| s.type_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let of_type = |id: &Option<usize>| {
            let name = match id {
                Some(id) => self.result.type_name(*id),
                None => "nuclei".to_owned(),
            };
            json!({"id": id, "name": name, "color": pictures::colour_of(&self.result, *id).0})
        };
        let of_column = |column: &Column| {
            let [least, greatest] = column.range()?;
            let [least, greatest] = [least, greatest].map(|v| significant(v.into()));
            Some(json!({"name": column.name, "least": least, "greatest": greatest}))
        };
        let columns = self.rows.columns().iter().filter_map(of_column);
        json!({
            "stem": self.result.meta.stem,
            "count": self.count(),
            "size": frames.level0_size_px,
            "mpp": self.result.scale_known().then_some(frames.level0_mpp),
            "tile": TILE_PX,
            "max_level": self.tiles.max_level(),
            "has_slide": self.tiles.slide().is_some(),
            "notes": self.notes,
            "types": ids.iter().map(of_type).collect::<Vec<_>>(),
            // What a nucleus may be corrected to: background is none.
            "model_types": (1..self.result.meta.model.types.len()).map(|id| of_type(&Some(id))).collect::<Vec<_>>(),
            "columns": columns.collect::<Vec<_>>(),
        })
    }

    /// How many nuclei a filter wants, in all and of each type.
    pub(super) fn counts(&self, filter: &Filter) -> Value {
        let mut by_type = std::collections::BTreeMap::<Option<usize>, usize>::new();
        for (place, spot) in self.index.spots().iter().enumerate() {
            let kept = filter.keeps(place, spot.type_id, &self.rows);
            *by_type.entry(spot.type_id).or_default() += usize::from(kept);
        }
        let types: Vec<Value> = by_type.iter().map(|(id, n)| json!([id, n])).collect();
        json!({"count": by_type.values().sum::<usize>(), "types": types})
    }

    /// What a view gets, as the page draws it; coordinates in level-0 px, edge frame.
    pub(super) fn look(&self, view: &ViewBox, filter: &Filter) -> Value {
        let Shown { count, detail } = self.index.look(view, |place| self.keeps(filter, place));
        match detail {
            Detail::Outlines(places) => {
                let nuclei: Vec<Value> = places.iter().map(|&p| self.outline(p)).collect();
                json!({"count": count, "detail": "outlines", "nuclei": nuclei})
            }
            Detail::Points(places) => {
                let spots = places.iter().filter_map(|&place| self.index.spot(place));
                let point = |spot: &Spot| {
                    let [x, y] = spot.centroid.map(|v| round2(f64::from(v)));
                    json!([x, y, spot.type_id])
                };
                let points: Vec<Value> = spots.map(point).collect();
                json!({"count": count, "detail": "points", "points": points})
            }
            Detail::Density(density) => {
                let cells = density.cells.iter();
                let cells: Vec<Value> = cells
                    .map(|((column, row), (n, kind))| json!([column, row, n, kind]))
                    .collect();
                json!({"count": count, "detail": "density", "cell": density.cell_px, "cells": cells})
            }
        }
    }

    /// Type and rings of a nucleus: `[type, [x, y, x, y, …], …]`.
    fn outline(&self, place: usize) -> Value {
        let Some(nucleus) = self.result.nuclei.get(place) else {
            return Value::Null;
        };
        let record = Record::new(place, nucleus, &self.result);
        let mut parts = vec![json!(record.type_id)];
        for polygon in outline_on_edges(nucleus) {
            for ring in std::iter::once(&polygon.exterior).chain(&polygon.holes) {
                let points = ring.iter();
                let flat = points.flat_map(|p| record.to_edge(p.map(f64::from)).map(round2));
                parts.push(flat.collect());
            }
        }
        Value::Array(parts)
    }

    /// The wanted nucleus whose mask holds the point, else the one with the nearest centroid within `reach`;
    /// level-0 px.
    pub(super) fn at(&self, point: [f64; 2], reach: f64, filter: &Filter) -> Option<usize> {
        let [x, y] = self.result.frames().to_proc(point[0], point[1]);
        let (x, y) = (x.floor() as i32, y.floor() as i32);
        let mut near = self
            .index
            .meeting(point.map(|v| v - reach), point.map(|v| v + reach));
        near.retain(|&place| self.keeps(filter, place));
        let holds = |place: &&usize| {
            let nucleus = self.result.nuclei.get(**place);
            nucleus.is_some_and(|n| n.bbox.contains(x, y) && n.contains(x, y))
        };
        if let Some(&place) = near.iter().find(holds) {
            return Some(place);
        }
        let distance = |place: usize| {
            let [cx, cy] = self.index.spot(place)?.centroid.map(f64::from);
            Some((cx - point[0]).hypot(cy - point[1]))
        };
        let by_distance = near.into_iter().filter_map(|p| Some((p, distance(p)?)));
        by_distance
            .filter(|(_, d)| *d <= reach)
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(place, _)| place)
    }

    /// A nucleus's row, centroid and outline.
    pub(super) fn nucleus(&self, place: usize) -> std::io::Result<Value> {
        let row: Vec<Value> = self
            .rows
            .cells(place)?
            .into_iter()
            .map(|(name, cell)| json!([name, cell]))
            .collect();
        let centroid = self.index.spot(place).map(|spot| spot.centroid);
        Ok(json!({"row": row, "centroid": centroid, "outline": self.outline(place)}))
    }
}

fn spot(record: &Record<'_>) -> Spot {
    let bbox = record.nucleus.bbox;
    let corner = |x: i32, y: i32| {
        let corner = record.to_edge([f64::from(x), f64::from(y)]);
        corner.map(|v| v as f32)
    };
    Spot {
        min: corner(bbox.x, bbox.y),
        max: corner(bbox.right(), bbox.bottom()),
        centroid: record.to_edge(record.centroid_proc_px()).map(|v| v as f32),
        type_id: record.type_id,
    }
}
