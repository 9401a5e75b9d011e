//! One slide from its file to its store: read ═► infer ═► post-process ═► commit.
//!
//! In: a slide, a model, settings, a stop flag. Out: a finished (or interrupted) store and how long each stage took.
//! [`prepare`] decides everything beforehand, [`run`] does it, outputs come from the store alone. Sizes follow from one
//! memory budget. Never writes an output file and never prints.

pub mod budget;
pub mod estimate;
pub mod events;
mod examined;
pub mod image;
pub mod patch;
pub mod prepare;
pub mod rings;
pub mod stages;
pub mod telemetry;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

pub use prepare::{Prepared, Request, grid_of, prepare};

use crate::model::{ModelError, Pool, device};
use crate::nuclei::{Foreground, segment_extent};
use crate::output::plausible;
use crate::plan::{Plan, Tile};
use crate::result::SlideResult;
use crate::slide::SlideError;
use crate::slide::blocks::ProcImage;
use crate::stitch::{self, Loaded, Overlap};
use crate::store::{IdentityMismatch, Store, StoreError, TileState};
use crate::tissue::{TissueError, TissueMask};
use events::{Event, Events};
use rings::TileRings;
use stages::{Message, Work};
use telemetry::{Stage, StageReport};

/// How often a waiting commit looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Why a slide could not be finished. Messages name the slide, the place and the cure.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The slide cannot be opened or read.
    #[error(transparent)]
    Slide(#[from] SlideError),
    /// The tissue mask or the regions cannot be used.
    #[error(transparent)]
    Tissue(#[from] TissueError),
    /// The model cannot be loaded, or fails.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Two nuclei share a pixel: a bug.
    #[error("internal error: {0}: please report this")]
    Overlap(#[from] Overlap),
    /// The checkpoint was made with other settings.
    #[error(transparent)]
    Identity(#[from] IdentityMismatch),
    /// The memory budget does not hold the least that the run needs.
    #[error("a memory budget of {} MiB is too small: at least --memory {}MiB would do", given >> 20, (least >> 20) + 1)]
    Memory {
        /// The budget, bytes.
        given: u64,
        /// The least budget that would do, bytes.
        least: u64,
    },
    /// An image whose map is wanted whole does not fit in memory.
    #[error("{w} x {h} px are too many for one map in memory: use `run`, which works tile by tile")]
    TooLarge {
        /// Width of the image, proc px.
        w: i32,
        /// Height of the image, proc px.
        h: i32,
    },
    /// The pixels done do not add up to those planned: a bug.
    #[error(
        "internal error: of {planned_px} planned proc px {done_px} are done and {unreadable_px} unreadable, and of \
         {tiles_px} px of tiles {outside_px} lie outside: that does not add up; run again with --restart, and please report this"
    )]
    Coverage {
        /// Proc px of the planned patches, clipped to the slide.
        planned_px: u64,
        /// Proc px whose patch was inferred.
        done_px: u64,
        /// Proc px whose patch could not be read.
        unreadable_px: u64,
        /// Proc px of all planned tiles, clipped to the slide.
        tiles_px: u64,
        /// Proc px of those tiles that no planned patch covers.
        outside_px: u64,
    },
    /// The checkpoint holds tiles of other hardware or libraries, which give other last bits.
    #[error(
        "{tiles} finished tiles were made by other hardware or libraries ({theirs}; here: {ours}), whose last bits \
         differ: go on there, or take --restart, or --mix-devices to mix them and have it reported"
    )]
    Numerics {
        /// Number of such tiles.
        tiles: usize,
        /// Hardware and libraries that made them.
        theirs: String,
        /// Hardware and libraries here.
        ours: String,
    },
    /// A thread of the pipeline panicked: a bug.
    #[error("a stage broke down: {0}: please report this")]
    Panic(String),
    /// The system refuses another thread.
    #[error(
        "a thread cannot be started: {0}: give fewer --threads, or raise the limit of processes (ulimit -u)"
    )]
    Threads(String),
    /// The stop flag was raised.
    #[error(
        "stopped on request; finished tiles are in the store: run the same command again to go on"
    )]
    Stopped,
    /// No failure: this shard has done its share, and others have not done theirs.
    #[error("this share is done; {tiles_left} tiles of other shares are not")]
    ShareDone {
        /// Number of tiles that other shards still have to do.
        tiles_left: usize,
    },
}

