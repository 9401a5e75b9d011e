//! The other side of [`super::worker`]: the process that does slide after slide with one model.
//!
//! In: requests on standard input. Out: replies by `say`. While it writes a slide's results it opens the next one, so
//! that the device does not wait for headers and tissue. Never decides which slide is done, and never writes results
//! before the task has said that the row is still its own.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::claim::Progress;
use super::plan::Row;
use super::worker::{Facts, Next, Reply, Request, Trial};
use crate::model::Pool;
use crate::pipeline::events::Event;
use crate::pipeline::{self, Prepared, estimate};
use crate::plan::Shard;
use crate::run::ending::Cause;
use crate::run::slide::{Hooks, run_slide_if};
use crate::run::{Ending, Models, RunConfig, RunEvent, SlideConfig, Watch};

/// Replies about progress come no closer than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What the process needs.
pub struct Serving<'a> {
    pub config: &'a RunConfig,
    pub models: Models,
    pub stop: &'a AtomicBool,
    /// Hears everything that happens, for the log.
    pub watch: Watch<'a>,
    /// Writes a reply where the task reads it.
    pub say: &'a (dyn Fn(&Reply) + Sync),
    /// The slide that was opened before its turn.
    pub ahead: Option<Ahead>,
}

/// A slide that is opened before its turn.
pub struct Ahead {
    request: pipeline::Request,
    opened: JoinHandle<Option<Prepared>>,
}

impl Ahead {
    /// Begins to open a slide.
    fn open(request: pipeline::Request, pool: Pool) -> Self {
        let asked = request.clone();
        // What is wrong with the slide is said when it is its turn: then it is opened again.
        let open = move || pipeline::prepare(&asked, &pool).ok();
        Self {
            request,
            opened: std::thread::spawn(open),
        }
    }

    /// The slide, where it is the one that is asked for now.
    fn take(self, request: &pipeline::Request) -> Option<Prepared> {
        match self.request == *request {
            true => self.opened.join().ok()?,
            false => None,
        }
    }
}

