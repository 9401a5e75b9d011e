//! One task of a cohort: its own rows first, then whatever is free.
//!
//! In: a plan, the rows that the scheduler gave this task, how to start a process for slides. Out: a record for each row
//! that it ended, and how those rows ended. A task that is asked to stop gives its row back within ten seconds. Never
//! ends a row that another task has taken over, and never waits for one that lives.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::claim::{Claim, Desk, Snapshot, Taken};
use super::heartbeat::Beating;
use super::plan::{Cohort, Row};
use super::record::{Record, State};
use super::work::Work;
use super::worker::{Heard, Next, Reply, Request, Worker};
use super::{CohortError, Layout};
use crate::run::attempts::pause_unless;
use crate::run::children::how_it_died;
use crate::run::ending::Cause;
use crate::run::{Attempt, Attempts, Ending};

/// How often the task looks at its claim and at the stop flag.
const LOOK: Duration = Duration::from_millis(50);
/// A process that does not stop within this time of a request is killed; nothing of what it committed is lost.
const GRACE: Duration = Duration::from_secs(7);

/// What a task does and how.
pub struct Task<'a> {
    pub layout: &'a Layout,
    pub cohort: &'a Cohort,
    pub desk: Desk,
    /// The rows to begin with, which are done again if they failed.
    pub own: Vec<usize>,
    /// Whether nothing but `own` is done.
    pub own_only: bool,
    /// How a row is tried again after what may pass, and the flag that stops the task.
    pub attempts: Attempts<'a>,
    /// Starts a process for slides.
    pub start: &'a dyn Fn() -> std::io::Result<std::process::Command>,
    pub say: &'a dyn Fn(&str),
}

/// What is known of the end of the slide in work, beside how it ended.
#[derive(Default)]
struct Outcome {
    stage: String,
    log: Vec<String>,
    /// Why this machine can do no slide at all.
    machine: Option<String>,
}

