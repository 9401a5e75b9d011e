//! What the user sees while a slide runs: a bar on a terminal, plain lines elsewhere, JSON lines for programs.
//!
//! In: [`Event`]s from any thread. Out: standard error, and the log file. Lines that are no bar's begin with the time and,
//! in a batch, with the slide's place in it. Never blocks on a full terminal for long and
//! never fails a run: a line that cannot be written is dropped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::pipeline::events::Event;
use crate::run::{Ending, RunEvent, SlideConfig};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::settings::{ProgressMode, TerminalConfig};
use super::{Failure, closing, timestamp};

/// Lines of progress come no closer than this: for people, and for programs.
const LINE_EVERY: Duration = Duration::from_secs(60);
const JSON_EVERY: Duration = Duration::from_secs(5);
/// The bar counts in 1/1000 mm².
const BAR_UNITS_PER_MM2: f64 = 1000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    Bar,
    Plain,
    Json,
    Nothing,
}

/// Shows the events of a run's slides, one after another.
pub struct Progress {
    show: Show,
    quiet: bool,
    state: Mutex<State>,
}

struct State {
    log: Option<File>,
    slide: String,
    /// The slide's place in its batch, from 1, and how many there are.
    place: usize,
    of: usize,
    /// Names of the batch in order, where it is known here: a parent speaks for few of its slides.
    stems: Vec<String>,
    /// Warnings that have been shown of the slide in work.
    told: BTreeSet<String>,
    bar: Option<ProgressBar>,
    stage: &'static str,
    started: Instant,
    last_line: Option<Instant>,
    /// mm² when this run began: what a checkpoint had.
    mm2_before: f64,
    mm2_done: f64,
    mm2_planned: f64,
    nuclei: u64,
}

impl Progress {
    /// Opens the log file, if one is asked for.
    pub fn new(config: &TerminalConfig) -> Result<Self, Failure> {
        let log = config.log.as_deref().map(open_log).transpose()?;
        let show = match config.progress {
            _ if config.quiet => Show::Nothing,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Show::Bar,
            ProgressMode::Auto | ProgressMode::Plain => Show::Plain,
            ProgressMode::Json => Show::Json,
            ProgressMode::None => Show::Nothing,
        };
        Ok(Self {
            show,
            quiet: config.quiet,
            state: Mutex::new(State {
                log,
                slide: String::new(),
                place: 0,
                of: 1,
                stems: Vec::new(),
                told: BTreeSet::new(),
                bar: None,
                stage: "",
                started: Instant::now(),
                last_line: None,
                mm2_before: 0.0,
                mm2_done: 0.0,
                mm2_planned: 0.0,
                nuclei: 0,
            }),
        })
    }

    /// Says that `of` slides belong together, of which the next to begin is number `next`, from 1.
    pub fn of_batch(self, next: usize, of: usize) -> Self {
        {
            let mut state = self.state();
            (state.place, state.of) = (next.saturating_sub(1), of);
        }
        self
    }

    /// Says that these slides belong together.
    pub fn of_slides(self, slides: &[SlideConfig]) -> Self {
        {
            let mut state = self.state();
            state.of = slides.len();
            state.stems = slides.iter().map(|slide| slide.stem.clone()).collect();
        }
        self
    }

