//! `data check`: draws labels over their images, and lists what is wrong with them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::labels::check::{self, Findings};
use crate::labels::data_set::name_apart;
use crate::labels::formats::{self, Loaded};
use crate::labels::{Annotation, DataSet};
use crate::report::overlay::TYPE_COLOURS;
use crate::report::{escape, page};
use crate::store::atomic;
use crate::train::config::TrainConfig;
use clap::{Args, Subcommand};
use image::DynamicImage;

use super::{EXIT_SOME, Failure, print};

/// Look at labelled data before training on it
#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Draw the labels over their images, and list what is wrong: 0 nothing, 1 something
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Folders of labelled images; with --config, the folder below which its data sets lie
    #[arg(value_name = "DATA", required = true)]
    data: Vec<PathBuf>,
    /// Folder for index.html, check.json and the pictures
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Data sets as a training configuration names them
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// µm/px of the images, where there is no --config
    #[arg(
        long,
        value_name = "UM",
        default_value_t = 0.25,
        conflicts_with = "config"
    )]
    mpp: f64,
    /// Pictures a set, spread over it
    #[arg(long, value_name = "N", default_value_t = 20)]
    images: usize,
}

pub fn main(args: &DataArgs) -> Result<(), Failure> {
    let DataCommand::Check(args) = &args.command;
    let mut seen = BTreeMap::new();
    let mut findings = BTreeMap::new();
    let mut drawings = BTreeMap::new();
    for (set, folder) in list_sets(args)? {
        let loaded = formats::load(&set, &folder).map_err(Failure::usage)?;
        let found = check::check_set(&loaded, set.mpp, &mut seen);
        drawings.insert(set.name.clone(), draw_images(args, &set.name, &loaded)?);
        if findings
            .insert(set.name.clone(), (set.mpp, found))
            .is_some()
        {
            return Err(Failure::usage(format!(
                "two data sets are called {}: give them different names",
                set.name
            )));
        }
    }
    let medians: Vec<(String, f64, f64)> = findings
        .iter()
        .filter_map(|(name, (mpp, f))| Some((name.clone(), f.median_diameter_um?, *mpp)))
        .collect();
    let scales = check::compare_scales(&medians);
    let clean = scales.is_none() && findings.values().all(|(_, f)| f.is_clean());
    let text = summary(&findings, scales.as_deref());
    let body = html(&findings, scales.as_deref(), &drawings);
    let by_set: BTreeMap<_, _> = findings.iter().map(|(n, (_, f))| (n, f)).collect();
    let json = serde_json::json!({"sets": by_set, "scales": scales});
    let json = serde_json::to_string_pretty(&json).map_err(Failure::slides)? + "\n";
    for (name, content) in [
        ("check.json", json),
        ("index.html", page("Data check", &body)),
    ] {
        atomic::write_bytes(&args.output.join(name), content.as_bytes())
            .map_err(Failure::slides)?;
    }
    print(&text)?;
    match clean {
        true => Ok(()),
        false => Err(Failure::silent(EXIT_SOME)),
    }
}

/// The data sets to check, with their folders.
fn list_sets(args: &CheckArgs) -> Result<Vec<(DataSet, PathBuf)>, Failure> {
    if let Some(path) = &args.config {
        let [root] = args.data.as_slice() else {
            return Err(Failure::usage("with --config, DATA is one folder"));
        };
        let config = TrainConfig::read(path).map_err(Failure::usage)?;
        let with_folder = |set: DataSet| (set.clone(), root.join(&set.folder));
        return Ok(config.data.into_iter().map(with_folder).collect());
    }
    let describe_folder = |folder: &PathBuf| {
        let set = DataSet::from_folder(folder, args.mpp).map_err(Failure::usage)?;
        let names = formats::class_names(folder, set.format).into_iter();
        // Without a configuration each type number, and each type name, is a type.
        let set = DataSet {
            type_ids: (0..=u8::MAX).collect(),
            types: names.zip(1..).collect(),
            ..set
        };
        Ok((set, folder.clone()))
    };
    let sets: Result<Vec<_>, Failure> = args.data.iter().map(describe_folder).collect();
    let (mut sets, folders): (Vec<DataSet>, Vec<PathBuf>) = sets?.into_iter().unzip();
    name_apart(&mut sets).map_err(Failure::usage)?;
    Ok(sets.into_iter().zip(folders).collect())
}

/// Draws some images of a set; returns the paths of the pictures in the output folder.
fn draw_images(args: &CheckArgs, set: &str, loaded: &Loaded) -> Result<Vec<String>, Failure> {
    let usable: Vec<_> = loaded.iter().flatten().collect();
    let folder = args.output.join(set);
    std::fs::create_dir_all(&folder)
        .map_err(|e| Failure::usage(format!("{}: {e}", folder.display())))?;
    let step = usable.len().div_ceil(args.images.max(1)).max(1);
    let mut drawn = Vec::new();
    for image in usable.into_iter().step_by(step).take(args.images) {
        let stem = image.name.rsplit('/').next().unwrap_or("image");
        let file = format!("{}.png", stem.replace(['/', '\\'], "_"));
        let picture = Annotation::of_image(image).draw_over(&image.rgb, &TYPE_COLOURS);
        let path = folder.join(&file);
        DynamicImage::from(picture)
            .save(&path)
            .map_err(|e| Failure::slides(format!("{}: {e}", path.display())))?;
        drawn.push(format!("{}/{file}", Path::new(set).display()));
    }
    Ok(drawn)
}

fn summary(findings: &BTreeMap<String, (f64, Findings)>, scales: Option<&str>) -> String {
    let mut text = String::new();
    for (name, (mpp, f)) in findings {
        let diameter = f
            .median_diameter_um
            .map_or("unknown".into(), |d| format!("{d:.1} µm"));
        let _ = writeln!(
            text,
            "{name}: {} images at {mpp} µm/px, {} nuclei, median diameter {diameter}",
            f.images, f.nuclei
        );
        for fault in &f.of_set {
            let _ = writeln!(text, "  {fault}");
        }
        for (image, fault) in f.of_images.iter().take(10) {
            let _ = writeln!(text, "  {image}: {fault}");
        }
        if f.of_images.len() > 10 {
            let _ = writeln!(
                text,
                "  and {} more, see check.json",
                f.of_images.len() - 10
            );
        }
    }
    if let Some(fault) = scales {
        let _ = writeln!(text, "{fault}");
    }
    text
}

fn html(
    findings: &BTreeMap<String, (f64, Findings)>,
    scales: Option<&str>,
    drawings: &BTreeMap<String, Vec<String>>,
) -> String {
    let mut body = format!("<pre>{}</pre>\n", escape(&summary(findings, scales)));
    for (set, files) in drawings {
        let _ = writeln!(body, "<h2>{}</h2>", escape(set));
        for file in files {
            let file = escape(file);
            let _ = writeln!(
                body,
                "<figure><img loading=\"lazy\" alt=\"labels of {file}\" src=\"{file}\">\
                 <figcaption>{file}</figcaption></figure>"
            );
        }
    }
    body
}
