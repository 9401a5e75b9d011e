//! Scores as a table, as CSV, and as an HTML page.
//!
//! In: [`SetScores`] by set. Out: text. Never computes a score.

use std::collections::BTreeMap;
use std::fmt::Write;

use image::DynamicImage;

use super::TypeScores;
use super::calibration::{BINS, Calibration};
use super::scores::{Score, SetScores, score_groups};
use crate::report::{Series, escape, image_tag, lines, page};

/// Scores of each set.
pub type Scores = BTreeMap<String, SetScores>;

/// Columns in order; the scores of the types follow them.
const COLUMNS: [&str; 10] = [
    "dice",
    "aji",
    "aji_plus",
    "dq",
    "sq",
    "pq",
    "pq_pooled",
    "mpq",
    "f1d",
    "ece",
];

/// A text table: one row per set, one column per score, then the F1 of each type.
pub fn format_table(scores: &Scores) -> String {
    let mut out = format!("{:<10} {:>6}", "set", "images");
    for name in COLUMNS {
        let _ = write!(out, " {name:>9}");
    }
    out.push('\n');
    for (name, set) in scores {
        let _ = write!(out, "{name:<10} {:>6}", set.images.len());
        for column in COLUMNS {
            let text = set.value(column).map_or("-".into(), |v| format!("{v:.3}"));
            let _ = write!(out, " {text:>9}");
        }
        for (kind, f1) in set.scores.iter().filter(|(n, _)| n.starts_with("f1_")) {
            let _ = write!(out, "  {} {:.3}", &kind[3..], f1.value);
        }
        out.push('\n');
    }
    out
}

/// A text table of the second model's scores minus the first's; `*`: the interval excludes 0.
pub fn format_differences(differences: &BTreeMap<String, BTreeMap<String, Score>>) -> String {
    let mut out = String::from("second model minus first, with 95 % intervals\n");
    for (set, scores) in differences {
        for (name, s) in scores {
            let excludes_zero = s.low > 0.0 || s.high < 0.0;
            let star = if excludes_zero { " *" } else { "" };
            let _ = writeln!(
                out,
                "{set:<10} {name:<18} {:>+7.3} ({:+.3} to {:+.3}){star}",
                s.value, s.low, s.high
            );
        }
    }
    out
}

/// CSV with one row per image.
pub fn write_csv(scores: &Scores) -> Result<String, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record("set,image,dice,aji,aji_plus,dq,sq,pq,f1d,truth,predicted".split(','))?;
    for (set, scores) in scores {
        for image in &scores.images {
            let d = &image.detections;
            let number = |v: Option<f64>| v.map_or(String::new(), |v| format!("{v:.6}"));
            let s = image.segmentation;
            out.write_record([
                set.clone(),
                image.name.clone(),
                number(s.map(|s| s.dice)),
                number(s.map(|s| s.aji)),
                number(s.map(|s| s.aji_plus)),
                number(s.map(|s| s.dq)),
                number(s.map(|s| s.sq)),
                number(s.map(|s| s.pq)),
                number(Some(d.f1d())),
                (d.paired + d.unpaired_truth).to_string(),
                (d.paired + d.unpaired_pred).to_string(),
            ])?;
        }
    }
    let bytes = out.into_inner().map_err(|e| e.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A picture with its caption.
pub struct Figure {
    pub caption: String,
    pub picture: DynamicImage,
}

/// An HTML page with all scores and the `worst` images. `names`: types by id, background first.
pub fn write_html(
    title: &str,
    scores: &Scores,
    names: &[String],
    worst: &[Figure],
) -> Result<String, image::ImageError> {
    let mut body = String::from(
        "<p>Segmentation scores are means over images; <b>pq_pooled</b> and the types' scores \
         count all nuclei of a set. Brackets: 95 % bootstrap interval over images.</p>\n",
    );
    for (name, set) in scores {
        let _ = writeln!(
            body,
            "<h2>{} ({} images)</h2>",
            escape(name),
            set.images.len()
        );
        body.push_str(&score_table(&set.scores));
        body.push_str(&confusion_table(&set.detections, names));
        body.push_str(&reliability_figure(name, &set.calibration));
        body.push_str(&group_table(set, names));
    }
    if !worst.is_empty() {
        body.push_str("<h2>Worst images: truth left, prediction right</h2>\n");
    }
    for figure in worst {
        let tag = image_tag(&figure.picture, &figure.caption)?;
        let caption = escape(&figure.caption);
        let _ = writeln!(
            body,
            "<figure>{tag}<figcaption>{caption}</figcaption></figure>"
        );
    }
    Ok(page(title, &body))
}

fn score_table(scores: &BTreeMap<String, Score>) -> String {
    let mut out =
        String::from("<table><tr><th>score</th><th>value</th><th>95 % interval</th></tr>\n");
    let rest = scores
        .keys()
        .map(String::as_str)
        .filter(|n| !COLUMNS.contains(n));
    for name in COLUMNS.into_iter().chain(rest) {
        if let Some(s) = scores.get(name) {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{:.3}</td><td>{:.3} to {:.3}</td></tr>",
                escape(name),
                s.value,
                s.low,
                s.high
            );
        }
    }
    out + "</table>\n"
}

