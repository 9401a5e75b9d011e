//! model.toml: what a model folder says about its network.

use serde::{Deserialize, Serialize};

use crate::nuclei::PostprocParams;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// HoVer-Net, 256 px in, 164 px out.
    HovernetFast,
    /// HoVer-Net, 270 px in, 80 px out.
    HovernetOriginal,
    /// Ours: an EfficientNet-Lite encoder with a small decoder, for a CPU.
    HovernetLite,
    /// Any TorchScript module that gives np, hv and tp maps.
    Torchscript,
    /// np, hv, tp straight from stain densities: tests and capacity planning.
    Analytic,
}

/// One type of nucleus; its id is its place in [`ModelSpec::types`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeInfo {
    pub name: String,
    pub color: [u8; 3],
}

/// The content of a model.toml.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    pub name: String,
    pub architecture: Architecture,
    /// µm a proc px that the network was trained at.
    pub mpp: f64,
    /// Side of the network's input, px.
    pub patch_in_px: i32,
    /// Side of the output square that is kept, px.
    pub patch_out_px: i32,
    /// Type 0 is background; empty for a model without types.
    #[serde(default)]
    pub types: Vec<TypeInfo>,
    #[serde(default)]
    pub postproc: PostprocParams,
    /// File name of the weights beside model.toml; absent for `analytic`.
    #[serde(default)]
    pub weights: Option<String>,
    /// SHA-256 of the weights file, hex.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Licence of the weights.
    #[serde(default)]
    pub licence: String,
    #[serde(default)]
    pub citation: String,
    /// What it was trained on.
    #[serde(default)]
    pub training_data: String,
    /// Measured scores by data set, as written by `eval`.
    #[serde(default)]
    pub scores: toml::Table,
}
