//! What can go wrong with a slide. Messages name the file, the place and the cure.

use std::path::{Path, PathBuf};

use super::SlideInfo;

/// Why a slide or image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlideError {
    /// There is no such file.
    #[error("{}: no such file: check the path", path.display())]
    Missing {
        /// The path that was given.
        path: PathBuf,
    },
    /// No reader can open the file.
    #[error("{}: cannot be opened as a slide or image: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What the reader said, and the cure.
        reason: String,
    },
    /// A window of pixels cannot be read.
    #[error("{}: level {level}, {w} x {h} px at ({x_px}, {y_px}) cannot be read: {reason}", path.display())]
    Read {
        /// The slide.
        path: PathBuf,
        /// The pyramid level that was read.
        level: usize,
        /// Left edge of the window, px of that level.
        x_px: i64,
        /// Top edge of the window, px of that level.
        y_px: i64,
        /// Width of the window, px.
        w: u32,
        /// Height of the window, px.
        h: u32,
        /// What the reader said.
        reason: String,
    },
    /// Neither µm/px nor objective power is known.
    #[error("{}: has no µm/px and no objective power: give it with --mpp (0.25 for a 40x scan, 0.5 for \
        20x)", path.display())]
    NoMpp {
        /// The slide.
        path: PathBuf,
    },
    /// The slide, or what is asked of it, is wrong in some other way.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The slide.
        path: PathBuf,
        /// What is wrong, and the cure.
        reason: String,
    },
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
