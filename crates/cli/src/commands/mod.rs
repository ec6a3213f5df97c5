//! The command line: one module a command, each with its options.

#[cfg(feature = "net")]
mod ask;
mod certify;
mod completions;
mod config;
mod converse;
mod convert;
mod decrypt;
mod demo;
mod doctor;
mod embed;
mod encrypt;
mod eval;
mod experiment;
mod generate;
mod import;
mod index;
mod inspect;
mod keygen;
mod man;
#[cfg(feature = "net")]
mod page;
mod plan;
mod profile;
#[cfg(feature = "net")]
mod proxy;
#[cfg(feature = "net")]
mod push;
mod run;
mod search;
#[cfg(feature = "net")]
mod serve;
#[cfg(feature = "net")]
mod simulate;
mod train;
#[cfg(feature = "net")]
mod worker;

use crate::options::count;
use crate::progress::Style;
use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// Private inference with PowerSoftmax transformers under homomorphic encryption.
#[derive(Parser)]
#[command(name = "cipherlm", version, about, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 done; 1 ran, but the result does not pass; 2 refused, with the reason and \
    the next step in one line on standard error; 141 nobody reads the result. With --json that line is \
    {\"error\",\"kind\",\"code\"}."
)]
pub(crate) struct Cli {
    /// Print the result as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Worker threads (default: one for each core).
    #[arg(long, global = true, value_name = "N", value_parser = count(1..=1024))]
    threads: Option<usize>,
    /// How progress is shown, on standard error: `auto` is a bar on a terminal, a line now and then
    /// elsewhere, and nothing with --json.
    #[arg(long, global = true, value_enum, value_name = "HOW", default_value_t)]
    pub(crate) progress: Style,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the model on a prompt under encryption at 128-bit parameters and check the answer.
    Demo(demo::Options),
    /// Show where an encrypted forward pass spends its time.
    Profile(profile::Options),
    /// Compile a model and print what its encrypted run will take, before any key exists.
    Plan(plan::Options),
    /// Say what this machine is, what will fit, and what to change.
    Doctor(doctor::Options),
    /// Client: make a secret key, and the evaluation keys that a server needs for one plan.
    Keygen(keygen::Options),
    /// Client: encrypt a prompt.
    Encrypt(encrypt::Options),
    /// Server: run the model on an encrypted prompt. Holds no secret key.
    Run(run::Options),
    /// Client: decrypt an answer.
    Decrypt(decrypt::Options),
    /// Server: answer encrypted prompts over a network. Holds no secret key.
    #[cfg(feature = "net")]
    Serve(serve::Options),
    /// Server: compute for a server in another process. Holds no secret key.
    #[cfg(feature = "net")]
    Worker(worker::Options),
    /// Say what a fleet of workers would do, in simulated time.
    #[cfg(feature = "net")]
    Simulate(simulate::Options),
    /// Client: register evaluation keys with a server; what it has is not sent again.
    #[cfg(feature = "net")]
    Push(push::Options),
    /// Client: encrypt a prompt, have a server run the model, decrypt the answer.
    #[cfg(feature = "net")]
    Ask(ask::Options),
    /// Client: an OpenAI-speaking address on this machine; prompts leave it encrypted.
    #[cfg(feature = "net")]
    Proxy(proxy::Options),
    /// Client: the page of `cargo xtask page` on this machine, for a browser.
    #[cfg(feature = "net")]
    Page(page::Options),
    /// Continue a prompt: in the clear with the exact functions or the certified polynomials, or
    /// under encryption.
    Generate(generate::Options),
    /// Score a model on public tasks, or compare exact functions with polynomials on a text.
    Eval(eval::Options),
    /// Find ranges on calibration text, check them on held-out text, fit the polynomials, write the
    /// model.
    Certify(certify::Options),
    /// Make a model folder of a public checkpoint: a Hugging Face folder, a GGUF or a llama2.c
    /// file.
    Import(import::Options),
    /// Vectors of sentences.
    Embed(embed::Options),
    /// Server: make documents ready for a search.
    Index(index::Options),
    /// The documents that answer a question best.
    Search(search::Options),
    /// Say what one of our files or folders is, and whether it is whole.
    Inspect(inspect::Options),
    /// Measure: latency of three attention normalisers, or cost against the length and shape of a
    /// model.
    Experiment(experiment::Options),
    /// Train a model from a run file; needs the feature `train`.
    Train(train::Options),
    /// Convert a pretrained softmax model as a recipe says; needs the feature `train`.
    Convert(train::Options),
    /// Print completions for a shell.
    Completions(completions::Options),
    /// Write manual pages, one a command.
    Man(man::Options),
}

