//! `cipherlm demo`: client and server in one process, every answer checked.

use crate::options::{ModelOption, ProfileOption, PromptOption, tokens};
use crate::outcome::Outcome;
use crate::outputs::Outputs;
use crate::prices::PricesOption;
use crate::progress::Console;
use crate::session::Session;
use crate::setup::Setup;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    #[command(flatten)]
    prompt: PromptOption,
    /// How many tokens to generate.
    #[arg(long, default_value = "1", value_parser = tokens())]
    tokens: usize,
    /// Prompt length to plan for (default: the next of 16, 32, 64, 128).
    #[arg(long, value_parser = tokens())]
    length: Option<usize>,
    /// Also write the result as JSON here; replaces what is there.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    /// Write the report as a self-contained HTML page; replaces what is there.
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

/// What is continued when no prompt is given.
const PROMPT: &str = "Once upon a time, there was a little";

/// The main job: the model answers a prompt under encryption, and every answer is checked.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let json = outputs.report("--json-file", options.json_file.as_deref())?;
    let html = outputs.report("--html", options.html.as_deref())?;
    let text = options.prompt.read(Some(PROMPT))?;
    let loaded = options.model.load()?;
    loaded.ensure_continues("demo")?;
    let mut prompt = loaded.tokens(&text, options.tokens)?;
    let need = prompt.len() + options.tokens - 1;
    let small = options.profile.small().then_some(need);
    let cost = options.prices.table(small.is_some())?;
    let setup = Setup::new(loaded, options.length.or(small), need, &options.profile.wanted()?, &cost)?;
    let mut console = Console::new(!as_json);
    console.line(&setup.summary());
    setup.price_memory()?;
    let session = Session::start(&setup, options.precision, &mut console)?;
    let mut outcome = Outcome::new(&setup, &text, session.seconds_keygen);
    for _ in 0..options.tokens {
        let token = session.forward(&prompt, &mut outcome, &mut console)?;
        prompt.push(token);
        console.line(&format!("  token: {:?}", setup.loaded.answer(&[token])));
    }
    outcome.finish(as_json, json.as_ref(), html.as_ref())
}
