//! The training configuration: what to learn from, and how.
//!
//! In: a TOML file such as config/train-default.toml. Out: a [`TrainConfig`] with values in range.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::labels::{DataSet, Format, LabelError, LoadedSet, data_set};
use crate::model::design::Design;
use crate::model::{Architecture, TypeInfo, TypesFile};
use crate::nuclei::PostprocParams;

/// The content of a training TOML.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// µm/px of the model.
    pub mpp: f64,
    /// Side of a training crop, px; a multiple of 32.
    pub crop_px: usize,
    /// Crops per batch.
    pub batch: usize,
    /// Learning rate of the decoder; the schedule is a cosine after a short warm-up.
    pub lr: f64,
    /// Learning rate of the pre-trained encoder.
    pub encoder_lr: f64,
    pub weight_decay: f64,
    #[serde(default)]
    pub optimizer: Method,
    /// Decay per step of the averaged weights, which are the weights of the finished model.
    pub ema: f64,
    pub seed: u64,
    /// Batches whose gradients are averaged into one step.
    #[serde(default = "default_accumulate")]
    pub accumulate: usize,
    /// Steps in which a HoVer-Net's encoder does not learn yet.
    #[serde(default)]
    pub frozen_steps: u64,
    /// Whether crops are turned, scaled and coloured at random; if not, they are cut out plainly.
    #[serde(default = "default_augment")]
    pub augment: bool,
    /// Share of the crops that are scaled and turned by any angle. The others are copied pixel by
    /// pixel, turned by right angles and mirrored: resampling blurs, and slides at the model's
    /// scale are not resampled.
    #[serde(default = "default_resampled")]
    pub resampled: f64,
    /// Share of the crops whose colour and sharpness are varied.
    #[serde(default = "default_coloured")]
    pub coloured: f64,
    /// Weight of a teacher's predictions beside the labels, as targets (0..=1): they are smoother
    /// than what experts drew, and exist where nothing is labelled. For hovernet-lite and
    /// hovernet-wide only.
    #[serde(default, alias = "self_taught")]
    pub taught: f64,
    /// The model that teaches, by name or folder; absent: the averaged weights themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Share of each set's images that training learns from, for learning curves. The images of a
    /// smaller share are also in every larger one. Held-out images are not affected.
    #[serde(default = "default_data_part")]
    pub data_part: f64,
    /// Held-out images per set on which validation scores the model during training.
    #[serde(default = "default_validation_images")]
    pub validation_images: usize,
    /// What model.toml says about the model.
    pub model: ModelCard,
    /// The types without the background; id = index + 1.
    pub types: Vec<TypeInfo>,
    pub postproc: PostprocParams,
    /// The second network of the model that training starts from: it does not learn, and goes along
    /// into the new model. No part of the file.
    #[serde(skip)]
    pub types_from: Option<TypesFile>,
    pub data: Vec<DataSet>,
}

const fn default_architecture() -> Architecture {
    Architecture::HovernetLite
}

const fn default_accumulate() -> usize {
    1
}

const fn default_augment() -> bool {
    true
}

const fn default_resampled() -> f64 {
    0.6
}

const fn default_coloured() -> f64 {
    0.7
}

const fn default_data_part() -> f64 {
    1.0
}

const fn default_validation_images() -> usize {
    8
}

/// The rule that turns gradients into a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    #[default]
    Adamw,
    /// Muon for convolutions, AdamW for the rest.
    Muon,
}

/// The entries of model.toml that a training does not determine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    pub name: String,
    #[serde(default = "default_architecture")]
    pub architecture: Architecture,
    pub patch_in_px: i32,
    pub patch_out_px: i32,
    pub licence: String,
    pub citation: String,
    pub training_data: String,
}

/// config/train-default.toml as it stands in the binary: how the embedded model was trained.
const DEFAULT_TOML: &str = include_str!("../../config/train-default.toml");

impl TrainConfig {
    /// The training of the embedded model.
    pub fn embedded() -> Result<Self, TrainError> {
        let place = Path::new("config/train-default.toml");
        toml::from_str(DEFAULT_TOML).map_err(|e| TrainError::file(place, e))
    }

    /// The training TOML at `path`; without one, that of the embedded model.
    pub fn read_or_default(path: Option<&Path>) -> Result<Self, TrainError> {
        path.map_or_else(Self::embedded, Self::read)
    }

    /// Reads and checks a training TOML.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|e| TrainError::file(path, e))?;
        let config: Self = toml::from_str(&text).map_err(|e| TrainError::file(path, e))?;
        config
            .check()
            .map_err(|reason| TrainError::file(path, reason))?;
        Ok(config)
    }

    /// Loads every data set from below `root`, at the model's scale.
    pub fn load_data(&self, root: &Path) -> Result<Vec<LoadedSet>, LabelError> {
        data_set::load_sets(&self.data, root, self.mpp, self.data_part)
    }

    /// The first value that is out of range, if any.
    pub fn check(&self) -> Result<(), String> {
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
        if !(0.0..=1.0).contains(&self.taught) {
            return Err(format!("taught = {}: 0 to 1", self.taught));
        }
        if self.taught > 0.0 && Design::of(self.model.architecture).is_none() {
            let name = self.model.architecture.name();
            return Err(format!(
                "a teacher: hovernet-lite and hovernet-wide learn from one, {name} does not"
            ));
        }
        let pictures = self.data.iter().find(|set| set.format == Format::Pictures);
        if let Some(set) = pictures
            && (self.teacher.is_none() || self.taught == 0.0)
        {
            return Err(format!(
                "data set {}: pictures without labels teach nothing without a teacher: --teacher MODEL",
                set.name
            ));
        }
        let types = self.types.len();
        self.data.iter().try_for_each(|set| set.check(types))
    }
}
