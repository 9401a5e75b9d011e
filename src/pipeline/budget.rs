//! One memory budget, from which everything else follows: workers, queues, tiles in flight, the block cache.
//!
//! In: bytes, the model's patch sizes, threads. Out: a [`Budget`]. Patch sizes and stored layout never follow from it,
//! so memory cannot change a result.

use super::PipelineError;
use crate::model::{Architecture, Feed, ModelSpec};
use crate::nuclei::CUT;
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
/// Pixels near nuclei that a tile does not decide alone, on crowded tissue (measured: see docs/performance.md).
const RING_BYTES_PER_MM2: f64 = 2e6;
/// overlay.jpg is drawn at up to twice the model's scale, and held with what it is compressed to.
const OVERLAY_BYTES_PER_PX: u64 = 5;
/// One proc block, RGB.
const BLOCK_BYTES: u64 = 3 * 512 * 512;

/// Bytes per pixel of a blob over several tiles while it is segmented: its maps, its planes, the tile
/// that is read for it, and other blobs that wait.
const JOINING_BYTES_PER_PX: u64 = 24;
/// Most pixels of such a blob that are in memory: those of one cell of the cut.
const JOINED_PX: u64 = CUT.over_px;

/// How much of everything may exist at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Budget {
    pub memory_bytes: u64,
    /// What the parts below come to.
    pub expected_bytes: u64,
    pub infer_workers: usize,
    pub readers: usize,
    pub post_workers: usize,
    pub commit_workers: usize,
    /// Patches that may wait between two stages.
    pub queue_patches: usize,
    pub tiles_in_flight: usize,
    pub cache_bytes: u64,
    /// Whether blocks stay for the second look at the slide, when all nuclei are known.
    pub keeps_blocks: bool,
    /// Room for pixels near the borders of tiles, which spare the second look most of its reading.
    pub ring_bytes: u64,
}

impl Budget {
    /// Whether blocks stay in memory while tiles are joined that have `open_px` pixels in blobs at
    /// their borders.
    pub fn keeps_blocks_beside(&self, open_px: u64) -> bool {
        let joining = open_px.min(JOINED_PX) * JOINING_BYTES_PER_PX;
        let all = BASE_BYTES + self.cache_bytes + self.ring_bytes + joining;
        self.keeps_blocks && all <= self.memory_bytes / 10 * 9
    }
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
    let first = activation_bytes_per_px(spec.architecture);
    // A second network runs when only the maps of the first are left: np, h, v and types, in f32.
    let second = spec.types_from.as_ref().map_or(0, |second| {
        activation_bytes_per_px(second.architecture) + 4 * (3 + spec.types.len() as u64)
    });
    first.max(second) * (patch_in_px as u64).pow(2)
}

const fn activation_bytes_per_px(architecture: Architecture) -> u64 {
    match architecture {
        Architecture::HovernetLite => 400,
        Architecture::HovernetWide => 1700,
        Architecture::HovernetFast | Architecture::HovernetOriginal => 8000,
        Architecture::Torchscript => 4000,
        Architecture::Analytic => 120,
    }
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
    /// How devices other than the CPU are fed; `None`: the network runs on the CPU.
    pub feed: Option<Feed>,
}

/// Bytes of the things of which there are several.
struct Sizes {
    /// A patch between two stages.
    patch: u64,
    /// What a worker of the network needs for the patches that it has at one time.
    worker: u64,
    tile: u64,
    /// The blocks that a tile meets.
    tile_blocks: u64,
    /// A row of blocks around one patch is the least that avoids reading everything twice.
    least_cache: u64,
    /// What the end of the run takes, when the stages are gone.
    at_the_end: u64,
    /// Pixels that rings may need when all nuclei are known.
    rings: u64,
}

/// How many of everything.
#[derive(Clone, Copy)]
struct Shape {
    workers: u64,
    readers: u64,
    post_workers: u64,
    commit_workers: u64,
    queue: u64,
    tiles: u64,
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
    let memory_bytes = resources.memory_bytes;
    let sizes = sizes(resources.feed, spec, plan);
    let shapes = match resources.feed {
        None => cpu_shapes(resources.threads.max(1) as u64, &sizes, memory_bytes),
        Some(feed) => device_shapes(feed, resources.threads.max(1) as u64, plan),
    };
    // Rings are measured from the blocks of the tiles that are open, where it is not the least memory that would do.
    let blocks = |place: usize| match place {
        0 => sizes.least_cache,
        _ => sizes.least_cache + shapes[place].tiles * sizes.tile_blocks,
    };
    let need = |place: usize| BASE_BYTES + shapes[place].bytes(&sizes) + blocks(place);
    let fits = |place: &usize| need(*place).max(sizes.at_the_end) <= memory_bytes;
    let Some(place) = (0..shapes.len()).rev().find(fits) else {
        let least = (0..shapes.len()).map(need).min().unwrap_or(0);
        return Err(PipelineError::Memory {
            given: memory_bytes,
            least: least.max(sizes.at_the_end),
        });
    };
    let shape = &shapes[place];
    // What is left keeps blocks from being read twice. A fast device is worth more of it: often the whole slide.
    let most_cache = match resources.feed {
        None => 256 << 20,
        Some(_) => (memory_bytes / 4).max(256 << 20),
    };
    let all_blocks = 3 * plan
        .grid
        .slide_px
        .map(|px| px.max(0) as u64)
        .iter()
        .product::<u64>();
    let spare = match resources.feed {
        // On a slide of 100,000 px a run that planned to fill 1,024 MiB took 1,051.
        None => memory_bytes / 12,
        // The batches of a device are counted generously.
        Some(_) => 0,
    };
    let left = (memory_bytes - need(place)).saturating_sub(spare);
    let ring_room = sizes.rings.min(left / 4);
    let cache_bytes = (blocks(place) + left - ring_room)
        .min((sizes.least_cache + most_cache).max(blocks(place)))
        .min(all_blocks.max(sizes.least_cache));
    // With a tenth to spare: what the end takes is an estimate.
    let most_at_the_end = memory_bytes / 10 * 9;
    let keeps_blocks = sizes.at_the_end + cache_bytes + ring_room <= most_at_the_end;
    let at_the_end = sizes.at_the_end + if keeps_blocks { cache_bytes } else { 0 };
    let ring_bytes = match keeps_blocks && cache_bytes >= all_blocks {
        // Nothing is read twice anyway.
        true => 0,
        false => ring_room.min(most_at_the_end.saturating_sub(at_the_end)),
    };
    let running = BASE_BYTES + shape.bytes(&sizes) + cache_bytes;
    Ok(Budget {
        memory_bytes,
        expected_bytes: running.max(at_the_end) + ring_bytes,
        infer_workers: shape.workers as usize,
        readers: shape.readers as usize,
        post_workers: shape.post_workers as usize,
        commit_workers: shape.commit_workers as usize,
        queue_patches: shape.queue as usize,
        tiles_in_flight: shape.tiles as usize,
        cache_bytes,
        keeps_blocks,
        ring_bytes,
    })
}

