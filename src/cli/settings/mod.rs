//! What the user typed, turned into what the program needs: flag over environment over file over default.
//!
//! In: flags ([`Settings`]), the environment, a TOML file. Out: a checked [`RunConfig`] with where each value
//! came from, and a [`TerminalConfig`]. Nothing after this page asks whether settings go together.

pub mod flags;
pub mod layers;
pub mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::pipeline::budget;
use crate::run::{Origin, RunConfig, Setting};
use crate::tissue::MaskChoice;

pub use flags::Settings;
pub use values::{Auto, ByteSize, Count, Mpp, ProgressMode};

/// What the process holds before any slide: with less nothing can be done.
const LEAST_MEMORY: ByteSize = ByteSize(budget::BASE_BYTES);

/// Side of the least tile, px: no network that is worth running has smaller patches, and a tile holds whole ones.
const LEAST_TILE_PX: Count = Count(64);

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

/// More threads than this would cost minutes to start and gain nothing.
const MOST_THREADS: u32 = 1024;

/// What the user sees while it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminalConfig {
    pub progress: ProgressMode,
    pub quiet: bool,
    pub log: Option<PathBuf>,
    /// The exit code after a stop on request, in place of 75.
    pub requeue_exit_code: Option<u8>,
}

/// Layers `flags` over the environment, the file `config` and the defaults, and checks the outcome.
///
/// # Errors
/// [`ConfigError`] for a value that no setting takes, an unknown key, or settings that contradict each other.
pub fn resolve(
    flags: Settings,
    config: Option<&Path>,
) -> Result<(RunConfig, TerminalConfig), ConfigError> {
    resolve_in(flags, config, |name| std::env::var_os(name))
}

/// [`resolve`] in the environment that `lookup` gives.
fn resolve_in(
    flags: Settings,
    config: Option<&Path>,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<(RunConfig, TerminalConfig), ConfigError> {
    let file = match config {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
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
    let terminal = TerminalConfig {
        progress: needed(merged.progress, "progress")?,
        quiet: needed(merged.quiet, "quiet")?,
        log: merged.log.clone(),
        requeue_exit_code: merged.requeue_exit_code,
    };
    Ok((run_config(merged, &from)?, terminal))
}

fn run_config(
    merged: Settings,
    from: &BTreeMap<&'static str, Origin>,
) -> Result<RunConfig, ConfigError> {
    let origin = |field: &str| from.get(field).copied().unwrap_or(Origin::Default);
    let settings = Settings::FIELDS
        .iter()
        .map(|field| {
            let setting = Setting {
                value: merged.value(field),
                from: origin(field),
            };
            (flags::public_name(field), setting)
        })
        .collect();
    let asked_formats = merged.format.filter(|_| origin("format") > Origin::Default);
    let count = |auto: Auto<Count>| auto.given().map(|n| n.0);
    let usual = RunConfig::default();
    Ok(RunConfig {
        output: needed(merged.output, "output")?,
        model: needed(merged.model, "model")?,
        device: needed(merged.device, "device")?,
        precision: needed(merged.precision, "precision")?,
        batch_size: count(needed(merged.batch_size, "batch-size")?).map(|n| n as usize),
        patch_size_px: count(needed(merged.patch_size, "patch-size")?),
        tta: needed(merged.tta, "tta")?,
        postproc: needed(merged.postproc, "postproc")?,
        hovernet_mpp: None,
        mpp: needed(merged.mpp, "mpp")?.given().map(|mpp| mpp.0),
        page: merged.page.map(|n| n.0 as usize),
        mask: needed(merged.mask, "mask")?,
        mask_is_region: usual.mask_is_region,
        roi: merged.roi,
        level0_box: merged.level0_box.map(|b| b.0),
        formats: asked_formats.map(|formats| formats.0),
        units: needed(merged.units, "units")?,
        geojson_frame: needed(merged.geojson_frame, "geojson-frame")?,
        dedupe_names: needed(merged.dedupe_names, "dedupe-names")?,
        restart: needed(merged.restart, "restart")?,
        shard: merged.shard,
        mix_devices: needed(merged.mix_devices, "mix-devices")?,
        stage: merged.stage,
        retries: needed(merged.retries, "retries")?,
        force_scale: needed(merged.force_scale, "force-scale")?,
        tile_size_px: count(needed(merged.tile_size, "tile-size")?),
        threads: count(needed(merged.threads, "threads")?).map_or(usual.threads, |n| n as usize),
        memory_bytes: needed(merged.memory, "memory")?
            .given()
            .map(|bytes| bytes.0),
        settings,
    })
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
    if let (Some(Auto::Is(patch)), Some(Auto::Is(tile))) = (settings.patch_size, settings.tile_size)
        && tile < patch
    {
        return refuse(format!(
            "--tile-size {tile} is smaller than --patch-size {patch}: a tile holds whole patches"
        ));
    }
    if let Some(Auto::Is(Count(threads))) = settings.threads
        && threads > MOST_THREADS
    {
        return refuse(format!(
            "--threads {threads} is more than any machine has: at most {MOST_THREADS}"
        ));
    }
    if let Some(Auto::Is(tile)) = settings.tile_size
        && tile < LEAST_TILE_PX
    {
        return refuse(format!(
            "--tile-size {tile} is too small: a tile holds whole patches, so at least {LEAST_TILE_PX} px (auto chooses well)"
        ));
    }
    if let Some(Auto::Is(memory)) = settings.memory
        && memory < LEAST_MEMORY
    {
        return refuse(format!(
            "--memory {memory} is too little: at least {}",
            LEAST_MEMORY
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
