//! `cipherlm demo`: client and server in one process, every answer checked.

use crate::console::Console;
use crate::flags;
use crate::outcome::Outcome;
use crate::session::Session;
use crate::setup::{Setup, insecure_profile};
use anyhow::{Context, bail};
use std::path::Path;

/// The main job: the model answers a prompt under encryption, and every answer is checked.
pub(crate) fn run(args: &flags::Demo, as_json: bool) -> anyhow::Result<bool> {
    if args.tokens == 0 {
        bail!("--tokens 0 generates nothing: ask for at least 1");
    }
    let loaded = crate::model::load(args.model.as_deref())?;
    let mut prompt = loaded.tokens(&args.prompt, args.tokens)?;
    let need = prompt.len() + args.tokens - 1;
    let setup = match args.insecure_ring {
        Some(log_degree) => Setup::on(loaded, args.length.unwrap_or(need), insecure_profile(log_degree)?)?,
        None => Setup::new(loaded, args.length, need, args.profile.chain())?,
    };
    let mut progress = Console::new(!as_json);
    progress.line(&setup.summary());
    setup.price_memory()?;
    let session = Session::start(&setup, args.precision, &mut progress)?;
    let mut outcome = Outcome::new(&setup, &args.prompt, session.seconds_keygen);
    for _ in 0..args.tokens {
        let token = session.forward(&prompt, &mut outcome, &mut progress)?;
        prompt.push(token);
        progress.line(&format!("  token: {:?}", setup.text(&[token])));
    }
    finish(&outcome, as_json, args.json_file.as_deref(), args.html.as_deref())
}

/// Writes and prints what a run showed.
pub(super) fn finish(
    outcome: &Outcome<'_>,
    as_json: bool,
    json: Option<&Path>,
    html: Option<&Path>,
) -> anyhow::Result<bool> {
    let object = outcome.json();
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&object)?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    if let Some(file) = html {
        std::fs::write(file, crate::report::render(&outcome.page()))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    if as_json {
        println!("{object}");
    } else {
        outcome.print();
    }
    Ok(outcome.pass())
}