/// A finished slide and how it went.
pub struct Finished {
    pub loaded: Loaded,
    pub stages: Vec<StageReport>,
    pub tiles_reused: usize,
    /// Proc px that the patches took from the slide, and those of all blocks that they meet: each once.
    pub read_px: ReadPx,
}

/// How often pixels were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReadPx {
    pub read: u64,
    pub needed: u64,
}

/// Runs the tiles that the store lacks (a shard: its share of them), then joins all of them.
///
/// # Errors
/// [`PipelineError`]; whatever had finished is in the store.
pub fn run(
    prepared: Prepared,
    store: &Store,
    pool: &Pool,
    stop: &AtomicBool,
    events: Events,
) -> Result<Finished, PipelineError> {
    let Prepared {
        image,
        plan,
        budget,
        postproc,
        warnings,
        shard,
        mix_devices,
        meta,
        ..
    } = prepared;
    for warning in warnings {
        events(Event::Warning(warning));
    }
    let ours: Vec<usize> = (0..plan.tiles.len())
        .filter(|&place| shard.is_none_or(|shard| shard.has(place)))
        .collect();
    let numerics = crate::machine::numerics(pool.on_gpu());
    let (todo, kinds) = unfinished(&plan, &ours, store)?;
    if !mix_devices {
        refuse_other_hardware(&kinds, &numerics)?;
    }
    let tiles_reused = ours.len() - todo.len();
    let frames = *image.frames();
    let mm2_of = |tile: &Tile| frames.mm2(tile.planned_px(&plan.grid));
    // The sum of nothing is -0.
    let mm2 = ours.iter().map(|&t| mm2_of(&plan.tiles[t])).sum::<f64>() + 0.0;
    let mm2_todo: f64 = todo.iter().map(|&t| mm2_of(&plan.tiles[t])).sum();
    events(Event::Planned {
        tiles: ours.len(),
        tiles_done: tiles_reused,
        mm2,
        mm2_done: mm2 - mm2_todo,
    });
    let count = todo.len();
    let needed_px = blocks_px(&image, &plan, &todo);
    let image = Arc::new(image);
    let work = Arc::new(Work {
        image: image.clone(),
        pool: pool.clone(),
        plan: plan.clone(),
        postproc: postproc.clone(),
        budget,
        // A region drops nuclei at the end: then others have wider rings.
        ring_room: meta.region.is_none().then(|| budget.ring_bytes.into()),
    });
    let commit = Stage::new("commit", budget.commit_workers);
    // An earlier slide may have undone it.
    device::keep_freed_memory();
    let running = stages::start(work, todo);
    let tile_rings: Mutex<Vec<TileRings>> = Mutex::default();
    let open_px = AtomicUsize::new(0);
    let committed = commit_all(
        &running,
        store,
        &commit,
        count,
        &numerics,
        stop,
        |t, rings| {
            let mut all = tile_rings.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(rings);
            drop(all);
            let of_tile = t.fragments.iter().map(Foreground::len).sum();
            open_px.fetch_add(of_tile, Ordering::Relaxed);
            events(Event::TileDone {
                mm2: frames.mm2(t.done_px + t.unreadable_px),
                nuclei: t.nuclei.len() as u64,
            });
        },
    );
    let mut tile_rings = tile_rings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if image.is_damaged() {
        // Which rings are empty then must not depend on what is still in memory.
        tile_rings.clear();
    }
    let mut stages = running.reports();
    let read_px = ReadPx {
        read: running.px_read(),
        needed: needed_px,
    };
    committed?;
    running.join();
    let second_look = match budget.keeps_blocks_beside(open_px.into_inner() as u64) {
        true => image,
        false => {
            let again = image.with_cache(rings::cache_bytes(pool.feed().is_some()));
            drop(image);
            Arc::new(again)
        }
    };
    device::release_freed_memory();
    stages.extend(telemetry::fake_devices(&pool.model().take_fake_use()));
    stages.push(commit.report());
    if shard.is_some() {
        // Every shard looks after its last commit: so at least the one that was last finds all.
        let all: Vec<usize> = (0..plan.tiles.len()).collect();
        let (todo, kinds) = unfinished(&plan, &all, store)?;
        if !todo.is_empty() {
            let tiles_left = todo.len();
            return Err(PipelineError::ShareDone { tiles_left });
        }
        if !mix_devices {
            refuse_other_hardware(&kinds, &numerics)?;
        }
    }

    events(Event::Stage("stitching"));
    let (loaded, stitching) = telemetry::alone("stitch", || load(store));
    let mut loaded = loaded?;
    stages.push(stitching);
    if loaded.slide.rings.is_none() {
        events(Event::Stage("rings"));
        let nuclei = &loaded.slide.nuclei;
        let (measured, measuring) = telemetry::alone("rings", || {
            let (rings, unread) = rings::measure(nuclei, tile_rings, &second_look, stop)
                .ok_or(PipelineError::Stopped)?;
            store.write_rings(nuclei, &rings)?;
            Ok::<_, PipelineError>((rings, unread))
        });
        let (rings, unread) = measured?;
        if let Some(warning) = rings::unread_warning(unread) {
            events(Event::Warning(warning));
        }
        loaded.slide.rings = Some(rings);
        stages.push(measuring);
    }
    // The store's own were told when they were found.
    let told = store.meta().warnings.len();
    for warning in loaded.slide.meta.warnings.iter().skip(told) {
        events(Event::Warning(warning.clone()));
    }
    check_coverage(&plan, &loaded.slide)?;
    Ok(Finished {
        loaded,
        stages,
        tiles_reused,
        read_px,
    })
}

