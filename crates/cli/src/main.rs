//! The `cipherlm` command.
//!
//! Exit status: 0 when the command did what it was asked to, 1 when it ran and the result does not
//! pass (a demo that disagrees with the clear model, a text that leaves certified ranges, a damaged
//! file), 2 when it refused or could not run: one line on standard error names the reason and the
//! next step. 141 when nobody reads the result. Results are on standard output.
#![forbid(unsafe_code)]
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a closed or full stream must not end a run: see `console`"
)]

mod commands;
mod console;
mod exit;
mod library;
mod model;
#[cfg(feature = "net")]
mod network;
mod options;
mod outcome;
mod outputs;
mod party;
mod prices;
mod progress;
mod report;
mod sampler;
mod sentence;
mod session;
mod setup;
mod system;
#[cfg(feature = "net")]
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Errors of the parser are JSON too.
    if std::env::args_os().any(|argument| argument == "--json") {
        console::speak_json(true);
    }
    let args = match commands::configured(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => return exit::status(Err(error)),
    };
    match commands::parse(args) {
        Ok(cli) => {
            console::speak_json(cli.json);
            exit::status(commands::dispatch(&cli))
        }
        Err(error) => exit::parser(&error),
    }
}

#[cfg(test)]
#[path = "../../../xtask/src/tidy/commands.rs"]
mod documented;

#[cfg(test)]
mod tests {
    use crate::commands::parse;
    use std::path::{Path, PathBuf};

    fn documents(dir: &Path, found: &mut Vec<PathBuf>) {
        for path in std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
                documents(&path, found);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_command_in_the_documents_parses() {
        let mut files = Vec::new();
        documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), &mut files);
        let mut seen = std::collections::BTreeSet::new();
        for file in files {
            for command in crate::documented::find(&std::fs::read_to_string(&file).unwrap(), "cipherlm") {
                let args = std::iter::once("cipherlm".to_owned()).chain(command.args.iter().cloned());
                if let Err(error) = parse(args.map(Into::into)) {
                    // A command that is only named needs no arguments.
                    let named = command.args.len() == 1
                        && error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
                    assert!(named || !error.use_stderr(), "{}:{}: {error}", file.display(), command.line);
                }
                seen.extend(command.args.first().cloned());
            }
        }
        for name in ["keygen", "encrypt", "run", "decrypt", "inspect", "certify"] {
            assert!(seen.contains(name), "no document shows `cipherlm {name}`");
        }
    }
}
