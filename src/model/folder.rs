//! Model folders: model.toml beside its weights.
//!
//! In: a folder, or the bytes embedded in the binary. Out: a [`ModelFolder`] whose description, hash, names and shapes
//! are checked, and from it a [`Model`] on a device. The one place that knows which architecture is which code.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tch::Device;

use super::analytic::{self, Analytic};
use super::convert;
use super::error::ModelError;
use super::hovernet::{self, HoverNet, Mode};
use super::lite::{self, Lite};
use super::patch_model::{Engine, Model, SharedNetwork};
use super::spec::{Architecture, ModelSpec};
use super::torchscript::TorchScript;
use super::tta::Tta;
use super::weights::{self, Tensors};
use crate::digest::sha256_hex;

/// Name of the description in a model folder.
pub const SPEC_FILE: &str = "model.toml";

/// A checked model that is not on a device yet.
pub struct ModelFolder {
    pub spec: ModelSpec,
    /// The folder, or what stands for it (`<embedded>`, `<built in>`): for messages.
    pub path: PathBuf,
    /// SHA-256 of the weights, or of the rule's name for `analytic`.
    pub weights_sha256: String,
    weights: Weights,
}

enum Weights {
    Tensors(Tensors),
    Script(Vec<u8>),
    Rule(Duration),
}

impl ModelFolder {
    /// Reads and checks the folder at `path`: model.toml, the weights' hash, and their names and shapes.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let spec = read_spec(path)?;
        let bytes = match &spec.weights {
            Some(name) => read(&path.join(name))?,
            None => vec![],
        };
        Self::check(spec, path, bytes)
    }

    /// The same for a model held in memory.
    pub fn from_bytes(spec: &str, weights: &[u8], path: &Path) -> Result<Self, ModelError> {
        let spec = ModelSpec::parse(spec, &path.join(SPEC_FILE))?;
        Self::check(spec, path, weights.to_vec())
    }

    /// A hover_net checkpoint (`.tar`, `.pth`) as it is; the file's own hash stands for the weights'.
    pub fn from_checkpoint(path: &Path) -> Result<Self, ModelError> {
        let (spec, tensors) = convert::read(path, None)?;
        Self::check_shapes(&spec, &tensors, path)?;
        Ok(Self {
            spec,
            path: path.to_path_buf(),
            weights_sha256: sha256_hex(&read(path)?),
            weights: Weights::Tensors(tensors),
        })
    }

    fn check_shapes(spec: &ModelSpec, tensors: &Tensors, path: &Path) -> Result<(), ModelError> {
        let wanted = hovernet::parameters(
            mode_of(spec.architecture),
            spec.types.len() as i64,
            hovernet::width_of(tensors),
        );
        weights::check_parameters(tensors, &wanted, spec.architecture.name(), path)
    }

    /// The built-in rule; every patch takes `delay` longer.
    pub fn analytic(delay: Duration) -> Self {
        Self {
            spec: analytic::spec(),
            path: PathBuf::from("<built in>"),
            weights_sha256: sha256_hex(analytic::RULE.as_bytes()),
            weights: Weights::Rule(delay),
        }
    }

    fn check(spec: ModelSpec, path: &Path, bytes: Vec<u8>) -> Result<Self, ModelError> {
        let file = path.join(spec.weights.as_deref().unwrap_or(SPEC_FILE));
        if spec.architecture == Architecture::Analytic {
            return Ok(Self {
                spec,
                path: path.to_path_buf(),
                ..Self::analytic(Duration::ZERO)
            });
        }
        let actual = sha256_hex(&bytes);
        let stated = spec.sha256.clone().unwrap_or_default().to_ascii_lowercase();
        if actual != stated {
            return Err(ModelError::Hash {
                path: file,
                stated,
                actual,
            });
        }
        let weights = match spec.architecture {
            Architecture::Torchscript => Weights::Script(bytes),
            _ => Weights::Tensors(checked_tensors(&spec, &bytes, &file)?),
        };
        Ok(Self {
            spec,
            path: path.to_path_buf(),
            weights_sha256: actual,
            weights,
        })
    }

    /// Names and shapes of the parameters; empty for models that hold none by name.
    pub fn parameters(&self) -> Vec<(String, Vec<i64>)> {
        match &self.weights {
            Weights::Tensors(tensors) => tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.size()))
                .collect(),
            Weights::Script(_) | Weights::Rule(_) => vec![],
        }
    }

    /// The parameters by name; `None` for models that hold none by name.
    pub fn tensors(&self) -> Option<&weights::Tensors> {
        match &self.weights {
            Weights::Tensors(tensors) => Some(tensors),
            Weights::Script(_) | Weights::Rule(_) => None,
        }
    }

    /// The network on `device`, ready to give out workers.
    pub fn load(&self, device: Device) -> Result<Model, ModelError> {
        let spec = self.spec.clone();
        let engine = match (&self.weights, spec.architecture) {
            (Weights::Rule(delay), _) => {
                Engine::Analytic(Analytic::new(spec.margin_px() as usize, *delay))
            }
            (Weights::Script(bytes), _) => Engine::Torch(SharedNetwork::new(TorchScript::load(
                bytes, &self.path, device,
            )?)),
            (Weights::Tensors(tensors), architecture) => {
                Engine::Torch(build(architecture, tensors, device)?)
            }
        };
        let on_cpu = matches!(engine, Engine::Analytic(_));
        Ok(Model {
            spec,
            weights_sha256: self.weights_sha256.clone(),
            device: if on_cpu { Device::Cpu } else { device },
            tta: Tta::None,
            engine,
        })
    }
}

