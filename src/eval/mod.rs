//! How good predictions are.
//!
//! In: instance maps or centroids with types, truth and prediction. Out: DICE, AJI, AJI+, DQ, SQ, PQ, F1d and F1 a type,
//! as hover_net's `compute_stats` defines them, with bootstrap intervals and calibration. Never segments anything itself: [`held_out`] runs a model on the
//! held-out images of a training configuration and hands its maps over.

pub mod annotation;
pub mod assignment;
pub mod calibration;
pub mod detection;
pub mod folders;
pub mod held_out;
pub mod ids;
pub mod report;
pub mod scores;
pub mod segmentation;
#[cfg(test)]
mod tests;

pub use detection::{Detections, TypeScores};
pub use segmentation::Segmentation;
