//! `completions SHELL`: a script that completes commands and flags.

use clap::Args;
use clap_complete::Shell;

use super::{Failure, print};

/// Print a script that completes commands and flags in your shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For bash: wsi-nuclei completions bash > ~/.local/share/bash-completion/completions/wsi-nuclei
    shell: Shell,
}

pub fn main(args: &CompletionsArgs, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "wsi-nuclei", &mut script);
    print(&String::from_utf8_lossy(&script))
}
