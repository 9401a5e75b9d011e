//! Many slides: each in a process of its own, so that what kills one (a crash in a C library, the kernel out of memory)
//! costs that slide and no other.
//!
//! In: the slides of a run. Out: how each ended, read from its process's exit code. A child is this program with the
//! same arguments and `--only STEM`; it says everything itself, and the parent only speaks for those that cannot. Never
//! forks without exec: libtorch and CUDA do not survive that.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wsi_nuclei::config::SlideConfig;

use super::progress::Progress;
use super::run::Ending;
use super::{EXIT_NONE, EXIT_SOME, EXIT_STOPPED, EXIT_USAGE, Failure};

/// How often the parent looks at its child and at the stop flag.
const LOOK: Duration = Duration::from_millis(20);
/// A child that does not stop within this time of a request (a C library that hangs, say) is killed; nothing of what it
/// committed is lost.
const GRACE: Duration = Duration::from_secs(8);

/// Runs slide after slide, each in its process, until all are done or a signal asks to stop.
pub fn each(
    slides: &[SlideConfig],
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Vec<Ending>, Failure> {
    let mut endings = Vec::new();
    for slide in slides {
        if stop.load(Ordering::Relaxed) {
            endings.push(Ending::Stopped);
            break;
        }
        let status = start(&slide.stem)
            .and_then(|mut child| wait(&mut child, stop))
            .map_err(|error| {
                Failure::slides(format!(
                    "{}: its process cannot be started: {error}",
                    slide.path.display()
                ))
            })?;
        let ending = ending_of(status, stop.load(Ordering::Relaxed), slide);
        if let Ending::Failed(why) = &ending
            && !why.is_empty()
        {
            progress.begin(&slide.stem);
            progress.error(why);
        }
        let stopped = ending == Ending::Stopped;
        endings.push(ending);
        if stopped {
            break;
        }
    }
    Ok(endings)
}

/// This very program, though its file may have been replaced since, with the same arguments for one slide.
fn start(stem: &str) -> std::io::Result<Child> {
    let program = match cfg!(target_os = "linux") {
        true => "/proc/self/exe".into(),
        false => std::env::current_exe()?,
    };
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_else(|| "wsi-nuclei".into());
    // Behind the subcommand's name: what follows may hold a `--`.
    let subcommand = args.next();
    let only = [OsString::from("--only"), OsString::from(stem)];
    Command::new(program)
        .arg0(name)
        .args(subcommand)
        .args(only)
        .args(args)
        .stdin(Stdio::null())
        .spawn()
}

/// Waits for the child; hands a stop request on, and insists on it after [`GRACE`].
fn wait(child: &mut Child, stop: &AtomicBool) -> std::io::Result<ExitStatus> {
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
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
    }
}

/// What an exit code says; an empty reason has been given by the child itself.
fn ending_of(status: ExitStatus, stopping: bool, slide: &SlideConfig) -> Ending {
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
            "{}: the process that worked on it died ({}): what it had finished is kept, run the same command again to go \
             on; if it dies again at the same place, the file may be damaged: copy it again, or leave it out",
            slide.path.display(),
            how_it_died(status)
        )),
    }
}

fn how_it_died(status: ExitStatus) -> String {
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