/// Reads and checks a folder's model.toml alone.
pub fn read_spec(path: &Path) -> Result<ModelSpec, ModelError> {
    let file = path.join(SPEC_FILE);
    let text = String::from_utf8(read(&file)?).map_err(|_| ModelError::Read {
        path: file.clone(),
        reason: "it is not UTF-8 text".into(),
    })?;
    ModelSpec::parse(&text, &file)
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(|error| ModelError::Read {
        path: path.to_path_buf(),
        reason: format!(
            "{error}: a model folder holds {SPEC_FILE} and the weights file that it names"
        ),
    })
}

/// The tensors of a weights file under the architecture's own names, every name and shape right.
fn checked_tensors(spec: &ModelSpec, bytes: &[u8], file: &Path) -> Result<Tensors, ModelError> {
    let tensors = weights::read_safetensors(bytes, file)?;
    let types = spec.types.len() as i64;
    let (tensors, wanted) = match spec.architecture {
        Architecture::HovernetFast | Architecture::HovernetOriginal => {
            let tensors = hovernet::own_names(tensors);
            let wanted = hovernet::parameters(
                mode_of(spec.architecture),
                types,
                hovernet::width_of(&tensors),
            );
            (tensors, wanted)
        }
        Architecture::HovernetLite => {
            let wanted = lite::parameters((types - 1).max(0));
            (tensors.into_iter().collect(), wanted)
        }
        architecture @ (Architecture::Torchscript | Architecture::Analytic) => {
            return Err(ModelError::NotBuilt {
                architecture: architecture.name(),
            });
        }
    };
    weights::check_parameters(&tensors, &wanted, spec.architecture.name(), file)?;
    Ok(tensors)
}

fn build(
    architecture: Architecture,
    tensors: &Tensors,
    device: Device,
) -> Result<SharedNetwork, ModelError> {
    match architecture {
        Architecture::HovernetFast | Architecture::HovernetOriginal => {
            let network = HoverNet::from_tensors(mode_of(architecture), tensors, device)?;
            Ok(SharedNetwork::new(network))
        }
        Architecture::HovernetLite => {
            let on_device = tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.to_device(device)))
                .collect();
            Ok(SharedNetwork::new(Lite::from_tensors(on_device)?))
        }
        Architecture::Torchscript | Architecture::Analytic => Err(ModelError::NotBuilt {
            architecture: architecture.name(),
        }),
    }
}

const fn mode_of(architecture: Architecture) -> Mode {
    match architecture {
        Architecture::HovernetOriginal => Mode::Original,
        _ => Mode::Fast,
    }
}

#[cfg(test)]
mod tests;
