//! Every setting of `run`: flag over environment over file over default.
//!
//! In: what was typed ([`Settings`]), the environment, a TOML file. Out: [`RunConfig`], checked once, and where each
//! value came from. Nothing after this page asks whether settings go together.

pub mod layers;
pub mod settings;
pub mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::geometry::Rect;

pub use settings::Settings;
pub use values::{
    Auto, ByteSize, Count, DeviceChoice, Format, Formats, GeojsonFrame, Level0Box, MaskChoice, Mpp,
    PostprocRules, Precision, ProgressMode, Shard, Tta, Units,
};

/// A setting that cannot be used. Messages name the place and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{}, line {line}: {reason}", path.display())]
    File {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{}: cannot be read as a config: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("environment variable {name}: {reason}")]
    Variable { name: String, reason: String },
    #[error("{0}")]
    Contradiction(String),
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

/// A setting as run.json shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    pub value: serde_json::Value,
    pub from: Origin,
}

/// The checked settings of one `run` or `tile`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    pub output: PathBuf,
    /// `default` (the embedded one), a name, or a folder.
    pub model: String,
    pub device: DeviceChoice,
    pub precision: Precision,
    pub batch_size: Option<usize>,
    pub patch_size_px: Option<u32>,
    pub tta: Tta,
    pub postproc: PostprocRules,
    pub mpp: Option<f64>,
    pub mask: MaskChoice,
    pub roi: Option<PathBuf>,
    pub level0_box: Option<Rect>,
    pub formats: Vec<Format>,
    pub units: Units,
    pub geojson_frame: GeojsonFrame,
    pub dedupe_names: bool,
    pub restart: bool,
    pub shard: Option<Shard>,
    pub mix_devices: bool,
    pub tile_size_px: Option<u32>,
    /// Worker threads, at least 1.
    pub threads: usize,
    pub memory_bytes: Option<u64>,
    pub progress: ProgressMode,
    pub quiet: bool,
    pub log: Option<PathBuf>,
    /// Every setting with what it is and where it came from, by its public name.
    pub settings: BTreeMap<String, Setting>,
}

/// What one slide gets: the run's settings, with its row of the manifest over them.
#[derive(Debug, Clone, PartialEq)]
pub struct SlideConfig {
    pub path: PathBuf,
    /// Name of the slide's folder under the output folder: one path component.
    pub stem: String,
    /// `OUT/<stem>`.
    pub folder: PathBuf,
    pub model: String,
    pub mpp: Option<f64>,
    /// Where `mpp` came from: `manifest` or `flag` (whichever layer of the settings said it).
    pub mpp_from: Option<&'static str>,
    pub mask: MaskChoice,
    pub roi: Option<PathBuf>,
}

impl RunConfig {
    /// What is written, and how.
    pub fn choice(&self) -> crate::output::Choice<'_> {
        crate::output::Choice {
            formats: &self.formats,
            units: self.units,
            geojson_frame: self.geojson_frame,
        }
    }

    /// Layers `flags` over the environment (through `lookup`), the file `config` and the defaults, and checks the
    /// outcome.
    ///
    /// # Errors
    /// [`ConfigError`] for a value that no setting takes, an unknown key, or settings that contradict each other.
    pub fn resolve(
        flags: Settings,
        config: Option<&Path>,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let file = match config {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
                        path: path.to_owned(),
                        reason: error.to_string(),
                    })?;
                layers::from_toml(&text, path)?
            }
            None => Settings::default(),
        };
        let layers = [
            (Origin::Default, layers::defaults()?),
            (Origin::File, file),
            (Origin::Environment, layers::from_env(lookup)?),
            (Origin::Flag, flags),
        ];
        let mut from = BTreeMap::new();
        let mut merged = Settings::default();
        for (source, layer) in layers {
            for field in Settings::FIELDS {
                if layer.has(field) {
                    from.insert(*field, source);
                }
            }
            merged.overlay(layer);
        }
        check(&merged, &from)?;
        Self::from_merged(merged, &from)
    }

    fn from_merged(
        merged: Settings,
        from: &BTreeMap<&'static str, Origin>,
    ) -> Result<Self, ConfigError> {
        let settings = Settings::FIELDS
            .iter()
            .map(|field| {
                let setting = Setting {
                    value: merged.value(field),
                    from: from.get(field).copied().unwrap_or(Origin::Default),
                };
                (settings::public_name(field), setting)
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            output: needed(merged.output, "output")?,
            model: needed(merged.model, "model")?,
            device: needed(merged.device, "device")?,
            precision: needed(merged.precision, "precision")?,
            batch_size: needed(merged.batch_size, "batch-size")?
                .given()
                .map(|n| n.0 as usize),
            patch_size_px: needed(merged.patch_size, "patch-size")?
                .given()
                .map(|n| n.0),
            tta: needed(merged.tta, "tta")?,
            postproc: needed(merged.postproc, "postproc")?,
            mpp: needed(merged.mpp, "mpp")?.given().map(|mpp| mpp.0),
            mask: needed(merged.mask, "mask")?,
            roi: merged.roi,
            level0_box: merged.level0_box.map(|b| b.0),
            formats: needed(merged.format, "format")?.0,
            units: needed(merged.units, "units")?,
            geojson_frame: needed(merged.geojson_frame, "geojson-frame")?,
            dedupe_names: needed(merged.dedupe_names, "dedupe-names")?,
            restart: needed(merged.restart, "restart")?,
            shard: merged.shard,
            mix_devices: needed(merged.mix_devices, "mix-devices")?,
            tile_size_px: needed(merged.tile_size, "tile-size")?.given().map(|n| n.0),
            threads: needed(merged.threads, "threads")?
                .given()
                .map_or(cores, |n| n.0 as usize),
            memory_bytes: needed(merged.memory, "memory")?
                .given()
                .map(|bytes| bytes.0),
            progress: needed(merged.progress, "progress")?,
            quiet: needed(merged.quiet, "quiet")?,
            log: merged.log,
            settings,
        })
    }
}

