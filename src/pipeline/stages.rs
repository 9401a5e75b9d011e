//! read ═► infer ═► post-process, as threads joined by bounded channels; the caller commits.
//!
//! In: the tiles to do. Out: one [`TileResult`] a tile, in whatever order they finish. Full channels make the stage
//! before wait, so nothing piles up. A panic or error in any thread reaches the caller as a message; when the caller
//! drops its end, every stage ends by itself.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use image::RgbImage;
use rayon::prelude::*;

use super::PipelineError;
use super::budget::Budget;
use super::patch;
use super::rings::{self, TileRings};
use super::telemetry::{Stage, StageReport};
use crate::geometry::Rect;
use crate::model::{BatchLimit, PatchModel, Pool};
use crate::nuclei::{Foreground, Nucleus, PostprocParams, into_components, segment};
use crate::plan::{PatchIndex, Plan, Tile};
use crate::prediction::QuantisedMap;
use crate::slide::blocks::ProcImage;
use crate::store::TileResult;

/// How long a batch waits to be full on a device. It takes longer than that to run.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// Everything the stages share. Nothing in it changes while they run.
pub struct Work {
    pub image: Arc<ProcImage>,
    pub pool: Pool,
    pub plan: Plan,
    pub postproc: PostprocParams,
    pub budget: Budget,
    /// Bytes left for pixels that rings may need later; `None`: rings are not measured with the tiles.
    pub ring_room: Option<AtomicU64>,
}

/// What the stages tell the caller.
pub enum Message {
    Tile(Box<TileResult>, Option<TileRings>),
    Failed(PipelineError),
}

/// Running stages; dropping it makes them end.
pub struct Running {
    work: Arc<Work>,
    pub messages: Receiver<Message>,
    stop: Arc<AtomicBool>,
    stages: [Arc<Stage>; 4],
    permit: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn reports(&self) -> Vec<StageReport> {
        self.stages.iter().map(|s| s.report()).collect()
    }

    /// Proc px that have been read from the slide so far.
    pub fn px_read(&self) -> u64 {
        self.work.image.px_read()
    }

    /// One tile has been committed: another may begin.
    pub fn tile_committed(&self) {
        // The feeder is gone when all tiles have begun: then nobody waits for permits.
        let _ = self.permit.try_send(());
    }

