//! `eval`: scores predictions against truth, or models on the held-out images of a training
//! configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::eval::held_out;
use crate::eval::numbering::{Numbering, TypeMatch, match_types};
use crate::eval::report::{self, Figure, Scores};
use crate::eval::scores::{SetScores, compare_sets, score_groups, score_image};
use crate::eval::taught::{self, MEASURES, TaughtRanges};
use crate::labels::{Annotation, LabelledImage, LoadedSet, folders};
use crate::model::Device;
use crate::model::library::Library;
use crate::model::{Model, ModelSpec, Tta};
use crate::report::overlay::side_by_side;
use crate::store::atomic;
use crate::train::config::TrainConfig;
use clap::Args;
use image::DynamicImage;

use super::{Failure, print};

/// Score predictions against truth, or models on images that their training never saw
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Folder of predictions: what `tile` wrote, hover_net's mat/ or json/, label maps
    #[arg(long, value_name = "FOLDER", requires = "truth", conflicts_with_all = ["model", "data"])]
    pred: Option<PathBuf>,
    /// Folder of truth: .mat, label .png or .npy, points as .csv; paired with predictions by file
    /// stem
    #[arg(long, value_name = "FOLDER", requires = "pred")]
    truth: Option<PathBuf>,
    /// Score what has a partner, and count the rest
    #[arg(long)]
    allow_missing: bool,
    /// Points of a pair are at most this far apart (--pred, --truth); hover_net's 3 µm at 0.25
    /// µm/px
    #[arg(long, value_name = "PX", default_value_t = 12.0)]
    radius_px: f64,
    /// Which type of the truth is which of the predictions, by number or name: 1=4,2=2,3=epithelial (0: of no type);
    /// same: the numbers mean the same (--pred, --truth)
    #[arg(long, value_name = "TRUTH=PRED,…", requires = "pred")]
    types: Option<TypeMatch>,
    /// Model name or folder; twice: side by side
    #[arg(long, default_value = "default")]
    model: Vec<String>,
    /// Average each patch over mirrored (flips) or mirrored and turned views (d8)
    #[arg(long, value_enum, default_value = "none")]
    tta: Tta,
    /// Training configuration: its held-out images are scored [default: that of the embedded model]
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// Folder below which the data sets of the configuration lie
    #[arg(long, value_name = "FOLDER", required_unless_present = "pred")]
    data: Option<PathBuf>,
    /// Write eval.json, images.csv and index.html there
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Images drawn in index.html, the worst first
    #[arg(long, value_name = "N", default_value_t = 6)]
    worst: usize,
    /// Write the scores into the model folder's model.toml
    #[arg(long, conflicts_with = "pred")]
    record: bool,
    /// With --record: also write what the images look like on which types were taught, so that reports
    /// can warn of slides that look different; predicts the training images that have types
    #[arg(long, requires = "record")]
    taught: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn main(args: &EvalArgs) -> Result<(), Failure> {
    match (&args.pred, &args.truth, &args.data) {
        (Some(pred), Some(truth), _) => score_folders(args, pred, truth),
        (_, _, Some(root)) => score_models(args, root),
        _ => Err(Failure::usage("eval needs --pred and --truth, or --data")),
    }
}

