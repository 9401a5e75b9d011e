//! `slide info SLIDE`: what the reader sees.

use std::fmt::Write;
use std::path::PathBuf;

use crate::slide::{self, SlideInfo, mpp};
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
    },
}

pub fn main(args: &SlideArgs) -> Result<(), Failure> {
    let SlideCommand::Info { path, json } = &args.command;
    let reader = slide::open(path).map_err(Failure::slides)?;
    let info = reader.info();
    if *json {
        let text = serde_json::to_string_pretty(info).map_err(Failure::slides)?;
        return print(&(text + "\n"));
    }
    print(&table(info))
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
