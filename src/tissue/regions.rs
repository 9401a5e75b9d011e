//! Regions of interest.
//!
//! In: GeoJSON polygons in level-0 px. Out: whether a box or a point is inside, exactly. The rings
//! of a polygon follow the even-odd rule, so inner rings are holes; several polygons are united. An
//! R-tree over the edges makes this fast for outlines of any length. Coordinates are raw level-0
//! px; regions in QuPath's frame are moved by [`Regions::moved`] first. Never
//! clips or simplifies a polygon.

use std::path::Path;

use rstar::primitives::{GeomWithData, Line};
use rstar::{AABB, RTree};
use serde_json::Value;

use super::TissueError;
use crate::geojson_file::read_features;

/// Larger coordinates are refused.
const MAX_COORDINATE: f64 = 1e9;

type Edge = GeomWithData<Line<[f64; 2]>, u32>;

/// Each polygon a list of rings, each ring a list of corners.
pub type Polygons = Vec<Vec<Vec<[f64; 2]>>>;

/// Polygons in level-0 px, edge frame.
#[derive(Debug, Clone)]
pub struct Regions {
    /// Each with the place of its polygon.
    edges: RTree<Edge>,
    /// The largest x.
    right: f64,
    polygons: Polygons,
    /// Parts of a file that are no polygons.
    skipped: usize,
}

/// How much of a box the regions cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    Outside,
    /// An outline runs through the box.
    Partly,
    Inside,
}

impl Regions {
    /// Reads the polygons of a GeoJSON file, whatever wraps them ([`crate::geojson_file`]). Points, lines and empty
    /// polygons beside them are skipped and counted.
    ///
    /// # Errors
    /// [`TissueError::Region`] naming the file, the feature and what is wrong with it.
    pub fn from_geojson(path: &Path) -> Result<Self, TissueError> {
        let failed = |place: &str, reason: String| TissueError::Region {
            path: path.to_path_buf(),
            place: place.to_owned(),
            reason,
        };
        let features = read_features(path).map_err(|reason| failed("the file", reason))?;
        let mut found = Found::default();
        for (i, feature) in features.iter().enumerate() {
            found
                .add(&feature["geometry"])
                .map_err(|reason| failed(&name_feature(feature, i), reason))?;
        }
        if found.polygons.is_empty() {
            return Err(failed("the file", "holds no polygon: draw one".into()));
        }
        let mut regions = Self::from_polygons(&found.polygons);
        regions.skipped = found.skipped;
        Ok(regions)
    }

    /// Parts of the file without an inside: points, lines, empty polygons, features without geometry.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// From polygons, each a list of rings (closed or not), level-0 px.
    pub fn from_polygons(polygons: &[Vec<Vec<[f64; 2]>>]) -> Self {
        let mut edges = Vec::new();
        let mut right = f64::NEG_INFINITY;
        for (id, ring) in polygons
            .iter()
            .enumerate()
            .flat_map(|(id, rings)| rings.iter().map(move |ring| (id as u32, ring)))
        {
            let next = ring.iter().cycle().skip(1);
            for (&from, &to) in ring.iter().zip(next) {
                right = right.max(from[0]);
                if from != to {
                    edges.push(Edge::new(Line::new(from, to), id));
                }
            }
        }
        Self {
            edges: RTree::bulk_load(edges),
            right,
            polygons: polygons.to_vec(),
            skipped: 0,
        }
    }

    /// The same, moved by `dx`, `dy` level-0 px.
    pub fn moved(&self, [dx, dy]: [f64; 2]) -> Self {
        let mut polygons = self.polygons.clone();
        for point in polygons.iter_mut().flatten().flatten() {
            *point = [point[0] + dx, point[1] + dy];
        }
        Self::from_polygons(&polygons)
    }

    /// Their polygons, level-0 px.
    pub fn polygons(&self) -> &Polygons {
        &self.polygons
    }

    /// Whether a region has a point inside `rect` (left, top, right, bottom, level-0 px).
    pub fn meets(&self, rect: [f64; 4]) -> bool {
        self.coverage(rect) != Coverage::Outside
    }

    /// How much of `rect` (left, top, right, bottom, level-0 px) the regions cover, exactly: a box
    /// that only touches them is [`Coverage::Outside`]. A box that an outline crosses is
    /// [`Coverage::Partly`] even if another polygon covers it.
    pub fn coverage(&self, rect: [f64; 4]) -> Coverage {
        let [left, top, right, bottom] = rect;
        if !(left < right && top < bottom) {
            return Coverage::Outside;
        }
        let envelope = AABB::from_corners([left, top], [right, bottom]);
        let crossed = self
            .edges
            .locate_in_envelope_intersecting(&envelope)
            .any(|edge| crosses(edge.geom(), rect));
        if crossed {
            Coverage::Partly
        } else if self.contains([(left + right) / 2.0, (top + bottom) / 2.0]) {
            Coverage::Inside
        } else {
            Coverage::Outside
        }
    }

