//! How a slide ended, and the exit code that the endings of all slides come to.

use serde::{Deserialize, Serialize};

use crate::model::ModelError;
use crate::output::OutputError;
use crate::pipeline::PipelineError;
use crate::result::SlideResult;
use crate::slide::SlideError;
use crate::store::StoreError;
use crate::tissue::TissueError;

/// Some slides failed or are incomplete; others are done.
pub const EXIT_SOME: u8 = 1;
/// The command line or the config is wrong: nothing was started.
pub const EXIT_USAGE: u8 = 2;
/// None of the slides could be done.
pub const EXIT_NONE: u8 = 3;
/// Stopped on request: run the same command again.
pub const EXIT_STOPPED: u8 = 75;

/// How one slide ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All planned work is done and the files are written.
    Done {
        /// Number of nuclei found.
        nuclei: usize,
    },
    /// A shard has done its share; others have not.
    Share {
        /// Number of tiles that other shards still have to do.
        tiles_left: usize,
    },
    /// Results are there, but parts could not be read or are not done yet.
    Incomplete {
        /// Number of nuclei found.
        nuclei: usize,
        /// What is missing, and why.
        why: String,
    },
    /// Stopped on request; the checkpoint is written.
    Stopped,
    /// Nothing was started: the settings do not fit (another identity in the store, a wrong model folder).
    Refused(String),
    /// Something broke: a file, the device or the disk.
    Failed(String),
}

impl Ending {
    /// Done, or what is missing.
    pub fn of_result(result: &SlideResult) -> Self {
        let nuclei = result.nuclei.len();
        let covered = &result.coverage;
        let mut why = Vec::new();
        if covered.unreadable_px > 0 {
            let reason = result.read_errors.first().map_or("", String::as_str);
            why.push(format!(
                "{:.4} mm² could not be read ({reason})",
                result.frames().mm2(covered.unreadable_px)
            ));
        }
        if covered.missing_tiles > 0 {
            why.push(format!("{} tiles are not done", covered.missing_tiles));
        }
        if why.is_empty() {
            Self::Done { nuclei }
        } else {
            Self::Incomplete {
                nuclei,
                why: why.join(", "),
            }
        }
    }

    /// The same ending with its reason put otherwise.
    pub fn with_reason(self, other: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(other(&why)),
            Self::Refused(why) => Self::Refused(other(&why)),
            Self::Incomplete { nuclei, why } => Self::Incomplete {
                nuclei,
                why: other(&why),
            },
            Self::Done { .. } | Self::Share { .. } | Self::Stopped => self,
        }
    }

    /// What went wrong, for an ending that is not as it should be.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed(why) | Self::Refused(why) | Self::Incomplete { why, .. } => Some(why),
            Self::Done { .. } | Self::Share { .. } | Self::Stopped => None,
        }
    }
}

/// Why a slide could not be done, on its way to an [`Ending`].
#[derive(Debug, thiserror::Error)]
pub enum SlideFailure {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nothing failed, or it would fail again.
    #[default]
    Lasting,
    /// A file or disk that did not answer may answer later.
    MayPass,
    /// Another process holds the slide's store.
    Busy,
}

impl SlideFailure {
    /// Whether trying again may help.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Pipeline(PipelineError::Store(StoreError::Busy { .. })) => Cause::Busy,
            Self::Pipeline(PipelineError::Store(
                StoreError::Write { .. } | StoreError::Read { .. },
            ))
            | Self::Output(OutputError::Write { .. })
            | Self::Model(ModelError::Read { .. }) => Cause::MayPass,
            Self::Pipeline(
                PipelineError::Slide(error) | PipelineError::Tissue(TissueError::Slide(error)),
            ) => cause_of_slide(error),
            _ => Cause::Lasting,
        }
    }
}

/// What the system says where a file server or disk does not answer. A slide's libraries hand on its words alone.
const NO_ANSWER: [&str; 6] = [
    "Input/output error",
    "Remote I/O error",
    "Stale file handle",
    "timed out",
    "Transport endpoint",
    "Resource temporarily unavailable",
];

