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
use crate::model::{Architecture, ModelSpec, TypeInfo};
use crate::store::atomic;

/// File name of the weights.
const WEIGHTS: &str = "model.safetensors";

/// model.toml and the bytes of the weights, as a model folder at `out` would hold them.
pub fn pack(
    config: &TrainConfig,
    tensors: &[(String, Tensor)],
    out: &Path,
) -> Result<(String, Vec<u8>), TrainError> {
    let folder = tempfile::tempdir().map_err(|e| TrainError::file(out, e))?;
    write_model(folder.path(), config, tensors)?;
    let read = |name: &str| {
        let path = folder.path().join(name);
        std::fs::read(&path).map_err(|e| TrainError::file(path, e))
    };
    let text = String::from_utf8_lossy(&read("model.toml")?).into_owned();
    Ok((text, read(WEIGHTS)?))
}

/// Copies the model of the folder `from`, if it has one, over the model of `out`.
pub fn copy_model(from: &Path, out: &Path) -> Result<(), TrainError> {
    for name in [WEIGHTS, "model.toml"] {
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
    let kind = storage_kind(config.model.architecture);
    write_folder(out, spec_of(config), tensors, kind)
}

/// Writes the mean of two models as the model folder `out`, without the scores of either.
pub fn write_mean(
    out: &Path,
    mut spec: ModelSpec,
    tensors: &[(String, Tensor)],
) -> Result<(), TrainError> {
    spec.scores = toml::Table::new();
    let kind = storage_kind(spec.architecture);
    write_folder(out, spec, tensors, kind)
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
fn write_weights(path: &Path, tensors: &[(String, Tensor)]) -> Result<String, TrainError> {
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
    if let (Some(t), Some(_)) = (tuned.temperature, Design::of(spec.architecture)) {
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
        licence: card.licence,
        citation: card.citation,
        training_data: card.training_data,
        scores: toml::Table::new(),
    }
}
