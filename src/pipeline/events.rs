//! What the pipeline tells whoever watches: the command line's bars, a log, a test.
//!
//! In: nothing. Out: [`Event`]s, in the order in which things happen. Watching never changes a result: the receiver
//! is a plain function that must not block.

/// One thing that happened to the slide in work.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A stage of the slide begins: `reading`, `inferring`, `stitching`, `writing`, …
    Stage(&'static str),
    /// Sent once, before the first tile: what there is to do, and what a checkpoint had done already.
    Planned {
        tiles: usize,
        tiles_done: usize,
        mm2: f64,
        mm2_done: f64,
    },
    /// One tile is in the store.
    TileDone { mm2: f64, nuclei: u64 },
    /// Something the user should know; also in summary.json.
    Warning(String),
}

/// Who hears the events. May be called from any thread.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);
