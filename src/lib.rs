//! Every nucleus of a whole-slide H&E image: where it is, what type, what shape.
//!
//! The data's way, in one direction:
//! slide -> tissue mask -> plan -> read -> infer -> post-process -> commit -> stitch -> outputs.
//!
//! # What another program can use
//!
//! | to | call |
//! | --- | --- |
//! | open a slide or a plain image | [`open_slide`] |
//! | find its nuclei and write its results | [`run_slide`] (feature `torch`) |
//! | read a finished result | [`read_result`] (feature `torch`), [`read_json`] |
//! | write a format | [`write_nuclei`] |
//! | segment a prediction map | [`segment_map`] |
//! | measure a mask | [`measure_mask`], [`measure_nucleus`] |
//! | score a segmentation | [`score_maps`] |
//!
//! Without the default features `torch` and `openslide` everything but networks, runs and whole-slide formats is there.
//! examples/ has three small programs; docs/architecture.md explains the rooms behind this face.
#![warn(missing_docs)]
// What only the program uses is idle without it.
#![cfg_attr(not(feature = "torch"), allow(dead_code, unused_imports))]

#[cfg(feature = "torch")]
mod cli;
#[cfg(feature = "torch")]
mod cohort;
mod digest;
#[cfg(feature = "torch")]
mod doctor;
mod eval;
mod features;
mod geojson_file;
mod geometry;
mod import;
mod labels;
mod lenient_json;
mod machine;
mod mat5;
mod model;
mod npy;
mod nuclei;
mod output;
mod pipeline;
mod plan;
mod prediction;
mod report;
mod result;
#[cfg(feature = "torch")]
mod run;
mod slide;
mod stitch;
mod store;
mod tissue;
#[cfg(feature = "torch")]
mod train;
#[cfg(feature = "torch")]
mod view;

pub use eval::segmentation::{Segmentation, score_maps};
pub use features::{
    Ring, Shape, shape as measure_mask, shape_of as measure_nucleus, shape_um as shape_in_um,
};
pub use geometry::Rect;
pub use import::{ImportError, Options as ImportOptions, read as read_json};
pub use model::TypeInfo;
pub use nuclei::{Nucleus, PostprocParams, segment_map};
pub use output::{
    Choice, Format, GeojsonFrame, OutputError, Units, table::Measurements, write_nuclei,
};
pub use pipeline::PipelineError;
pub use plan::{PatchGrid, PatchIndex};
pub use prediction::PredictionMap;
pub use result::{
    Coverage, Examined, Imported, ImportedLabel, ModelCard, Record, SlideMeta, SlideResult,
    SlideSource,
};
#[cfg(feature = "torch")]
pub use run::{Ending, RunConfig, RunError, read_result, run_slide};
pub use slide::{Frames, SlideError, SlideInfo, SlideReader, open as open_slide};
pub use tissue::{Region, TissueSource};

/// What this repository's own binary, tests and benches reach into. No promise: it changes without notice.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "torch")]
    pub use crate::cli::{main, settings::layers};
    #[cfg(feature = "torch")]
    pub use crate::cohort::{
        Layout,
        claim::{Claim, Desk, Progress as ClaimProgress, Taken},
        owner::Owner,
        plan::{Cohort, Row},
        record,
        work::Work,
    };
    pub use crate::eval::scores;
    pub use crate::labels::{Annotation, DataSet, Format as LabelFormat, folders, formats};
    pub use crate::machine::peak_memory_bytes;
    pub use crate::mat5::{Matrix, read as read_mat5};
    #[cfg(feature = "torch")]
    pub use crate::model::{
        Architecture, Precision,
        design::{Design, Folded},
        layer::{Convolve, Layer, parameters},
    };
    pub use crate::model::{ModelSpec, pickle, torch_file};
    #[cfg(feature = "torch")]
    pub use crate::model::{Network, convert, hovernet, weights};
    pub use crate::nuclei::reference;
    pub use crate::nuclei::{Foreground, Run, StainSums, components};
    pub use crate::output::table::for_each_chunk;
    pub use crate::output::{
        Pictures, labels_ome_zarr, nuclei_json, raw_map, report_html, summary_json, write_all,
    };
    pub use crate::pipeline::load as load_store;
    pub use crate::store::{Store, TileResult, TileState, chunk};
    pub use crate::tissue::{Regions, TissueMask};
}
