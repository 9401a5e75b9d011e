//! Many slides on a cluster: numbered rows, work by atomic claim, one honest list at the end.
//!
//! In: a plan of rows (`cohort.json`) on a file system that all tasks share. Out: each slide's results in
//! `OUT/<stem>/`, one record a row, and a merged data set. The scheduler is the site's own: a task takes its own row,
//! then whatever is free. There is no daemon and no database. Never asks a scheduler anything, and never removes what
//! another task may still own.

pub mod claim;
pub mod cost;
mod heartbeat;
pub mod index;
mod look;
pub mod merge;
pub mod owner;
pub mod plan;
pub mod ranges;
pub mod record;
pub mod review;
pub mod scripts;
pub mod serve;
pub mod settings;
mod shared;
pub mod status;
pub mod table;
pub mod task;
pub mod work;
pub mod worker;

use std::path::{Path, PathBuf};

use work::Work;

/// Folder names that no slide of a cohort may have, because files of the cohort itself bear them.
pub const RESERVED_STEMS: [&str; 2] = ["merged", "cohort.json"];

/// Why a command on a cohort cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CohortError {
    /// What was asked for is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file of the cohort cannot be read or written.
    #[error("{}: cannot be {doing}: {source}: check the folder, its rights and the free space", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the cohort does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the cure.
        reason: String,
    },
    /// The machine cannot do it: no process.
    #[error("{0}")]
    Machine(String),
}

impl CohortError {
    fn read(path: &Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            doing: "read",
            source,
        }
    }

    fn write(path: &Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            doing: "written",
            source,
        }
    }

    fn content(path: &Path, reason: impl ToString) -> Self {
        Self::Content {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Where the files of a cohort lie below its folder.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The folder that `cohort plan -o` made.
    pub out: PathBuf,
}

impl Layout {
    /// The files of the cohort in `out`.
    pub fn new(out: &Path) -> Self {
        Self {
            out: out.to_owned(),
        }
    }

    /// The rows and the settings.
    pub fn plan(&self) -> PathBuf {
        self.out.join("cohort.json")
    }

    /// One file a row that a task works on.
    pub fn claims(&self) -> PathBuf {
        self.out.join(".cohort/claims")
    }

    /// One file a row that has ended.
    pub fn records(&self) -> PathBuf {
        self.out.join(".cohort/rows")
    }

    /// What the process said that did a row, or a part of one.
    pub fn log(&self, work: Work) -> PathBuf {
        self.out.join(format!(".cohort/logs/{work}.log"))
    }

    /// The data set of all slides.
    pub fn merged(&self) -> PathBuf {
        self.out.join("merged")
    }
}
