//! wsi-nuclei: every nucleus of a whole-slide H&E image: where it is, what type, what shape.
//!
//! The data's way, one direction, no back edges:
//! slide -> tissue mask -> plan -> read -> infer -> post-process -> commit -> stitch -> outputs.

#[doc(hidden)]
pub mod cli;
pub mod digest;
#[cfg(feature = "torch")]
pub mod doctor;
#[cfg(feature = "torch")]
pub mod eval;
pub mod features;
pub mod geometry;
pub mod import;
pub mod labels;
pub mod machine;
pub mod mat5;
pub mod model;
pub mod npy;
pub mod nuclei;
pub mod output;
pub mod pipeline;
pub mod plan;
pub mod prediction;
pub mod report;
pub mod result;
pub mod run;
pub mod slide;
pub mod stitch;
pub mod store;
pub mod tissue;
#[cfg(feature = "torch")]
pub mod train;
pub mod view;
