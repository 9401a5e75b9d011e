//! train.html: curves and pictures of a training, rewritten at each validation.
//!
//! In: the log `train.jsonl`, pictures of some held-out images. Out: one HTML page.

use std::fmt::Write;
use std::path::Path;

use image::{DynamicImage, RgbImage};
use serde_json::Value;

use super::TrainError;
use crate::report::{Series, escape, image_tag, lines, page};
use crate::store::atomic;

/// Writes `out/train.html` from `out/train.jsonl` and the captioned pictures of `panel`.
pub fn write_page(out: &Path, panel: &[(String, RgbImage)]) -> Result<(), TrainError> {
    let log_path = out.join("train.jsonl");
    let log = std::fs::read_to_string(&log_path).map_err(|e| TrainError::file(&log_path, e))?;
    let path = out.join("train.html");
    let html = build_html(&log, panel).map_err(|e| TrainError::file(&path, e))?;
    atomic::write_bytes(&path, html.as_bytes()).map_err(|e| TrainError::file(&path, e))
}

/// The page. `log`: one JSON object per line; lines that a kill cut short are skipped.
fn build_html(log: &str, panel: &[(String, RgbImage)]) -> Result<String, image::ImageError> {
    let entries: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let series = |names: &str| -> Vec<Series> {
        let of_name = |name: &str| {
            let point = |e: &Value| Some([e.get("step")?.as_f64()?, e.get(name)?.as_f64()?]);
            Series {
                name: name.to_string(),
                points: entries.iter().filter_map(point).collect(),
            }
        };
        names.split(' ').map(of_name).collect()
    };
    let mut body = String::new();
    for (title, y, names) in [
        ("Loss and its parts", "loss", "loss np hv tp"),
        ("Held-out images", "score", "val_pq val_dice val_f1d"),
        ("Learning rate, as a part of its peak", "rate", "rate"),
    ] {
        let chart = lines(title, "step", y, &series(names));
        let _ = writeln!(body, "<h2>{title}</h2>\n<figure>{chart}</figure>");
    }
    if !panel.is_empty() {
        body.push_str("<h2>Held-out images: truth left, prediction right</h2>\n");
    }
    for (name, picture) in panel {
        let tag = image_tag(&DynamicImage::from(picture.clone()), name)?;
        let _ = writeln!(
            body,
            "<figure>{tag}<figcaption>{}</figcaption></figure>",
            escape(name)
        );
    }
    Ok(page("Training", &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_kill_cut_short_is_skipped() {
        let log = "{\"step\":20,\"loss\":2.0}\n{\"step\":40,\"loss\":1.0}\n{\"step\":60,\"lo";
        let html = build_html(log, &[]).unwrap();
        assert!(html.contains("points=\"52.0,26.0 508.0,206.0\""), "{html}");
    }
}