/// Scores a folder of predictions against a folder of truth.
fn score_folders(args: &EvalArgs, pred: &Path, truth: &Path) -> Result<(), Failure> {
    let truths = folders::list(truth).map_err(Failure::usage)?;
    let preds = folders::list(pred).map_err(Failure::usage)?;
    let stems = |m: &BTreeMap<String, PathBuf>| m.keys().cloned().collect::<BTreeSet<_>>();
    let (truth_stems, pred_stems) = (stems(&truths), stems(&preds));
    let alone: Vec<String> = truth_stems
        .symmetric_difference(&pred_stems)
        .cloned()
        .collect();
    let both: Vec<&String> = truth_stems.intersection(&pred_stems).collect();
    if both.is_empty() || (!alone.is_empty() && !args.allow_missing) {
        let some = alone.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!(
            "{} and {}: {} files have no partner of the same stem ({some}); --allow-missing scores the {} that have",
            truth.display(),
            pred.display(),
            alone.len(),
            both.len()
        )));
    }
    let mut pairs = Vec::new();
    for stem in both {
        let [t, p] = [&truths[stem], &preds[stem]].map(|path| folders::read(path));
        let (t, p) = (t.map_err(Failure::slides)?, p.map_err(Failure::slides)?);
        if let [Some(a), Some(b)] = [t.size_px(), p.size_px()]
            && a != b
        {
            return Err(Failure::slides(format!(
                "{stem}: the truth is {} x {} px, the prediction {} x {}: they must be of one size",
                a[0], a[1], b[0], b[1]
            )));
        }
        pairs.push((stem.clone(), t, p));
    }
    let names = match_numbers(args, &mut pairs, &truths, &preds)?;
    let images = pairs
        .iter()
        .map(|(stem, t, p)| score_image(stem, t, p, names.len(), args.radius_px))
        .collect();
    let mut scores = Scores::new();
    scores.insert("all".into(), SetScores::of(images, &names));
    if !alone.is_empty() {
        eprintln!(
            "warning: {} files without a partner are not scored",
            alone.len()
        );
    }
    report_scores(args, &scores, &names, &[])
}

/// Gives the truth the predictions' type numbers; returns the names of the scores.
fn match_numbers(
    args: &EvalArgs,
    pairs: &mut [(String, Annotation, Annotation)],
    truths: &BTreeMap<String, PathBuf>,
    preds: &BTreeMap<String, PathBuf>,
) -> Result<Vec<String>, Failure> {
    let files = |of: &'_ BTreeMap<String, PathBuf>| -> Vec<PathBuf> {
        let stems = pairs.iter().filter_map(|(stem, ..)| of.get(stem));
        stems.cloned().collect()
    };
    let (truth_files, pred_files) = (files(truths), files(preds));
    let truth = Numbering::of(
        pairs.iter().map(|(_, truth, _)| truth),
        truth_files.iter().map(PathBuf::as_path),
    );
    let pred = Numbering::of(
        pairs.iter().map(|(.., pred)| pred),
        pred_files.iter().map(PathBuf::as_path),
    );
    let (truth, pred) = (
        truth.map_err(Failure::usage)?,
        pred.map_err(Failure::usage)?,
    );
    let matching = match_types(args.types.as_ref(), &truth, &pred).map_err(Failure::usage)?;
    for (_, truth, _) in pairs {
        matching.apply(truth);
    }
    Ok(matching.names)
}

/// Scores one or two models on held-out images.
fn score_models(args: &EvalArgs, root: &Path) -> Result<(), Failure> {
    let config = TrainConfig::read_or_default(args.config.as_deref()).map_err(Failure::usage)?;
    if args.model.len() > 2 {
        return Err(Failure::usage("--model: one, or two to compare"));
    }
    tch::set_num_threads(1);
    let sets = config.load_data(root).map_err(Failure::slides)?;
    let mut all = Vec::new();
    for name in &args.model {
        let folder = Library::from_env().open(name).map_err(Failure::usage)?;
        let mut model = folder.load(Device::Cpu).map_err(Failure::usage)?;
        model.tta = args.tta;
        let scores = held_out::score_sets(&model, &sets).map_err(Failure::slides)?;
        if args.record {
            let taught = match args.taught {
                true => taught::measure_sets(&model, &sets).map_err(Failure::slides)?,
                false => BTreeMap::new(),
            };
            record_scores(name, &scores, &taught)?;
        }
        all.push((model, scores));
    }
    let Some((model, scores)) = all.first() else {
        return Err(Failure::usage("--model is empty"));
    };
    let names = held_out::type_names(model);
    if let [_, (second, other)] = all.as_slice() {
        if held_out::type_names(second) != names {
            return Err(Failure::usage(
                "the two models have different types: score them one by one",
            ));
        }
        print(&(format!("{}\n", args.model[0]) + &report::format_table(scores)))?;
        print(&(format!("{}\n", args.model[1]) + &report::format_table(other)))?;
        let differences = scores
            .iter()
            .filter_map(|(set, s)| Some((set.clone(), compare_sets(s, other.get(set)?, &names))))
            .collect();
        return print(&report::format_differences(&differences));
    }
    let figures = match &args.output {
        Some(_) => draw_worst(args.worst, model, &sets, scores)?,
        None => Vec::new(),
    };
    report_scores(args, scores, &names, &figures)
}

