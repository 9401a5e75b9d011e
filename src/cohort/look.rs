//! Looks at slides before they are planned: what their headers say, and what a few tiles take.
//!
//! In: rows, and how to start a process for slides. Out: [`Facts`], or why a slide cannot be used; a [`Trial`]. Never
//! opens a slide in this process: a file that kills one costs that file alone.

use std::time::Duration;

use super::CohortError;
use super::plan::Row;
use super::worker::{Facts, Heard, Reply, Request, Trial, Worker};

/// Longest time that one slide's header may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(600);

/// Processes that look at slides, one after another: a file that kills one costs that file alone.
pub(super) struct Lookers<'a> {
    start: &'a dyn Fn() -> std::io::Result<std::process::Command>,
    worker: Option<Worker>,
}

impl<'a> Lookers<'a> {
    pub fn new(start: &'a dyn Fn() -> std::io::Result<std::process::Command>) -> Self {
        Self {
            start,
            worker: None,
        }
    }

    /// The answer to a request; the inner error is why the slide cannot be used.
    fn ask(&mut self, request: &Request) -> Result<Result<Reply, String>, CohortError> {
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => {
                let command = (self.start)().map_err(|error| {
                    CohortError::Machine(format!("a process cannot be started: {error}"))
                })?;
                Worker::start(command)?
            }
        };
        worker.ask(request);
        match worker.hear(LOOK_PATIENCE) {
            Heard::Reply(Reply::Refused(why)) => Err(CohortError::Usage(why)),
            Heard::Reply(Reply::Unusable(why)) => {
                self.worker = Some(worker);
                Ok(Err(why))
            }
            Heard::Reply(reply) => {
                self.worker = Some(worker);
                Ok(Ok(reply))
            }
            Heard::Nothing => Ok(Err(format!(
                "its header could not be read within {} s",
                LOOK_PATIENCE.as_secs()
            ))),
            Heard::Gone => {
                let last = worker.last_lines().join("; ");
                let status = worker.wait();
                match status.and_then(|status| status.code()) {
                    // It did not come as far as the slide.
                    Some(2 | 3) => Err(CohortError::Usage(last)),
                    _ => Ok(Err(format!(
                        "the process that read its header died ({}): the file may be damaged",
                        status.map_or("unknown".into(), |status| status.to_string())
                    ))),
                }
            }
        }
    }

    /// What the slide of a row says of itself; the inner error is why it cannot be used.
    pub fn look(&mut self, row: &Row) -> Result<Result<Facts, String>, CohortError> {
        Ok(match self.ask(&Request::Look(row.clone()))? {
            Ok(Reply::Looked(facts)) => Ok(*facts),
            Ok(other) => Err(format!("no answer to the question: {other:?}")),
            Err(why) => Err(why),
        })
    }

    /// A trial of the slide in the middle by size; of another, where that one cannot be read through.
    pub fn try_one(
        &mut self,
        rows: &[Row],
        say: &dyn Fn(&str),
    ) -> Result<Option<Trial>, CohortError> {
        let patches = |row: &&Row| row.facts.as_ref().map_or(0, |facts| facts.patches);
        let mut rows: Vec<&Row> = rows.iter().filter(|row| patches(row) > 0).collect();
        rows.sort_by_key(patches);
        let middle = rows.len() / 2;
        for row in rows
            .iter()
            .skip(middle)
            .chain(rows.iter().take(middle))
            .take(3)
        {
            say(&format!("trying a few tiles of {}", row.stem));
            if let Ok(Reply::Tried(trial)) = self.ask(&Request::Try((*row).clone()))? {
                return Ok(Some(trial));
            }
        }
        Ok(None)
    }
}
