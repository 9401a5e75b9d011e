//! wsi-nuclei on the command line: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    wsi_nuclei::cli::main()
}