    /// After the last tile: waits until every stage has ended and its memory is free.
    pub fn join(mut self) {
        for thread in std::mem::take(&mut self.threads) {
            // A panic has arrived as a message already.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A patch on its way: which tile, which patch, and what has become of it so far.
struct Patch<T> {
    tile: usize,
    index: PatchIndex,
    content: Result<T, String>,
}

struct Predicted {
    map: QuantisedMap,
    /// The input window that it was predicted from.
    rgb: RgbImage,
}

/// Starts the stages on `tiles` (places in `work.plan.tiles`).
pub fn start(work: Arc<Work>, tiles: Vec<usize>) -> Running {
    let budget = work.budget;
    let stop = Arc::new(AtomicBool::new(false));
    let (permit, permits) = bounded(budget.tiles_in_flight);
    for _ in 0..budget.tiles_in_flight {
        let _ = permit.try_send(());
    }
    let (to_read, read_queue) = bounded::<(usize, PatchIndex)>(budget.queue_patches);
    let (to_infer, infer_queue) = bounded::<Patch<RgbImage>>(budget.queue_patches);
    let (to_post, post_queue) = bounded::<Patch<Predicted>>(budget.queue_patches);
    let (to_caller, messages) = bounded::<Message>(budget.tiles_in_flight + 4);
    let stages = [
        Arc::new(Stage::new("read", budget.readers)),
        Arc::new(Stage::new("infer", budget.infer_workers)),
        Arc::new(Stage::new("post-process", budget.post_workers)),
        Arc::new(Stage::new("tile rings", budget.post_workers)),
    ];

    let mut threads = Vec::new();
    // A profile can tell the stages apart by the names of their threads.
    let mut spawn = |name: &str, body: Box<dyn FnOnce() -> Result<(), PipelineError> + Send>| {
        let (to_caller, refused) = (to_caller.clone(), to_caller.clone());
        let thread = std::thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(move || {
            let failure = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(panic) => PipelineError::Panic(panic_text(panic.as_ref())),
            };
            let _ = to_caller.send(Message::Failed(failure));
        });
        match started {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                let error = PipelineError::Threads(error.to_string());
                let _ = refused.try_send(Message::Failed(error));
            }
        }
    };
    let feeder_work = work.clone();
    spawn(
        "feed",
        Box::new(move || {
            feed(&feeder_work.plan, &tiles, &permits, &to_read);
            Ok(())
        }),
    );
    for _ in 0..budget.readers {
        let (work, stage, stop) = (work.clone(), stages[0].clone(), stop.clone());
        let (queue, out) = (read_queue.clone(), to_infer.clone());
        spawn(
            "read",
            Box::new(move || {
                read(&work, &stage, &stop, &queue, &out);
                Ok(())
            }),
        );
    }
    let batches = Arc::new(Batches::of(&work.pool));
    for place in 0..budget.infer_workers {
        let (batches, stage, stop) = (batches.clone(), stages[1].clone(), stop.clone());
        let (queue, out) = (infer_queue.clone(), to_post.clone());
        let worker = work.pool.worker(place);
        spawn(
            "infer",
            Box::new(move || infer(&batches, worker, &stage, &stop, &queue, &out)),
        );
    }
    let assembly = Arc::new(Mutex::new(HashMap::new()));
    for _ in 0..budget.post_workers {
        let (work, stop, assembly) = (work.clone(), stop.clone(), assembly.clone());
        let (stage, ring_stage) = (stages[2].clone(), stages[3].clone());
        let (queue, out) = (post_queue.clone(), to_caller.clone());
        spawn(
            "post-process",
            Box::new(move || {
                post_process(&work, [&stage, &ring_stage], &stop, &assembly, &queue, &out);
                Ok(())
            }),
        );
    }
    Running {
        work,
        messages,
        stop,
        stages,
        permit,
        threads,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".into())
}

/// Sends the patches of one tile after the other; a new tile begins when a permit is free.
fn feed(plan: &Plan, tiles: &[usize], permits: &Receiver<()>, out: &Sender<(usize, PatchIndex)>) {
    for &tile in tiles {
        if permits.recv().is_err() {
            return;
        }
        for &index in &plan.tiles[tile].patches {
            if out.send((tile, index)).is_err() {
                return;
            }
        }
    }
}

fn read(
    work: &Work,
    stage: &Stage,
    stop: &AtomicBool,
    queue: &Receiver<(usize, PatchIndex)>,
    out: &Sender<Patch<RgbImage>>,
) {
    while let Ok((tile, index)) = stage.input(|| queue.recv()) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let content = stage
            .busy(|| patch::read_patch(&work.image, &work.plan.grid, index))
            .map_err(|e| e.to_string());
        if stage
            .output(|| {
                out.send(Patch {
                    tile,
                    index,
                    content,
                })
            })
            .is_err()
        {
            return;
        }
    }
}

/// How the workers of the network take patches.
struct Batches {
    most: BatchLimit,
    /// Where a batch waits to be full; `None`: a worker takes what is there.
    filling: Option<Filling>,
}

struct Filling {
    /// One worker fills up at a time, or all would get a part.
    turn: Mutex<()>,
    /// How long a batch waits for more patches than it has.
    wait: Duration,
}

impl Batches {
    fn of(pool: &Pool) -> Self {
        Self {
            most: BatchLimit::new(pool.batch()),
            filling: pool.feed().map(|_| Filling {
                turn: Mutex::default(),
                wait: BATCH_WAIT,
            }),
        }
    }

