//! Truth or prediction of one image, in that image's px.
//!
//! In: labelled images, nuclei, instance maps. Out: [`Annotation`]s, to be compared or drawn.

use image::RgbImage;

use super::{LabelledImage, Truth};
use crate::nuclei::Nucleus;
use crate::report::overlay::{draw_ids, draw_points};

/// Centroids (px, pixel-edge frame) with their type ids.
#[derive(Debug, Clone, Default)]
pub struct Detections {
    pub points: Vec<[f64; 2]>,
    /// Type of each point, 0 where unknown.
    pub types: Vec<u8>,
}

/// The nuclei of one image: truth or prediction.
#[derive(Debug, Clone, Default)]
pub struct Annotation {
    /// Instance id of each pixel, row by row; `None` where only points are known.
    pub ids: Option<Vec<u32>>,
    /// Length of a row of `ids`, px; 0 where only points are known.
    pub width: usize,
    /// Type of each id, 0 where unknown; entry 0 is unused.
    pub id_types: Vec<u8>,
    /// One centroid per nucleus.
    pub detections: Detections,
    /// Probability of each detection's type, in the order of `detections`.
    pub type_probs: Option<Vec<f64>>,
}

impl Annotation {
    /// The truth of a labelled image.
    pub fn of_image(image: &LabelledImage) -> Self {
        match &image.truth {
            Truth::Unknown => Self::default(),
            Truth::Dots(dots) => Self {
                detections: Detections {
                    points: dots
                        .iter()
                        .map(|d| [f64::from(d.x_px), f64::from(d.y_px)])
                        .collect(),
                    types: dots.iter().map(|d| d.type_id).collect(),
                },
                ..Self::default()
            },
            Truth::Instances { ids, types } => {
                Self::of_map(ids.clone(), types.clone(), image.rgb.width() as usize)
            }
        }
    }

    /// From an instance map `width` px wide, and the type of each id.
    pub fn of_map(ids: Vec<u32>, id_types: Vec<u8>, width: usize) -> Self {
        let most = ids.iter().copied().max().unwrap_or(0) as usize;
        let mut sums = vec![(0.0, 0.0, 0.0); most + 1];
        for (i, &id) in ids.iter().enumerate().filter(|(_, id)| **id > 0) {
            let s = &mut sums[id as usize];
            s.0 += 1.0;
            s.1 += (i % width) as f64 + 0.5;
            s.2 += (i / width) as f64 + 0.5;
        }
        let mut detections = Detections::default();
        for (id, (n, x, y)) in sums.into_iter().enumerate().filter(|(_, s)| s.0 > 0.0) {
            detections.points.push([x / n, y / n]);
            detections
                .types
                .push(id_types.get(id).copied().unwrap_or(0));
        }
        Self {
            ids: Some(ids),
            width,
            id_types,
            detections,
            type_probs: None,
        }
    }

    /// From the nuclei that a model found; `ids` is their instance map (id = index + 1).
    pub fn of_nuclei(nuclei: &[Nucleus], ids: Vec<u32>, width: usize) -> Self {
        let types = nuclei.iter().map(|n| n.type_id().unwrap_or(0) as u8);
        let id_types = std::iter::once(0).chain(types).collect();
        let probs = nuclei.iter().map(Nucleus::type_prob).collect();
        Self {
            type_probs: probs,
            ..Self::of_map(ids, id_types, width)
        }
    }

    /// Width and height of the instance map, px.
    pub fn size_px(&self) -> Option<[usize; 2]> {
        let pixels = self.ids.as_ref()?.len();
        Some([self.width, pixels / self.width.max(1)])
    }

    /// The instance map with the nuclei of one type only.
    pub fn ids_of_type(&self, type_id: u8) -> Option<Vec<u32>> {
        let known = |id: u32| self.id_types.get(id as usize) == Some(&type_id);
        let ids = self.ids.as_ref()?;
        Some(
            ids.iter()
                .map(|&id| if known(id) { id } else { 0 })
                .collect(),
        )
    }

    /// `rgb` with the nuclei drawn over it: outlines where instances are known, else crosses.
    /// `colours[type]` is the colour of a type.
    pub fn draw_over(&self, rgb: &RgbImage, colours: &[[u8; 3]]) -> RgbImage {
        let mut picture = rgb.clone();
        match &self.ids {
            Some(ids) => draw_ids(&mut picture, ids, &self.id_types, colours),
            None => {
                let Detections { points, types } = &self.detections;
                draw_points(&mut picture, points, types, colours);
            }
        }
        picture
    }
}