/// A damaged slide stays damaged; a file that did not answer may answer later.
fn cause_of_slide(error: &SlideError) -> Cause {
    let text = error.to_string();
    match NO_ANSWER.iter().any(|words| text.contains(words)) {
        true => Cause::MayPass,
        false => Cause::Lasting,
    }
}

impl From<SlideFailure> for Ending {
    fn from(failure: SlideFailure) -> Self {
        let text = failure.to_string();
        match failure {
            SlideFailure::Pipeline(PipelineError::Stopped) => Ending::Stopped,
            SlideFailure::Pipeline(PipelineError::ShareDone { tiles_left }) => {
                Ending::Share { tiles_left }
            }
            // Settings that cannot work, whatever the slide: nothing was started.
            SlideFailure::Model(_)
            | SlideFailure::Pipeline(
                PipelineError::Memory { .. }
                | PipelineError::Tissue(TissueError::Mask { .. } | TissueError::Region { .. })
                | PipelineError::Identity(_)
                | PipelineError::Numerics { .. }
                | PipelineError::Store(StoreError::Busy { .. }),
            ) => Ending::Refused(text),
            _ => Ending::Failed(text),
        }
    }
}

/// The exit code that the endings of all slides come to.
pub fn exit_code(endings: &[Ending]) -> u8 {
    let count = |is: fn(&Ending) -> bool| endings.iter().filter(|ending| is(ending)).count();
    let done = count(|e| matches!(e, Ending::Done { .. } | Ending::Share { .. }));
    let incomplete = count(|e| matches!(e, Ending::Incomplete { .. }));
    let refused = count(|e| matches!(e, Ending::Refused(_)));
    if endings.contains(&Ending::Stopped) {
        EXIT_STOPPED
    } else if done == endings.len() {
        0
    } else if done + incomplete > 0 {
        EXIT_SOME
    } else if refused == endings.len() {
        EXIT_USAGE
    } else {
        EXIT_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let done = || Ending::Done { nuclei: 1 };
        let partly = || Ending::Incomplete {
            nuclei: 1,
            why: String::new(),
        };
        let failed = || Ending::Failed(String::new());
        let refused = || Ending::Refused(String::new());
        assert_eq!(exit_code(&[done(), done()]), 0);
        assert_eq!(exit_code(&[done(), failed()]), 1);
        assert_eq!(exit_code(&[done(), Ending::Share { tiles_left: 3 }]), 0);
        assert_eq!(exit_code(&[partly()]), 1);
        assert_eq!(exit_code(&[done(), refused()]), 1);
        assert_eq!(exit_code(&[refused()]), 2);
        assert_eq!(exit_code(&[refused(), failed()]), 3);
        assert_eq!(exit_code(&[failed(), failed()]), 3);
        assert_eq!(exit_code(&[done(), Ending::Stopped]), 75);
    }

    #[test]
    fn only_what_may_pass_is_worth_another_try() {
        let unsupported = |reason: &str| {
            let path = "a.svs".into();
            let reason = reason.to_owned();
            let error = SlideError::Unsupported { path, reason };
            SlideFailure::from(PipelineError::from(error)).cause()
        };
        assert_eq!(unsupported("not a slide"), Cause::Lasting);
        assert_eq!(
            unsupported("Input/output error (os error 5)"),
            Cause::MayPass
        );
        let path = std::path::PathBuf::from("store.zarr");
        let full = StoreError::Write {
            path: path.clone(),
            reason: "No space left on device".into(),
        };
        let of = |error: StoreError| SlideFailure::from(PipelineError::from(error)).cause();
        assert_eq!(of(full), Cause::MayPass);
        assert_eq!(of(StoreError::Busy { path: path.clone() }), Cause::Busy);
        assert_eq!(of(StoreError::NotAStore { path }), Cause::Lasting);
    }

    #[test]
    fn an_ending_survives_its_record() {
        for ending in [
            Ending::Done { nuclei: 7 },
            Ending::Share { tiles_left: 2 },
            Ending::Stopped,
            Ending::Failed("a \"b\"\nc".into()),
        ] {
            let text = serde_json::to_string(&ending).unwrap();
            assert_eq!(serde_json::from_str::<Ending>(&text).unwrap(), ending);
        }
    }
}
