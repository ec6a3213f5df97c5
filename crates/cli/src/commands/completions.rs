//! `cipherlm completions`: a script for a shell.

use crate::flags;
use clap::CommandFactory;

/// Prints the script.
pub(crate) fn run(args: &flags::Completions) -> anyhow::Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut flags::Cli::command(), "cipherlm", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(true)
}
