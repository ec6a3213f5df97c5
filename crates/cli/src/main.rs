//! The `cipherlm` command.
//!
//! Exit status: 0 when the command did what it was asked to, 1 when it ran and the result does not pass (a demo that disagrees with the
//! clear model, a text that leaves certified ranges), 2 when it refused or could not run; the reason and the next step are on standard
//! error, results on standard output.
#![forbid(unsafe_code)]

mod commands;
mod console;
mod flags;
mod model;
mod outcome;
mod party;
mod report;
mod sampler;
mod session;
mod setup;
mod system;

use clap::Parser;
use flags::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_when_nobody_reads();
    let cli = Cli::parse();
    match commands::dispatch(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        // The command ran and found what it checks for wanting.
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("cipherlm: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A reader that closed the pipe (`cipherlm plan | head`) wants no more: leave, as other programs do, without a report.
fn quiet_when_nobody_reads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to stdout") {
            std::process::exit(141);
        }
        report(panic);
    }));
}

#[cfg(test)]
#[path = "../../../xtask/src/tidy/commands.rs"]
mod documented;

#[cfg(test)]
mod tests {
    use crate::flags::Cli;
    use clap::Parser;
    use std::path::{Path, PathBuf};

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

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
        let mut count = 0;
        for file in files {
            for command in crate::documented::find(&std::fs::read_to_string(&file).unwrap(), "cipherlm") {
                let args = std::iter::once("cipherlm".to_owned()).chain(command.args.iter().cloned());
                if let Err(error) = Cli::try_parse_from(args) {
                    // A command that is only named needs no arguments.
                    let named =
                        command.args.len() == 1 && error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
                    assert!(named || !error.use_stderr(), "{}:{}: {error}", file.display(), command.line);
                }
                count += 1;
            }
        }
        assert!(count >= 4, "the four file commands stand in the README");
    }
}
