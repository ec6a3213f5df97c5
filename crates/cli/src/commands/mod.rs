//! One module a command.

mod certify;
mod completions;
mod converse;
mod decrypt;
mod demo;
mod encrypt;
mod eval;
mod experiment;
mod generate;
mod inspect;
mod keygen;
mod plan;
mod profile;
mod run;
mod train;

use crate::flags::{Cli, Command};

/// Runs the command. False if it ran and what it checks is wanting.
pub(crate) fn dispatch(cli: &Cli) -> anyhow::Result<bool> {
    match &cli.command {
        Command::Demo(args) => demo::run(args, cli.json),
        Command::Profile(args) => profile::run(args, cli.json),
        Command::Plan(args) => plan::run(args, cli.json),
        Command::Keygen(args) => keygen::run(args, cli.json),
        Command::Encrypt(args) => encrypt::run(args, cli.json),
        Command::Run(args) => run::run(args, cli.json),
        Command::Decrypt(args) => decrypt::run(args, cli.json),
        Command::Generate(args) if args.encrypted => converse::run(args, cli.json),
        Command::Generate(args) => generate::run(args, cli.json),
        Command::Eval(args) => eval::run(args, cli.json),
        Command::Certify(args) => certify::run(args, cli.json),
        Command::Inspect(args) => inspect::run(args, cli.json),
        Command::Experiment(args) => experiment::run(args),
        Command::Train(args) => train::run(args, cli.json),
        Command::Completions(args) => completions::run(args),
    }
}
