//! Model folders written by training and tuning.
//!
//! In: tensors with folded batch norms, the training's configuration. Out: model.safetensors
//! (our own networks in f16) and model.toml with its hash. Never leaves a model.toml without its
//! weights.

use std::path::Path;

use tch::{Kind, Tensor};

use super::TrainError;
use super::checkpoint::write_tensors;
use super::config::TrainConfig;
use super::tune::Tuned;
use crate::digest::sha256_hex;
use crate::model::design::Design;
use crate::model::{Architecture, ModelSpec, TypeInfo, TypesFile, TypesFrom};
use crate::store::atomic;

/// File name of the weights.
const WEIGHTS: &str = "model.safetensors";
/// File name of a second network's weights.
pub(super) const TYPES_WEIGHTS: &str = "types.safetensors";

/// Copies the model of the folder `from`, if it has one, over the model of `out`.
pub fn copy_model(from: &Path, out: &Path) -> Result<(), TrainError> {
    for name in [WEIGHTS, TYPES_WEIGHTS, "model.toml"] {
        let source = from.join(name);
        if source.exists() {
            let bytes = std::fs::read(&source).map_err(|e| TrainError::file(&source, e))?;
            let target = out.join(name);
            atomic::write_bytes(&target, &bytes).map_err(|e| TrainError::file(&target, e))?;
        }
    }
    Ok(())
}

/// Writes the model folder `out`: weights first, then the model.toml that names them.
pub fn write_model(
    out: &Path,
    config: &TrainConfig,
    tensors: &[(String, Tensor)],
) -> Result<(), TrainError> {
    let mut spec = spec_of(config);
    spec.types_from = write_types(out, config.types_from.as_ref())?;
    let kind = storage_kind(config.model.architecture);
    write_folder(out, spec, tensors, kind)
}

/// Writes a model made of others as the model folder `out`, without their scores; `types`: its
/// second network.
pub fn write_combined(
    out: &Path,
    mut spec: ModelSpec,
    tensors: &[(String, Tensor)],
    types: Option<&TypesFile>,
) -> Result<(), TrainError> {
    spec.scores = toml::Table::new();
    spec.types_from = write_types(out, types)?;
    let kind = storage_kind(spec.architecture);
    write_folder(out, spec, tensors, kind)
}

/// Writes the weights of a second network into the folder `out`; returns what model.toml says of it.
fn write_types(out: &Path, types: Option<&TypesFile>) -> Result<Option<TypesFrom>, TrainError> {
    let Some(types) = types else {
        return Ok(None);
    };
    std::fs::create_dir_all(out).map_err(|e| TrainError::file(out, e))?;
    let path = out.join(TYPES_WEIGHTS);
    atomic::write_bytes(&path, &types.bytes).map_err(|e| TrainError::file(&path, e))?;
    Ok(Some(TypesFrom {
        weights: TYPES_WEIGHTS.into(),
        ..types.said.clone()
    }))
}

/// The number type of stored weights: f16 for our own networks, whose scores stay the same; f32 as
/// hover_net stores for others.
fn storage_kind(architecture: Architecture) -> Kind {
    match Design::of(architecture) {
        Some(_) => Kind::Half,
        None => Kind::Float,
    }
}

/// Writes a model folder of `spec` (sets its `weights` and `sha256`) with tensors of `kind`.
pub fn write_folder(
    out: &Path,
    mut spec: ModelSpec,
    tensors: &[(String, Tensor)],
    kind: Kind,
) -> Result<(), TrainError> {
    std::fs::create_dir_all(out).map_err(|e| TrainError::file(out, e))?;
    let stored: Vec<_> = tensors
        .iter()
        .map(|(n, t)| (n.clone(), t.to_kind(kind)))
        .collect();
    spec.weights = Some(WEIGHTS.into());
    spec.sha256 = Some(write_weights(&out.join(WEIGHTS), &stored)?);
    write_spec(&out.join("model.toml"), &spec)
}

/// Writes a weights file; returns its SHA-256.
pub(super) fn write_weights(
    path: &Path,
    tensors: &[(String, Tensor)],
) -> Result<String, TrainError> {
    write_tensors(tensors, path)?;
    let bytes = std::fs::read(path).map_err(|e| TrainError::file(path, e))?;
    Ok(sha256_hex(&bytes))
}

fn write_spec(path: &Path, spec: &ModelSpec) -> Result<(), TrainError> {
    let text = toml::to_string(spec).map_err(|e| TrainError::file(path, e))?;
    atomic::write_bytes(path, text.as_bytes()).map_err(|e| TrainError::file(path, e))
}

/// Name prefix of the layer of our own networks whose output the temperature divides.
const TYPE_HEAD: &str = "head.tp.";

/// Writes tuned constants into the model folder `out`, and the temperature into its type head.
pub fn apply_tuning(out: &Path, tuned: &Tuned) -> Result<(), TrainError> {
    let path = out.join("model.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| TrainError::file(&path, e))?;
    let mut spec = ModelSpec::parse(&text, &path).map_err(|e| TrainError::Config(e.to_string()))?;
    spec.postproc = tuned.postproc.clone();
    // The scores were measured with other constants.
    spec.scores = toml::Table::new();
    if let (Some(t), Some(second)) = (tuned.temperature, &mut spec.types_from) {
        // The mean of two networks has a temperature of its own.
        second.temperature *= t;
    } else if let (Some(t), Some(_)) = (tuned.temperature, Design::of(spec.architecture)) {
        let weights = out.join(spec.weights.as_deref().unwrap_or(WEIGHTS));
        let tensors: Vec<(String, Tensor)> = Tensor::read_safetensors(&weights)
            .map_err(|e| TrainError::file(&weights, e))?
            .into_iter()
            .map(|(name, tensor)| {
                let scaled = match name.starts_with(TYPE_HEAD) {
                    true => (tensor.to_kind(Kind::Float) / t).to_kind(Kind::Half),
                    false => tensor,
                };
                (name, scaled)
            })
            .collect();
        spec.sha256 = Some(write_weights(&weights, &tensors)?);
    }
    write_spec(&path, &spec)
}

/// The model.toml of a training, without its weights file.
fn spec_of(config: &TrainConfig) -> ModelSpec {
    let background = TypeInfo {
        name: "background".into(),
        color: [0, 0, 0],
    };
    let types = match config.types.as_slice() {
        [] => Vec::new(),
        some => std::iter::once(background)
            .chain(some.iter().cloned())
            .collect(),
    };
    let card = config.model.clone();
    ModelSpec {
        name: card.name,
        architecture: card.architecture,
        mpp: config.mpp,
        patch_in_px: card.patch_in_px,
        patch_out_px: card.patch_out_px,
        types,
        postproc: config.postproc.clone(),
        weights: None,
        sha256: None,
        types_from: None,
        licence: card.licence,
        citation: card.citation,
        training_data: card.training_data,
        scores: toml::Table::new(),
    }
}
