//! `model list`, `info`, `verify`, `convert`, `average`, `join` and `tune`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::model::convert;
use crate::model::library::{Library, Listed, ModelInfo};
use crate::model::{DeviceChoice, ModelSpec, TypesFile};
use crate::train::{average, join, package};
use clap::{Args, Subcommand};
use tch::{Kind, Tensor};

use super::model_tune::{self, TuneArgs};
use super::{EXIT_SOME, Failure, print};
use crate::run::models::first_device;

/// See which models there are, and check one.
#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Models that --model finds: the embedded one, and folders of $WSI_NUCLEI_MODELS, weights/ and the installation
    List {
        #[arg(long)]
        json: bool,
    },
    /// What a model is: architecture, types, scores, licence
    Info {
        #[arg(value_name = "NAME|FOLDER", default_value = "default")]
        model: String,
        #[arg(long)]
        json: bool,
    },
    /// Check hash, names and shapes, then run a test pattern
    Verify {
        #[arg(value_name = "NAME|FOLDER", default_value = "default")]
        model: String,
        #[arg(long, default_value = "cpu")]
        device: DeviceChoice,
    },
    /// Turn a hover_net checkpoint (.tar, .pth) into a model folder; nothing in the file is executed
    Convert {
        #[arg(value_name = "FILE")]
        checkpoint: PathBuf,
        /// Model folder to write
        #[arg(short, long, value_name = "FOLDER")]
        output: PathBuf,
        /// Licence of the weights; published ones are known by their file names
        #[arg(long, value_name = "TEXT")]
        licence: Option<String>,
    },
    /// Mean of the weights of two trainings, where one began from the other or both from a third
    Average {
        #[arg(value_name = "NAME|FOLDER")]
        first: String,
        /// Its model.toml becomes the mean's, without the scores and under a new name
        #[arg(value_name = "NAME|FOLDER")]
        second: String,
        /// Name of the mean [default: that of its folder]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Weight of the second, 0 to 1
        #[arg(long, default_value_t = 0.5, value_name = "SHARE", value_parser = share)]
        share: f64,
        /// Model folder to write
        #[arg(short, long, value_name = "FOLDER")]
        output: PathBuf,
    },
    /// Outlines of one model with types of another: both networks run, at one scale and with the same types
    Join {
        /// Its outlines count alone
        #[arg(value_name = "NAME|FOLDER")]
        outlines: String,
        #[arg(value_name = "NAME|FOLDER")]
        types: String,
        /// Name of the model [default: that of its folder]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Weight of the second's type probabilities, above 0 to 1
        #[arg(long, default_value_t = 0.5, value_name = "SHARE", value_parser = positive_share)]
        share: f64,
        /// Model folder to write
        #[arg(short, long, value_name = "FOLDER")]
        output: PathBuf,
    },
    /// Fit post-processing and the temperature of type probabilities on images that the training never saw
    Tune(TuneArgs),
}

pub fn main(args: &ModelArgs) -> Result<(), Failure> {
    let library = Library::from_env();
    match &args.command {
        ModelCommand::List { json } => list(&library.list(), *json),
        ModelCommand::Info { model, json } => {
            let info = library.info(model).map_err(Failure::usage)?;
            if *json {
                let text = serde_json::to_string_pretty(&info).map_err(Failure::usage)?;
                return print(&(text + "\n"));
            }
            print(&page(&info))
        }
        ModelCommand::Verify { model, device } => {
            let verified = library
                .verify(model, first_device(device)?)
                .map_err(|error| Failure {
                    code: EXIT_SOME,
                    message: error.to_string(),
                })?;
            let mut text = format!(
                "{}: hash, {} tensors and their shapes are right; the test pattern gives\n",
                verified.info.place.display(),
                verified.info.tensors
            );
            for (name, [least, greatest]) in verified.ranges {
                let _ = writeln!(text, "  {name:<3} {least:.3} to {greatest:.3}");
            }
            print(&text)
        }
        ModelCommand::Convert {
            checkpoint,
            output,
            licence,
        } => {
            let (spec, tensors) =
                convert::read(checkpoint, licence.as_deref()).map_err(Failure::usage)?;
            let tensors: Vec<_> = tensors.into_iter().collect();
            package::write_folder(output, spec, &tensors, Kind::Float).map_err(Failure::slides)?;
            let info = library
                .info(&format!("{}/", output.display()))
                .map_err(Failure::slides)?;
            if info.spec.licence.is_empty() {
                eprintln!("warning: no licence: say which with --licence, or in model.toml");
            }
            print(&page(&info))
        }
        ModelCommand::Average {
            first,
            second,
            name,
            share,
            output,
        } => {
            let first = library.open(first).map_err(Failure::usage)?;
            let second = library.open(second).map_err(Failure::usage)?;
            let tensors =
                average::average_models(&first, &second, *share).map_err(Failure::usage)?;
            let types = second.types_file().cloned();
            let spec = spec_of_mean(first.spec, second.spec, name.as_deref(), output)?;
            write_combined(output, spec, &tensors, types.as_ref())
        }
        ModelCommand::Join {
            outlines,
            types,
            name,
            share,
            output,
        } => {
            let outlines = library.open(outlines).map_err(Failure::usage)?;
            let types = library.open(types).map_err(Failure::usage)?;
            let file = join::types_file(&outlines, &types, *share).map_err(Failure::usage)?;
            let tensors: Vec<_> = outlines
                .tensors()
                .into_iter()
                .flatten()
                .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
                .collect();
            let name = name_of_combined(name.as_deref(), output)?;
            let spec = spec_of_both(types.spec, outlines.spec, name);
            write_combined(output, spec, &tensors, Some(&file))
        }
        ModelCommand::Tune(args) => model_tune::main(args),
    }
}

