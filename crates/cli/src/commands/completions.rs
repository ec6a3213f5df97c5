//! `cipherlm completions`: a script for a shell.

use crate::console::out;
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// Which shell.
    shell: clap_complete::Shell,
}

/// Prints the script.
pub(crate) fn run(options: &Options, mut command: clap::Command) -> anyhow::Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "cipherlm", &mut script);
    out(String::from_utf8_lossy(&script).trim_end());
    Ok(true)
}