/// Confusion matrix. Rows: truth; columns: prediction; the last of each: nuclei without a partner.
fn confusion_table(counts: &TypeScores, names: &[String]) -> String {
    if names.len() < 2 || counts.paired == 0 {
        return String::new();
    }
    let mut out = String::from("<table><tr><th>truth \\ predicted</th>");
    let name = |id: usize| match id {
        0 => "no type",
        _ => names[id].as_str(),
    };
    for id in 0..names.len() {
        let _ = write!(out, "<th>{}</th>", escape(name(id)));
    }
    out.push_str("<th>missed</th></tr>\n");
    for (id, row) in counts.confusion.iter().enumerate() {
        let _ = write!(out, "<tr><td>{}</td>", escape(name(id)));
        for n in row {
            let _ = write!(out, "<td>{n}</td>");
        }
        let _ = writeln!(out, "<td>{}</td></tr>", counts.unpaired_truth_types[id]);
    }
    out.push_str("<tr><td>spurious</td>");
    for n in &counts.unpaired_pred_types {
        let _ = write!(out, "<td>{n}</td>");
    }
    out + "<td></td></tr></table>\n"
}

fn reliability_figure(set: &str, calibration: &Calibration) -> String {
    let (Some(ece), Some(brier)) = (calibration.ece(), calibration.brier()) else {
        return String::new();
    };
    let filled = calibration.bins.iter().filter(|b| b.nuclei > 0);
    let points = filled
        .map(|b| [b.prob_sum, b.right as f64].map(|sum| sum / b.nuclei as f64))
        .collect();
    let series = [
        Series {
            name: "measured".into(),
            points,
        },
        Series {
            name: "perfect".into(),
            points: vec![[0.0, 0.0], [1.0, 1.0]],
        },
    ];
    let chart = lines(
        &format!("Reliability of type_prob, {set}"),
        "mean type_prob",
        "share right",
        &series,
    );
    format!(
        "<figure>{chart}<figcaption>type_prob against the share of right types, \
         {} paired nuclei in {BINS} bins; ECE {ece:.3}, Brier {brier:.3}</figcaption></figure>\n",
        calibration.nuclei()
    )
}

fn group_table(set: &SetScores, names: &[String]) -> String {
    let groups = score_groups(set, names);
    if groups.is_empty() {
        return String::new();
    }
    let shown = ["dice", "aji", "pq", "f1d"];
    let mut out = String::from("<table><tr><th>group</th>");
    for n in shown {
        let _ = write!(out, "<th>{n}</th>");
    }
    out.push_str("</tr>\n");
    for (group, values) in groups {
        let _ = write!(out, "<tr><td>{}</td>", escape(&group));
        for name in shown {
            let text = values.get(name).map_or("-".into(), |v| format!("{v:.3}"));
            let _ = write!(out, "<td>{text}</td>");
        }
        out.push_str("</tr>\n");
    }
    out + "</table>\n"
}