fn needed<T>(value: Option<T>, name: &str) -> Result<T, ConfigError> {
    value.ok_or_else(|| {
        ConfigError::Contradiction(match name {
            "output" => "no output folder: say where the results go with -o OUT".into(),
            _ => format!("`{name}` has no value: give --{name}"),
        })
    })
}

/// Settings that do not go together, and files that are not there.
fn check(settings: &Settings, from: &BTreeMap<&'static str, Origin>) -> Result<(), ConfigError> {
    let refuse = |message: String| Err(ConfigError::Contradiction(message));
    let said = |field: &str| from.get(field).is_some_and(|from| *from > Origin::Default);
    if settings.quiet == Some(true)
        && said("progress")
        && matches!(
            settings.progress,
            Some(ProgressMode::Plain | ProgressMode::Json)
        )
    {
        return refuse(
            "--quiet and --progress contradict each other: leave one of them out (--log FILE keeps the lines)".into(),
        );
    }
    if settings.shard.is_some() && settings.restart == Some(true) {
        return refuse(
            "--shard and --restart contradict each other: one share would drop what the others did; remove the \
             store.zarr folder first"
                .into(),
        );
    }
    if let Some(precision @ (Precision::Bf16 | Precision::F16)) = settings.precision {
        return refuse(format!(
            "--precision {} is not in this version: leave it at auto or f32",
            serde_json::json!(precision).as_str().unwrap_or("")
        ));
    }
    if let Some(DeviceChoice::Cuda(ids)) = &settings.device
        && ids.len() > 1
    {
        return refuse(
            "--device: this version runs on one GPU: name one, as cuda:0 (CUDA_VISIBLE_DEVICES parts machines)".into(),
        );
    }
    if let (Some(Auto::Is(patch)), Some(Auto::Is(tile))) = (settings.patch_size, settings.tile_size)
        && tile < patch
    {
        return refuse(format!(
            "--tile-size {tile} is smaller than --patch-size {patch}: a tile holds whole patches"
        ));
    }
    if let Some(Auto::Is(memory)) = settings.memory
        && memory < values::LEAST_MEMORY
    {
        return refuse(format!(
            "--memory {memory} is too little: at least {}",
            values::LEAST_MEMORY
        ));
    }
    if let Some(MaskChoice::File(path)) = &settings.mask {
        file_exists(path, "--mask", " (or write otsu or none)")?;
    }
    if let Some(path) = &settings.roi {
        file_exists(path, "--roi", "")?;
    }
    Ok(())
}

fn file_exists(path: &Path, flag: &str, hint: &str) -> Result<(), ConfigError> {
    if path.is_file() {
        return Ok(());
    }
    Err(ConfigError::Contradiction(format!(
        "{flag} {}: no such file: check the path{hint}",
        path.display()
    )))
}
