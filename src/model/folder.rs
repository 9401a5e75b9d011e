//! Model folders: model.toml beside its weights.
//!
//! In: a folder, or the bytes embedded in the binary. Out: a [`ModelFolder`] whose description,
//! hash, names and shapes are checked, and from it a [`Model`] on a device. The one place that
//! knows which code runs which architecture.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::analytic::{self, Analytic, Options};
use super::convert;
use super::design::{Design, Folded};
use super::device::Device;
use super::error::ModelError;
use super::fake_device::FakeDevice;
use super::hovernet::{self, HoverNet, Mode};
use super::joined::Joined;
use super::layer;
use super::network::Network;
use super::patch_model::{Engine, Model};
use super::precision::Precision;
use super::spec::{Architecture, ModelSpec, SPEC_FILE, read_model_file};
use super::torch_worker::{SharedNetwork, TorchWorker};
use super::torchscript::TorchScript;
use super::tta::Tta;
use super::types_from::TypesFile;
use super::weights::{self, Tensors};
use crate::digest::sha256_hex;

/// A checked model that is not on a device yet.
pub struct ModelFolder {
    pub spec: ModelSpec,
    /// The folder, or what stands for it (`<embedded>`, `<built in>`): for messages.
    pub path: PathBuf,
    /// SHA-256 of the weights, or of the rule's name for `analytic`; with a second network for the
    /// types one hash of both.
    pub weights_sha256: String,
    weights: Weights,
    second: Option<SecondNetwork>,
}

/// The network of `[types_from]`.
struct SecondNetwork {
    file: TypesFile,
    tensors: Tensors,
}

enum Weights {
    Tensors(Tensors),
    Script(Vec<u8>),
    Rule(Options),
}

