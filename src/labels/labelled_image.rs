//! One labelled image in memory.
//!
//! In: pixels and what is known of the nuclei in them. Out: the same, cropped or at another scale.

use image::{RgbImage, imageops};

/// What is known of the nuclei of an image.
#[derive(Debug, Clone)]
pub enum Truth {
    /// Instance id of each pixel (0: none), and type of each id (0: unknown; `types[0]` is unused).
    Instances { ids: Vec<u32>, types: Vec<u8> },
    /// One point inside each nucleus.
    Dots(Vec<Dot>),
    /// Nothing: a picture that nobody labelled, for a teacher.
    Unknown,
}

impl Truth {
    /// What is known inside the rectangle `[x, y, w, h]` of an image `width` px wide.
    fn cropped(&self, width: u32, [x, y, w, h]: [u32; 4]) -> Self {
        let is_inside = |v: f32, n: u32| v >= 0.0 && v < n as f32;
        match self {
            Truth::Instances { ids, types } => Truth::Instances {
                ids: (y..y + h)
                    .flat_map(|row| {
                        let start = (row * width + x) as usize;
                        ids[start..start + w as usize].iter().copied()
                    })
                    .collect(),
                types: types.clone(),
            },
            Truth::Dots(dots) => Truth::Dots(
                dots.iter()
                    .map(|d| d.moved_to(d.x_px - x as f32, d.y_px - y as f32))
                    .filter(|d| is_inside(d.x_px, w) && is_inside(d.y_px, h))
                    .collect(),
            ),
            Truth::Unknown => Truth::Unknown,
        }
    }

    /// The truth when the image's size (width, height) changes from `old` to `new` by `factor`.
    fn rescaled(self, old: (u32, u32), new: (u32, u32), factor: f64) -> Self {
        let nearest = |i: u32, old: u32, new: u32| {
            let place = (f64::from(i) + 0.5) * f64::from(old) / f64::from(new);
            (place as usize).min(old as usize - 1)
        };
        match self {
            Truth::Instances { ids, types } => Truth::Instances {
                ids: (0..new.1)
                    .flat_map(|y| (0..new.0).map(move |x| (x, y)))
                    .map(|(x, y)| {
                        ids[nearest(y, old.1, new.1) * old.0 as usize + nearest(x, old.0, new.0)]
                    })
                    .collect(),
                types,
            },
            Truth::Dots(dots) => Truth::Dots(
                dots.into_iter()
                    .map(|d| d.moved_to(d.x_px * factor as f32, d.y_px * factor as f32))
                    .collect(),
            ),
            Truth::Unknown => Truth::Unknown,
        }
    }
}

/// A point inside a nucleus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dot {
    pub x_px: f32,
    pub y_px: f32,
    /// 0: unknown.
    pub type_id: u8,
}

impl Dot {
    /// The dot at another place.
    pub fn moved_to(self, x_px: f32, y_px: f32) -> Self {
        Self { x_px, y_px, ..self }
    }
}

/// An image and what is known of its nuclei.
#[derive(Debug, Clone)]
pub struct LabelledImage {
    /// Data set and file name without its extension: `SET/STEM`.
    pub name: String,
    /// Whether the image is kept from training, for validation.
    pub held_out: bool,
    pub rgb: RgbImage,
    pub truth: Truth,
}

impl LabelledImage {
    /// Whether the labels say that there is no nucleus.
    pub fn is_empty(&self) -> bool {
        match &self.truth {
            Truth::Instances { ids, .. } => ids.iter().all(|id| *id == 0),
            Truth::Dots(dots) => dots.is_empty(),
            Truth::Unknown => false,
        }
    }

    /// The rectangle `[x, y, w, h]` of the image, with its truth.
    pub fn cropped(&self, [x, y, w, h]: [u32; 4]) -> Self {
        Self {
            name: self.name.clone(),
            held_out: self.held_out,
            rgb: imageops::crop_imm(&self.rgb, x, y, w, h).to_image(),
            truth: self.truth.cropped(self.rgb.width(), [x, y, w, h]),
        }
    }

    /// The image (anti-aliased) and its truth (nearest pixel), scaled by `factor`. Within 5 % of 1
    /// the pixels stay as they are, as on slides.
    pub(super) fn rescaled(self, factor: f64) -> Self {
        if (factor - 1.0).abs() <= 0.05 {
            return self;
        }
        let old = self.rgb.dimensions();
        let scale = |n: u32| ((f64::from(n) * factor).round() as u32).max(1);
        let new = (scale(old.0), scale(old.1));
        Self {
            rgb: imageops::resize(&self.rgb, new.0, new.1, imageops::FilterType::CatmullRom),
            truth: self.truth.rescaled(old, new, factor),
            ..self
        }
    }
}
