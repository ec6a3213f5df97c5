//! The `cipherlm` command.
//!
//! Exit status: 0 when the command did what it was asked to, 1 when it ran and the result does not pass (a demo that disagrees with the
//! clear model, a text that leaves certified ranges), 2 when it refused or could not run; the reason and the next step are on standard
//! error, results on standard output.
#![forbid(unsafe_code)]

mod clear;
mod encrypted;
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

fn dispatch(cli: &Cli) -> anyhow::Result<bool> {
    match &cli.command {
        Command::Demo(args) => encrypted::demo(args, cli.json),
        Command::Profile(args) => encrypted::profile(args, cli.json),
        Command::Plan(args) => encrypted::plan(args, cli.json),
        Command::Keygen(args) => files::client::keygen(args, cli.json),
        Command::Encrypt(args) => files::client::encrypt(args, cli.json),
        Command::Run(args) => files::server::run(args, cli.json),
        Command::Decrypt(args) => files::client::decrypt(args, cli.json),
        Command::Generate(args) => clear::generate(args, cli.json),
        Command::Eval(args) => clear::eval(args, cli.json),
        Command::Certify(args) => clear::certify(args, cli.json),
        Command::Inspect(args) => inspect::run(args, cli.json),
        Command::Train(args) => train::run(args, cli.json),
        Command::Completions(args) => {
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(args.shell, &mut command, "cipherlm", &mut std::io::stdout());
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        <crate::flags::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
