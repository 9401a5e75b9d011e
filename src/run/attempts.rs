//! A slide tried again after what may pass, read from a copy on a local disk where one is asked for.
//!
//! In: a slide and how to do it once. Out: how the last attempt ended. A slide that no other try would change (a file
//! that is no slide, a crash of its process) is tried once. Never decides what a failure means: [`Cause`] says it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::ending::Cause;
use super::{Ending, stage};

/// How often a pause looks at the stop flag.
const LOOK: Duration = Duration::from_millis(50);

/// How a slide ended, and whether trying again may help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub ending: Ending,
    pub cause: Cause,
}

/// How a slide is done again.
#[derive(Clone, Copy)]
pub struct Attempts<'a> {
    /// A folder of a local disk that the slide is copied to first.
    pub stage: Option<&'a Path>,
    /// How often a slide is tried again.
    pub retries: u32,
    /// Pause before the first of these; it doubles.
    pub first_pause: Duration,
    pub stop: &'a AtomicBool,
}

impl<'a> Attempts<'a> {
    /// One attempt, on the slide where it lies.
    pub fn once(stop: &'a AtomicBool) -> Self {
        Self {
            stage: None,
            retries: 0,
            first_pause: Duration::ZERO,
            stop,
        }
    }

    /// Calls `attempt` with the file to read until it ends in a way that another try would not change. It gives what else
    /// is known of the ending, or `None`: the slide is no longer ours.
    ///
    /// # Errors
    /// Those of `attempt`: at once, whatever tries are left.
    pub fn run<T, E>(
        &self,
        slide: &Path,
        say: &dyn Fn(String),
        mut attempt: impl FnMut(&Path) -> Result<Option<(Attempt, T)>, E>,
    ) -> Result<Option<(Attempt, T)>, E> {
        let mut pause = self.first_pause;
        let mut left = self.retries;
        loop {
            let staged = self.staged(slide, say);
            let path = staged.as_ref().map_or(slide, |staged| &staged.path);
            let Some((mut outcome, more)) = attempt(path)? else {
                return Ok(None);
            };
            drop(staged);
            let is_over = outcome.cause == Cause::Lasting || outcome.ending == Ending::Stopped;
            if is_over || left == 0 {
                return Ok(Some((outcome, more)));
            }
            say(format!(
                "again in {:.0} s: {}",
                pause.as_secs_f64(),
                outcome.ending.reason().unwrap_or("")
            ));
            pause_unless(self.stop, pause);
            pause *= 2;
            if self.stop.load(Ordering::Relaxed) {
                outcome.ending = Ending::Stopped;
                return Ok(Some((outcome, more)));
            }
            left -= 1;
        }
    }

    fn staged(&self, slide: &Path, say: &dyn Fn(String)) -> Option<stage::Staged> {
        let folder = self.stage?;
        let copy = stage::copy(folder, slide);
        copy.inspect_err(|error| {
            say(format!(
                "not copied to {} ({error}): read where it lies",
                folder.display()
            ));
        })
        .ok()
    }
}

/// Waits so long, unless `stop` is raised.
pub fn pause_unless(stop: &AtomicBool, patience: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < patience && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK.min(patience));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    type Endings = Vec<(Ending, Cause)>;

    /// How a slide ends that ends in these ways one after another, how often it was tried, and what was said.
    fn tried(ways: Endings, retries: u32, stop: bool) -> (Ending, usize, Vec<String>) {
        let stop = AtomicBool::new(stop);
        let attempts = Attempts {
            stage: None,
            retries,
            first_pause: Duration::from_millis(1),
            stop: &stop,
        };
        let said = RefCell::new(Vec::new());
        let say = |text| said.borrow_mut().push(text);
        let mut ways = ways.into_iter();
        let mut count = 0;
        let outcome = attempts.run(Path::new("a.svs"), &say, |path| {
            assert_eq!(path, Path::new("a.svs"));
            count += 1;
            let (ending, cause) = ways.next().unwrap();
            Ok::<_, ()>(Some((Attempt { ending, cause }, ())))
        });
        let ending = outcome.unwrap().unwrap().0.ending;
        (ending, count, said.into_inner())
    }

    fn may_pass() -> (Ending, Cause) {
        let why = "a.svs: Input/output error".to_owned();
        (Ending::Failed(why), Cause::MayPass)
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let done = (Ending::Done { nuclei: 3 }, Cause::Lasting);
        let lasting = (Ending::Failed("no slide".into()), Cause::Lasting);
        let (ending, count, said) = tried(vec![may_pass(), may_pass(), done.clone()], 2, false);
        assert_eq!((ending, count, said.len()), (done.0, 3, 2));
        assert!(said[0].contains("again in 0 s: a.svs: Input"), "{said:?}");
        let (ending, count, _) = tried(vec![may_pass(), may_pass()], 1, false);
        assert_eq!((ending, count), (may_pass().0, 2));
        let (ending, count, said) = tried(vec![lasting.clone()], 5, false);
        assert_eq!((ending, count, said.len()), (lasting.0, 1, 0));
        let (ending, count, _) = tried(vec![may_pass()], 5, true);
        assert_eq!((ending, count), (Ending::Stopped, 1));
    }

    #[test]
    fn a_copy_is_read_and_gone_after() {
        let dir = tempfile::tempdir().unwrap();
        let slide = dir.path().join("a.svs");
        std::fs::write(&slide, b"pixels").unwrap();
        let local = dir.path().join("local");
        let stop = AtomicBool::new(false);
        let attempts = Attempts {
            stage: Some(&local),
            retries: 0,
            first_pause: Duration::ZERO,
            stop: &stop,
        };
        let outcome = attempts.run(&slide, &|_| {}, |path| {
            assert!(path.starts_with(&local), "{}", path.display());
            assert_eq!(std::fs::read(path).unwrap(), b"pixels");
            let (ending, cause) = (Ending::Done { nuclei: 1 }, Cause::Lasting);
            Ok::<_, ()>(Some((Attempt { ending, cause }, ())))
        });
        assert!(outcome.unwrap().is_some());
        assert_eq!(std::fs::read_dir(&local).unwrap().count(), 0);
    }
}
