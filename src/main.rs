//! wsi-nuclei on the command line: parse, dispatch, exit code.

use std::ptr;

fn main() -> ! {
    let code = wsi_nuclei::internals::main();
    // After a stop, workers may still be inside libtorch. A usual exit would destroy libtorch's statics under them and
    // crash; this one ends all threads at once. Rust's standard streams hold nothing back but what C's do is flushed.
    // SAFETY: fflush(NULL) flushes every open stream; _exit takes a number and does not return.
    unsafe {
        libc::fflush(ptr::null_mut());
        libc::_exit(i32::from(code))
    }
}
