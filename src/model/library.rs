//! Models by name.
//!
//! In: a name (`default`, `analytic`, a folder of `weights/`) or a path. Out: the model, or what it
//! says about itself. Looks in `$WSI_NUCLEI_MODELS` (folders separated by `:`), in `weights/` of
//! the working directory, beside the installed program, and in the binary itself. Never prints and
//! never downloads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use serde::Serialize;

use super::analytic::{self, Options};
use super::convert;
use super::device::Device;
use super::error::ModelError;
use super::folder::ModelFolder;
use super::spec::{ModelSpec, SPEC_FILE};

include!(concat!(env!("OUT_DIR"), "/embedded_model.rs"));

/// Name under which the embedded model is found.
pub const DEFAULT_MODEL: &str = "default";
const ANALYTIC: &str = "analytic";

/// Folders in which models are looked for: the first match wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Library {
    pub folders: Vec<PathBuf>,
}

/// One line of `model list`.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// What to give to `--model`.
    pub name: String,
    /// Folder, `<embedded>` or `<built in>`.
    pub place: PathBuf,
    pub spec: Option<ModelSpec>,
    /// Why the folder's model.toml cannot be used.
    pub error: Option<String>,
}

/// What `model info` shows.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    pub place: PathBuf,
    pub spec: ModelSpec,
    pub weights_sha256: String,
    /// Number of parameter tensors and of values in them, those of a second network included.
    pub tensors: usize,
    pub values: u64,
}

/// What `model verify` found; reaching it means that hash, names and shapes are right.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    pub info: ModelInfo,
    /// Least and greatest value of each map on the fixed pattern.
    pub ranges: BTreeMap<&'static str, [f32; 2]>,
}

impl Library {
    /// `$WSI_NUCLEI_MODELS`, then `weights/` of the working directory, then what `make install` put
    /// beside the program.
    pub fn from_env() -> Self {
        let variable = std::env::var_os("WSI_NUCLEI_MODELS").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&variable)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        folders.push(PathBuf::from("weights"));
        let program = std::env::current_exe().ok();
        folders.extend(program.as_deref().and_then(installed_models));
        Self { folders }
    }

    /// The checked model of a name or path. `analytic:20` takes 20 ms per patch; [`Options`] has more.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with the names there are, or what is wrong with the model.
    pub fn open(&self, model: &str) -> Result<ModelFolder, ModelError> {
        if let Some(options) = analytic_options(model)? {
            return Ok(ModelFolder::analytic(options));
        }
        if convert::is_checkpoint(Path::new(model)) {
            return ModelFolder::from_checkpoint(Path::new(model));
        }
        match self.folder_of(model) {
            Some(path) => ModelFolder::open(&path),
            None => self.open_embedded(model),
        }
    }

    fn open_embedded(&self, model: &str) -> Result<ModelFolder, ModelError> {
        match EMBEDDED_MODEL {
            Some((spec, weights))
                if model == DEFAULT_MODEL
                    || embedded_spec().is_some_and(|spec| spec.name == model) =>
            {
                ModelFolder::from_bytes(spec, weights, Path::new("<embedded>"))
            }
            _ => Err(self.not_found(model)),
        }
    }

    /// The folder that `model` means: a bare name is looked up, anything with a `/` is a path.
    fn folder_of(&self, model: &str) -> Option<PathBuf> {
        let path = Path::new(model);
        if model.contains('/') || model == "." || model == ".." {
            return Some(match path.file_name() {
                Some(name) if name == SPEC_FILE => path.parent().unwrap_or(path).to_path_buf(),
                _ => path.to_path_buf(),
            });
        }
        // The embedded default wins over a `weights/default` of the working directory.
        if model.is_empty() || (model == DEFAULT_MODEL && EMBEDDED_MODEL.is_some()) {
            return None;
        }
        self.folders
            .iter()
            .map(|folder| folder.join(model))
            .chain([path.to_path_buf()])
            .find(|folder| folder.join(SPEC_FILE).is_file())
    }

    fn not_found(&self, model: &str) -> ModelError {
        let names: Vec<String> = self.list().into_iter().map(|listed| listed.name).collect();
        let folders: Vec<String> = self
            .folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        ModelError::NotFound {
            name: model.to_string(),
            available: format!(
                "{} (also looked in {})",
                names.join(", "),
                folders.join(", ")
            ),
        }
    }

    /// Every model that can be found by name, each name once, the embedded model first.
    pub fn list(&self) -> Vec<Listed> {
        let built_in = |name: &str, place: &str, spec| Listed {
            name: name.to_string(),
            place: place.into(),
            spec: Some(spec),
            error: None,
        };
        let mut all: Vec<Listed> = embedded_spec()
            .map(|spec| built_in(DEFAULT_MODEL, "<embedded>", spec))
            .into_iter()
            .chain([built_in(ANALYTIC, "<built in>", analytic::spec())])
            .collect();
        for folder in &self.folders {
            for listed in models_in(folder) {
                if !all.iter().any(|other| other.name == listed.name) {
                    all.push(listed);
                }
            }
        }
        all
    }

    /// What a model says about itself, after its hash, names and shapes have been checked.
    ///
    /// # Errors
    /// Those of [`Library::open`].
    pub fn info(&self, model: &str) -> Result<ModelInfo, ModelError> {
        Ok(info_of(&self.open(model)?))
    }

    /// Checks hash, names and shapes, then runs a fixed pattern through the model.
    ///
    /// # Errors
    /// Those of [`Library::open`], and a map that is not finite.
    pub fn verify(&self, model: &str, device: Device) -> Result<Verified, ModelError> {
        let folder = self.open(model)?;
        let pattern = test_pattern(folder.spec.patch_in_px as u32);
        let maps = folder.load(device)?.worker().predict(&[pattern])?;
        let map = maps
            .first()
            .ok_or_else(|| ModelError::output("it gives no map for a patch"))?;
        let mut ranges = BTreeMap::from([
            ("np", range("np", &map.np)?),
            ("h", range("h", &map.h)?),
            ("v", range("v", &map.v)?),
        ]);
        if map.types > 0 {
            ranges.insert("tp", range("tp", &map.tp)?);
        }
        Ok(Verified {
            info: info_of(&folder),
            ranges,
        })
    }
}

