//! Everything that one page is made from.
//!
//! In: a result folder (OUT/<stem>) and which slide to show. Out: nuclei, their table, an index over them and tiles. With
//! a store the table is made from it, as `export` does, in a file that has no name; without, nuclei.csv and nuclei.json
//! of `tile` are read. Never believes that a file is the slide of the results because of its name.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::index::{Detail, Index, Shown, Spot, ViewBox};
use super::rows::{Column, Rows};
use super::tiles::{TILE_PX, Tiles};
use super::{Filter, ViewError};
use crate::config::Units;
use crate::import;
use crate::nuclei::outline_on_edges;
use crate::output::record::round2;
use crate::output::{Record, SlideResult, nuclei_csv, pictures, significant};
use crate::pipeline;
use crate::slide::{self, SlideReader};
use crate::store::Store;

/// Longest side of the picture that stands for the slide from far away, px.
const THUMB_PX: u32 = 2048;

/// Which pixels lie under the nuclei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlideChoice {
    /// This file, or an error.
    File(PathBuf),
    /// The file that the results name, if it is still there and the same; else the small picture.
    Recorded,
}

/// One slide's results, ready to be asked.
pub struct Scene {
    result: SlideResult,
    rows: Rows,
    index: Index,
    tiles: Tiles,
    notes: Vec<String>,
}

impl Scene {
    /// Reads the results in `folder`.
    ///
    /// # Errors
    /// [`ViewError`] if there are none, if they are damaged, or if the slide asked for is another one.
    pub fn open(folder: &Path, choice: &SlideChoice) -> Result<Self, ViewError> {
        let found = match folder.join("store.zarr").is_dir() {
            true => from_store(&folder.join("store.zarr"))?,
            false => from_files(folder)?,
        };
        let mut notes = found.notes;
        let slide = the_slide(&found.result, &found.slide_path, choice, &mut notes)?;
        let thumb = match &slide {
            Some(reader) => slide::thumb(reader.as_ref(), THUMB_PX)?,
            None => found.thumb,
        };
        let size_px = found.result.frames().level0_size_px;
        Ok(Self::new(
            found.result,
            found.rows,
            Tiles::new(size_px, slide, thumb),
            notes,
        ))
    }