/// The second's model.toml under a name of its own; where the two have learnt from other data, it names both.
fn spec_of_mean(
    first: ModelSpec,
    second: ModelSpec,
    name: Option<&str>,
    output: &Path,
) -> Result<ModelSpec, Failure> {
    let name = name_of_combined(name, output)?;
    if name == first.name || name == second.name {
        return Err(Failure::usage(format!(
            "the mean would be called {name}, as one of the two: choose another folder, or --name"
        )));
    }
    Ok(spec_of_both(first, second, name))
}

/// What a model made of others is called: as asked, or as its folder.
fn name_of_combined(asked: Option<&str>, output: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(output).map_err(Failure::usage)?;
    let folder = whole.file_name().map(|name| name.to_string_lossy());
    Ok(asked.or(folder.as_deref()).unwrap_or("combined").to_owned())
}

/// The second's model.toml as `name`; where the two have learnt from other data, it names both.
fn spec_of_both(first: ModelSpec, second: ModelSpec, name: String) -> ModelSpec {
    let both = |a: String, b: String| match a == b || a.is_empty() {
        true => b,
        false => format!("{a}; {b}"),
    };
    ModelSpec {
        name,
        training_data: both(first.training_data, second.training_data),
        licence: both(first.licence, second.licence),
        citation: both(first.citation, second.citation),
        ..second
    }
}

/// Writes a model made of others, and says what to do next.
fn write_combined(
    output: &Path,
    spec: ModelSpec,
    tensors: &[(String, Tensor)],
    types: Option<&TypesFile>,
) -> Result<(), Failure> {
    package::write_combined(output, spec, tensors, types).map_err(Failure::slides)?;
    print(&format!(
        "{}: next, `model tune` and `eval`\n",
        output.display()
    ))
}

fn positive_share(text: &str) -> Result<f64, String> {
    let share = share(text)?;
    match share > 0.0 {
        true => Ok(share),
        false => Err("must be above 0".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be a number from 0 to 1".into()),
    }
}

fn list(models: &[Listed], json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(models).map_err(Failure::usage)?;
        return print(&(text + "\n"));
    }
    let mut text = String::new();
    for model in models {
        let what = match (&model.spec, &model.error) {
            (Some(spec), _) => format!(
                "{} types at {} µm/px",
                spec.types.len().saturating_sub(1),
                spec.mpp
            ),
            (None, error) => format!("cannot be used: {}", error.as_deref().unwrap_or("")),
        };
        let _ = writeln!(text, "{:<16} {what}, {}", model.name, model.place.display());
    }
    print(&text)
}

fn page(info: &ModelInfo) -> String {
    let spec = &info.spec;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<13} {value}");
        }
    };
    line("name", &spec.name);
    line("place", &info.place.display().to_string());
    line(
        "architecture",
        &serde_json::json!(spec.architecture)
            .to_string()
            .replace('"', ""),
    );
    line("scale", &format!("{} µm/px", spec.mpp));
    line(
        "patch",
        &format!("{} px in, {} px out", spec.patch_in_px, spec.patch_out_px),
    );
    let types: Vec<&str> = spec.types.iter().map(|kind| kind.name.as_str()).collect();
    line("types", &types.join(", "));
    if let Some(second) = &spec.types_from {
        let share = 100.0 * second.share;
        let name = second.architecture.name();
        line(
            "types from",
            &format!(
                "{}, a {name}, for {share} % (temperature {})",
                second.model, second.temperature
            ),
        );
    }
    line(
        "parameters",
        &format!("{} in {} tensors", info.values, info.tensors),
    );
    line("sha256", &info.weights_sha256);
    line("trained on", &spec.training_data);
    line("licence", &spec.licence);
    line("citation", &spec.citation);
    if !spec.scores.is_empty() {
        let _ = write!(text, "scores\n{}", spec.scores);
    }
    text
}
