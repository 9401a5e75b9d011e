//! A slide with its nuclei in a browser on this machine.
//!
//! In: a result folder (src/view/open.rs) and, if there is one, its slide. Out: a page, slide tiles and, for what the
//! page shows at the moment, outlines, points or a density grid, over HTTP on 127.0.0.1; and, when the user saves
//! corrections, pictures with outlines to train on (src/view/correct.rs). Never listens to another machine, never takes
//! a path from a request, never changes a file of the results, and never sends all nuclei at once.

mod correct;
mod filter;
mod index;
mod open;
mod rows;
mod scene;
mod server;
mod tiles;

pub use filter::Filter;
pub use open::SlideChoice;
pub use scene::Scene;
pub use server::Server;

use std::path::PathBuf;

use crate::import::ImportError;
use crate::output::OutputError;
use crate::pipeline::PipelineError;
use crate::slide::SlideError;
use crate::store::StoreError;

/// Why nothing can be viewed. Messages name the file, what happened and the cure.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error("{}: holds no results to view: {reason}", folder.display())]
    NoResults { folder: PathBuf, reason: String },
    #[error("{}: {reason}", slide.display())]
    OtherSlide { slide: PathBuf, reason: String },
    #[error("{}: {reason}", path.display())]
    Table { path: PathBuf, reason: String },
    #[error("127.0.0.1:{port} cannot be opened: {reason}: give another --port")]
    Port { port: u16, reason: String },
    #[error(transparent)]
    Slide(#[from] SlideError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Load(#[from] PipelineError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Output(#[from] OutputError),
}