/// Writes the files of `--output`, and prints a table or JSON.
fn report_scores(
    args: &EvalArgs,
    scores: &Scores,
    names: &[String],
    figures: &[Figure],
) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(scores).map_err(Failure::slides)? + "\n";
    if let Some(out) = &args.output {
        std::fs::create_dir_all(out)
            .map_err(|e| Failure::usage(format!("{}: {e}", out.display())))?;
        let html =
            report::write_html("Evaluation", scores, names, figures).map_err(Failure::slides)?;
        let csv = report::write_csv(scores).map_err(Failure::slides)?;
        for (name, text) in [
            ("eval.json", &json),
            ("images.csv", &csv),
            ("index.html", &html),
        ] {
            atomic::write_bytes(&out.join(name), text.as_bytes()).map_err(Failure::slides)?;
        }
    }
    if args.json {
        return print(&json);
    }
    print(&report::format_table(scores))
}

/// Draws the `n` images of least PQ (F1d where the truth is dots), truth beside prediction.
fn draw_worst(
    n: usize,
    model: &Model,
    sets: &[LoadedSet],
    scores: &Scores,
) -> Result<Vec<Figure>, Failure> {
    let images: BTreeMap<&str, &LabelledImage> = sets
        .iter()
        .flat_map(|s| &s.images)
        .map(|i| (i.name.as_str(), i))
        .collect();
    let mut ranked: Vec<(f64, &str)> = scores
        .values()
        .flat_map(|s| &s.images)
        .map(|i| {
            (
                i.segmentation.map_or(i.detections.f1d(), |s| s.pq),
                i.name.as_str(),
            )
        })
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let colours: Vec<[u8; 3]> = model.spec.types.iter().map(|t| t.color).collect();
    let mut figures = Vec::new();
    for (score, name) in ranked.into_iter().take(n) {
        let Some(image) = images.get(name) else {
            continue;
        };
        let pred = held_out::predict(model, image).map_err(Failure::slides)?;
        let [left, right] = [Annotation::of_image(image), pred]
            .map(|annotation| annotation.draw_over(&image.rgb, &colours));
        figures.push(Figure {
            caption: format!("{name}: {score:.3}"),
            picture: DynamicImage::from(side_by_side(&left, &right)),
        });
    }
    Ok(figures)
}

/// The table of a set's scores that says on what its types were taught.
const TAUGHT: &str = "taught";

/// Writes scores to three digits, with their intervals, under `[scores.<set>]` of the model's
/// model.toml. Sets that were not evaluated keep theirs.
fn record_scores(
    model: &str,
    scores: &Scores,
    taught: &BTreeMap<String, TaughtRanges>,
) -> Result<(), Failure> {
    let path = PathBuf::from(model).join("model.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::usage(format!(
            "{}: {e}: --record needs --model FOLDER",
            path.display()
        ))
    })?;
    let mut spec = ModelSpec::parse(&text, &path).map_err(Failure::usage)?;
    let names: Vec<String> = spec.types.iter().map(|t| t.name.clone()).collect();
    spec.scores = merge_scores(spec.scores, scores, &names);
    for (set, ranges) in taught {
        merge_taught(&mut spec.scores, set, ranges);
    }
    let text = toml::to_string(&spec).map_err(Failure::slides)?;
    atomic::write_bytes(&path, text.as_bytes()).map_err(Failure::slides)
}

