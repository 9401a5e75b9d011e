//! Where a result comes from: the slide's file, its frames, the model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::model::{ModelSpec, TypeInfo};
use crate::slide::SlideInfo;
use crate::slide::frames::Frames;
use crate::tissue::{Region, TissueSource};

/// What a result says about its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct SlideMeta {
    /// The settings that the result depends on, by name.
    pub identity: BTreeMap<String, Value>,
    /// Folder name of the slide's outputs.
    pub stem: String,
    /// The file that was read.
    pub slide: SlideSource,
    /// What a manifest says of the slide beside what the run needs: column and cell, in its order.
    pub manifest: Vec<(String, String)>,
    /// Where µm/px came from: `file`, `flag`, `manifest`, `objective` or `unknown`.
    pub mpp_from: String,
    /// How level-0 px, proc px and µm relate.
    pub frames: Frames,
    /// The model that found the nuclei.
    pub model: ModelCard,
    /// mm² of tissue in the mask and the region.
    pub tissue_mm2: f64,
    /// What that tissue is.
    pub tissue_from: TissueSource,
    /// The part of the slide whose nuclei are reported; `None`: all that is predicted.
    pub region: Option<Region>,
    /// What the user should know about the input (no objective power, nearly empty mask, …).
    pub warnings: Vec<String>,
}

/// The file that the nuclei lie in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SlideSource {
    /// As it was given to the run.
    pub path: PathBuf,
    /// Power of the objective, as 40.
    pub objective_power: Option<f64>,
    /// The scanned region: x, y, width, height in level-0 px (OpenSlide's bounds), where the file has one.
    pub bounds_px: Option<[u64; 4]>,
    /// Hash of the pixels that tells slides apart; empty where there is none.
    pub quickhash: String,
}

impl From<&SlideInfo> for SlideSource {
    fn from(info: &SlideInfo) -> Self {
        Self {
            path: info.path.clone(),
            objective_power: info.objective_power,
            bounds_px: info.bounds_px,
            quickhash: info.quickhash.clone(),
        }
    }
}

/// The model that found the nuclei, as results name it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// µm per proc px.
    pub mpp: f64,
    /// Type 0 is background; empty for a model without types.
    pub types: Vec<TypeInfo>,
    /// SHA-256 of the weights, hex.
    pub sha256: Option<String>,
    /// Licence of the weights.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// The data set that the model was trained on.
    pub training_data: String,
    /// Measured scores by data set, as model.toml has them.
    pub scores: toml::Table,
}

impl From<&ModelSpec> for ModelCard {
    fn from(spec: &ModelSpec) -> Self {
        Self {
            name: spec.name.clone(),
            mpp: spec.mpp,
            types: spec.types.clone(),
            sha256: spec.sha256.clone(),
            licence: spec.licence.clone(),
            citation: spec.citation.clone(),
            training_data: spec.training_data.clone(),
            scores: spec.scores.clone(),
        }
    }
}
