//! The `cipherlm` command.
//!
//! Exit status: 0 when the command did what it was asked to, 1 when it ran and the result does not pass (a demo that disagrees with the
//! clear model, a text that leaves certified ranges), 2 when it refused or could not run; the reason and the next step are on standard
//! error, results on standard output.
#![forbid(unsafe_code)]

mod clear;
mod encrypted;
mod experiment;
mod files;
mod flags;
mod inspect;
mod model;
mod progress;
mod report;
mod system;
mod train;

use clap::Parser;
use flags::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_when_nobody_reads();
    let cli = Cli::parse();
    match dispatch(&cli) {
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

fn dispatch(cli: &Cli) -> anyhow::Result<bool> {
    match &cli.command {
        Command::Demo(args) => encrypted::demo(args, cli.json),
        Command::Profile(args) => encrypted::profile(args, cli.json),
        Command::Plan(args) => encrypted::plan(args, cli.json),
        Command::Keygen(args) => files::client::keygen(args, cli.json),
        Command::Encrypt(args) => files::client::encrypt(args, cli.json),
        Command::Run(args) => files::server::run(args, cli.json),
        Command::Decrypt(args) => files::client::decrypt(args, cli.json),
        Command::Generate(args) if args.encrypted => encrypted::decode::generate(args, cli.json),
        Command::Generate(args) => clear::generate(args, cli.json),
        Command::Eval(args) => clear::eval(args, cli.json),
        Command::Certify(args) => clear::certify(args, cli.json),
        Command::Inspect(args) => inspect::run(args, cli.json),
        Command::Experiment(args) => experiment::run(args),
        Command::Train(args) => train::run(args, cli.json),
        Command::Completions(args) => {
            let mut command = <Cli as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut command, "cipherlm", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(true)
        }
    }
}

#[cfg(test)]
#[path = "../../../xtask/src/tidy/commands.rs"]
mod commands;

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
            for command in crate::commands::find(&std::fs::read_to_string(&file).unwrap(), "cipherlm") {
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
