//! The arithmetic that a network computes in.

use serde::Serialize;

/// Arithmetic of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    Auto,
    F32,
    Bf16,
    F16,
}