    /// The next batch; `None`: there will be no more patches.
    fn next<T>(&self, queue: &Receiver<T>) -> Option<Vec<T>> {
        let turn = self.filling.as_ref().map(|filling| &filling.turn);
        let _alone = turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let mut batch = vec![queue.recv().ok()?];
        let until = self.filling.as_ref().map(|f| Instant::now() + f.wait);
        while batch.len() < self.most.patches() {
            let next = match until {
                None => queue.try_recv().ok(),
                Some(until) => queue.recv_deadline(until).ok(),
            };
            match next {
                Some(next) => batch.push(next),
                None => break,
            }
        }
        Some(batch)
    }
}

fn infer(
    batches: &Batches,
    mut worker: Box<dyn PatchModel>,
    stage: &Stage,
    stop: &AtomicBool,
    queue: &Receiver<Patch<RgbImage>>,
    out: &Sender<Patch<Predicted>>,
) -> Result<(), PipelineError> {
    while let Some(batch) = stage.input(|| batches.next(queue)) {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (places, pixels) = split_readable(batch);
        let maps = stage.busy(|| {
            let predict =
                |worker: &mut dyn PatchModel, some: &[RgbImage]| worker.predict_quantised(some);
            batches.most.predict(worker.as_mut(), &pixels, predict)
        })?;
        let mut predicted = maps.into_iter().zip(pixels);
        for place in places {
            let done = Patch {
                tile: place.tile,
                index: place.index,
                content: match place.content {
                    Err(reason) => Err(reason),
                    Ok(()) => {
                        let (map, rgb) = predicted.next().ok_or_else(|| {
                            PipelineError::Panic("fewer maps than patches".into())
                        })?;
                        Ok(Predicted { map, rgb })
                    }
                },
            };
            if stage.output(|| out.send(done).is_err()) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Parts patches from their pixels, so that a batch goes to the network without a copy. Patches that could not be read
/// have no pixels.
fn split_readable(batch: Vec<Patch<RgbImage>>) -> (Vec<Patch<()>>, Vec<RgbImage>) {
    let mut pixels = Vec::with_capacity(batch.len());
    let places = batch
        .into_iter()
        .map(|patch| Patch {
            tile: patch.tile,
            index: patch.index,
            content: patch.content.map(|rgb| pixels.push(rgb)),
        })
        .collect();
    (places, pixels)
}

/// What is known of a tile whose patches have not all come.
#[derive(Default)]
struct Assembly {
    patches: usize,
    parts: Vec<Foreground>,
    done_px: u64,
    unreadable_px: u64,
    read_errors: Vec<(PatchIndex, String)>,
}

fn post_process(
    work: &Work,
    [stage, ring_stage]: [&Stage; 2],
    stop: &AtomicBool,
    assembly: &Mutex<HashMap<usize, Assembly>>,
    queue: &Receiver<Patch<Predicted>>,
    out: &Sender<Message>,
) {
    while let Ok(patch) = stage.input(|| queue.recv()) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let tile = &work.plan.tiles[patch.tile];
        let complete = stage.busy(|| {
            let grid = &work.plan.grid;
            let part = patch.content.map(|Predicted { map, rgb }| {
                let threshold = work.postproc.np_threshold;
                patch::foreground_of_patch(&map, &rgb, grid, patch.index, threshold).1
            });
            let square = grid.out_rect(patch.index);
            add(assembly, patch.tile, tile, patch.index, square, part)
        });
        if let Some(complete) = complete {
            let result = stage.busy(|| finish(work, stage, tile, complete));
            let rings = ring_stage.busy(|| rings_of(work, &result));
            if stage.output(|| out.send(Message::Tile(Box::new(result), rings)).is_err()) {
                return;
            }
        }
    }
}

/// Adds a patch to its tile; the tile's assembly once it is complete.
fn add(
    assembly: &Mutex<HashMap<usize, Assembly>>,
    place: usize,
    tile: &Tile,
    index: PatchIndex,
    rect: Rect,
    part: Result<Foreground, String>,
) -> Option<Assembly> {
    // A poisoned lock means that another worker panicked, which the caller already knows; the map itself is whole.
    let mut open = assembly.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = open.entry(place).or_default();
    entry.patches += 1;
    match part {
        Ok(part) => {
            entry.done_px += rect.area();
            entry.parts.push(part);
        }
        Err(reason) => {
            entry.unreadable_px += rect.area();
            entry.read_errors.push((index, reason));
        }
    }
    (entry.patches == tile.patches.len())
        .then(|| open.remove(&place))
        .flatten()
}

/// Merged patches to blobs, blobs to nuclei; blobs at an inner border of the tile grid stay open.
fn finish(work: &Work, stage: &Stage, tile: &Tile, mut assembly: Assembly) -> TileResult {
    assembly.read_errors.sort();
    let merged = Foreground::merge(&assembly.parts);
    drop(assembly.parts);
    let slide = work.image.frames().proc_rect();
    let (fragments, closed): (Vec<_>, Vec<_>) = into_components(merged)
        .into_iter()
        .partition(|blob| is_open(blob.bounds(), tile.rect, slide));
    let mpp = work.image.frames().proc_mpp();
    let nuclei: Vec<Nucleus> = closed
        .par_iter()
        // On rayon's threads: this one waits.
        .map(|blob| stage.on_cpu(|| segment(blob, &work.postproc, mpp)))
        .collect::<Vec<_>>()
        .into_iter()
        .flatten()
        .collect();
    TileResult {
        col: tile.col,
        row: tile.row,
        rect: tile.rect,
        done_px: assembly.done_px,
        unreadable_px: assembly.unreadable_px,
        outside_px: tile.rect.area() - assembly.done_px - assembly.unreadable_px,
        unreadable: assembly.read_errors.iter().map(|(at, _)| *at).collect(),
        read_errors: assembly
            .read_errors
            .into_iter()
            .map(|(_, reason)| reason)
            .take(4)
            .collect(),
        nuclei,
        fragments,
    }
}

/// What the tile says of rings, while its pixels are at hand.
fn rings_of(work: &Work, tile: &TileResult) -> Option<TileRings> {
    let room = work.ring_room.as_ref()?;
    rings::of_tile(tile.rect, &tile.nuclei, &tile.fragments, &work.image, room)
}

/// Whether a blob's box touches a border that the tile shares with another tile of the grid.
fn is_open(blob: Rect, tile: Rect, slide: Rect) -> bool {
    (blob.x == tile.x && tile.x > slide.x)
        || (blob.y == tile.y && tile.y > slide.y)
        || (blob.right() == tile.right() && tile.right() < slide.right())
        || (blob.bottom() == tile.bottom() && tile.bottom() < slide.bottom())
}

#[cfg(test)]
mod tests;