/// Proc px of the blocks that the patches of `tiles` meet.
fn blocks_px(image: &ProcImage, plan: &Plan, tiles: &[usize]) -> u64 {
    let patches = tiles.iter().flat_map(|&tile| &plan.tiles[tile].patches);
    image.blocks_px(patches.map(|&patch| plan.grid.in_rect(patch)))
}

/// The nuclei of a store, joined across its tiles: all that outputs need, without slide or network.
pub fn load(store: &Store) -> Result<Loaded, PipelineError> {
    let meta = store.meta();
    let (postproc, mpp) = (meta.model.postproc.clone(), meta.frames.proc_mpp());
    let mut loaded = stitch::load(store, |blob, extent| {
        segment_extent(blob, extent, &postproc, mpp)
    })?;
    loaded.slide.meta.warnings.extend(mixed(&loaded.numerics));
    stitch::check_disjoint(&loaded.slide.nuclei)?;
    let mask = store.mask()?;
    keep_inside(&mut loaded.slide, &mask);
    if plausible::has_few_nuclei(&loaded.slide) {
        let warning = plausible::few_nuclei_warning(&loaded.slide, &store.thumb()?, &mask);
        loaded.slide.meta.warnings.extend(warning);
    }
    loaded.slide.examined = Some(examined::of(&loaded, meta, mask));
    loaded.slide.rings = store.read_rings(&loaded.slide.nuclei);
    Ok(loaded)
}

/// Drops the nuclei whose centroid is outside the region that was asked for.
fn keep_inside(result: &mut SlideResult, mask: &TissueMask) {
    let Some(region) = &result.meta.region else {
        return;
    };
    let is_inside = region.test(mask);
    let kept: Vec<bool> = result
        .records()
        .map(|record| is_inside(record.to_edge(record.centroid_proc_px())))
        .collect();
    let mut kept = kept.into_iter();
    result.nuclei.retain(|_| kept.next().unwrap_or(false));
}

/// The warning of a slide whose tiles come from several kinds of hardware or libraries.
fn mixed(kinds: &TilesByNumerics) -> Option<String> {
    let tiles = |(kind, tiles): (&String, &usize)| format!("{tiles} tiles by {kind}");
    let kinds: Vec<String> = kinds.iter().map(tiles).collect();
    (kinds.len() > 1).then(|| format!("hardware or libraries are mixed: {}", kinds.join(", ")))
}