impl Serving<'_> {
    /// Answers requests until there are no more.
    pub fn serve(&mut self) {
        while let Some(request) = next_request() {
            let reply = match request {
                Request::Look(row) => self.look(&row),
                Request::Try(row) => self.try_some(&row),
                Request::Run {
                    row,
                    shard,
                    read_from,
                    weights_sha256,
                } => self.run(&row, shard, read_from, &weights_sha256),
                Request::Write { .. } => continue,
            };
            (self.say)(&reply);
        }
    }

    fn look(&mut self, row: &Row) -> Reply {
        let slide = match row.slide(self.config) {
            Ok(slide) => slide,
            Err(why) => return Reply::Unusable(why),
        };
        let pool = match self.models.get(&slide.model) {
            Ok(pool) => pool,
            Err(error) => return Reply::Refused(error.to_string()),
        };
        match pipeline::prepare(&slide.request(self.config), &pool) {
            Err(error) => Reply::Unusable(error.to_string()),
            Ok(prepared) => {
                let planned_px = prepared.plan.planned_px();
                Reply::Looked(Box::new(Facts {
                    identity: prepared.meta.slide.quickhash.clone(),
                    bytes: prepared.meta.slide.file_bytes,
                    mpp: prepared.meta.frames.level0_mpp,
                    tissue_mm2: prepared.tissue_mm2,
                    planned_mm2: prepared.meta.frames.mm2(planned_px),
                    patches: prepared.plan.patches(),
                    memory_bytes: prepared.budget.expected_bytes,
                    weights_sha256: pool.model().weights_sha256.clone(),
                    warnings: prepared.warnings,
                }))
            }
        }
    }

    fn try_some(&mut self, row: &Row) -> Reply {
        let mut tried = || -> Result<Trial, String> {
            let slide = row.slide(self.config)?;
            let pool = self
                .models
                .get(&slide.model)
                .map_err(|error| error.to_string())?;
            let prepared = pipeline::prepare(&slide.request(self.config), &pool);
            let expected = prepared
                .and_then(|prepared| estimate::estimate(prepared, &pool))
                .map_err(|error| error.to_string())?;
            Ok(Trial {
                patches: expected.patches,
                planned_mm2: expected.planned_mm2,
                seconds: expected.seconds,
                memory_bytes: expected.memory_bytes,
                scratch_bytes: expected.scratch_bytes,
                device: self.models.engine().device,
                threads: self.config.threads,
            })
        };
        match tried() {
            Ok(trial) => Reply::Tried(trial),
            Err(why) => Reply::Unusable(why),
        }
    }

    fn run(
        &mut self,
        row: &Row,
        shard: Option<Shard>,
        read_from: Option<PathBuf>,
        weights_sha256: &str,
    ) -> Reply {
        let refused = |why: String| Reply::Ended {
            ending: Ending::Refused(why),
            cause: Cause::Lasting,
            stage: "preparing".into(),
        };
        let slide = match row.slide(self.config) {
            Ok(slide) => SlideConfig { read_from, ..slide },
            Err(why) => return refused(why),
        };
        match self.models.get(&slide.model) {
            Ok(pool)
                if !weights_sha256.is_empty() && pool.model().weights_sha256 != weights_sha256 =>
            {
                return refused(format!(
                    "{}: the model has other weights than when the cohort was planned ({} now, {weights_sha256} then): \
                     bring the old model back, or plan into another folder",
                    slide.model,
                    pool.model().weights_sha256
                ));
            }
            // What is wrong with the model comes as the slide's ending.
            _ => {}
        }
        let config = RunConfig {
            shard,
            ..self.config.clone()
        };
        self.run_slide(&slide, &config)
    }

    fn run_slide(&mut self, slide: &SlideConfig, config: &RunConfig) -> Reply {
        let begun = Instant::now();
        let first = Progress {
            stage: "preparing".into(),
            ..Progress::default()
        };
        let state = Mutex::new((first, begun));
        let (say, watch) = (self.say, self.watch);
        let follow = |event: RunEvent<'_>| {
            if let RunEvent::Slide(event) = &event
                && let Some(progress) = follow(&state, event, begun)
            {
                say(&Reply::Progress(progress));
            }
            watch(event);
        };
        // A model that is wrong comes as the slide's ending.
        let pool = self.models.get(&slide.model).ok();
        let next_ahead = RefCell::new(None);
        let may_write = || {
            say(&Reply::MayWrite);
            let Some(Request::Write { yes, next }) = next_request() else {
                return false;
            };
            let next = next.filter(|next| yes && next.row.model == slide.model);
            if let (Some(next), Some(pool)) = (next, &pool) {
                *next_ahead.borrow_mut() = open_ahead(&next, config, pool);
            }
            yes
        };
        let ahead = RefCell::new(self.ahead.take());
        let opened = |request: &pipeline::Request| ahead.take()?.take(request);
        watch(RunEvent::Begun(slide));
        let attempt = run_slide_if(
            slide,
            config,
            &mut self.models,
            &follow,
            self.stop,
            Hooks {
                may_write: &may_write,
                opened: &opened,
            },
        );
        self.ahead = next_ahead.into_inner();
        watch(RunEvent::Ended {
            slide,
            ending: &attempt.ending,
            seconds: begun.elapsed().as_secs_f64(),
        });
        let (progress, _) = state.into_inner().unwrap_or_else(|e| e.into_inner());
        say(&Reply::Progress(progress.clone()));
        Reply::Ended {
            ending: attempt.ending,
            cause: attempt.cause,
            stage: progress.stage,
        }
    }
}

/// Begins to open the slide that will probably be asked for next; `None`: it cannot be asked for.
fn open_ahead(next: &Next, config: &RunConfig, pool: &Pool) -> Option<Ahead> {
    let slide = next.row.slide(config).ok()?;
    let config = RunConfig {
        shard: next.shard,
        ..config.clone()
    };
    Some(Ahead::open(slide.request(&config), pool.clone()))
}

/// Takes an event into the progress; gives it back where it is time to tell.
fn follow(state: &Mutex<(Progress, Instant)>, event: &Event, begun: Instant) -> Option<Progress> {
    let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
    let (progress, told) = &mut *state;
    let mut at_once = true;
    match event {
        Event::Stage(name) => progress.stage = (*name).to_owned(),
        Event::Planned { mm2, mm2_done, .. } => {
            progress.stage = "inferring".into();
            progress.mm2_planned = *mm2;
            (progress.mm2_before, progress.mm2_done) = (*mm2_done, *mm2_done);
        }
        Event::TileDone { mm2, nuclei } => {
            progress.mm2_done += mm2;
            progress.nuclei += nuclei;
            at_once = told.elapsed() >= PROGRESS_EVERY;
        }
        Event::Warning(_) => at_once = false,
    }
    progress.seconds = begun.elapsed().as_secs_f64();
    at_once.then(|| {
        *told = Instant::now();
        progress.clone()
    })
}

/// The next line of standard input; `None`: the task has closed it.
fn next_request() -> Option<Request> {
    let mut line = String::new();
    match io::stdin().read_line(&mut line) {
        Ok(1..) => serde_json::from_str(&line).ok(),
        _ => None,
    }
}
