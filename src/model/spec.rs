//! model.toml: what a model folder says about its network.
//!
//! In: the text. Out: a [`ModelSpec`] whose every field is in range, or an error with file, line or
//! field, and cure. Never opens the weights.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::analytic;
use super::error::ModelError;
use super::hovernet::Mode;
use super::types_from::TypesFrom;
use crate::nuclei::PostprocParams;

/// Name of the description in a model folder.
pub const SPEC_FILE: &str = "model.toml";

/// How a network is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// HoVer-Net, 256 px in, 164 px out.
    HovernetFast,
    /// HoVer-Net, 270 px in, 80 px out.
    HovernetOriginal,
    /// Ours: an EfficientNet-Lite encoder with a small decoder, for a CPU.
    HovernetLite,
    /// Ours: a larger EfficientNet-Lite encoder with a wide residual decoder, for a GPU.
    HovernetWide,
    /// Any TorchScript module that gives np, hv and tp maps.
    Torchscript,
    /// np, hv, tp straight from stain densities: tests and capacity planning.
    Analytic,
}

/// One type of nucleus; its id is its place in [`ModelSpec::types`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeInfo {
    /// Name of the type, as outputs write it.
    pub name: String,
    /// Red, green and blue of its outlines.
    pub color: [u8; 3],
}

/// Colours of types where none are given: those of Okabe and Ito, which colour-blind readers can
/// tell apart. Entry 0 means no type.
pub const TYPE_COLOURS: [[u8; 3]; 8] = [
    [255, 255, 0],
    [213, 94, 0],
    [0, 158, 115],
    [0, 114, 178],
    [240, 200, 60],
    [204, 121, 167],
    [86, 180, 233],
    [30, 30, 30],
];

/// The content of a model.toml.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name of the model, as `--model` takes it.
    pub name: String,
    /// Which network the weights are for.
    pub architecture: Architecture,
    /// µm per proc px: the scale at which the network was trained.
    pub mpp: f64,
    /// Side of the network's input, px.
    pub patch_in_px: i32,
    /// Side of the output square that is kept, px.
    pub patch_out_px: i32,
    /// Type 0 is background; empty for a model without types.
    #[serde(default)]
    pub types: Vec<TypeInfo>,
    /// The constants of post-processing, fitted to this model.
    #[serde(default)]
    pub postproc: PostprocParams,
    /// File name of the weights beside model.toml; absent for `analytic`.
    #[serde(default)]
    pub weights: Option<String>,
    /// SHA-256 of the weights file, hex.
    #[serde(default)]
    pub sha256: Option<String>,
    /// A second network that types nuclei together with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types_from: Option<TypesFrom>,
    /// Licence of the weights.
    #[serde(default)]
    pub licence: String,
    /// What to cite when the model is used.
    #[serde(default)]
    pub citation: String,
    /// The data set that it was trained on.
    #[serde(default)]
    pub training_data: String,
    /// Measured scores by data set, as written by `eval`.
    #[serde(default)]
    pub scores: toml::Table,
}

/// Most types of a model, background included: the store keeps one sum per type and nucleus.
pub const MAX_TYPES: usize = 64;
/// Largest side of a network input, px.
pub const MAX_PATCH_PX: i32 = 8192;

impl Architecture {
    /// As model.toml writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::HovernetFast => "hovernet-fast",
            Architecture::HovernetOriginal => "hovernet-original",
            Architecture::HovernetLite => "hovernet-lite",
            Architecture::HovernetWide => "hovernet-wide",
            Architecture::Torchscript => "torchscript",
            Architecture::Analytic => "analytic",
        }
    }
}