impl Task<'_> {
    /// Works until nothing is free, or it is asked to stop. Returns how the rows ended that this task ended.
    ///
    /// # Errors
    /// Files of the cohort that cannot be read or written, or a process that cannot be started.
    pub fn run(&self) -> Result<Vec<Ending>, CohortError> {
        let mut endings = Vec::new();
        let mut worker: Option<Worker> = None;
        // What this task has ended or given up: it does not take it again.
        let mut left: BTreeSet<Work> = BTreeSet::new();
        let order = self.order();
        // The copy of a staged slide is not there before its turn.
        let may_open_ahead = Cell::new(self.attempts.stage.is_none());
        loop {
            if self.stopping() {
                endings.push(Ending::Stopped);
                break;
            }
            match self.next(&order, &left)? {
                Turn::Claim(claim) => {
                    let work = claim.work;
                    left.insert(work);
                    let ahead = Ahead {
                        likely: &|| self.likely_next(&order, &left),
                        allowed: &may_open_ahead,
                    };
                    match self.do_work(*claim, &mut worker, &ahead)? {
                        Some(ending) => endings.push(ending),
                        // Should its new owner give it back, this task may have it again.
                        None => drop(left.remove(&work)),
                    }
                }
                Turn::Wait(patience) => self.pause(patience),
                Turn::Nothing => break,
            }
        }
        self.desk.tidy()?;
        Ok(endings)
    }

    fn stopping(&self) -> bool {
        self.attempts.stop.load(Ordering::Relaxed)
    }

    /// Waits, unless the task is to stop.
    fn pause(&self, patience: Duration) {
        pause_unless(self.attempts.stop, patience);
    }

    /// Own rows, then all others, the costliest first; of a shared one all parts.
    fn order(&self) -> Vec<Work> {
        let is_row = |row: &&usize| {
            let row = self.cohort.rows.get(**row);
            row.is_some_and(|row| row.duplicate_of.is_none())
        };
        let mut order: Vec<usize> = self.own.iter().filter(is_row).copied().collect();
        if !self.own_only {
            let others = self.cohort.by_cost();
            order.extend(others.iter().filter(|row| !self.own.contains(row)));
        }
        let works = order.iter().map(|&row| self.cohort.rows[row].works());
        works.flatten().collect()
    }

    /// The next row, or part of one, that this task may do.
    fn next(&self, order: &[Work], left: &BTreeSet<Work>) -> Result<Turn, CohortError> {
        let mut seen = self.desk.snapshot()?;
        let mut silent = false;
        for &work in order.iter().filter(|work| !left.contains(work)) {
            let is_own = self.own.contains(&work.row);
            let may_redo = |record: &Record| match record.state {
                State::Failed => is_own,
                State::Share => self.is_not_joined(work, &seen),
                _ => false,
            };
            match self.desk.take(work, &seen, may_redo)? {
                Taken::Mine(claim) => return Ok(Turn::Claim(claim)),
                // A claim just made, or one of an owner that beats: that one looks after it.
                Taken::Busy { age } => silent |= age > 3 * self.desk.heartbeat,
                Taken::Not => {}
            }
            if self.stopping() {
                return Ok(Turn::Wait(Duration::ZERO));
            }
        }
        if silent {
            // Nobody else may be left to take over what a silent owner leaves.
            return Ok(Turn::Wait(self.desk.heartbeat));
        }
        // An owner that died a moment ago is not silent yet: look once more when it would have beaten.
        let busy = |seen: &Snapshot| -> Vec<(Work, u64)> {
            let live = seen.claims.iter().filter(|(work, generation)| {
                order.contains(work)
                    && !left.contains(work)
                    && seen
                        .records
                        .get(work)
                        .is_none_or(|record| record < generation)
            });
            live.map(|(work, generation)| (*work, *generation))
                .collect()
        };
        let before = busy(&seen);
        if before.is_empty() {
            return Ok(Turn::Nothing);
        }
        self.pause(4 * self.desk.heartbeat);
        seen = self.desk.snapshot()?;
        let now = super::claim::server_now(&self.layout.claims())?;
        let is_silent = |(work, generation): &(Work, u64)| {
            let seen = super::claim::see(&self.layout.claims(), *work, *generation, now);
            seen.is_some_and(|seen| {
                let owner = seen.text.as_ref().map(|text| &text.owner);
                seen.age > 3 * self.desk.heartbeat
                    || owner.is_some_and(|owner| owner.is_dead(self.desk.here()))
            })
        };
        let freed = |work: &Work| !busy(&seen).iter().any(|(other, _)| other == work);
        let something = before
            .iter()
            .any(|(work, _)| freed(work) && self.is_open(*work, &seen))
            || busy(&seen).iter().any(is_silent);
        Ok(match something && !self.stopping() {
            true => Turn::Wait(Duration::ZERO),
            false => Turn::Nothing,
        })
    }

    /// What this task will probably do next: nobody has it, but somebody may be quicker.
    fn likely_next(&self, order: &[Work], left: &BTreeSet<Work>) -> Option<Work> {
        let seen = self.desk.snapshot().ok()?;
        let is_free = |work: &Work| {
            let claimed = seen.claims.get(work) > seen.records.get(work);
            !left.contains(work) && !claimed && self.is_open(*work, &seen)
        };
        order.iter().copied().find(is_free)
    }

    /// How this row or part has ended; `None`: it has not.
    fn recorded(&self, work: Work, seen: &Snapshot) -> Option<State> {
        let generation = *seen.records.get(&work)?;
        let record = super::record::read(self.desk.records(), work, generation);
        Some(record.ok()??.state)
    }

    /// Whether nobody has ended this row or part.
    fn is_open(&self, work: Work, seen: &Snapshot) -> bool {
        self.recorded(work, seen)
            .is_none_or(|state| !state.is_final())
    }

    /// Whether the tiles of all parts are done, but nobody has joined them: a file server that hides new files for a
    /// while may hide from each of the last two what the other did. The first part is done again for that.
    fn is_not_joined(&self, work: Work, seen: &Snapshot) -> bool {
        let mut works = self.cohort.rows[work.row].works();
        work.part == 0 && works.all(|part| self.recorded(part, seen) == Some(State::Share))
    }

    /// Does a row or a part of one, with its retries, and ends its claim. `None`: another task has taken it over.
    fn do_work(
        &self,
        claim: Claim,
        worker: &mut Option<Worker>,
        ahead: &Ahead<'_>,
    ) -> Result<Option<Ending>, CohortError> {
        let begun = Instant::now();
        let work = claim.work;
        let row = &self.cohort.rows[work.row];
        let share = row.shard(work).map_or(String::new(), |shard| {
            format!(", part {shard} of its tiles")
        });
        (self.say)(&format!("row {}: {}{share}", row.row, row.stem));
        let beating = Beating::new(claim);
        let mut attempts = 0;
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| beating.beat());
            let outcome = self.try_work(&beating, work, worker, ahead, &mut attempts);
            beating.end();
            outcome
        });
        let Some((Attempt { ending, cause }, outcome)) = outcome? else {
            (self.say)(&format!(
                "row {}: another task has taken it over, because this one did not answer for {} s",
                row.row, self.cohort.stale_s
            ));
            return Ok(None);
        };
        let (claim, progress) = beating.into_parts();
        let given_back = cause == Cause::Busy;
        let state = match given_back {
            true => State::Stopped,
            false => State::of(&ending),
        };
        let nuclei = match &ending {
            Ending::Done { nuclei } | Ending::Incomplete { nuclei, .. } => *nuclei,
            _ => 0,
        };
        let is_good = matches!(state, State::Done | State::Share | State::Stopped);
        claim.finish(Record {
            stem: row.stem.clone(),
            state,
            reason: ending.reason().unwrap_or("").to_owned(),
            stage: outcome.stage,
            log: if is_good { Vec::new() } else { outcome.log },
            nuclei,
            mm2_done: progress.mm2_done,
            mm2_planned: progress.mm2_planned,
            seconds: begun.elapsed().as_secs_f64(),
            attempts,
            settings_sha256: self.cohort.settings_sha256.clone(),
            ..Record::default()
        })?;
        match outcome.machine {
            // The row is free again, and this task must not spoil the others as well.
            Some(why) => Err(CohortError::Machine(why)),
            None if given_back => Ok(Some(Ending::Stopped)),
            None => Ok(Some(ending)),
        }
    }

    /// Tries a row until it ends in a way that another try would not change. `None`: another task has it.
    fn try_work(
        &self,
        beating: &Beating,
        work: Work,
        worker: &mut Option<Worker>,
        ahead: &Ahead<'_>,
        attempts: &mut u32,
    ) -> Result<Option<(Attempt, Outcome)>, CohortError> {
        let row = &self.cohort.rows[work.row];
        let deaths = beating.deaths();
        if deaths > self.attempts.retries {
            return Ok(Some(failed(format!(
                "{}: {deaths} tasks in a row died while they worked on it (out of memory, perhaps): give it more memory, \
                 then run this row again",
                row.path.display()
            ))));
        }
        let say = |text| (self.say)(&format!("row {}: {text}", row.row));
        self.attempts.run(&row.path, &say, |file| {
            *attempts += 1;
            self.attempt(beating, work, file, worker, ahead)
        })
    }

    fn attempt(
        &self,
        beating: &Beating,
        work: Work,
        file: &Path,
        worker: &mut Option<Worker>,
        ahead: &Ahead<'_>,
    ) -> Result<Option<(Attempt, Outcome)>, CohortError> {
        let mut running = match worker.take() {
            Some(running) => running,
            None => {
                let command = (self.start)().map_err(|error| {
                    CohortError::Machine(format!("a process cannot be started: {error}"))
                })?;
                Worker::start(command)?
            }
        };
        let row = &self.cohort.rows[work.row];
        running.log_to(&self.layout.log(work));
        let models = &self.cohort.models;
        running.ask(&Request::Run {
            row: row.clone(),
            shard: row.shard(work),
            read_from: (file != row.path).then(|| file.to_owned()),
            weights_sha256: models.get(&row.model).cloned().unwrap_or_default(),
        });
        let mut asked: Option<Instant> = None;
        let mut lost = false;
        let mut has_another_open = false;
        loop {
            match running.hear(LOOK) {
                Heard::Reply(Reply::Progress(progress)) => beating.show(progress),
                Heard::Reply(Reply::MayWrite) => {
                    lost |= beating.renew().is_err();
                    let next = ahead.next().filter(|_| !lost);
                    has_another_open = next.is_some();
                    running.ask(&Request::Write {
                        yes: !lost,
                        next: next.map(|work| {
                            let row = self.cohort.rows[work.row].clone();
                            let shard = row.shard(work);
                            Next { row, shard }
                        }),
                    });
                }
                Heard::Reply(Reply::Ended {
                    ending,
                    cause,
                    stage,
                }) => {
                    let log = running.last_lines();
                    if ending != Ending::Stopped {
                        *worker = Some(running);
                    }
                    let outcome = Outcome {
                        stage,
                        log,
                        machine: None,
                    };
                    let ended = (Attempt { ending, cause }, outcome);
                    return Ok((!lost && !beating.is_lost()).then_some(ended));
                }
                Heard::Reply(_) | Heard::Nothing => {}
                Heard::Gone if has_another_open && !lost && !self.stopping() => {
                    // It may have died of that other slide. All tiles of this one are done: its results are written again.
                    ahead.allowed.set(false);
                    running.wait();
                    return self.attempt(beating, work, file, worker, ahead);
                }
                Heard::Gone => {
                    let outcome = self.after_death(running, row, beating);
                    return Ok((!lost && !beating.is_lost()).then_some(outcome));
                }
            }
            if beating.is_lost() && !lost {
                lost = true;
                running.kill();
            }
            match asked {
                None if self.stopping() => {
                    running.ask_to_stop();
                    asked = Some(Instant::now());
                }
                Some(since) if since.elapsed() > GRACE => running.kill(),
                _ => {}
            }
        }
    }

    /// What the end of a process means that did not say how its slide ended.
    fn after_death(&self, running: Worker, row: &Row, beating: &Beating) -> (Attempt, Outcome) {
        let log = running.last_lines();
        let stage = beating.progress().stage;
        let status = running.wait();
        let given_back = |machine: Option<String>, stage: String, log: Vec<String>| {
            let outcome = Outcome {
                stage,
                log,
                machine,
            };
            let (ending, cause) = (Ending::Stopped, Cause::Busy);
            (Attempt { ending, cause }, outcome)
        };
        if self.stopping() {
            return given_back(None, stage, log);
        }
        let said = log
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("error: "));
        let why = match status.map(|status| (status, status.code())) {
            // It ended by itself before it took a slide: no device, or settings that this machine cannot have.
            Some((_, Some(2 | 3))) => {
                let why = said.unwrap_or("a process for slides ended as it began");
                return given_back(Some(why.to_owned()), stage, log);
            }
            Some((status, _)) => format!(
                "{}: the process that worked on it died ({}); what it had finished is kept",
                row.path.display(),
                how_it_died(status)
            ),
            None => "its process was lost".into(),
        };
        let (attempt, outcome) = failed(why);
        let outcome = Outcome {
            stage,
            log,
            ..outcome
        };
        (attempt, outcome)
    }
}

fn failed(why: String) -> (Attempt, Outcome) {
    let attempt = Attempt {
        ending: Ending::Failed(why),
        cause: Cause::Lasting,
    };
    (attempt, Outcome::default())
}

/// Which slide the process may open before its turn, while it writes the results of another.
struct Ahead<'a> {
    likely: &'a dyn Fn() -> Option<Work>,
    /// No longer, once a process has died while it had one open.
    allowed: &'a Cell<bool>,
}

impl Ahead<'_> {
    fn next(&self) -> Option<Work> {
        self.allowed.get().then(|| (self.likely)()).flatten()
    }
}

/// What to do next.
enum Turn {
    Claim(Box<Claim>),
    /// Look again after this time.
    Wait(Duration),
    Nothing,
}
