//! What can go wrong with a store.

use std::fmt;
use std::path::{Path, PathBuf};

use super::chunk::ChunkError;
use super::identity::Difference;

/// Messages name the folder or file, what is wrong, and the cure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: is not a nuclei store (no zarr.json with its settings): give the store.zarr folder of a \
        run", path.display())]
    NotAStore { path: PathBuf },
    #[error("{}: is there already: resume it, or start afresh with --restart", path.display())]
    Exists { path: PathBuf },
    #[error("{}: is damaged ({reason}): run again with --restart to start afresh", file.display())]
    Damaged { file: PathBuf, reason: String },
    #[error("{}: another process works on this slide: wait for it, or give this one another --output (processes \
        that share a slide need --shard)", path.display())]
    Busy { path: PathBuf },
    #[error("{}: cannot be written: {reason}: check free space and permissions, then run the same command \
        again", path.display())]
    Write { path: PathBuf, reason: String },
    #[error("{}: cannot be read: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
    #[error("{}: tile ({col}, {row}) {reason}: this is a bug, please report it", path.display())]
    Tile {
        path: PathBuf,
        col: i32,
        row: i32,
        reason: ChunkError,
    },
    #[error(transparent)]
    Identity(#[from] IdentityMismatch),
}

impl StoreError {
    /// A store's file or folder cannot be written.
    pub(super) fn write(path: &Path, reason: impl ToString) -> Self {
        Self::Write {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// A store's file or folder cannot be read.
    pub(super) fn read(path: &Path, reason: impl ToString) -> Self {
        Self::Read {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// A store's file does not hold what it should.
    pub(super) fn damaged(file: PathBuf, reason: impl ToString) -> Self {
        Self::Damaged {
            file,
            reason: reason.to_string(),
        }
    }
}

/// The store belongs to a run with other settings.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityMismatch {
    pub path: PathBuf,
    pub differences: Vec<Difference>,
}

impl std::error::Error for IdentityMismatch {}

impl fmt::Display for IdentityMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: was made with other settings:", self.path.display())?;
        for difference in &self.differences {
            write!(f, "\n  {difference}")?;
        }
        write!(
            f,
            "\nuse the stored settings, another --output, or --restart to drop the checkpoint"
        )
    }
}