impl ModelSpec {
    /// Reads and checks the model.toml of a folder, and nothing else of it.
    ///
    /// # Errors
    /// [`ModelError::Read`], and the errors of [`ModelSpec::parse`].
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let file = folder.join(SPEC_FILE);
        let text = String::from_utf8(read_model_file(&file)?)
            .map_err(|_| ModelError::read(&file, "it is not UTF-8 text"))?;
        Self::parse(&text, &file)
    }

    /// Reads and checks the text of a model.toml; `path` is for messages only.
    ///
    /// # Errors
    /// [`ModelError::Toml`] and [`ModelError::Spec`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ModelError> {
        let spec: ModelSpec = toml::from_str(text).map_err(|error| ModelError::Toml {
            path: path.to_path_buf(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            reason: error.message().to_string(),
        })?;
        spec.checked(path)
    }

    /// The same model on patches of another size with the same margin; `path` is for messages only.
    ///
    /// # Errors
    /// [`ModelError::Spec`] for a size that the architecture does not take.
    pub fn with_patch_in_px(self, patch_in_px: i32, path: &Path) -> Result<Self, ModelError> {
        let spec = ModelSpec {
            patch_out_px: patch_in_px.saturating_sub(2 * self.margin_px()),
            patch_in_px,
            ..self
        };
        spec.checked(path)
    }

    fn checked(self, path: &Path) -> Result<Self, ModelError> {
        match self.complaint() {
            None => Ok(self),
            Some((field, reason)) => Err(ModelError::Spec {
                path: path.to_path_buf(),
                field,
                reason,
            }),
        }
    }

    /// Px between the input's and the output square's border, on each side.
    pub const fn margin_px(&self) -> i32 {
        (self.patch_in_px - self.patch_out_px) / 2
    }

    /// The first field that cannot be right, and why.
    fn complaint(&self) -> Option<(&'static str, String)> {
        self.identity_complaint()
            .or_else(|| self.patch_complaint())
            .or_else(|| self.types_complaint())
            .or_else(|| self.weights_complaint())
            .or_else(|| {
                let weights = self.weights.as_deref();
                let second = self.types_from.as_ref()?;
                second.complaint(self.architecture, self.types.len(), weights)
            })
            .or_else(|| postproc_complaint(&self.postproc))
    }

    fn identity_complaint(&self) -> Option<(&'static str, String)> {
        if self.name.is_empty()
            || self.name.len() > 100
            || self.name.contains(|c: char| c.is_control() || c == '/')
        {
            return Some((
                "name",
                "must be 1 to 100 printable characters without '/'".into(),
            ));
        }
        if !(0.01..=100.0).contains(&self.mpp) {
            return Some(("mpp", format!("is {}, must be 0.01 to 100 µm/px", self.mpp)));
        }
        None
    }

    fn patch_complaint(&self) -> Option<(&'static str, String)> {
        let (input, output) = (self.patch_in_px, self.patch_out_px);
        if !(1..=MAX_PATCH_PX).contains(&input) {
            return Some((
                "patch_in_px",
                format!("is {input}, must be 1 to {MAX_PATCH_PX}"),
            ));
        }
        if !(1..=input).contains(&output) {
            return Some((
                "patch_out_px",
                format!("is {output}, must be 1 to patch_in_px ({input})"),
            ));
        }
        if (input - output) % 2 != 0 {
            return Some((
                "patch_out_px",
                format!(
                    "is {output} for {input} in: the margin must be the same on both sides, \
                     so both even or both odd"
                ),
            ));
        }
        let mode = match self.architecture {
            Architecture::HovernetFast => Mode::Fast,
            Architecture::HovernetOriginal => Mode::Original,
            Architecture::HovernetLite | Architecture::HovernetWide if input % 32 != 0 => {
                return Some((
                    "patch_in_px",
                    format!(
                        "is {input}: {} takes multiples of 32",
                        self.architecture.name()
                    ),
                ));
            }
            Architecture::Analytic if self.margin_px() < analytic::REACH_PX => {
                return Some((
                    "patch_out_px",
                    format!(
                        "analytic needs {} px of margin each side",
                        analytic::REACH_PX
                    ),
                ));
            }
            _ => return None,
        };
        let natural = mode.patch_in_px();
        if input < natural || (input - natural) % 8 != 0 || mode.output_px(input) != output {
            return Some((
                "patch_in_px",
                format!(
                    "is {input} for {output} out: {} takes {natural} px or 8, 16, … more, and gives {} px less",
                    self.architecture.name(),
                    natural - mode.output_px(natural)
                ),
            ));
        }
        None
    }

    fn types_complaint(&self) -> Option<(&'static str, String)> {
        if self.types.len() == 1 || self.types.len() > MAX_TYPES {
            return Some((
                "types",
                format!(
                    "holds {}: must be none, or 2 to {MAX_TYPES} with background first",
                    self.types.len()
                ),
            ));
        }
        for (id, info) in self.types.iter().enumerate() {
            if info.name.trim().is_empty() || info.name.contains(char::is_control) {
                return Some(("types", format!("type {id} has no printable name")));
            }
            if self
                .types
                .iter()
                .take(id)
                .any(|other| other.name == info.name)
            {
                return Some(("types", format!("the name '{}' stands twice", info.name)));
            }
        }
        None
    }

    fn weights_complaint(&self) -> Option<(&'static str, String)> {
        let Some(weights) = &self.weights else {
            return (self.architecture != Architecture::Analytic).then(|| {
                (
                    "weights",
                    format!(
                        "is missing: name the weights file of {}",
                        self.architecture.name()
                    ),
                )
            });
        };
        let mut parts = Path::new(weights).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Some((
                "weights",
                format!("is '{weights}', must be the name of a file beside model.toml"),
            ));
        }
        match &self.sha256 {
            Some(hash) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => None,
            Some(hash) => Some((
                "sha256",
                format!("is '{hash}', must be 64 hex digits (sha256sum {weights})"),
            )),
            None => Some((
                "sha256",
                format!("is missing: put in what `sha256sum {weights}` prints"),
            )),
        }
    }
}

