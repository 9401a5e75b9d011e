//! What can go wrong with a model. Messages name the file, the place and the cure.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(
        "no model named '{name}': give one of {available}, or the path of a folder that holds a model.toml"
    )]
    NotFound { name: String, available: String },
    #[error("{}: cannot be read: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
    #[error("{}:{line}: {reason}", path.display())]
    Toml {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{}: {field}: {reason}", path.display())]
    Spec {
        path: PathBuf,
        field: &'static str,
        reason: String,
    },
    #[error(
        "{}: its SHA-256 is {actual}, but model.toml states {stated}: the file is damaged or of another model; \
         copy the folder again, or put the new hash into model.toml if you changed the weights yourself",
        path.display()
    )]
    Hash {
        path: PathBuf,
        stated: String,
        actual: String,
    },
    #[error("{}: not a readable weights file: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("{}: does not fit the architecture {architecture}: {problems}", path.display())]
    Parameters {
        path: PathBuf,
        architecture: &'static str,
        problems: String,
    },
    #[error("the weights hold no parameter {0}")]
    MissingTensor(String),
    #[error("the architecture {architecture} is not part of this build")]
    NotBuilt { architecture: &'static str },
    #[error("device {asked}: {reason}")]
    Device { asked: String, reason: String },
    #[error("{reason}")]
    Input { reason: String },
    #[error("the network's output does not fit model.toml: {reason}")]
    Output { reason: String },
    #[error(
        "the device has too little memory for one patch: {reason}; end what else runs on it, or give a smaller --patch-size"
    )]
    OutOfMemory { reason: String },
    #[error("libtorch: {reason}")]
    Torch { reason: String },
}

impl ModelError {
    /// A file cannot be read.
    pub fn read(path: &Path, reason: impl ToString) -> Self {
        Self::Read {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// The content of a weights file cannot be used.
    pub fn format(path: &Path, reason: impl ToString) -> Self {
        Self::Format {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// A network cannot take what it was given.
    pub fn input(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Input { reason }
    }

    /// A network's maps are not what model.toml promises.
    pub fn output(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Output { reason }
    }
}

impl ModelError {
    /// Whether fewer patches at once may do.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }
}

#[cfg(feature = "torch")]
impl From<tch::TchError> for ModelError {
    /// Keeps libtorch's message and drops the C++ stack that follows it.
    fn from(error: tch::TchError) -> Self {
        let text = match error {
            tch::TchError::Torch(text) => text,
            other => other.to_string(),
        };
        let message: Vec<&str> = text
            .lines()
            .take_while(|line| {
                !line.starts_with("Exception raised from") && !line.starts_with("frame #")
            })
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .take(4)
            .collect();
        let reason = message.join("; ");
        match reason.contains("out of memory") {
            true => ModelError::OutOfMemory { reason },
            false => ModelError::Torch { reason },
        }
    }
}
