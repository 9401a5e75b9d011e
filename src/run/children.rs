//! Slides: each in a process of its own, so that what kills one (a crash in a C library, the kernel out of memory)
//! costs that slide and no other, and somebody is left to say so.
//!
//! In: the slides of a run, and how to start a process for one of them. Out: how each ended: the child's own record, a
//! line of JSON on its standard output, or what its exit status says where it died without one. A child shows its
//! progress itself; the parent speaks only for those that cannot. Never forks without exec: libtorch and CUDA do not
//! survive that.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::attempts::{Attempt, Attempts};
use super::ending::{Cause, EXIT_NONE, EXIT_SOME, EXIT_STOPPED, EXIT_USAGE};
use super::{Ending, Event, RunError, RunEvent, SlideConfig, Watch};

/// How often the parent looks at its child and at the stop flag.
const LOOK: Duration = Duration::from_millis(20);
/// A child that does not stop within this time of a request (a C library that hangs, say) is killed; nothing of what it
/// committed is lost.
const GRACE: Duration = Duration::from_secs(8);

/// Runs slide after slide, each in the process that `command` starts for it and for the file to read, until all are done
/// or the stop flag is raised. Only what a child could not say itself comes to `watch`.
///
/// # Errors
/// A process that cannot be started.
pub fn run_in_children(
    slides: &[SlideConfig],
    attempts: Attempts<'_>,
    watch: Watch<'_>,
    command: impl Fn(&SlideConfig, &Path) -> std::io::Result<Command>,
) -> Result<Vec<Ending>, RunError> {
    let mut endings = Vec::new();
    for slide in slides {
        if attempts.stop.load(Ordering::Relaxed) {
            endings.push(Ending::Stopped);
            break;
        }
        let say = |text| {
            let text = format!("{}: {text}", slide.stem);
            watch(RunEvent::Slide(Event::Warning(text)));
        };
        let outcome = attempts.run(&slide.path, &say, |file| {
            let attempt = run_in_child(slide, || command(slide, file), watch, attempts.stop)?;
            Ok(Some((attempt, ())))
        })?;
        let ending = outcome.map_or(Ending::Stopped, |(attempt, ())| attempt.ending);
        let stopped = ending == Ending::Stopped;
        endings.push(ending);
        if stopped {
            break;
        }
    }
    Ok(endings)
}

/// Runs one slide once, in the process that `command` starts.
fn run_in_child(
    slide: &SlideConfig,
    command: impl Fn() -> std::io::Result<Command>,
    watch: Watch<'_>,
    stop: &AtomicBool,
) -> Result<Attempt, RunError> {
    let started = Instant::now();
    let outcome = command()
        .and_then(|mut command| {
            let child = command.stdin(Stdio::null()).stdout(Stdio::piped());
            child.spawn()
        })
        .and_then(|mut child| wait_for(&mut child, stop))
        .map_err(|error| {
            RunError::Machine(format!(
                "{}: its process cannot be started: {error}",
                slide.path.display()
            ))
        })?;
    if let Some(attempt) = outcome.record {
        return Ok(attempt);
    }
    let ending = ending_of_status(outcome.status, stop.load(Ordering::Relaxed), slide);
    if ending.reason().is_some_and(|why| !why.is_empty()) {
        watch(RunEvent::Begun(slide));
        watch(RunEvent::Ended {
            slide,
            ending: &ending,
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    // What killed a process once kills it again.
    let cause = Cause::Lasting;
    Ok(Attempt { ending, cause })
}

/// The line by which a child tells its parent how its slide ended.
pub fn record_line(attempt: &Attempt) -> String {
    // An Attempt has nothing that JSON cannot hold.
    let text = serde_json::to_string(attempt).unwrap_or_default();
    format!("{text}\n")
}

struct Outcome {
    status: ExitStatus,
    record: Option<Attempt>,
}

/// Waits for the child; hands a stop request on, and insists on it after [`GRACE`].
fn wait_for(child: &mut Child, stop: &AtomicBool) -> std::io::Result<Outcome> {
    let mut asked: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        match asked {
            None if stop.load(Ordering::Relaxed) => {
                // SAFETY: kill(2) takes plain numbers; the child has not been waited for, so its id is its own.
                unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > GRACE => child.kill()?,
            _ => {}
        }
        std::thread::sleep(LOOK);
    };
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        // A pipe holds far more than the one line that a child writes; what is not text is no record.
        let _ = out.read_to_string(&mut said);
    }
    // A child that died of a signal may have written its record before it had finished everything.
    let lines = said.lines().filter(|_| status.signal().is_none());
    let record = lines.rev().find_map(|line| serde_json::from_str(line).ok());
    Ok(Outcome { status, record })
}

/// What an exit status says of a child without a record; an empty reason has been given by the child itself.
fn ending_of_status(status: ExitStatus, stopping: bool, slide: &SlideConfig) -> Ending {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match code {
        Some(0) => Ending::Done { nuclei: 0 },
        Some(EXIT_SOME) => Ending::Incomplete {
            nuclei: 0,
            why: String::new(),
        },
        Some(EXIT_USAGE) => Ending::Refused(String::new()),
        Some(EXIT_NONE) => Ending::Failed(String::new()),
        Some(EXIT_STOPPED) => Ending::Stopped,
        _ if stopping => Ending::Stopped,
        _ => Ending::Failed(format!(
            "{}: the process that worked on it died ({}): what it had finished is kept, run the same command \
                again to go \
             on; if it dies again at the same place, the file may be damaged: copy it again, or leave it out",
            slide.path.display(),
            how_it_died(status)
        )),
    }
}

/// What an exit status says of a process's death.
pub fn how_it_died(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGKILL) => {
            "killed by signal 9: out of memory, or somebody's kill -9; --memory sets the budget"
                .into()
        }
        Some(libc::SIGSEGV) => "signal 11, a crash in native code".into(),
        Some(libc::SIGABRT) => "signal 6, given up by native code".into(),
        Some(libc::SIGBUS) => "signal 7: a file became shorter while it was read".into(),
        _ => status.to_string(),
    }
}

/// Makes this process die with its parent: nobody would look after it.
#[cfg(target_os = "linux")]
pub fn die_with_parent() {
    // SAFETY: PR_SET_PDEATHSIG takes a signal's number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

#[cfg(not(target_os = "linux"))]
pub fn die_with_parent() {}