impl ModelFolder {
    /// Reads the folder at `path` and checks model.toml and the weights' hash, names and shapes.
    ///
    /// # Errors
    /// The first file or value that is missing or wrong.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let spec = ModelSpec::read(path)?;
        let bytes = match &spec.weights {
            Some(name) => read_model_file(&path.join(name))?,
            None => vec![],
        };
        let second = match &spec.types_from {
            Some(said) => Some(TypesFile {
                bytes: read_model_file(&path.join(&said.weights))?,
                said: said.clone(),
            }),
            None => None,
        };
        Self::check(spec, path, bytes)?.with_second(second)
    }

    /// [`ModelFolder::open`] for a model of one file in memory; `path` is for messages only.
    pub fn from_bytes(spec: &str, weights: &[u8], path: &Path) -> Result<Self, ModelError> {
        let spec = ModelSpec::parse(spec, &path.join(SPEC_FILE))?;
        Self::check(spec, path, weights.to_vec())?.with_second(None)
    }

    /// A hover_net checkpoint (`.tar`, `.pth`) as it is. The hash is that of the file.
    ///
    /// # Errors
    /// The errors of [`convert::read`], and names or shapes that are not HoVer-Net's.
    pub fn from_checkpoint(path: &Path) -> Result<Self, ModelError> {
        let (spec, tensors) = convert::read(path, None)?;
        let wanted = hovernet_parameters(&spec, &tensors);
        weights::check_parameters(&tensors, &wanted, spec.architecture.name(), path)?;
        Ok(Self {
            spec,
            path: path.to_path_buf(),
            weights_sha256: sha256_hex(&read_model_file(path)?),
            weights: Weights::Tensors(tensors),
            second: None,
        })
    }

    /// The built-in analytic model.
    pub fn analytic(options: Options) -> Self {
        let (spec, rule) = match options.fine {
            false => (analytic::spec(), analytic::RULE),
            true => (analytic::fine_spec(), analytic::FINE_RULE),
        };
        Self {
            spec,
            path: PathBuf::from("<built in>"),
            weights_sha256: sha256_hex(rule.as_bytes()),
            weights: Weights::Rule(options),
            second: None,
        }
    }

    fn check(spec: ModelSpec, path: &Path, bytes: Vec<u8>) -> Result<Self, ModelError> {
        let file = path.join(spec.weights.as_deref().unwrap_or(SPEC_FILE));
        if spec.architecture == Architecture::Analytic {
            return Ok(Self {
                spec,
                path: path.to_path_buf(),
                ..Self::analytic(Options::PLAIN)
            });
        }
        let stated = spec.sha256.as_deref().unwrap_or_default();
        let actual = checked_sha256(&bytes, stated, &file)?;
        let weights = match spec.architecture {
            Architecture::Torchscript => Weights::Script(bytes),
            _ => Weights::Tensors(checked_tensors(&spec, spec.architecture, &bytes, &file)?),
        };
        Ok(Self {
            spec,
            path: path.to_path_buf(),
            weights_sha256: actual,
            weights,
            second: None,
        })
    }

    /// The model with the network of its `[types_from]`, whose hash, names and shapes are checked.
    fn with_second(mut self, second: Option<TypesFile>) -> Result<Self, ModelError> {
        let Some(file) = second else {
            return match &self.spec.types_from {
                None => Ok(self),
                Some(said) => Err(ModelError::read(
                    &self.path.join(&said.weights),
                    "the file of [types_from] is not there: a model in memory has one file",
                )),
            };
        };
        let path = self.path.join(&file.said.weights);
        checked_sha256(&file.bytes, &file.said.sha256, &path)?;
        let tensors = checked_tensors(&self.spec, file.said.architecture, &file.bytes, &path)?;
        self.weights_sha256 = file.said.joined_sha256(&self.weights_sha256);
        self.second = Some(SecondNetwork { file, tensors });
        Ok(self)
    }

    /// The second network's file, to hand it to another folder; `None` for a model of one network.
    pub fn types_file(&self) -> Option<&TypesFile> {
        self.second.as_ref().map(|second| &second.file)
    }

    /// The parameters of the second network, by name.
    pub fn second_tensors(&self) -> Option<&Tensors> {
        self.second.as_ref().map(|second| &second.tensors)
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
    pub fn tensors(&self) -> Option<&Tensors> {
        match &self.weights {
            Weights::Tensors(tensors) => Some(tensors),
            Weights::Script(_) | Weights::Rule(_) => None,
        }
    }

    /// The model on `device`, ready to give out workers; the analytic one always on the CPU or its fake devices.
    ///
    /// # Errors
    /// A TorchScript module that cannot be loaded, or too little memory on the device.
    pub fn load(&self, device: Device) -> Result<Model, ModelError> {
        self.load_on(&[device], Precision::Auto)
    }

    /// [`ModelFolder::load`] with its weights on each of several devices of one kind, to compute in `precision`.
    ///
    /// # Errors
    /// Those of [`ModelFolder::load`], and a precision that device or architecture do not have.
    pub fn load_on(&self, devices: &[Device], precision: Precision) -> Result<Model, ModelError> {
        let first = devices.first().copied().unwrap_or(Device::Cpu);
        let precision = precision.of(self.spec.architecture, first)?;
        if let Weights::Rule(options) = &self.weights {
            return Ok(self.rule(options));
        }
        let engines = devices
            .iter()
            .map(|&device| self.network_on(device, precision))
            .collect::<Result<_, _>>()?;
        Ok(Model {
            precision,
            ..self.with_engines(first, engines, first != Device::Cpu)
        })
    }

    /// The analytic rule, once on the CPU or once per fake device.
    fn rule(&self, options: &Options) -> Model {
        let margin_px = self.spec.margin_px() as usize;
        let Some(fake) = &options.device else {
            let rule = Analytic::new(margin_px, options.delay).at_scale(options.fine);
            return self.with_engines(Device::Cpu, vec![Box::new(rule)], false);
        };
        let device = || Arc::new(FakeDevice::new(fake.mpx_per_s, fake.latency));
        let devices: Vec<Arc<FakeDevice>> = (0..fake.count).map(|_| device()).collect();
        let on_device = |device: &Arc<FakeDevice>| -> Box<dyn Engine> {
            Box::new(Analytic::on_device(margin_px, device.clone()).at_scale(options.fine))
        };
        let engines = devices.iter().map(on_device).collect();
        Model {
            fake_devices: devices,
            ..self.with_engines(Device::Cpu, engines, true)
        }
    }

    fn network_on(
        &self,
        device: Device,
        precision: Precision,
    ) -> Result<Box<dyn Engine>, ModelError> {
        let network = self.shared_network(device, precision)?;
        let (margin_px, types) = (self.spec.margin_px() as u32, self.spec.types.len());
        Ok(Box::new(TorchWorker::new(
            network, device, margin_px, types,
        )))
    }

    /// The network itself on `device`, for tensors instead of patches, to compute in `precision`.
    ///
    /// # Errors
    /// Those of [`ModelFolder::load_on`], and a model that is no network.
    pub fn network(
        &self,
        device: Device,
        precision: Precision,
    ) -> Result<impl Network + use<>, ModelError> {
        self.shared_network(device, precision.of(self.spec.architecture, device)?)
    }

    fn shared_network(
        &self,
        device: Device,
        precision: Precision,
    ) -> Result<SharedNetwork, ModelError> {
        match &self.weights {
            Weights::Script(bytes) => Ok(SharedNetwork::new(TorchScript::load(
                bytes,
                &self.path,
                device.into(),
            )?)),
            Weights::Tensors(tensors) => match &self.second {
                None => build(&self.spec, tensors, device.into(), precision),
                Some(second) => join(&self.spec, tensors, second, device.into(), precision),
            },
            Weights::Rule(_) => Err(ModelError::NotBuilt {
                architecture: self.spec.architecture.name(),
            }),
        }
    }

    fn with_engines(
        &self,
        device: Device,
        engines: Vec<Box<dyn Engine>>,
        in_batches: bool,
    ) -> Model {
        Model {
            spec: self.spec.clone(),
            weights_sha256: self.weights_sha256.clone(),
            device,
            in_batches,
            precision: Precision::F32,
            tta: Tta::None,
            fake_devices: vec![],
            engines,
        }
    }
}

