//! What a run would take, before it starts.
//!
//! In: a prepared slide and its model. Out: tiles, patches, memory, scratch and seconds, scaled from a run of a few of
//! the slide's own tiles into a temporary store. Never writes elsewhere, and leaves nothing behind.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::{PipelineError, Prepared, budget, run};
use crate::machine::peak_memory_bytes;
use crate::model::{Architecture, Pool, device};
use crate::plan::Plan;
use crate::store::StoreError;

/// Seconds that the tiles of a sample may take, by the time of one patch.
const SAMPLE_SECONDS: f64 = 8.0;
/// A single tile may take this long; where it would take longer, nothing is sampled.
const TILE_SECONDS: f64 = 30.0;
/// More tiles than this would tell little more.
const MOST_TILES: usize = 24;
/// Store bytes a mm² predicted where nothing was sampled (docs/performance.md).
const STORE_BYTES_PER_MM2: f64 = 1.1e6;
/// Seconds that stitching and the default outputs take per nucleus (docs/performance.md).
const SECONDS_PER_NUCLEUS: f64 = 60e-6;
/// A network's activations come and go in other orders, and a long run keeps more of what it freed than a
/// sample of a few tiles: its peak was 1.21 and 1.10 times the sample's (budgets of 1 and 4 GiB, 4.9 mm²).
/// Rules without one keep nothing.
const NETWORK_GROWTH: f64 = 1.1;
/// Bytes a block's pixel takes in the cache.
const CACHED_BYTES_PER_PX: u64 = 3;

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Estimate {
    pub tiles: usize,
    /// Tiles that were run to know the rest; 0: one tile takes too long, and typical figures stand in.
    pub sampled_tiles: usize,
    pub patches: usize,
    pub patch_in_px: i32,
    pub patch_out_px: i32,
    pub tile_px: i32,
    pub tissue_mm2: f64,
    pub planned_mm2: f64,
    /// Peak of the process.
    pub memory_bytes: u64,
    /// The store at its end.
    pub scratch_bytes: u64,
    pub infer_workers: usize,
    /// Seconds that one worker takes per patch.
    #[serde(rename = "seconds_a_patch")]
    pub seconds_per_patch: f64,
    pub seconds: f64,
}

/// What a sample took, scaled to all tiles.
struct Scaled {
    memory_bytes: u64,
    scratch_bytes: u64,
    seconds: f64,
}

/// Estimates a run of `prepared`; takes about ten seconds.
///
/// # Errors
/// What a run of the sample could end with.
pub fn estimate(prepared: Prepared, pool: &Pool) -> Result<Estimate, PipelineError> {
    let plan = &prepared.plan;
    let frames = *prepared.image.frames();
    let patches = plan.patches();
    let planned_mm2 = frames.mm2(plan.planned_px());
    let workers = prepared.budget.infer_workers;
    let seconds_per_patch = seconds_per_patch(&prepared, pool)?;
    // The sample's workers allocate on threads of their own: what this one keeps would come on top.
    device::release_freed_memory();
    // Typical figures, until a sample says better.
    let mut estimate = Estimate {
        tiles: plan.tiles.len(),
        sampled_tiles: 0,
        patches,
        patch_in_px: plan.grid.patch_in_px,
        patch_out_px: plan.grid.patch_out_px,
        tile_px: plan.tile_patches * plan.grid.patch_out_px,
        tissue_mm2: prepared.tissue_mm2,
        planned_mm2,
        memory_bytes: prepared.budget.expected_bytes,
        scratch_bytes: (planned_mm2 * STORE_BYTES_PER_MM2) as u64,
        infer_workers: workers,
        seconds_per_patch,
        seconds: patches as f64 * seconds_per_patch / workers as f64,
    };
    let count = sample_size(plan, seconds_per_patch / workers as f64);
    if count > 0 {
        let scaled = sample(prepared, count, pool)?;
        estimate.sampled_tiles = count;
        estimate.memory_bytes = scaled.memory_bytes;
        estimate.scratch_bytes = scaled.scratch_bytes;
        estimate.seconds = scaled.seconds;
    }
    Ok(estimate)
}

/// How many tiles to run where a patch takes all workers together `seconds`; 0 where one tile would take too long.
fn sample_size(plan: &Plan, seconds: f64) -> usize {
    let tiles = plan.tiles.len();
    let a_tile = plan.patches() as f64 / tiles.max(1) as f64 * seconds;
    if a_tile > TILE_SECONDS {
        return 0;
    }
    let affordable = (SAMPLE_SECONDS / a_tile.max(1e-9)) as usize;
    affordable.clamp(1, MOST_TILES).min(tiles)
}

/// Runs `count` tiles, evenly spread, into a temporary store, and scales what they took to all of them.
fn sample(mut prepared: Prepared, count: usize, pool: &Pool) -> Result<Scaled, PipelineError> {
    let (whole, budget) = (prepared.plan.clone(), prepared.budget);
    let growth = match pool.model().spec.architecture {
        Architecture::Analytic => 1.0,
        _ => NETWORK_GROWTH,
    };
    let evenly = |i: usize| (2 * i + 1) * whole.tiles.len() / (2 * count);
    prepared.plan.tiles = (0..count).map(|i| whole.tiles[evenly(i)].clone()).collect();
    prepared.meta.layout = prepared.plan.layout();
    prepared.shard = None;
    let (sampled_px, whole_px) = (prepared.plan.planned_px(), whole.planned_px());
    let share = sampled_px as f64 / whole_px.max(1) as f64;

    let folder = tempfile::tempdir().map_err(|error| StoreError::Write {
        path: std::env::temp_dir(),
        reason: error.to_string(),
    })?;
    let path = folder.path().join("store.zarr");
    let store = prepared.open_store(&path, false)?;
    let before = bytes_of(&path);
    let begun = Instant::now();
    let go_on = AtomicBool::new(false);
    let finished = run(prepared, &store, pool, &go_on, &|_| {})?;
    let seconds = begun.elapsed().as_secs_f64();
    let nuclei = finished.loaded.slide.nuclei.len() as f64 / share;

    let cached = |px: u64| budget.cache_bytes.min(px * CACHED_BYTES_PER_PX);
    let peak = peak_memory_bytes().unwrap_or(budget.expected_bytes) as f64 * growth;
    let running = peak as u64 + cached(whole_px) - cached(sampled_px);
    let kept = if budget.keeps_blocks {
        cached(whole_px)
    } else {
        0
    };
    let at_the_end = budget::end_bytes(&whole, budget::result_bytes(nuclei)) + kept;
    Ok(Scaled {
        memory_bytes: running.max(at_the_end).min(budget.memory_bytes),
        scratch_bytes: before + ((bytes_of(&path) - before) as f64 / share) as u64,
        seconds: seconds / share + nuclei * SECONDS_PER_NUCLEUS,
    })
}

/// Bytes of the files below `folder`; what cannot be read counts nothing.
fn bytes_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The second of two patches: the first one warms caches up.
fn seconds_per_patch(prepared: &Prepared, pool: &Pool) -> Result<f64, PipelineError> {
    let Some(&patch) = prepared.plan.tiles.iter().flat_map(|t| &t.patches).next() else {
        return Ok(0.0);
    };
    let rgb = prepared.image.region(prepared.plan.grid.in_rect(patch))?;
    let mut worker = pool.worker(0);
    worker.predict(std::slice::from_ref(&rgb))?;
    let start = Instant::now();
    worker.predict(std::slice::from_ref(&rgb))?;
    Ok(start.elapsed().as_secs_f64())
}