/// Every planned pixel is done or unreadable, and every other pixel of the tiles outside: else something is lost.
fn check_coverage(plan: &Plan, result: &SlideResult) -> Result<(), PipelineError> {
    let planned_px = plan.planned_px();
    let tiles_px: u64 = plan.tiles.iter().map(|tile| tile.rect.area()).sum();
    let covered = &result.coverage;
    let (done_px, unreadable_px) = (covered.done_px, covered.unreadable_px);
    let inside_px = done_px.checked_add(unreadable_px);
    let adds_up = inside_px == Some(planned_px)
        && planned_px.checked_add(covered.outside_px) == Some(tiles_px)
        && covered.missing_tiles == 0;
    if adds_up {
        return Ok(());
    }
    Err(PipelineError::Coverage {
        planned_px,
        done_px,
        unreadable_px,
        tiles_px,
        outside_px: covered.outside_px,
    })
}

/// Number of tiles by the hardware and libraries that made them.
type TilesByNumerics = BTreeMap<String, usize>;

/// The tiles to run: those among `places` (in `plan.tiles`) whose chunk is missing or fails its check. Beside
/// them, what hardware and libraries made the others.
fn unfinished(
    plan: &Plan,
    places: &[usize],
    store: &Store,
) -> Result<(Vec<usize>, TilesByNumerics), PipelineError> {
    let mut todo = Vec::new();
    let mut kinds = TilesByNumerics::new();
    for &place in places {
        let tile = &plan.tiles[place];
        match store.tile_state(tile.col, tile.row)? {
            TileState::Done { numerics, .. } => *kinds.entry(numerics).or_default() += 1,
            TileState::Absent | TileState::Damaged(_) => todo.push(place),
        }
    }
    Ok((todo, kinds))
}

fn refuse_other_hardware(kinds: &TilesByNumerics, ours: &str) -> Result<(), PipelineError> {
    match kinds.iter().find(|(kind, _)| *kind != ours) {
        None => Ok(()),
        Some((theirs, &tiles)) => Err(PipelineError::Numerics {
            tiles,
            theirs: theirs.clone(),
            ours: ours.to_string(),
        }),
    }
}

/// Writes tiles to the store as they come, until all have or something goes wrong. `stage` says how many write at a
/// time.
fn commit_all(
    running: &stages::Running,
    store: &Store,
    stage: &Stage,
    count: usize,
    numerics: &str,
    stop: &AtomicBool,
    committed: impl Fn(&crate::store::TileResult, Option<TileRings>) + Sync,
) -> Result<(), PipelineError> {
    let left = AtomicUsize::new(count);
    let failed = AtomicBool::new(false);
    let write_tiles = || -> Result<(), PipelineError> {
        while left.load(Ordering::Acquire) > 0 && !failed.load(Ordering::Relaxed) {
            if stop.load(Ordering::Relaxed) {
                return Err(PipelineError::Stopped);
            }
            match stage.input(|| running.messages.recv_timeout(STOP_CHECK)) {
                Ok(Message::Tile(tile, rings)) => {
                    stage.busy(|| store.write_tile(&tile, numerics))?;
                    running.tile_committed();
                    committed(&tile, rings);
                    left.fetch_sub(1, Ordering::Release);
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {}
                // The stages end when the last tile is on its way, and another writer may have it.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    };
    let write_or_fail = || write_tiles().inspect_err(|_| failed.store(true, Ordering::Relaxed));
    let others = stage.workers() - 1;
    let mut results = Vec::with_capacity(stage.workers());
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..others).map(|_| scope.spawn(write_or_fail)).collect();
        results.push(write_or_fail());
        let panicked = |_| Err(PipelineError::Panic("a tile could not be written".into()));
        results.extend(
            others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(panicked)),
        );
    });
    results.into_iter().collect::<Result<(), _>>()?;
    match left.into_inner() {
        0 => Ok(()),
        _ => Err(PipelineError::Panic(
            "all stages ended before the last tile".into(),
        )),
    }
}
