//! Regions of interest.
//!
//! In: GeoJSON polygons in level-0 px. Out: whether a box or a point is inside, exactly. The rings
//! of a polygon follow the even-odd rule, so inner rings are holes; several polygons are united. An
//! R-tree over the edges makes this fast for outlines of any length. Coordinates are raw level-0
//! px: QuPath puts its origin at the corner of a slide's bounds, so move such regions first. Never
//! clips or simplifies a polygon.

use std::path::Path;

use geojson::{Feature, GeoJson, Geometry, GeometryValue, Position};
use rstar::primitives::{GeomWithData, Line};
use rstar::{AABB, RTree};

use super::TissueError;

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
    /// Reads a FeatureCollection, a Feature or a bare geometry of Polygons and MultiPolygons.
    ///
    /// # Errors
    /// [`TissueError::Region`] naming the file, the feature and what is wrong with it.
    pub fn from_geojson(path: &Path) -> Result<Self, TissueError> {
        let failed = |place: &str, reason: String| TissueError::Region {
            path: path.to_path_buf(),
            place: place.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|e| failed("the file", format!("{e}: check the path")))?;
        Self::parse(&text).map_err(|(place, reason)| failed(&place, reason))
    }

    /// [`Regions::from_geojson`] from text; errors are (place, reason).
    fn parse(text: &str) -> Result<Self, (String, String)> {
        let json: GeoJson = text.parse().map_err(|e: geojson::Error| {
            let reason = format!("{e}: export the regions as GeoJSON polygons");
            ("not GeoJSON".to_owned(), reason)
        })?;
        let mut polygons = Vec::new();
        match &json {
            GeoJson::Geometry(geometry) => {
                add_geometry(geometry, &mut polygons)
                    .map_err(|r| ("the geometry".to_owned(), r))?;
            }
            GeoJson::Feature(feature) => {
                add_feature(feature, &mut polygons).map_err(|r| (name_feature(feature, 0), r))?;
            }
            GeoJson::FeatureCollection(collection) => {
                for (i, feature) in collection.features.iter().enumerate() {
                    add_feature(feature, &mut polygons)
                        .map_err(|r| (name_feature(feature, i), r))?;
                }
            }
        }
        if polygons.is_empty() {
            return Err((
                "the file".to_owned(),
                "holds no polygon: draw one".to_owned(),
            ));
        }
        Ok(Self::from_polygons(&polygons))
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
fn name_feature(feature: &Feature, index: usize) -> String {
    let id = feature.id.as_ref().map(|id| match id {
        geojson::feature::Id::String(text) => text.clone(),
        geojson::feature::Id::Number(number) => number.to_string(),
    });
    match id {
        Some(id) => format!("feature {} (id {id})", index + 1),
        None => format!("feature {}", index + 1),
    }
}

fn add_feature(feature: &Feature, polygons: &mut Polygons) -> Result<(), String> {
    match &feature.geometry {
        Some(geometry) => add_geometry(geometry, polygons),
        None => Err("has no geometry: remove it".to_owned()),
    }
}

fn add_geometry(geometry: &Geometry, polygons: &mut Polygons) -> Result<(), String> {
    match &geometry.value {
        GeometryValue::Polygon { coordinates } => polygons.push(rings(coordinates)?),
        GeometryValue::MultiPolygon { coordinates } => {
            for polygon in coordinates {
                polygons.push(rings(polygon)?);
            }
        }
        GeometryValue::GeometryCollection { geometries } => {
            for part in geometries {
                add_geometry(part, polygons)?;
            }
        }
        other => {
            return Err(format!(
                "is a {}: only Polygon and MultiPolygon have an inside",
                other.type_name()
            ));
        }
    }
    Ok(())
}

fn rings(polygon: &[Vec<Position>]) -> Result<Vec<Vec<[f64; 2]>>, String> {
    if polygon.is_empty() {
        return Err("is a polygon without a ring: remove it".to_owned());
    }
    polygon.iter().map(|ring| points(ring)).collect()
}

/// A ring's corners, without the repeated last one.
fn points(ring: &[Position]) -> Result<Vec<[f64; 2]>, String> {
    let mut points = Vec::with_capacity(ring.len());
    for position in ring {
        match *position.as_slice() {
            [x, y, ..] if x.abs() <= MAX_COORDINATE && y.abs() <= MAX_COORDINATE => {
                points.push([x, y]);
            }
            ref other => {
                return Err(format!(
                    "has the point {other:?}, which is no level-0 pixel"
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