    /// Whether a point (level-0 px) is in a polygon, that is, whether a ray to the right crosses an
    /// odd number of its edges.
    pub(super) fn contains(&self, [x, y]: [f64; 2]) -> bool {
        let ray = AABB::from_corners([x, y], [self.right.max(x), y]);
        let mut met: Vec<u32> = self
            .edges
            .locate_in_envelope_intersecting(&ray)
            .filter(|edge| {
                let ([x0, y0], [x1, y1]) = (edge.geom().from, edge.geom().to);
                // Half-open in y, so that a vertex on the ray counts for one of its two edges only.
                (y0 > y) != (y1 > y) && x0 + (y - y0) / (y1 - y0) * (x1 - x0) > x
            })
            .map(|edge| edge.data)
            .collect();
        met.sort_unstable();
        met.chunk_by(|a, b| a == b).any(|same| same.len() % 2 == 1)
    }
}

/// Whether a segment has a point strictly inside the box (Liang and Barsky's clipping, ACM TOG 3,
/// 1984).
fn crosses(line: &Line<[f64; 2]>, [left, top, right, bottom]: [f64; 4]) -> bool {
    let ([x0, y0], [x1, y1]) = (line.from, line.to);
    let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
    for (start, step, low, high) in [(x0, x1 - x0, left, right), (y0, y1 - y0, top, bottom)] {
        if step == 0.0 {
            if start <= low || start >= high {
                return false;
            }
        } else {
            let (a, b) = ((low - start) / step, (high - start) / step);
            enter = enter.max(a.min(b));
            leave = leave.min(a.max(b));
        }
    }
    enter < leave
}

/// A feature's name in error messages.
fn name_feature(feature: &Value, index: usize) -> String {
    match &feature["id"] {
        Value::String(id) => format!("feature {} (id {id})", index + 1),
        Value::Number(id) => format!("feature {} (id {id})", index + 1),
        _ => format!("feature {}", index + 1),
    }
}

/// What has been found in a file.
#[derive(Default)]
struct Found {
    polygons: Polygons,
    skipped: usize,
}

impl Found {
    fn add(&mut self, geometry: &Value) -> Result<(), String> {
        let parts = |name: &str| geometry[name].as_array().map(Vec::as_slice);
        let coordinates = || parts("coordinates").ok_or("has no coordinates: draw it again");
        match geometry["type"].as_str() {
            Some("Polygon") => self.add_polygon(coordinates()?)?,
            Some("MultiPolygon") => {
                for polygon in coordinates()? {
                    self.add_polygon(polygon.as_array().ok_or("has a polygon that is no list")?)?;
                }
            }
            Some("GeometryCollection") => {
                for part in parts("geometries").unwrap_or_default() {
                    self.add(part)?;
                }
            }
            _ => self.skipped += 1,
        }
        Ok(())
    }

    fn add_polygon(&mut self, rings: &[Value]) -> Result<(), String> {
        if rings
            .iter()
            .all(|ring| ring.as_array().is_none_or(Vec::is_empty))
        {
            self.skipped += 1;
            return Ok(());
        }
        let rings: Result<Vec<_>, _> = rings.iter().map(read_ring).collect();
        self.polygons.push(rings?);
        Ok(())
    }
}

/// A ring's corners, without the repeated last one.
fn read_ring(ring: &Value) -> Result<Vec<[f64; 2]>, String> {
    let positions = ring.as_array().ok_or("has a ring that is no list")?;
    let mut points = Vec::with_capacity(positions.len());
    for position in positions {
        match [position[0].as_f64(), position[1].as_f64()] {
            [Some(x), Some(y)] if x.abs() <= MAX_COORDINATE && y.abs() <= MAX_COORDINATE => {
                points.push([x, y]);
            }
            _ => {
                return Err(format!(
                    "has the point {position}, which is no level-0 pixel"
                ));
            }
        }
    }
    if points.len() > 1 && points.first() == points.last() {
        points.pop();
    }
    if points.len() < 3 {
        return Err(format!(
            "has a ring of {} points: a polygon needs 3",
            points.len()
        ));
    }
    Ok(points)
}

#[cfg(test)]
mod tests;