    /// How a batch of slides ended, in one line; a lone slide has said so itself.
    pub fn batch_ended(&self, slides: &[SlideConfig], endings: &[Ending]) {
        if slides.len() < 2 {
            return;
        }
        let text = closing::of_batch(slides, endings);
        let mut state = self.state();
        let failed = slides.iter().zip(endings).filter_map(|(slide, ending)| {
            let reason = ending.reason()?;
            Some(json!({"slide": slide.stem, "reason": reason}))
        });
        let object = json!({
            "event": "batch", "slides": slides.len(), "failed": failed.collect::<Vec<_>>(), "message": text,
        });
        match self.show {
            Show::Bar => print_line(&text),
            Show::Plain => print_line(&stamped(&text)),
            Show::Json => print_line(&object.to_string()),
            Show::Nothing => {}
        }
        write_log(&mut state, &stamped(&text));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it drew leaves nothing that matters half-done.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Shows what happens to a run's slides.
    pub fn show(&self, event: RunEvent<'_>) {
        match event {
            RunEvent::Begun(slide) => self.begin(&slide.stem),
            RunEvent::Slide(event) => self.event(event),
            RunEvent::Ended {
                slide,
                ending,
                seconds,
            } => self.ended(slide, ending, seconds),
        }
    }

    fn ended(&self, slide: &SlideConfig, ending: &Ending, seconds: f64) {
        let folder = slide.results.as_ref().unwrap_or(&slide.folder).display();
        match ending {
            Ending::Done { nuclei } => self.done(slide, *nuclei, seconds),
            Ending::Share { tiles_left } => self.end(&format!(
                "share done in {seconds:.1} s; {tiles_left} tiles of other shares are not done yet"
            )),
            Ending::Incomplete { nuclei, why } => self.error(&format!(
                "{}: incomplete, {why}; the {nuclei} nuclei found are in {folder}",
                slide.path.display()
            )),
            Ending::Stopped => {
                self.end("stopped; what was done is kept: run the same command again to go on");
            }
            Ending::Refused(why) | Ending::Failed(why) => self.error(why),
        }
    }

    /// A slide is done: what was found, and what to look at next; of a batch in one line.
    fn done(&self, slide: &SlideConfig, nuclei: usize, seconds: f64) {
        let folder = slide.results.as_ref().unwrap_or(&slide.folder);
        // hover_net's folders have no summary.
        let closing = closing::of_folder(&slide.folder);
        let batch = self.state().of > 1;
        let mut line = format!("{} nuclei", closing::grouped(nuclei as u64));
        if let (true, Some(density)) = (batch, &closing.density) {
            line += &format!(" ({})", density.replace(" nuclei", ""));
        }
        line += &format!(" in {seconds:.1} s");
        if let (true, n @ 1..) = (batch, closing.warnings.len()) {
            line += &format!(", {n} warning{}", if n == 1 { "" } else { "s" });
        }
        line += &format!(", written to {}", folder.display());
        let mut lines = vec![line];
        if !batch {
            lines.extend(closing.types.clone());
            lines.extend(closing.density.clone());
            // Each is told once: most have been on the way.
            let told = std::mem::take(&mut self.state().told);
            let new = closing.warnings.iter().filter(|text| !told.contains(*text));
            lines.extend(new.map(|text| format!("warning: {text}")));
            lines.extend(closing::of_told(told.len()));
            lines.extend(closing.page.clone());
        }
        let mut state = self.state();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        if self.show == Show::Json {
            let object = json!({
                "event": "end", "message": lines[0], "nuclei": nuclei, "types": closing.types,
                "density": closing.density, "warnings": closing.warnings,
            });
            return self.say(&mut state, &lines[0], object);
        }
        for line in lines {
            self.say(&mut state, &line, serde_json::Value::Null);
        }
    }

    /// The next slide begins.
    fn begin(&self, slide: &str) {
        let mut state = self.state();
        let known = state.stems.iter().position(|stem| stem == slide);
        state.place = known.unwrap_or(state.place) + 1;
        state.slide = match state.of {
            0 | 1 => slide.to_owned(),
            of => format!("[{}/{of}] {slide}", state.place),
        };
        state.started = Instant::now();
        state.told.clear();
        state.last_line = None;
        state.stage = "";
        (state.mm2_before, state.mm2_done, state.mm2_planned) = (0.0, 0.0, 0.0);
        state.nuclei = 0;
        if self.show == Show::Bar {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(spinner());
            bar.set_prefix(state.slide.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            state.bar = Some(bar);
        }
    }

    fn event(&self, event: Event) {
        let mut state = self.state();
        match event {
            Event::Stage(name) => {
                state.stage = name;
                if let Some(bar) = &state.bar {
                    bar.set_message(name);
                }
                // In a batch, hundreds of slides each say what counts.
                if state.of <= 1 || self.show == Show::Json {
                    self.line(
                        &mut state,
                        name.to_owned(),
                        json!({"event": "stage", "stage": name}),
                    );
                }
            }
            Event::Planned {
                tiles,
                tiles_done,
                mm2,
                mm2_done,
            } => {
                (state.mm2_planned, state.mm2_done, state.mm2_before) = (mm2, mm2_done, mm2_done);
                state.started = Instant::now();
                state.last_line = Some(Instant::now());
                if let Some(bar) = &state.bar {
                    bar.set_style(bar_style());
                    bar.set_length((mm2 * BAR_UNITS_PER_MM2).ceil() as u64);
                    bar.set_position((mm2_done * BAR_UNITS_PER_MM2) as u64);
                }
                let kept = if tiles_done > 0 {
                    format!(", {tiles_done} of them done before")
                } else {
                    String::new()
                };
                self.line(
                    &mut state,
                    format!("{mm2:.2} mm² in {tiles} tiles{kept}"),
                    json!({"event": "planned", "tiles": tiles, "tiles_done": tiles_done, "mm2": mm2, "mm2_done": mm2_done}),
                );
            }
            Event::TileDone { mm2, nuclei } => {
                state.mm2_done += mm2;
                state.nuclei += nuclei;
                self.tile_done(&mut state);
            }
            Event::Warning(text) => {
                state.told.insert(text.clone());
                if !self.quiet {
                    self.say(
                        &mut state,
                        &format!("warning: {text}"),
                        json!({"event": "warning", "message": text}),
                    );
                } else {
                    let line = stamped(&format!("{}: warning: {text}", state.slide));
                    write_log(&mut state, &line);
                }
            }
        }
    }

    fn tile_done(&self, state: &mut State) {
        let speed =
            (state.mm2_done - state.mm2_before) / state.started.elapsed().as_secs_f64().max(1e-3);
        let left_s = (state.mm2_planned - state.mm2_done).max(0.0) / speed.max(1e-9);
        let left = HumanDuration(Duration::from_secs_f64(left_s.min(1e8)));
        if let Some(bar) = &state.bar {
            bar.set_position((state.mm2_done * BAR_UNITS_PER_MM2) as u64);
            bar.set_message(format!(
                "{:.2} of {:.2} mm², {} nuclei, {speed:.2} mm²/s, {left} left",
                state.mm2_done, state.mm2_planned, state.nuclei
            ));
        }
        let finished = state.mm2_done >= state.mm2_planned * (1.0 - 1e-9);
        let every = match self.show {
            Show::Json => JSON_EVERY,
            _ => LINE_EVERY,
        };
        let due = state.last_line.is_none_or(|last| last.elapsed() >= every);
        if due || finished {
            state.last_line = Some(Instant::now());
            let percent = 100.0 * state.mm2_done / state.mm2_planned.max(1e-12);
            let text = format!(
                "{:.2} of {:.2} mm² ({percent:.0} %), {} nuclei, {speed:.2} mm²/s, {left} left",
                state.mm2_done, state.mm2_planned, state.nuclei
            );
            let object = json!({
                "event": "progress", "mm2_done": state.mm2_done, "mm2": state.mm2_planned,
                "nuclei": state.nuclei, "mm2_per_s": speed, "left_s": left_s,
            });
            self.line(state, text, object);
        }
    }

    /// The slide is finished, well or not.
    fn end(&self, text: &str) {
        let mut state = self.state();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        self.say(&mut state, text, json!({"event": "end", "message": text}));
    }

    /// Something went wrong: always shown.
    fn error(&self, text: &str) {
        let mut state = self.state();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        if self.show == Show::Json {
            print_line(
                &json!({"event": "error", "slide": state.slide, "message": text}).to_string(),
            );
            return write_log(&mut state, &stamped(&format!("error: {text}")));
        }
        let line = stamped(&match state.of {
            0 | 1 => format!("error: {text}"),
            of => format!("[{}/{of}] error: {text}", state.place),
        });
        print_line(match self.show {
            Show::Plain => &line,
            _ => unstamped(&line),
        });
        write_log(&mut state, &line);
    }

    /// A line for those who see no bar.
    fn line(&self, state: &mut State, text: String, object: serde_json::Value) {
        if self.show == Show::Bar {
            let line = stamped(&format!("{}: {text}", state.slide));
            write_log(state, &line);
        } else {
            self.say(state, &text, object);
        }
    }

    /// A line for everybody but those who want none.
    fn say(&self, state: &mut State, text: &str, mut object: serde_json::Value) {
        let line = stamped(&format!("{}: {text}", state.slide));
        match (self.show, &state.bar) {
            (Show::Bar, Some(bar)) => bar.suspend(|| print_line(unstamped(&line))),
            (Show::Bar, None) => print_line(unstamped(&line)),
            (Show::Plain, _) => print_line(&line),
            (Show::Json, _) => {
                if let Some(map) = object.as_object_mut() {
                    map.insert("slide".into(), json!(state.slide));
                }
                print_line(&object.to_string());
            }
            (Show::Nothing, _) => {}
        }
        write_log(state, &line);
    }
}

fn open_log(path: &Path) -> Result<File, Failure> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| {
            Failure::usage(format!(
                "--log {}: cannot be written: {error}",
                path.display()
            ))
        })
}

/// A line with the time before it.
fn stamped(line: &str) -> String {
    format!("{} {line}", timestamp::now())
}

/// The line without its time: on a terminal it is now.
fn unstamped(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(_, rest)| rest)
}

fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn write_log(state: &mut State, line: &str) {
    if let Some(log) = &mut state.log {
        let _ = writeln!(log, "{line}");
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {bar:24} {percent:>3} % {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
