//! Which rules turn a prediction map into nuclei.

use serde::Serialize;

/// Rules of post-processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PostprocRules {
    /// Fixed scales: the answer does not depend on the tiling.
    Default,
    /// hover_net's per-map rules, for single maps and images.
    Reference,
}
