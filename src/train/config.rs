//! What to learn from and how: the content of a training TOML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::model::{Architecture, TypeInfo};
use crate::nuclei::PostprocParams;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// µm/px of the model.
    pub mpp: f64,
    /// Side of a training crop, px; a multiple of 32.
    pub crop_px: usize,
    /// Crops a step.
    pub batch: usize,
    /// Learning rate of the decoder; the schedule is a cosine after a short warm-up.
    pub lr: f64,
    /// Learning rate of the pre-trained encoder.
    pub encoder_lr: f64,
    pub weight_decay: f64,
    #[serde(default)]
    pub optimizer: Method,
    /// Decay a step of the averaged weights, which are the ones that ship.
    pub ema: f64,
    pub seed: u64,
    /// Batches whose gradients are averaged into one step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Steps in which a HoVer-Net's encoder does not learn yet.
    #[serde(default)]
    pub frozen_steps: u64,
    /// Whether crops are turned, scaled and coloured at random; without it they are cut out as they are.
    #[serde(default = "yes")]
    pub augment: bool,
    /// Share of the crops that are scaled and turned by any angle. The others are copied px by px, turned by right angles
    /// and mirrored: resampling blurs, and slides at the model's scale are not resampled.
    #[serde(default = "six_tenths")]
    pub resampled: f64,
    /// Share of the crops whose colour and sharpness are varied.
    #[serde(default = "seven_tenths")]
    pub coloured: f64,
    /// How much the averaged weights' own answers count beside the labels (0..=1): they are smoother than what experts
    /// drew, and say something where nothing is labelled. hovernet-lite alone.
    #[serde(default)]
    pub self_taught: f64,
    /// Share of each set's images that training learns from, for learning curves. Which ones is fixed: a smaller share's are
    /// among a larger one's. Held-out images are not touched.
    #[serde(default = "all_of_it")]
    pub data_part: f64,
    /// Held-out images a set that validation looks at while the training goes on.
    #[serde(default = "some_images")]
    pub validation_images: usize,
    /// What model.toml says beside the weights.
    pub model: ModelCard,
    /// The types, background not counted; id = place + 1.
    pub types: Vec<TypeInfo>,
    pub postproc: PostprocParams,
    pub data: Vec<DataSet>,
}

const fn lite() -> Architecture {
    Architecture::HovernetLite
}

const fn one() -> usize {
    1
}

const fn yes() -> bool {
    true
}

const fn six_tenths() -> f64 {
    0.6
}

const fn seven_tenths() -> f64 {
    0.7
}

const fn all_of_it() -> f64 {
    1.0
}

const fn some_images() -> usize {
    8
}

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    #[default]
    Adamw,
    /// Muon for convolutions, AdamW for the rest.
    Muon,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    pub name: String,
    #[serde(default = "lite")]
    pub architecture: Architecture,
    pub patch_in_px: i32,
    pub patch_out_px: i32,
    pub licence: String,
    pub citation: String,
    pub training_data: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Images/*.png beside Labels/*.mat (inst_map, type_map).
    Consep,
    /// images/* beside labels/*.png or .npy of instance ids, with or without a table of types.
    Labels,
    /// images/* beside points/*.csv of x,y,type.
    Dots,
    /// hover_net's extracted patches, one .npy each.
    HovernetNpy,
    /// PanNuke's images.npy and masks.npy.
    Pannuke,
    /// NAME.geojson, drawn in QuPath, beside its image.
    Geojson,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    pub name: String,
    pub format: Format,
    /// Relative to the data folder given on the command line.
    pub folder: PathBuf,
    pub mpp: f64,
    /// Share of the crops drawn from this set.
    pub share: f64,
    /// Our type id for each of the set's own ids (place = its id); empty: no types.
    #[serde(default)]
    pub type_ids: Vec<u8>,
    /// Our type id for each type name (dots).
    #[serde(default)]
    pub types: BTreeMap<String, u8>,
    /// Beginnings of the names of images that are never shown.
    #[serde(default)]
    pub hold_out: Vec<String>,
}

impl DataSet {
    /// Whether an image of this file name is kept for validation.
    pub fn holds_out(&self, file_name: &str) -> bool {
        self.hold_out
            .iter()
            .any(|start| file_name.starts_with(start))
    }
}

impl TrainConfig {
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|e| TrainError::file(path, e))?;
        let config: Self = toml::from_str(&text).map_err(|e| TrainError::file(path, e))?;
        config
            .check()
            .map_err(|reason| TrainError::file(path, reason))?;
        Ok(config)
    }

    /// Whether every value is in range.
    pub fn check(&self) -> Result<(), String> {
        let types = self.types.len();
        let crop_px = self.crop_px;
        let (least, step) = match self.model.architecture {
            Architecture::HovernetFast => (256, 8),
            Architecture::HovernetOriginal => (270, 8),
            _ => (32, 32),
        };
        if crop_px < least || !(crop_px - least).is_multiple_of(step) {
            return Err(format!(
                "crop_px = {crop_px}: {} takes {least} px and so many times {step} px more",
                self.model.architecture.name()
            ));
        }
        if self.batch == 0 || self.accumulate == 0 || self.data.is_empty() {
            return Err("batch, accumulate and [[data]] must not be empty".into());
        }
        if !(self.mpp > 0.0 && self.lr > 0.0 && (0.0..1.0).contains(&self.ema)) {
            return Err("mpp and lr must be positive, ema in 0..1".into());
        }
        if !(self.data_part > 0.0 && self.data_part <= 1.0) {
            return Err(format!(
                "data_part = {}: more than 0, at most 1 (all images)",
                self.data_part
            ));
        }
        if !(0.0..=1.0).contains(&self.self_taught) {
            return Err(format!("self_taught = {}: 0 to 1", self.self_taught));
        }
        let lite = self.model.architecture == Architecture::HovernetLite;
        if self.self_taught > 0.0 && !lite {
            let name = self.model.architecture.name();
            return Err(format!(
                "self_taught: hovernet-lite learns so, {name} does not"
            ));
        }
        for set in &self.data {
            let ids = set.type_ids.iter().chain(set.types.values());
            if let Some(id) = ids.copied().find(|&id| usize::from(id) > types) {
                return Err(format!(
                    "data set {}: type id {id}, but there are {types} types",
                    set.name
                ));
            }
            if !(set.mpp > 0.0 && set.share >= 0.0) {
                return Err(format!(
                    "data set {}: mpp must be positive, share not negative",
                    set.name
                ));
            }
        }
        Ok(())
    }
}
