//! What a run would take, before it starts.
//!
//! In: a prepared slide and its model. Out: tiles, patches, memory, scratch, and seconds from a short calibration on the
//! slide's own first patches. Nothing is stored.

use std::time::Instant;

use super::{PipelineError, Prepared};
use crate::model::Model;

/// Store bytes a mm² predicted: nuclei and the open fragments of default tiles, compressed (docs/performance.md).
const STORE_BYTES_A_MM2: f64 = 1.1e6;
/// Store bytes of the thumbnail where all of it is tissue, which hardly compresses; glass does.
const THUMB_BYTES: f64 = 10e6;

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Estimate {
    pub tiles: usize,
    pub patches: usize,
    pub patch_in_px: i32,
    pub patch_out_px: i32,
    pub tile_px: i32,
    pub tissue_mm2: f64,
    pub planned_mm2: f64,
    pub memory_bytes: u64,
    pub scratch_bytes: u64,
    pub infer_workers: usize,
    /// Seconds a patch takes one worker, measured.
    pub seconds_a_patch: f64,
    pub seconds: f64,
}

/// Estimates a run of `prepared`; infers two patches to know how long one takes.
pub fn estimate(prepared: &Prepared, model: &Model) -> Result<Estimate, PipelineError> {
    let plan = &prepared.plan;
    let patches = plan.patches();
    let planned_mm2 = prepared.image.frames().mm2(plan.planned_px());
    let frames = prepared.image.frames();
    let slide_mm2 = frames.mm2(frames.proc_rect().area());
    let tissue_share = prepared.tissue_mm2 / slide_mm2.max(f64::MIN_POSITIVE);
    let seconds_a_patch = seconds_a_patch(prepared, model)?;
    Ok(Estimate {
        tiles: plan.tiles.len(),
        patches,
        patch_in_px: plan.grid.patch_in_px,
        patch_out_px: plan.grid.patch_out_px,
        tile_px: plan.tile_patches * plan.grid.patch_out_px,
        tissue_mm2: prepared.tissue_mm2,
        planned_mm2,
        memory_bytes: prepared.budget.expected_bytes,
        scratch_bytes: (planned_mm2 * STORE_BYTES_A_MM2 + THUMB_BYTES * tissue_share) as u64,
        infer_workers: prepared.budget.infer_workers,
        seconds_a_patch,
        seconds: patches as f64 * seconds_a_patch / prepared.budget.infer_workers as f64,
    })
}

/// The second of two patches: the first one warms caches up.
fn seconds_a_patch(prepared: &Prepared, model: &Model) -> Result<f64, PipelineError> {
    let Some(&patch) = prepared.plan.tiles.iter().flat_map(|t| &t.patches).next() else {
        return Ok(0.0);
    };
    let rgb = prepared.image.region(prepared.plan.grid.in_rect(patch))?;
    let mut worker = model.worker();
    worker.predict(std::slice::from_ref(&rgb))?;
    let start = Instant::now();
    worker.predict(std::slice::from_ref(&rgb))?;
    Ok(start.elapsed().as_secs_f64())
}