fn sizes(feed: Option<Feed>, spec: &ModelSpec, plan: &Plan) -> Sizes {
    let (patch_in, patch_out) = (plan.grid.patch_in_px, plan.grid.patch_out_px as u64);
    let area_in = (patch_in as u64).pow(2);
    let types = spec.types.len() as u64;
    let map_bytes_per_px = match feed {
        // A worker on the CPU holds its map before rounding as well.
        None => 4 * (3 + types),
        Some(_) => 5 + types,
    };
    let patch = 3 * area_in + map_bytes_per_px * patch_out * patch_out;
    let largest = plan.tiles.iter().map(|tile| tile.rect.area()).max();
    let blocks_along = |px: i32| px.max(0) as u64 / 512 + 2;
    let blocks = plan
        .tiles
        .iter()
        .map(|tile| blocks_along(tile.rect.w) * blocks_along(tile.rect.h));
    let pixel_bytes = FOREGROUND_BYTES + 2 * types;
    let planned_mm2 = plan.planned_px() as f64 * (spec.mpp / 1000.0).powi(2);
    Sizes {
        patch,
        worker: match feed {
            None => activation_bytes(spec, patch_in) + patch,
            // Its batch, and the copy of it on the way to the device.
            Some(feed) => 2 * feed.batch as u64 * patch,
        },
        tile: (largest.unwrap_or(0) as f64 * FOREGROUND_SHARE) as u64 * pixel_bytes,
        tile_blocks: BLOCK_BYTES * blocks.max().unwrap_or(0),
        least_cache: BLOCK_BYTES * (patch_in as u64 / 512 + 2).pow(2),
        at_the_end: end_bytes(plan, result_bytes(planned_mm2 * NUCLEI_PER_MM2)),
        rings: (planned_mm2 * RING_BYTES_PER_MM2) as u64,
    }
}

impl Shape {
    fn bytes(&self, sizes: &Sizes) -> u64 {
        self.workers * sizes.worker + 2 * self.queue * sizes.patch + self.tiles * sizes.tile
    }
}

/// What there could be of everything where the CPU runs the network, from least to most: the network takes 95 % of
/// the time, so readers and post-processing are half as many as its workers.
fn cpu_shapes(threads: u64, sizes: &Sizes, memory_bytes: u64) -> Vec<Shape> {
    let shape = |workers: u64, queue: u64, tiles: u64| Shape {
        workers,
        readers: workers.div_ceil(2),
        post_workers: workers.div_ceil(2),
        commit_workers: 1,
        queue,
        tiles,
    };
    let fits = |workers: &u64| {
        BASE_BYTES + shape(*workers, 1, 1).bytes(sizes) + sizes.least_cache <= memory_bytes
    };
    let workers = (2..=threads).rev().find(fits).unwrap_or(1);
    vec![
        shape(workers, 1, 1),
        shape(workers, workers, 2),
        shape(workers, workers.max(2) + 2, 2),
        shape(workers, 2 * workers.max(4), 4),
    ]
}

/// What there could be of everything where devices run the network, from least to most. Reading takes about twice the
/// CPU time of post-processing, and that about four times that of committing (docs/performance.md). All cores belong
/// to these stages; whichever is behind gets them, because the others wait at a full or an empty queue. A queue holds
/// the next batch of every worker, and so many tiles are open that the queues can be full.
fn device_shapes(feed: Feed, threads: u64, plan: &Plan) -> Vec<Shape> {
    let workers = feed.workers as u64;
    let per_tile = (plan.patches() as u64).div_ceil(plan.tiles.len().max(1) as u64);
    let shape = |share: u64| {
        let readers = threads.div_ceil(share);
        let post_workers = threads.div_ceil(2 * share);
        let queue = (workers * feed.batch as u64).div_ceil(share);
        let on_the_way = readers + 2 * queue + workers * feed.batch as u64 + post_workers;
        Shape {
            workers,
            readers,
            post_workers,
            commit_workers: threads.div_ceil(8 * share),
            queue,
            tiles: on_the_way.div_ceil(per_tile.max(1)) + post_workers,
        }
    };
    let least = Shape {
        workers: 1,
        readers: 1,
        post_workers: 1,
        commit_workers: 1,
        queue: 1,
        tiles: 1,
    };
    [least].into_iter().chain([8, 4, 2, 1].map(shape)).collect()
}

#[cfg(test)]
mod tests;
