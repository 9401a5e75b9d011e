//! One memory budget, from which everything else follows: workers, queues, tiles in flight, the block cache.
//!
//! In: bytes, the model's patch sizes, threads. Out: a [`Budget`]. Patch sizes and stored layout never follow from it,
//! so memory cannot change a result.

use super::PipelineError;
use crate::model::{Architecture, ModelSpec};
use crate::output::pictures::OVERLAY_SIDE_PX;
use crate::plan::Plan;

/// What the process holds before any slide: code, libtorch, the slide library.
pub const BASE_BYTES: u64 = 320 << 20;
/// Proc px side of a tile by default.
const TILE_PX: u32 = 2048;
/// Bytes a foreground pixel takes beside its type probabilities: np, h, v, RGB, runs; twice while parts are merged.
const FOREGROUND_BYTES: u64 = 2 * 10;
/// Share of a tile that may be nucleus before a tile takes more than planned.
const FOREGROUND_SHARE: f64 = 0.5;
/// What a nucleus leaves for the end: itself, its measures, its neighbourhood (measured on 933,302 nuclei).
const RESULT_BYTES_PER_NUCLEUS: f64 = 620.0;
/// A mm² of crowded tissue has about so many nuclei.
const NUCLEI_PER_MM2: f64 = 5625.0;
/// overlay.jpg is drawn at up to twice the model's scale, and held with what it is compressed to.
const OVERLAY_BYTES_PER_PX: u64 = 5;
/// One proc block, RGB.
const BLOCK_BYTES: u64 = 3 * 512 * 512;

/// How much of everything may exist at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Budget {
    pub memory_bytes: u64,
    /// What the parts below come to.
    pub expected_bytes: u64,
    pub infer_workers: usize,
    pub readers: usize,
    /// Patches that may wait between two stages.
    pub queue_patches: usize,
    pub tiles_in_flight: usize,
    pub cache_bytes: u64,
}

/// Side of a tile where nobody asked for another, px.
pub const fn default_tile_px() -> u32 {
    TILE_PX
}

/// 60 % of what the cgroup or the machine allows.
pub fn default_memory_bytes() -> u64 {
    let limit = crate::machine::memory_limit_bytes().unwrap_or(8 << 30);
    limit / 10 * 6
}

/// Bytes of activations a worker needs at its peak for an input of `patch_in_px`, measured by peak memory (see
/// docs/performance.md).
fn activation_bytes(spec: &ModelSpec, patch_in_px: i32) -> u64 {
    let per_px = match spec.architecture {
        Architecture::HovernetLite => 400,
        Architecture::HovernetFast | Architecture::HovernetOriginal => 8000,
        Architecture::Torchscript => 4000,
        Architecture::Analytic => 120,
    };
    per_px * (patch_in_px as u64).pow(2)
}

/// Bytes that so many nuclei leave for the end of a run.
pub fn result_bytes(nuclei: f64) -> u64 {
    (nuclei * RESULT_BYTES_PER_NUCLEUS) as u64
}

/// What a run holds at its end: the stages are gone, all nuclei and the largest picture are there.
pub fn end_bytes(plan: &Plan, result_bytes: u64) -> u64 {
    let overlay_px: u64 = plan
        .grid
        .slide_px
        .iter()
        .map(|&px| (2 * px.max(0) as u64).min(OVERLAY_SIDE_PX.into()))
        .product();
    BASE_BYTES + result_bytes + overlay_px * OVERLAY_BYTES_PER_PX
}

/// What the settings and the machine give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    pub memory_bytes: u64,
    pub threads: usize,
    pub on_gpu: bool,
}

/// Divides the memory among the stages.
///
/// # Errors
/// [`PipelineError::Memory`] with the least that would do.
pub fn divide(
    resources: Resources,
    spec: &ModelSpec,
    plan: &Plan,
) -> Result<Budget, PipelineError> {
    let Resources {
        memory_bytes,
        threads,
        on_gpu,
    } = resources;
    let patch = (plan.grid.patch_in_px, plan.grid.patch_out_px);
    let tile_area_px = plan
        .tiles
        .iter()
        .map(|tile| tile.rect.area())
        .max()
        .unwrap_or(0);
    let (patch_in, patch_out) = (patch.0 as u64, patch.1 as u64);
    let channels = 3 + spec.types.len() as u64;
    let patch_bytes = 3 * patch_in * patch_in + 4 * channels * patch_out * patch_out;
    let pixel_bytes = FOREGROUND_BYTES + 2 * spec.types.len() as u64;
    let tile_bytes = (tile_area_px as f64 * FOREGROUND_SHARE) as u64 * pixel_bytes;
    let worker_bytes = if on_gpu {
        0
    } else {
        activation_bytes(spec, patch.0)
    };

    let need = |workers: u64, queue: u64, tiles: u64, cache: u64| {
        BASE_BYTES
            + workers * (worker_bytes + patch_bytes)
            + 2 * queue * patch_bytes
            + tiles * tile_bytes
            + cache
    };
    let planned_mm2 = plan.planned_px() as f64 * (spec.mpp / 1000.0).powi(2);
    let at_the_end = end_bytes(plan, result_bytes(planned_mm2 * NUCLEI_PER_MM2));
    // A row of blocks around one patch is the least that avoids reading everything twice.
    let least_cache = BLOCK_BYTES * (patch_in / 512 + 2).pow(2);
    let least = need(1, 1, 1, least_cache).max(at_the_end);
    if least > memory_bytes {
        return Err(PipelineError::Memory {
            given: memory_bytes,
            least,
        });
    }
    let threads = threads.max(1) as u64;
    let mut workers = if on_gpu { 1 } else { threads };
    while workers > 1 && need(workers, 1, 1, least_cache) > memory_bytes {
        workers -= 1;
    }
    let (mut queue, mut tiles, mut cache) = (1, 1, least_cache);
    let wanted = [
        (workers, 2),
        (workers.max(2) + 2, 2),
        (2 * workers.max(4), 4),
    ];
    for (more_queue, more_tiles) in wanted {
        if need(workers, more_queue, more_tiles, least_cache) <= memory_bytes {
            (queue, tiles) = (more_queue, more_tiles);
        }
    }
    // What is left, up to a quarter of a GiB, keeps blocks from being read twice.
    let left = memory_bytes - need(workers, queue, tiles, least_cache);
    cache += left.min(256 << 20);
    Ok(Budget {
        memory_bytes,
        expected_bytes: need(workers, queue, tiles, cache).max(at_the_end),
        infer_workers: workers as usize,
        readers: (workers as usize).div_ceil(2),
        queue_patches: queue as usize,
        tiles_in_flight: tiles as usize,
        cache_bytes: cache,
    })
}