/// Models of an installed `program`: PREFIX/share/wsi-nuclei/weights for PREFIX/bin/wsi-nuclei.
fn installed_models(program: &Path) -> Option<PathBuf> {
    let bin = program.parent()?;
    (bin.file_name()? == "bin").then(|| bin.with_file_name("share/wsi-nuclei/weights"))
}

/// The embedded model's description, if the binary has one and it is valid.
pub fn embedded_spec() -> Option<ModelSpec> {
    let (spec, _) = EMBEDDED_MODEL?;
    ModelSpec::parse(spec, Path::new("<embedded>/model.toml")).ok()
}

/// What is asked of the analytic model if `model` is `analytic` or `analytic:…`.
fn analytic_options(model: &str) -> Result<Option<Options>, ModelError> {
    match model.strip_prefix(ANALYTIC) {
        Some("") => Ok(Some(Options::PLAIN)),
        Some(rest) => match rest.strip_prefix(':') {
            None => Ok(None),
            Some(text) => Options::parse(text, model).map(Some),
        },
        None => Ok(None),
    }
}

/// The model folders of a folder, sorted by name; none where it does not exist.
fn models_in(folder: &Path) -> Vec<Listed> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return vec![];
    };
    let mut found: Vec<Listed> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join(SPEC_FILE).is_file())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_string();
            let (spec, error) = match ModelSpec::read(&path) {
                Ok(spec) => (Some(spec), None),
                Err(error) => (None, Some(error.to_string())),
            };
            Some(Listed {
                name,
                place: path,
                spec,
                error,
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn info_of(folder: &ModelFolder) -> ModelInfo {
    let mut shapes: Vec<Vec<i64>> = folder.parameters().into_iter().map(|p| p.1).collect();
    let second = folder.second_tensors().into_iter().flatten();
    shapes.extend(second.map(|(_, tensor)| tensor.size()));
    let values = |shape: &Vec<i64>| shape.iter().product::<i64>() as u64;
    ModelInfo {
        place: folder.path.clone(),
        spec: folder.spec.clone(),
        weights_sha256: folder.weights_sha256.clone(),
        tensors: shapes.len(),
        values: shapes.iter().map(values).sum(),
    }
}

/// Discs in the colour of hematoxylin on eosin's: any model sees nuclei or tissue in it.
fn test_pattern(side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| {
        let (dx, dy) = ((x % 40) as i32 - 20, (y % 40) as i32 - 20);
        if dx * dx + dy * dy < 120 {
            Rgb([90, 60, 140])
        } else {
            Rgb([225, 170, 205])
        }
    })
}

/// Least and greatest of a map's values.
fn range(name: &str, values: &[f32]) -> Result<[f32; 2], ModelError> {
    if values.is_empty() || !values.iter().all(|value| value.is_finite()) {
        return Err(ModelError::output(format!(
            "{name} of the test pattern is not all finite"
        )));
    }
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    Ok([least, greatest])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_analytic_model_needs_no_folder() {
        let library = Library::default();
        let verified = library.verify("analytic", Device::Cpu).unwrap();
        assert_eq!(verified.info.tensors, 0);
        let [least, greatest] = verified.ranges["np"];
        assert!(least < 0.1 && greatest > 0.9, "{least} {greatest}");
        assert!(library.open("analytic:5").is_ok());
        assert!(
            library
                .open("analytic:x")
                .err()
                .unwrap()
                .to_string()
                .contains("ms a patch")
        );
    }

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let scratch = tempfile::tempdir().unwrap();
        let broken = scratch.path().join("broken");
        std::fs::create_dir(&broken).unwrap();
        std::fs::write(broken.join(SPEC_FILE), "name = 3\n").unwrap();
        let library = Library {
            folders: vec![scratch.path().to_path_buf()],
        };
        let message = library.open("nosuch").err().unwrap().to_string();
        for part in ["nosuch", "analytic", "broken", "model.toml"] {
            assert!(message.contains(part), "{message}");
        }
        let listed = library.list();
        let broken = listed
            .iter()
            .find(|listed| listed.name == "broken")
            .unwrap();
        assert!(broken.error.as_ref().unwrap().contains("model.toml:1"));
    }

    #[test]
    fn an_installed_program_has_its_models_beside_it() {
        let found = |program: &str| installed_models(Path::new(program));
        assert_eq!(
            found("/opt/wsi/bin/wsi-nuclei"),
            Some("/opt/wsi/share/wsi-nuclei/weights".into())
        );
        assert_eq!(found("/src/target/release/wsi-nuclei"), None);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let message = Library::default()
            .open("./no/such")
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("./no/such/model.toml"), "{message}");
    }
}
