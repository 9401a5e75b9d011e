//! The process that slides are done in: it keeps the model and the device, and is replaced when it dies.
//!
//! In: how to start it, then requests, one line of JSON each. Out: its replies, one line each, and what it wrote to
//! standard error, in the row's log. What kills it (a crash in a C library, the kernel out of memory) costs the slide
//! that it worked on. Never forks without exec: libtorch and CUDA do not survive that.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use serde::{Deserialize, Serialize};

use super::CohortError;
use super::claim::Progress;
use super::plan::Row;
use crate::plan::Shard;
use crate::run::Ending;
use crate::run::ending::Cause;

/// Lines of the log that a record keeps.
const LAST_LINES: usize = 12;

/// What the process is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Read the slide's header and tissue.
    Look(Row),
    /// Run a few tiles of the slide, and say what all would take.
    Try(Row),
    /// Do the slide.
    Run {
        row: Row,
        /// The share of its tiles to do, where tasks share it.
        shard: Option<Shard>,
        /// A copy that is read in its place.
        read_from: Option<PathBuf>,
        /// Its model must have these weights.
        weights_sha256: String,
    },
    /// The answer to [`Reply::MayWrite`].
    Write {
        /// Whether the row is still the task's own.
        yes: bool,
        /// What the task will probably ask for next: its slide may be opened while this one's results are written.
        next: Option<Next>,
    },
}

/// A row, or a part of one, that has not been asked for yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Next {
    pub row: Row,
    /// The share of its tiles.
    pub shard: Option<Shard>,
}

/// What the process says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Look`].
    Looked(Box<Facts>),
    /// To [`Request::Try`].
    Tried(Trial),
    /// The slide cannot be used, and why.
    Unusable(String),
    /// No slide can be done with these settings, and why.
    Refused(String),
    /// While a slide runs.
    Progress(Progress),
    /// All nuclei are known: may the results be written?
    MayWrite,
    /// To [`Request::Run`].
    Ended {
        ending: Ending,
        cause: Cause,
        stage: String,
    },
}

/// What a slide's header and its tissue say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub identity: String,
    pub bytes: u64,
    pub mpp: [f64; 2],
    pub tissue_mm2: f64,
    pub planned_mm2: f64,
    pub patches: usize,
    /// Most memory that the run would use, by its budget.
    pub memory_bytes: u64,
    pub weights_sha256: String,
    pub warnings: Vec<String>,
}

/// What a trial of a few tiles came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub patches: usize,
    pub planned_mm2: f64,
    pub seconds: f64,
    pub memory_bytes: u64,
    pub scratch_bytes: u64,
    pub device: String,
    pub threads: usize,
}

/// A process that answers requests.
pub struct Worker {
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<Reply>,
    listening: Arc<Mutex<Listening>>,
}

/// Where its lines go.
#[derive(Default)]
struct Listening {
    log: Option<File>,
    last: VecDeque<String>,
}

/// What came within the time.
pub enum Heard {
    Reply(Reply),
    Nothing,
    /// The process has ended, or closed its standard output.
    Gone,
}

impl Worker {
    /// Starts the process.
    ///
    /// # Errors
    /// A process that cannot be started.
    pub fn start(mut command: Command) -> Result<Self, CohortError> {
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|error| {
            CohortError::Machine(format!("a process for slides cannot be started: {error}"))
        })?;
        let (send, replies) = unbounded();
        if let Some(out) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    // Native libraries may print; only our own lines are JSON.
                    if let Ok(reply) = serde_json::from_str(&line)
                        && send.send(reply).is_err()
                    {
                        break;
                    }
                }
            });
        }
        let listening = Arc::new(Mutex::new(Listening::default()));
        if let Some(errors) = child.stderr.take() {
            let listening = listening.clone();
            std::thread::spawn(move || listen(errors, &listening));
        }
        Ok(Self {
            requests: child.stdin.take(),
            child,
            replies,
            listening,
        })
    }

    /// Sends a request; a process that is gone is noticed by [`Worker::hear`].
    pub fn ask(&mut self, request: &Request) {
        let Some(requests) = &mut self.requests else {
            return;
        };
        let Ok(mut line) = serde_json::to_vec(request) else {
            return;
        };
        line.push(b'\n');
        if requests.write_all(&line).is_err() {
            self.requests = None;
        }
    }

    /// Waits so long for a reply.
    pub fn hear(&self, patience: Duration) -> Heard {
        match self.replies.recv_timeout(patience) {
            Ok(reply) => Heard::Reply(reply),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::Gone,
        }
    }

    /// From here on its lines belong to this log.
    pub fn log_to(&self, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new(""));
        // A log that cannot be written stops no slide; its last lines are in the record.
        let _ = std::fs::create_dir_all(folder);
        let mut listening = lock(&self.listening);
        listening.log = File::options().create(true).append(true).open(path).ok();
        listening.last.clear();
    }

    /// The last lines that it wrote.
    pub fn last_lines(&self) -> Vec<String> {
        lock(&self.listening).last.iter().cloned().collect()
    }

    /// Asks it to stop; the checkpoint is kept.
    pub fn ask_to_stop(&self) {
        // SAFETY: kill(2) takes plain numbers; the child has not been waited for, so its id is its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
    }

    /// Ends it now; nothing of what it committed is lost.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
    }

    /// Waits for its end. A process that closed its output is about to end, or is ended.
    pub fn wait(mut self) -> Option<ExitStatus> {
        self.requests = None;
        let begun = std::time::Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if begun.elapsed() > Duration::from_secs(8) => self.kill(),
                Ok(None) => {}
                Err(_) => return None,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.requests = None;
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

fn listen(errors: impl std::io::Read, listening: &Mutex<Listening>) {
    let mut reader = BufReader::new(errors);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        // The task's own log shows it, too; a reader that went away is nobody's business.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
        let mut listening = lock(listening);
        if let Some(log) = &mut listening.log {
            let _ = writeln!(log, "{text}");
        }
        listening.last.push_back(text);
        if listening.last.len() > LAST_LINES {
            listening.last.pop_front();
        }
    }
}

fn lock(listening: &Mutex<Listening>) -> MutexGuard<'_, Listening> {
    listening
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
