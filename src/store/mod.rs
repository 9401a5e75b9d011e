//! A slide's checkpoint and single source of truth: a Zarr v3 store of self-identifying chunks.
//!
//! In: one [`TileResult`] per finished tile. Out: the same, checked, for stitching and outputs.
//! Every write is atomic (temporary file, fsync, rename, fsync of the folder). Never holds anything
//! that an interrupted run could leave half-written. See
//! docs/decisions/0002-the-store-is-the-only-truth.md.

pub mod atomic;
pub mod chunk;
mod error;
pub mod fs;
pub mod identity;
mod lock;
mod rings;
pub mod wire;
mod zarr;

pub use error::{IdentityMismatch, StoreError};
pub use lock::Lock;
pub use zarr::{Store, TileState, remove};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::geometry::Rect;
use crate::model::ModelSpec;
use crate::nuclei::{Foreground, Nucleus};
use crate::plan::{PatchIndex, TileLayout};
use crate::result::{ModelCard, SlideMeta, SlideSource};
use crate::slide::SlideInfo;
use crate::slide::frames::Frames;
use crate::tissue::{Region, TissueSource};

/// The result of one tile: the content of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileResult {
    /// Column and row in the tile grid.
    pub col: i32,
    /// Row in the tile grid.
    pub row: i32,
    /// Proc px covered, clipped to the slide.
    pub rect: Rect,
    /// Proc px whose patch was inferred.
    pub done_px: u64,
    /// Proc px whose patch could not be read.
    pub unreadable_px: u64,
    /// Proc px of the tile that no planned patch covers.
    pub outside_px: u64,
    /// The patches that could not be read, sorted.
    pub unreadable: Vec<PatchIndex>,
    /// Why patches could not be read: a few different reasons.
    pub read_errors: Vec<String>,
    /// Nuclei of blobs that do not touch an inner border of the tile grid.
    pub nuclei: Vec<Nucleus>,
    /// Blobs that touch one: whole components of this tile, open towards its neighbours.
    pub fragments: Vec<Foreground>,
}

/// What a store says about itself: enough for every output without slide, model file or GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreMeta {
    /// The settings that must match before a chunk is reused, by name.
    pub identity: BTreeMap<String, serde_json::Value>,
    #[serde(flatten)]
    pub layout: TileLayout,
    /// Folder name of the slide's outputs.
    pub stem: String,
    pub slide: SlideInfo,
    /// What a manifest says of the slide beside what the run needs: column and cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifest: Vec<(String, String)>,
    /// Where µm/px came from: `file`, `flag`, `manifest` or `objective`.
    pub mpp_from: String,
    pub frames: Frames,
    pub model: ModelSpec,
    /// mm² of tissue in the mask and the region.
    pub tissue_mm2: f64,
    /// What that tissue is.
    #[serde(default)]
    pub tissue_from: TissueSource,
    /// The part of the slide whose nuclei are reported; `None`: all that is predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// What the user should know about the input (no objective power, nearly empty mask, …).
    pub warnings: Vec<String>,
}

impl StoreMeta {
    /// What results say of the slide, whatever way it was tiled.
    pub fn slide_meta(&self) -> SlideMeta {
        SlideMeta {
            identity: self.identity.clone(),
            stem: self.stem.clone(),
            slide: SlideSource::from(&self.slide),
            manifest: self.manifest.clone(),
            mpp_from: self.mpp_from.clone(),
            frames: self.frames,
            model: ModelCard::from(&self.model),
            tissue_mm2: self.tissue_mm2,
            tissue_from: self.tissue_from,
            region: self.region.clone(),
            warnings: self.warnings.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
