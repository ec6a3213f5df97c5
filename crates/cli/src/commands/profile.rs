//! `cipherlm profile`: where the time of one encrypted forward pass goes, of one prompt or several.

use crate::options::{BatchOption, ModelOption, ProfileOption, tokens};
use crate::outcome::Outcome;
use crate::outputs::Outputs;
use crate::prices::PricesOption;
use crate::progress::Console;
use crate::session::Session;
use crate::setup::{self, Setup};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    #[command(flatten)]
    batch: BatchOption,
    /// Prompt length.
    #[arg(long, default_value = "128", value_parser = tokens())]
    length: usize,
    /// Also write the profile as JSON here; replaces what is there.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    /// Write it as a self-contained HTML page; replaces what is there.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also decrypt after every step, and compare with what the noise machine promises.
    #[arg(long)]
    precision: bool,
    #[command(flatten)]
    profile: ProfileOption,
    #[command(flatten)]
    prices: PricesOption,
}

/// Where the time of one forward pass goes, on text of the wanted length.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let json = outputs.report("--json-file", options.json_file.as_deref())?;
    let html = outputs.report("--html", options.html.as_deref())?;
    let loaded = options.batch.put_on(options.model.load()?)?;
    let cost = options.prices.table(options.profile.small())?;
    let setup = Setup::on(loaded, options.length, &options.profile.wanted()?, &cost)?;
    let prompts = setup::samples(&setup.loaded, options.length)?;
    let text = |prompt: &Vec<u32>| setup.loaded.tokenizer.decode(prompt);
    let text = prompts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n");
    let mut console = Console::new(!as_json);
    console.line(&setup.summary());
    setup.price_memory()?;
    let session = Session::start(&setup, options.precision, &mut console)?;
    let mut outcome = Outcome::new(&setup, &text, session.seconds_keygen);
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    session.forward_each(&prompts, &mut outcome, &mut console)?;
    if !as_json {
        outcome.print_steps();
    }
    outcome.finish(as_json, json.as_ref(), html.as_ref())
}
