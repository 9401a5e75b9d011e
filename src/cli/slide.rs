//! `slide info SLIDE`: what the reader sees.

use std::fmt::Write;
use std::path::PathBuf;

use crate::run::scale_estimate::{ScaleEstimate, estimate_mpp};
use crate::run::{Models, RunConfig};
use crate::slide::{self, SlideInfo, SlideReader, mpp};
use clap::{Args, Subcommand};

use super::{Failure, print};

/// Look at a slide file.
#[derive(Debug, Args)]
pub struct SlideArgs {
    #[command(subcommand)]
    command: SlideCommand,
}

#[derive(Debug, Subcommand)]
enum SlideCommand {
    /// Levels, µm/px, bounds, vendor, associated images
    Info {
        #[arg(value_name = "SLIDE")]
        path: PathBuf,
        /// Everything, as JSON
        #[arg(long)]
        json: bool,
        /// Also estimate the µm/px from the size of nuclei in a few fields: half a minute
        #[arg(long)]
        estimate_mpp: bool,
    },
}

pub fn main(args: &SlideArgs) -> Result<(), Failure> {
    let SlideCommand::Info {
        path,
        json,
        estimate_mpp,
    } = &args.command;
    let reader = slide::open(path).map_err(Failure::slides)?;
    let info = reader.info();
    let estimate = match estimate_mpp {
        true => Some(estimate_mpp_of(reader.as_ref())?),
        false => None,
    };
    if *json {
        let mut value = serde_json::to_value(info).map_err(Failure::slides)?;
        if let Some(estimate) = &estimate {
            value["estimated_mpp"] = estimate.um_per_px.into();
        }
        let text = serde_json::to_string_pretty(&value).map_err(Failure::slides)?;
        return print(&(text + "\n"));
    }
    let mut text = table(info);
    if let Some(estimate) = &estimate {
        text += &estimate_line(info, estimate);
    }
    print(&text)
}

/// Estimates the scale with the default model.
fn estimate_mpp_of(reader: &dyn SlideReader) -> Result<ScaleEstimate, Failure> {
    let config = RunConfig::default();
    let mut models = Models::new(&config)?;
    let pool = models.get(&config.model).map_err(Failure::slides)?;
    Ok(estimate_mpp(reader, pool.model())?)
}

fn estimate_line(info: &SlideInfo, estimate: &ScaleEstimate) -> String {
    let Some(um) = estimate.um_per_px else {
        return format!(
            "{:<11} unknown: no scale gives nuclei of the usual size in {} fields\n",
            "estimate", estimate.fields
        );
    };
    let stated = mpp::resolve_mpp(info, None).ok().map(|found| found.mpp[0]);
    // Twice the error that the estimate has on slides of known scale.
    let doubt = stated.filter(|stated| !(um / 1.5..=um * 1.5).contains(stated));
    let advice = match (stated, doubt) {
        (None, _) => ": the file states none; --mpp sets it",
        (_, Some(_)) => ": the stated scale looks wrong; --mpp sets another",
        _ => "",
    };
    format!(
        "{:<11} {um:.2} µm/px, give or take a quarter, from {} nuclei in {} fields{advice}\n",
        "estimate", estimate.nuclei, estimate.fields
    )
}

fn table(info: &SlideInfo) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        (
            "file",
            format!(
                "{} ({:.1} MB)",
                info.path.display(),
                info.file_bytes as f64 / 1e6
            ),
        ),
        ("vendor", info.vendor.clone()),
    ];
    lines.push((
        "µm/px",
        match mpp::resolve_mpp(info, None) {
            Ok(found) => {
                let warning = found
                    .warning
                    .map(|text| format!(": {text}"))
                    .unwrap_or_default();
                format!(
                    "{} x {} (from the {}){warning}",
                    found.mpp[0], found.mpp[1], found.from
                )
            }
            Err(_) => "unknown: give --mpp to the commands that need it".into(),
        },
    ));
    let power = info
        .objective_power
        .map_or("unknown".into(), |power| format!("{power}x"));
    lines.push(("objective", power));
    for (i, level) in info.levels.iter().enumerate() {
        let name = if i == 0 { "levels" } else { "" };
        lines.push((
            name,
            format!(
                "{i}: {} x {} px, 1 : {}",
                level.width_px, level.height_px, level.downsample
            ),
        ));
    }
    if let Some([x, y, w, h]) = info.bounds_px {
        lines.push(("bounds", format!("{w} x {h} px at ({x}, {y})")));
    }
    let [r, g, b] = info.background;
    lines.push(("background", format!("#{r:02x}{g:02x}{b:02x}")));
    if !info.associated.is_empty() {
        lines.push(("associated", info.associated.join(", ")));
    }
    lines.push(("identity", info.quickhash.clone()));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<11} {value}");
    }
    text
}
