//! `cipherlm profile`: where the time of one encrypted forward pass goes.

use crate::options::{ModelOption, ProfileOption, tokens};
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
    let loaded = options.model.load()?;
    let prompt = setup::sample(&loaded, options.length)?;
    let text = loaded.tokenizer.decode(&prompt)?;
    let cost = options.prices.table(options.profile.small())?;
    let setup = Setup::on(loaded, options.length, &options.profile.wanted()?, &cost)?;
    let mut console = Console::new(!as_json);
    console.line(&setup.summary());
    setup.price_memory()?;
    let session = Session::start(&setup, options.precision, &mut console)?;
    let mut outcome = Outcome::new(&setup, &text, session.seconds_keygen);
    session.forward(&prompt, &mut outcome, &mut console)?;
    if !as_json {
        outcome.print_steps();
    }
    outcome.finish(as_json, json.as_ref(), html.as_ref())
}
