//! `view OUT`: the slide with its nuclei, in a browser on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::view::{Scene, Server, SlideChoice, ViewError};
use clap::Args;

use super::report::slide_folders;
use super::signals::stop_flag;
use super::{Failure, print};

/// Look at a slide with its nuclei, in a browser on this machine.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// OUT of a run with one slide, or one result folder (OUT/<stem>)
    #[arg(value_name = "OUT")]
    folder: PathBuf,
    /// The slide [default: the file the results name; without it their small picture]
    #[arg(long, value_name = "FILE")]
    slide: Option<PathBuf>,
    /// Where corrections that are saved on the page go  [default: corrections/ in the result folder]
    #[arg(long, value_name = "FOLDER")]
    corrections: Option<PathBuf>,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// Print the address and open nothing
    #[arg(long)]
    no_browser: bool,
}

pub fn main(args: &ViewArgs) -> Result<(), Failure> {
    let folder = one_result(&args.folder)?;
    let choice = match &args.slide {
        Some(path) => SlideChoice::File(path.clone()),
        None => SlideChoice::Recorded,
    };
    // Until the server listens, Ctrl-C ends the program as it does any other.
    let scene = Scene::open(&folder, &choice).map_err(failure)?;
    for note in scene.notes() {
        eprintln!("warning: {note}");
    }
    let count = scene.count();
    let corrections = args.corrections.clone();
    let corrections = corrections.unwrap_or_else(|| folder.join("corrections"));
    let server = Server::bind(scene, args.port, corrections).map_err(failure)?;
    let stop = stop_flag()?;
    let url = format!("http://{}/", server.address());
    print(&format!(
        "{count} nuclei of {} at {url} (Ctrl-C ends it)\n",
        folder.display()
    ))?;
    if !args.no_browser {
        open_browser(&url);
    }
    server.serve(&stop);
    Ok(())
}

fn failure(error: ViewError) -> Failure {
    match error {
        ViewError::NoResults { .. } | ViewError::OtherSlide { .. } | ViewError::Port { .. } => {
            Failure::usage(error)
        }
        _ => Failure::slides(error),
    }
}

/// The one result folder that a path is or holds.
fn one_result(path: &Path) -> Result<PathBuf, Failure> {
    let mut found = slide_folders(std::slice::from_ref(&path.to_owned()))?;
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (last, _) => {
            let names: Vec<String> = found
                .iter()
                .chain(&last)
                .map(|folder| folder.display().to_string())
                .collect();
            Err(Failure::usage(format!(
                "{}: holds {} slides, and one is viewed at a time: give {}",
                path.display(),
                names.len(),
                names.join(" or ")
            )))
        }
    }
}

/// Asks the desktop, where there is one. The address has been printed: failing is no matter.
fn open_browser(url: &str) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let opener = match cfg!(target_os = "macos") {
        true => "open",
        false if desktop => "xdg-open",
        false => return,
    };
    let started = Command::new(opener)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = started {
        eprintln!("warning: {opener} does not start ({error}): open {url} yourself");
    }
}
