//! What a finished slide is: its nuclei, where they came from, and how much of the slide was covered.
//!
//! In: joined nuclei and what is known of their slide and model. Out: a [`SlideResult`], the one thing that writers,
//! reports and viewers take, and its [`Record`]s. Never names a file format or a store, never touches a file.

mod examined;
#[cfg(test)]
pub(crate) mod fixture;
mod meta;
mod record;

pub use examined::Examined;
pub use meta::{ModelCard, SlideMeta, SlideSource};
pub use record::{Record, push_round2, round2};

use crate::features::Ring;
use crate::nuclei::Nucleus;
use crate::slide::frames::Frames;

/// Everything that is known about one finished slide.
#[derive(Debug, Clone, PartialEq)]
pub struct SlideResult {
    /// Where the result comes from.
    pub meta: SlideMeta,
    /// Sorted by first pixel in raster order; a nucleus's id is its place, from 1.
    pub nuclei: Vec<Nucleus>,
    /// One per nucleus, in their order; `None` where the pixels around the nuclei were not at hand.
    pub rings: Option<Vec<Ring>>,
    /// How much of the slide was examined.
    pub coverage: Coverage,
    /// Why parts could not be read, each reason once.
    pub read_errors: Vec<String>,
    /// Present where the nuclei were read from a file instead of found in pixels.
    pub imported: Option<Imported>,
    /// Where on the slide nuclei were looked for; `None`: everywhere (images that are held whole).
    pub examined: Option<Examined>,
}

/// How much of a slide was examined. Pixels are proc px: `tiles_px = done_px + unreadable_px + outside_px`, and what
/// the missing tiles hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Number of tiles that the run consists of.
    pub planned_tiles: usize,
    /// Pixels of the planned tiles, clipped to the slide.
    pub tiles_px: u64,
    /// Pixels whose patch was inferred.
    pub done_px: u64,
    /// Pixels whose patch could not be read.
    pub unreadable_px: u64,
    /// Pixels of the planned tiles that no patch covers.
    pub outside_px: u64,
    /// Planned tiles without a valid result; 0 when the slide is complete.
    pub missing_tiles: usize,
}

impl Coverage {
    /// Of an image that is held whole: one tile, all of it done.
    pub fn whole(area_px: u64) -> Self {
        Self {
            planned_tiles: 1,
            tiles_px: area_px,
            done_px: area_px,
            ..Self::default()
        }
    }
}

/// What is known of nuclei that were read from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// One per nucleus, in their order: that of the file's ids.
    pub labels: Vec<ImportedLabel>,
    /// Whether µm/px is known. Where it is not, the frames hold 1 and nothing may be given in µm.
    pub scale_known: bool,
}

/// What a file states about one of its nuclei.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImportedLabel {
    /// The file's own id of the nucleus.
    pub id: u64,
    /// Place in the model's types; `None` where the file has no types.
    pub type_id: Option<usize>,
    /// Probability of the type, where the file has one.
    pub type_prob: Option<f64>,
}

impl SlideResult {
    /// How level-0 px, proc px and µm relate.
    pub fn frames(&self) -> &Frames {
        &self.meta.frames
    }

    /// The ring of the nucleus at `place`; a ring without pixels where it is not known.
    pub fn ring(&self, place: usize) -> Ring {
        let ring = self.rings.as_ref().and_then(|rings| rings.get(place));
        ring.copied().unwrap_or_default()
    }

    /// mm² of tissue that was examined: what densities are counted per.
    pub fn examined_tissue_mm2(&self) -> f64 {
        let examined = self.examined.as_ref();
        examined.map_or(self.meta.tissue_mm2, |examined| examined.tissue_mm2)
    }

    /// Whether the nucleus at `place` lies on tissue, and so counts in densities.
    pub fn is_on_tissue(&self, place: usize) -> bool {
        let on_tissue = self.examined.as_ref().map(|examined| &examined.on_tissue);
        on_tissue.is_none_or(|on_tissue| on_tissue.get(place).copied().unwrap_or(true))
    }

    /// Whether lengths can be given in µm.
    pub fn scale_known(&self) -> bool {
        self.imported.as_ref().is_none_or(|i| i.scale_known)
    }

    /// The name of a type, where every type must have one.
    pub fn type_name(&self, id: usize) -> String {
        match self.meta.model.types.get(id) {
            Some(kind) => kind.name.clone(),
            None => format!("type {id}"),
        }
    }

    /// The nuclei with their ids, types and level-0 coordinates, in order of id.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.nuclei
            .iter()
            .enumerate()
            .map(|(place, nucleus)| Record::new(place, nucleus, self))
    }
}
