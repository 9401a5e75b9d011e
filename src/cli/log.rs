//! What the library tells while it works, on standard error.
//!
//! In: events of this crate. Out: one line each, warnings with `warning: ` before them. Never shows
//! what other crates log.

use std::{fmt, io};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, fmt as lines};
use tracing_subscriber::registry::LookupSpan;

use super::timestamp;

/// Shows events from now on, for the whole process. `stamped`: with the time before each, as in a log.
pub fn show_events(stamped: bool) {
    let subscriber = lines()
        .with_max_level(Level::INFO)
        .with_writer(io::stderr)
        .event_format(PlainLine { stamped })
        .finish();
    // Tests call the program's main several times in one process: the first call has set it.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct PlainLine {
    stamped: bool,
}

impl<S, N> FormatEvent<S, N> for PlainLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let about = event.metadata();
        if !about.target().starts_with("wsi_nuclei") {
            return Ok(());
        }
        if self.stamped {
            write!(line, "{} ", timestamp::now())?;
        }
        if *about.level() <= Level::WARN {
            line.write_str("warning: ")?;
        }
        context.format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}