/// Reads a command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let definition = definition();
    let args = with_json_file(&definition, args.into_iter().collect());
    Cli::from_arg_matches(&definition.try_get_matches_from(args)?)
}

/// The command line with the user's configuration.
pub(crate) fn configured(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Vec<OsString>> {
    config::added(&definition(), args.into_iter().collect())
}

/// `--json FILE` is short for `--json-file FILE` where a command has that option and takes nothing
/// without a name, so that FILE can be nothing else.
fn with_json_file(definition: &clap::Command, mut args: Vec<OsString>) -> Vec<OsString> {
    let named = |arg: &OsString| definition.find_subcommand(arg);
    let Some(command) = args.iter().skip(1).find_map(named) else { return args };
    let writes = command.get_arguments().any(|arg| arg.get_id() == "json_file");
    if !writes || command.get_positionals().next().is_some() {
        return args;
    }
    for at in 1..args.len().saturating_sub(1) {
        let value = args[at + 1].to_string_lossy();
        if args[at] == "--json" && !value.starts_with('-') && named(&args[at + 1]).is_none() {
            args[at] = "--json-file".into();
        }
    }
    args
}

/// The command line with one addition: `--tokens -1` is a bad value of `--tokens`, not an unknown
/// option `-1`.
fn definition() -> clap::Command {
    let number = |arg: clap::Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    Cli::command().mut_args(number).mut_subcommands(|command| command.mut_args(number))
}

/// Runs the command. False if it ran and what it checks is wanting.
pub(crate) fn dispatch(cli: &Cli) -> anyhow::Result<bool> {
    crate::progress::show(cli.progress);
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("--threads")?;
    }
    match &cli.command {
        Command::Demo(options) => demo::run(options, cli.json),
        Command::Profile(options) => profile::run(options, cli.json),
        Command::Doctor(options) => doctor::run(options, cli.json),
        Command::Plan(options) => plan::run(options, cli.json),
        Command::Keygen(options) => keygen::run(options, cli.json),
        Command::Encrypt(options) => encrypt::run(options, cli.json),
        Command::Run(options) => run::run(options, cli.json),
        Command::Decrypt(options) => decrypt::run(options, cli.json),
        #[cfg(feature = "net")]
        Command::Serve(options) => serve::run(options, cli.json),
        #[cfg(feature = "net")]
        Command::Worker(options) => worker::run(options, cli.json),
        #[cfg(feature = "net")]
        Command::Simulate(options) => simulate::run(options, cli.json),
        #[cfg(feature = "net")]
        Command::Push(options) => push::run(options, cli.json),
        #[cfg(feature = "net")]
        Command::Ask(options) => ask::run(options, cli.json),
        #[cfg(feature = "net")]
        Command::Proxy(options) => proxy::run(options, cli.json),
        #[cfg(feature = "net")]
        Command::Page(options) => page::run(options, cli.json),
        Command::Generate(options) if options.encrypted => converse::run(options, cli.json),
        Command::Generate(options) => generate::run(options, cli.json),
        Command::Eval(options) => eval::run(options, cli.json),
        Command::Certify(options) => certify::run(options, cli.json),
        Command::Import(options) => import::run(options, cli.json),
        Command::Embed(options) => embed::run(options, cli.json),
        Command::Index(options) => index::run(options, cli.json),
        Command::Search(options) => search::run(options, cli.json),
        Command::Inspect(options) => inspect::run(options, cli.json),
        Command::Experiment(options) => experiment::run(options),
        Command::Train(options) => train::run(options, cli.json),
        Command::Convert(options) => convert::run(options, cli.json),
        Command::Completions(options) => completions::run(options, definition()),
        Command::Man(options) => man::run(options, definition()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn a_file_after_json_is_the_file_of_the_result() {
        let rewritten = |line: &str| {
            let args = line.split(' ').map(OsString::from).collect();
            with_json_file(&definition(), args).join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(
            rewritten("cipherlm eval --json out.json --limit 5"),
            "cipherlm eval --json-file out.json --limit 5"
        );
        for same in
            ["cipherlm eval --limit 5 --json", "cipherlm eval --json --limit 5", "cipherlm --json eval"]
        {
            assert_eq!(rewritten(same), same);
        }
        // What stands alone is the command's own there.
        assert_eq!(rewritten("cipherlm inspect --json x"), "cipherlm inspect --json x");
    }
}