/// The SHA-256 of a file's bytes, if it is the one that model.toml states.
fn checked_sha256(bytes: &[u8], stated: &str, file: &Path) -> Result<String, ModelError> {
    let actual = sha256_hex(bytes);
    let stated = stated.to_ascii_lowercase();
    match actual == stated {
        true => Ok(actual),
        false => Err(ModelError::Hash {
            path: file.to_path_buf(),
            stated,
            actual,
        }),
    }
}

/// The tensors of a weights file of `architecture` under its own names, every name and shape right for the types of
/// `spec`.
fn checked_tensors(
    spec: &ModelSpec,
    architecture: Architecture,
    bytes: &[u8],
    file: &Path,
) -> Result<Tensors, ModelError> {
    let tensors = weights::read_safetensors(bytes, file)?;
    let (tensors, wanted) = match architecture {
        Architecture::HovernetFast | Architecture::HovernetOriginal => {
            let tensors = hovernet::own_names(tensors);
            let wanted = hovernet_parameters(spec, &tensors);
            (tensors, wanted)
        }
        architecture => {
            let design = design_of(architecture)?;
            let layers = (design.layers)(types_of(spec));
            (tensors.into_iter().collect(), layer::parameters(&layers))
        }
    };
    weights::check_parameters(&tensors, &wanted, architecture.name(), file)?;
    Ok(tensors)
}

/// Names and shapes that HoVer-Net wants for the types of `spec` and the width of `tensors`.
fn hovernet_parameters(spec: &ModelSpec, tensors: &Tensors) -> Vec<(String, Vec<i64>)> {
    let types = spec.types.len() as i64;
    let width = hovernet::width_of(tensors);
    hovernet::parameters(mode_of(spec.architecture), types, width)
}

/// The network of checked tensors.
fn build(
    spec: &ModelSpec,
    tensors: &Tensors,
    device: tch::Device,
    precision: Precision,
) -> Result<SharedNetwork, ModelError> {
    match spec.architecture {
        Architecture::HovernetFast | Architecture::HovernetOriginal => {
            let mode = mode_of(spec.architecture);
            let network = HoverNet::in_precision(mode, tensors, device, precision)?;
            Ok(SharedNetwork::new(network))
        }
        architecture => {
            let network = fold(architecture, types_of(spec), tensors, device, precision)?;
            Ok(SharedNetwork::new(network))
        }
    }
}

/// A network of our own of checked tensors and its second one for the types.
fn join(
    spec: &ModelSpec,
    tensors: &Tensors,
    second: &SecondNetwork,
    device: tch::Device,
    precision: Precision,
) -> Result<SharedNetwork, ModelError> {
    let own =
        |architecture, tensors| fold(architecture, types_of(spec), tensors, device, precision);
    let said = &second.file.said;
    Ok(SharedNetwork::new(Joined {
        first: own(spec.architecture, tensors)?,
        second: own(said.architecture, &second.tensors)?,
        share: said.share,
        temperature: said.temperature,
    }))
}

/// A network of our own of checked tensors, on `device`.
fn fold(
    architecture: Architecture,
    types: i64,
    tensors: &Tensors,
    device: tch::Device,
    precision: Precision,
) -> Result<Folded, ModelError> {
    let on_device = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_device(device)))
        .collect();
    Folded::from_tensors(design_of(architecture)?, types, on_device, precision)
}

fn design_of(architecture: Architecture) -> Result<Design, ModelError> {
    Design::of(architecture).ok_or(ModelError::NotBuilt {
        architecture: architecture.name(),
    })
}

/// Number of types without the background.
fn types_of(spec: &ModelSpec) -> i64 {
    spec.types.len().saturating_sub(1) as i64
}

const fn mode_of(architecture: Architecture) -> Mode {
    match architecture {
        Architecture::HovernetOriginal => Mode::Original,
        _ => Mode::Fast,
    }
}

#[cfg(test)]
mod tests;