/// The scores of model.toml with those of the sets in `scores` in place of older ones.
fn merge_scores(mut old: toml::Table, scores: &Scores, names: &[String]) -> toml::Table {
    for (name, set) in scores {
        let mut entry = score_entry(set, names);
        let before = old.get(name).and_then(|set| set.as_table());
        // Measured by other means: eval knows nothing of it.
        if let Some(taught) = before.and_then(|set| set.get(TAUGHT)) {
            entry.insert(TAUGHT.into(), taught.clone());
        }
        old.insert(name.clone(), entry.into());
    }
    old
}

/// Writes the ranges under `[scores.<set>.taught]`. What somebody wrote there by hand stays: the tissue, and what the
/// types cannot tell.
fn merge_taught(scores: &mut toml::Table, set: &str, found: &TaughtRanges) {
    let entry = scores
        .entry(set)
        .or_insert_with(|| toml::Table::new().into());
    let Some(entry) = entry.as_table_mut() else {
        return;
    };
    let taught = entry
        .entry(TAUGHT)
        .or_insert_with(|| toml::Table::new().into());
    let Some(taught) = taught.as_table_mut() else {
        return;
    };
    taught.entry("tissue").or_insert_with(|| set.into());
    for (name, range) in MEASURES.iter().zip(found.ranges) {
        let ends = range.map(|v| toml::Value::from(round_to_three_digits(v)));
        taught.insert((*name).to_string(), ends.to_vec().into());
    }
}

/// Three significant digits.
fn round_to_three_digits(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// `pq = [0.512, 0.480, 0.541]`: value, then its interval; groups by PQ or F1d.
fn score_entry(set: &SetScores, names: &[String]) -> toml::Table {
    let round = |v: f64| toml::Value::from((v * 1000.0).round() / 1000.0);
    let mut entry = toml::Table::new();
    entry.insert("images".into(), (set.images.len() as i64).into());
    for (name, s) in &set.scores {
        let triple = vec![round(s.value), round(s.low), round(s.high)];
        entry.insert(name.clone(), triple.into());
    }
    let groups: toml::Table = score_groups(set, names)
        .into_iter()
        .filter_map(|(group, v)| Some((group, round(*v.get("pq").or(v.get("f1d"))?))))
        .collect();
    if !groups.is_empty() {
        entry.insert("groups".into(), groups.into());
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_scores_leave_other_sets_and_what_was_taught_as_they_are() {
        let text = "[lung]\npq = [0.4, 0.3, 0.5]\n[colon]\nimages = 9\nold = 1\n\
                    [colon.taught]\ntissue = \"colon\"\n";
        let old: toml::Table = toml::from_str(text).unwrap();
        let names = ["background".to_string()];
        let scores = Scores::from([("colon".to_string(), SetScores::of(vec![], &names))]);
        let new = merge_scores(old.clone(), &scores, &names);
        assert_eq!(new["lung"], old["lung"]);
        assert_eq!(new["colon"]["taught"], old["colon"]["taught"]);
        assert_eq!(new["colon"]["images"].as_integer(), Some(0));
        assert!(new["colon"].get("old").is_none(), "an older score stays");
    }

    #[test]
    fn ranges_are_written_beside_what_was_written_by_hand() {
        let text =
            "[colon]\npq = 1\n[colon.taught]\ntissue = \"large bowel\"\narea_um2 = [1.0, 2.0]\n";
        let mut scores: toml::Table = toml::from_str(text).unwrap();
        let found = TaughtRanges {
            ranges: [[11.64, 28.66], [0.37549, 1.0 / 3.0], [0.089_249, 1.726]],
            images: 20,
        };
        merge_taught(&mut scores, "colon", &found);
        merge_taught(&mut scores, "breast", &found);
        let wanted = "tissue = \"large bowel\"\narea_um2 = [11.6, 28.7]\n\
                      hematoxylin_od_mean = [0.375, 0.333]\neosin_od_mean = [0.0892, 1.73]\n";
        let wanted: toml::Table = toml::from_str(wanted).unwrap();
        assert_eq!(scores["colon"]["taught"].as_table(), Some(&wanted));
        assert_eq!(scores["colon"]["pq"].as_integer(), Some(1));
        assert_eq!(
            scores["breast"]["taught"]["tissue"].as_str(),
            Some("breast")
        );
    }
}