    /// A scene of parts that belong together: rows in order of the nuclei.
    pub(super) fn new(result: SlideResult, rows: Rows, tiles: Tiles, notes: Vec<String>) -> Self {
        let spots = result.records().map(|record| spot(&record)).collect();
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
            "has_slide": self.tiles.has_slide(),
            "notes": self.notes,
            "types": ids.iter().map(of_type).collect::<Vec<_>>(),
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

    /// The wanted nucleus whose mask holds the point, else the one with the nearest centroid within `reach`; level-0 px.
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

/// What a folder holds.
struct Found {
    result: SlideResult,
    rows: Rows,
    thumb: image::RgbImage,
    slide_path: PathBuf,
    notes: Vec<String>,
}

fn from_store(path: &Path) -> Result<Found, ViewError> {
    let store = Store::open(path)?;
    let thumb = store.thumb()?;
    let result = pipeline::load(&store)?.slide;
    let mut notes = Vec::new();
    if result.missing_tiles > 0 {
        notes.push(format!(
            "{} of {} tiles are not done, so nuclei are missing: finish the run",
            result.missing_tiles,
            result.meta.planned_tiles.len()
        ));
    }
    let rows = table(&result).map_err(|reason| ViewError::Table {
        path: path.to_owned(),
        reason: format!("its table cannot be made in the folder for temporary files: {reason}"),
    })?;
    Ok(Found {
        slide_path: result.meta.slide.path.clone(),
        result,
        rows,
        thumb,
        notes,
    })
}

/// nuclei.csv in a file without a name.
pub(super) fn table(result: &SlideResult) -> Result<Rows, String> {
    let file = tempfile::tempfile().map_err(|error| error.to_string())?;
    let mut out = BufWriter::new(file);
    nuclei_csv::stream(result, Units::Um, &mut out).map_err(|error| error.to_string())?;
    Rows::read(out.into_inner().map_err(|error| error.to_string())?)
}

/// The results of `tile`, which keeps no store.
fn from_files(folder: &Path) -> Result<Found, ViewError> {
    let file = |name: &str| match folder.join(name) {
        path if path.is_file() => Ok(path),
        _ => Err(ViewError::NoResults {
            folder: folder.to_owned(),
            reason: format!(
                "it has no store.zarr, and without that {name} is needed: give OUT/<stem> of run, or of tile --format json,csv"
            ),
        }),
    };
    let (json, csv) = (file("nuclei.json")?, file("nuclei.csv")?);
    let stem = folder.file_name().unwrap_or(folder.as_os_str());
    let options = import::Options {
        mpp: None,
        units: Units::Px,
        types: None,
        stem: stem.to_string_lossy().into_owned(),
    };
    let result = import::read(&json, &options)?;
    let broken = |reason: String| ViewError::Table {
        path: csv.clone(),
        reason,
    };
    let rows = File::open(&csv).map_err(|error| broken(error.to_string()))?;
    let rows = Rows::read(rows).map_err(&broken)?;
    if !result
        .records()
        .map(|record| record.id)
        .eq(rows.ids().iter().copied())
    {
        return Err(broken(
            "its ids are not those of nuclei.json: they are of two runs: run again".to_owned(),
        ));
    }
    let [width, height] = result.frames().level0_size_px;
    let blank = || {
        image::RgbImage::from_pixel(
            1,
            (height / width.max(1)).clamp(1, 64) as u32,
            image::Rgb([255; 3]),
        )
    };
    let thumb = image::open(folder.join("thumb.png")).map_or_else(|_| blank(), |p| p.into_rgb8());
    Ok(Found {
        slide_path: recorded_path(folder),
        result,
        rows,
        thumb,
        notes: Vec::new(),
    })
}

/// The slide's path as run.json has it; empty where it does not say.
fn recorded_path(folder: &Path) -> PathBuf {
    let text = std::fs::read(folder.join("run.json")).unwrap_or_default();
    let run: Value = serde_json::from_slice(&text).unwrap_or_default();
    run["slide"]["path"].as_str().unwrap_or_default().into()
}

/// The slide to show. What is recorded and cannot be used is a note; what was asked for and cannot be used an error.
fn the_slide(
    result: &SlideResult,
    recorded: &Path,
    choice: &SlideChoice,
    notes: &mut Vec<String>,
) -> Result<Option<Box<dyn SlideReader>>, ViewError> {
    let path = match choice {
        SlideChoice::File(path) => path,
        SlideChoice::Recorded => recorded,
    };
    let opened = slide::open(path)
        .map_err(ViewError::from)
        .and_then(|reader| match other_slide(result, reader.as_ref()) {
            Some(reason) => Err(ViewError::OtherSlide {
                slide: path.to_owned(),
                reason,
            }),
            None => Ok(reader),
        });
    match (opened, choice) {
        (Ok(reader), _) => Ok(Some(reader)),
        (Err(error), SlideChoice::File(_)) => Err(error),
        (Err(_), SlideChoice::Recorded) if recorded.as_os_str().is_empty() => {
            notes.push("The results do not name their slide: give it with --slide.".to_owned());
            Ok(None)
        }
        (Err(error), SlideChoice::Recorded) => {
            notes.push(format!(
                "Nuclei lie over the small picture of the results ({error}); give the slide with --slide."
            ));
            Ok(None)
        }
    }
}

/// Why the nuclei are not of this slide.
fn other_slide(result: &SlideResult, reader: &dyn SlideReader) -> Option<String> {
    let info = reader.info();
    let size = info.levels.first().map(|l| [l.width_px, l.height_px]);
    let [w, h] = result.frames().level0_size_px;
    let known = &result.meta.slide.quickhash;
    if size != Some([w, h]) {
        let [sw, sh] = size.unwrap_or_default();
        return Some(format!(
            "is {sw} x {sh} px, but the nuclei are of a slide of {w} x {h} px: give that one"
        ));
    }
    (result.imported.is_none() && *known != info.quickhash).then(|| {
        "has other pixels than the slide of these nuclei (quickhash): give that one".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::output::{fixture, million};
    use crate::slide::testing::TestSlide;

    #[test]
    fn another_slide_is_told_from_the_right_one() {
        let result = fixture::result(1.0);
        let reader = |side: u64| TestSlide::new(&[[side, 40]], |_, _, _| [0; 3]);
        let reason = other_slide(&result, &reader(61)).unwrap();
        assert!(reason.contains("61 x 40") && reason.contains("60 x 40"));
        // Of the right size, but not the same file.
        assert!(
            other_slide(&result, &reader(60))
                .unwrap()
                .contains("quickhash")
        );
        let mut same = result;
        same.meta.slide.quickhash = reader(60).info().quickhash.clone();
        assert_eq!(other_slide(&same, &reader(60)), None);
    }

    #[test]
    #[ignore = "a minute; cargo test --lib a_million_nuclei_are_looked_at -- --ignored --nocapture"]
    fn a_million_nuclei_are_looked_at() {
        let result = million::result();
        let [side, _] = result.frames().level0_size_px;
        let clock = Instant::now();
        let rows = table(&result).unwrap();
        println!("table: {:.1} s", clock.elapsed().as_secs_f64());
        let clock = Instant::now();
        let tiles = Tiles::new([side; 2], None, image::RgbImage::new(100, 100));
        let scene = Scene::new(result, rows, tiles, Vec::new());
        println!("index: {:.1} s", clock.elapsed().as_secs_f64());
        let wanted = [("types", "1"), ("range", "area_um2:12:30")];
        for filter in [&wanted[..0], &wanted[..]] {
            let filter = Filter::from_query(filter.iter().copied(), scene.rows()).unwrap();
            for share in [1.0, 0.5, 0.13, 0.05, 0.02] {
                let seen_px = side as f64 * share;
                let view = ViewBox {
                    min: [side as f64 * 0.4 * (1.0 - share); 2],
                    max: [side as f64 * 0.4 * (1.0 - share) + seen_px; 2],
                    level0_per_px: seen_px / 1400.0,
                };
                let clock = Instant::now();
                let answer = scene.look(&view, &filter).to_string();
                let ms = clock.elapsed().as_secs_f64() * 1e3;
                println!(
                    "{share} of the side: {ms:.0} ms, {} bytes, {}",
                    answer.len(),
                    &answer[..40]
                );
                assert!(answer.len() < 4_000_000 && ms < 2000.0);
            }
            let clock = Instant::now();
            let counts = scene.counts(&filter);
            println!(
                "counts {}: {:.0} ms",
                counts["count"],
                clock.elapsed().as_secs_f64() * 1e3
            );
        }
        let peak = crate::output::run_json::peak_memory_bytes().unwrap_or(0) as f64 / 1e9;
        println!("peak memory {peak:.2} GB");
    }
}
