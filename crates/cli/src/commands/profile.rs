//! `cipherlm profile`: where the time of one encrypted forward pass goes.

use crate::console::Console;
use crate::options::{ModelOption, ParameterSet, small_ring, tokens};
use crate::outcome::Outcome;
use crate::outputs::Outputs;
use crate::session::Session;
use crate::setup::{self, Setup, insecure_profile};
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
    /// NO SECURITY: a small ring of degree 2^LOG_N, to try the command in seconds; its result does
    /// not pass.
    #[arg(long, value_name = "LOG_N", value_parser = small_ring)]
    insecure_ring: Option<u32>,
    /// Parameter set, 128-bit secure.
    #[arg(long, value_enum, default_value = "n16")]
    profile: ParameterSet,
}

/// Where the time of one forward pass goes, on text of the wanted length.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let json = outputs.report("--json-file", options.json_file.as_deref())?;
    let html = outputs.report("--html", options.html.as_deref())?;
    let loaded = crate::model::load(options.model.get())?;
    let prompt = setup::sample(&loaded, options.length)?;
    let text = loaded.tokenizer.decode(&prompt)?;
    let profile = match options.insecure_ring {
        Some(log_degree) => insecure_profile(log_degree)?,
        None => options.profile.chain(),
    };
    let setup = Setup::on(loaded, options.length, profile)?;
    let mut console = Console::new(!as_json);
    console.line(&setup.summary());
    setup.price_memory()?;
    let session = Session::start(&setup, options.precision, &mut console)?;
    let mut outcome = Outcome::new(&setup, &text, session.seconds_keygen);
    session.forward(&prompt, &mut outcome, &mut console)?;
    outcome.finish(as_json, json.as_ref(), html.as_ref())
}
