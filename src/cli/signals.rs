//! SIGINT, SIGTERM and SIGUSR1 ask the run to stop; a second Ctrl-C ends it at once (130).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use super::{EXIT_INTERRUPTED, Failure};

/// A flag that a signal raises.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::new(AtomicBool::new(false));
    let register = || -> std::io::Result<()> {
        // Order matters: the first Ctrl-C finds `interrupted` low and raises it, the second finds it high.
        flag::register_conditional_shutdown(
            SIGINT,
            i32::from(EXIT_INTERRUPTED),
            interrupted.clone(),
        )?;
        flag::register(SIGINT, interrupted.clone())?;
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            flag::register(signal, stop.clone())?;
        }
        Ok(())
    };
    register().map_err(|error| Failure::slides(format!("signals cannot be caught: {error}")))?;
    Ok(stop)
}
