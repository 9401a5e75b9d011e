//! `report OUT…`: report.html of each slide again, and an index page over several.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::output::report_html::{self, Results};
use crate::output::{Units, crops, summary_json, table};
use crate::pipeline;
use crate::report::cohort::{self, CohortSlide};
use crate::run::ending::{EXIT_NONE, EXIT_SOME};
use crate::store::{Store, atomic};
use clap::Args;

use super::{Failure, print};

const REPORT: &str = "report.html";
const INDEX: &str = "index.html";

/// Write report.html of each slide, and an index page over several.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// OUT of a run, or single result folders (OUT/<stem>)
    #[arg(value_name = "OUT", required = true)]
    folders: Vec<PathBuf>,
    /// Several slides: the index page [default: index.html in OUT, or beside the first result folder]. One slide: its
    /// page [default: report.html in its folder]
    #[arg(short, long, value_name = "HTML", value_parser = html_file)]
    output: Option<PathBuf>,
}

/// A page is HTML, whatever its name: a name that says otherwise is a mistake.
fn html_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("html" | "htm") => Ok(path),
        _ => Err(
            "a page is HTML: end its name in .html (tables are nuclei.csv and nuclei.parquet in each slide's folder)"
                .into(),
        ),
    }
}

pub fn main(args: &ReportArgs) -> Result<(), Failure> {
    let slides = slide_folders(&args.folders)?;
    // Of one slide, -o is the page itself.
    let page_of = |folder: &Path| match (&args.output, slides.len()) {
        (Some(path), 1) => path.clone(),
        _ => folder.join(REPORT),
    };
    let mut done: Vec<(&Path, CohortSlide)> = Vec::new();
    for folder in &slides {
        match one(folder, &page_of(folder)) {
            Ok(slide) => done.push((folder, slide)),
            Err(why) => eprintln!("error: {why}"),
        }
    }
    if slides.len() > 1 && !done.is_empty() {
        let index = index_path(args, &slides);
        let beside = index.parent().unwrap_or(Path::new(""));
        let count = done.len();
        let linked: Vec<CohortSlide> = done
            .into_iter()
            .map(|(folder, slide)| CohortSlide {
                href: href(beside, &folder.join(REPORT)),
                ..slide
            })
            .collect();
        let page = cohort::html(&linked).map_err(Failure::slides)?;
        atomic::write_bytes(&index, page.as_bytes()).map_err(|error| {
            Failure::slides(format!(
                "{}: cannot be written: {error}: choose another place with -o",
                index.display()
            ))
        })?;
        print(&format!("{count} slides: {}\n", index.display()))?;
        return ending(count, slides.len());
    }
    for (folder, _) in &done {
        print(&format!("{}\n", page_of(folder).display()))?;
    }
    ending(done.len(), slides.len())
}

fn ending(done: usize, of: usize) -> Result<(), Failure> {
    match done {
        n if n == of => Ok(()),
        0 => Err(Failure::silent(EXIT_NONE)),
        _ => Err(Failure::silent(EXIT_SOME)),
    }
}

/// The result folders that `folders` are or hold, each once.
pub(super) fn slide_folders(folders: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let is_result =
        |folder: &Path| folder.join("store.zarr").is_dir() || folder.join("summary.json").is_file();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let mut here: Vec<PathBuf> = if is_result(folder) {
            vec![folder.clone()]
        } else {
            let entries = std::fs::read_dir(folder).map_err(|error| {
                Failure::usage(format!("{}: cannot be read: {error}", folder.display()))
            })?;
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| is_result(path))
                .collect()
        };
        if here.is_empty() {
            return Err(Failure::usage(format!(
                "{}: holds no results (no store.zarr or summary.json in it or one folder below): give the -o of a run",
                folder.display()
            )));
        }
        here.sort();
        here.retain(|path| !found.contains(path));
        found.extend(here);
    }
    Ok(found)
}

/// Writes a slide's page to `page`; what the index needs comes back.
fn one(folder: &Path, page: &Path) -> Result<CohortSlide, String> {
    let store = folder.join("store.zarr");
    let mut results = if store.is_dir() {
        from_store(&store)?
    } else {
        report_html::read_folder(folder).map_err(|error| error.to_string())?
    };
    results.crops = crops::read(folder).map_err(|error| error.to_string())?;
    let slide = CohortSlide {
        href: String::new(),
        summary: Arc::new(results.summary.clone()),
        thumb: Some(cohort::small(&results.thumb)),
    };
    report_html::write(results, page).map_err(|error| error.to_string())?;
    Ok(slide)
}

fn from_store(path: &Path) -> Result<Results, String> {
    let store = Store::open(path).map_err(|error| error.to_string())?;
    let thumb = store.thumb().map_err(|error| error.to_string())?;
    let mask = store.mask().map_err(|error| error.to_string())?;
    let loaded = pipeline::load(&store).map_err(|error| error.to_string())?;
    let Ok(measured) = table::for_each_chunk(&loaded.slide, Units::Um, |_| {
        Ok::<(), std::convert::Infallible>(())
    });
    Ok(Results {
        summary: summary_json::summary(&loaded.slide, &measured.medians),
        measured,
        thumb,
        mask,
        region: loaded.slide.meta.region,
        crops: Vec::new(),
    })
}

fn index_path(args: &ReportArgs, slides: &[PathBuf]) -> PathBuf {
    if let Some(path) = &args.output {
        return path.clone();
    }
    let folder = match (args.folders.as_slice(), slides.first()) {
        ([only], _) => only.clone(),
        (_, Some(first)) => first.parent().unwrap_or(Path::new("")).to_owned(),
        _ => PathBuf::new(),
    };
    folder.join(INDEX)
}

/// `file` as a link from a page in `folder`.
fn href(folder: &Path, file: &Path) -> String {
    // The working folder is often named by nothing at all.
    let whole = |path: &Path| {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    };
    let (folder, file) = (whole(folder), whole(file));
    let common = folder
        .components()
        .zip(file.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = folder.components().skip(common).map(|_| "..".to_owned());
    let down = file
        .components()
        .skip(common)
        .map(|part| crate::report::encoded(&part.as_os_str().to_string_lossy()));
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_page_to_the_slide() {
        let of = |folder: &str, file: &str| href(Path::new(folder), Path::new(file));
        assert_eq!(
            of("/a/out", "/a/out/s 1#/report.html"),
            "s%201%23/report.html"
        );
        assert_eq!(
            of("/a/pages", "/a/out/s/report.html"),
            "../out/s/report.html"
        );
        assert_eq!(of("", "s/report.html"), "s/report.html");
    }
}
