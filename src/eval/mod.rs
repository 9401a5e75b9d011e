//! How good predictions are.
//!
//! In: [`Annotation`](crate::labels::Annotation)s (instance maps or centroids, with types), truth
//! and prediction. Out: DICE, AJI, AJI+, DQ, SQ, PQ, F1d and F1 per type, as hover_net's
//! `compute_stats` defines them, with bootstrap intervals and calibration. [`held_out`] takes its
//! predictions from a model. Never trains.

mod assignment;
pub mod calibration;
pub mod detection;
pub mod held_out;
pub mod numbering;
pub mod report;
pub mod scores;
pub mod segmentation;
pub mod taught;
#[cfg(test)]
mod tests;

pub use detection::TypeScores;