fn postproc_complaint(params: &PostprocParams) -> Option<(&'static str, String)> {
    let unit = 0.0..=1.0;
    if !unit.contains(&params.np_threshold) || params.np_threshold == 0.0 {
        return Some((
            "postproc.np_threshold",
            format!("is {}, must be above 0 and at most 1", params.np_threshold),
        ));
    }
    if !(3..=63).contains(&params.sobel_px) || params.sobel_px.is_multiple_of(2) {
        return Some((
            "postproc.sobel_px",
            format!("is {}, must be odd, 3 to 63", params.sobel_px),
        ));
    }
    if !(params.hv_lo.is_finite() && params.hv_hi.is_finite() && params.hv_lo < params.hv_hi) {
        return Some((
            "postproc.hv_lo",
            format!(
                "is {}, must be below hv_hi ({})",
                params.hv_lo, params.hv_hi
            ),
        ));
    }
    if !unit.contains(&params.energy_threshold) {
        return Some((
            "postproc.energy_threshold",
            format!("is {}, must be 0 to 1", params.energy_threshold),
        ));
    }
    if params.open_px > 63 {
        return Some((
            "postproc.open_px",
            format!("is {}, must be at most 63", params.open_px),
        ));
    }
    if !(0.0..=1e6).contains(&params.min_area_um2) {
        return Some((
            "postproc.min_area_um2",
            format!("is {}, must be 0 to 1000000", params.min_area_um2),
        ));
    }
    let odd = |x: &&f64| x.is_nan() || x.abs() > 1e6;
    let says = |x: &f64| format!("has {x}, must be -1000000 to 1000000");
    if let Some(rule) = &params.confidence {
        let mut all = rule.weights.iter().chain([&rule.least, &rule.bias]);
        if let Some(x) = all.find(odd) {
            return Some(("postproc.confidence", says(x)));
        }
    }
    if let Some(rule) = &params.division {
        if let Some(x) = rule.weights.iter().chain([&rule.bias]).find(odd) {
            return Some(("postproc.division", says(x)));
        }
        let sound = |t: &f32| unit.contains(t);
        if rule.thresholds.is_empty()
            || !rule.thresholds.iter().all(sound)
            || !rule.thresholds.is_sorted_by(|a, b| a > b)
        {
            return Some((
                "postproc.division.thresholds",
                "must be some numbers from 1 down to 0, each below the one before".into(),
            ));
        }
    }
    None
}

/// Bytes of a model folder's file.
pub(super) fn read_model_file(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|error| {
        let reason =
            format!("{error}: a model folder holds {SPEC_FILE} and the weights file that it names");
        ModelError::read(path, reason)
    })
}

/// 1-based line of a byte offset.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_description_is_sound() {
        let text = toml::to_string(&analytic::spec()).unwrap();
        assert_eq!(
            ModelSpec::parse(&text, Path::new("x")).unwrap(),
            analytic::spec()
        );
    }

    #[test]
    fn a_rule_for_dividing_is_checked() {
        let with = |thresholds: &str, bias: &str| {
            let text = toml::to_string(&analytic::spec()).unwrap();
            let weights = vec!["0.0"; 20].join(", ");
            let rule = format!(
                "[postproc.division]\nthresholds = {thresholds}\nbias = {bias}\nweights = [{weights}]\n"
            );
            let parsed = ModelSpec::parse(&format!("{text}{rule}"), Path::new("model.toml"));
            parsed.map_err(|e| e.to_string())
        };
        let sound = with("[0.8, 0.3]", "0.1").unwrap();
        assert_eq!(sound.postproc.division.unwrap().thresholds, [0.8, 0.3]);
        for (thresholds, bias, place) in [
            ("[]", "0.0", "division.thresholds"),
            ("[0.3, 0.8]", "0.0", "division.thresholds"),
            ("[0.5, 0.5]", "0.0", "division.thresholds"),
            ("[1.5]", "0.0", "division.thresholds"),
            ("[nan]", "0.0", "division.thresholds"),
            ("[0.5]", "nan", "division"),
            ("[0.5]", "1e9", "division"),
        ] {
            let error = with(thresholds, bias).unwrap_err();
            assert!(error.contains(place), "{thresholds} {bias}: {error}");
        }
    }

    #[test]
    fn another_patch_size_keeps_the_margin() {
        let path = Path::new("model.toml");
        let spec = ModelSpec {
            architecture: Architecture::HovernetFast,
            patch_in_px: 256,
            patch_out_px: 164,
            weights: Some("w".into()),
            sha256: Some("0".repeat(64)),
            ..analytic::spec()
        };
        let larger = spec.clone().with_patch_in_px(1024, path).unwrap();
        assert_eq!((larger.patch_in_px, larger.patch_out_px), (1024, 932));
        for wrong in [260, 248, 90, 0, -8, i32::MIN] {
            assert!(
                spec.clone().with_patch_in_px(wrong, path).is_err(),
                "{wrong}"
            );
        }
        let lite = ModelSpec {
            architecture: Architecture::HovernetLite,
            patch_in_px: 768,
            patch_out_px: 704,
            ..spec
        };
        assert_eq!(
            lite.clone()
                .with_patch_in_px(512, path)
                .unwrap()
                .patch_out_px,
            448
        );
        assert!(lite.with_patch_in_px(500, path).is_err());
    }
}
