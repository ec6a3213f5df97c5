//! The `cipherlm` command.
#![forbid(unsafe_code)]

mod clear;
mod encrypted;
mod flags;
mod inspect;
mod model;
mod progress;
mod report;
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
