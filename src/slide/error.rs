//! What can go wrong with a slide. Messages name the file, the place and the cure.

use std::path::{Path, PathBuf};

use super::SlideInfo;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlideError {
    #[error("{}: no such file: check the path", path.display())]
    Missing { path: PathBuf },
    #[error("{}: cannot be opened as a slide or image: {reason}", path.display())]
    Unsupported { path: PathBuf, reason: String },
    #[error("{}: level {level}, {w} x {h} px at ({x_px}, {y_px}) cannot be read: {reason}", path.display())]
    Read {
        path: PathBuf,
        level: usize,
        x_px: i64,
        y_px: i64,
        w: u32,
        h: u32,
        reason: String,
    },
    #[error("{}: has no µm/px and no objective power: give it with --mpp (0.25 for a 40x scan, 0.5 for 20x)", path.display())]
    NoMpp { path: PathBuf },
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

impl SlideError {
    /// No reader can open the file.
    pub(super) fn unsupported(path: &Path, reason: impl ToString) -> Self {
        Self::Unsupported {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// Something else about the slide or how it is used is wrong.
    pub(super) fn invalid(path: &Path, reason: impl ToString) -> Self {
        Self::Invalid {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// A window of a level cannot be read.
    pub(super) fn read(
        info: &SlideInfo,
        level: usize,
        [x_px, y_px]: [u64; 2],
        [w, h]: [u32; 2],
        reason: impl ToString,
    ) -> Self {
        Self::Read {
            path: info.path.clone(),
            level,
            x_px: x_px as i64,
            y_px: y_px as i64,
            w,
            h,
            reason: reason.to_string(),
        }
    }
}
