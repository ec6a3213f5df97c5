//! Commands that plan or run under encryption.

pub(crate) mod decode;
mod outcome;
mod precision;
mod run;
mod setup;

pub(crate) use outcome::Outcome;
pub(crate) use run::Console;
pub(crate) use setup::{Setup, insecure_profile};

use crate::flags;
use anyhow::{Context, bail};
use serde_json::json;
use std::path::Path;

/// What the JSON of a plan calls itself.
pub(crate) const PLAN: &str = "cipherlm plan 1";

/// The main job: the model answers a prompt under encryption, and every answer is checked.
pub(crate) fn demo(args: &flags::Demo, as_json: bool) -> anyhow::Result<bool> {
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
    let mut progress = run::Console::new(!as_json);
    progress.line(&setup.summary());
    setup.price_memory()?;
    let session = run::Session::start(&setup, args.precision, &mut progress)?;
    let mut outcome = Outcome::new(&setup, &args.prompt, session.seconds_keygen);
    for _ in 0..args.tokens {
        let token = session.forward(&prompt, &mut outcome, &mut progress)?;
        prompt.push(token);
        progress.line(&format!("  token: {:?}", setup.text(&[token])));
    }
    finish(&outcome, as_json, args.json_file.as_deref(), args.html.as_deref())
}

/// Where the time of one forward pass goes, on text of the wanted length.
pub(crate) fn profile(args: &flags::Profile, as_json: bool) -> anyhow::Result<bool> {
    let loaded = crate::model::load(args.model.as_deref())?;
    let prompt = setup::sample(&loaded, args.length)?;
    let text = loaded.tokenizer.decode(&prompt).unwrap_or_default();
    let setup = Setup::new(loaded, Some(args.length), prompt.len(), args.profile.chain())?;
    let mut progress = run::Console::new(!as_json);
    progress.line(&setup.summary());
    setup.price_memory()?;
    let session = run::Session::start(&setup, args.precision, &mut progress)?;
    let mut outcome = Outcome::new(&setup, &text, session.seconds_keygen);
    session.forward(&prompt, &mut outcome, &mut progress)?;
    finish(&outcome, as_json, args.json_file.as_deref(), args.html.as_deref())
}

/// Compiles a plan and prints it.
pub(crate) fn plan(args: &flags::Plan, as_json: bool) -> anyhow::Result<bool> {
    let loaded = crate::model::load(args.model.as_deref())?;
    let setup = Setup::new(loaded, Some(args.length), args.length, args.profile.chain())?;
    if as_json {
        let (stored, resident) = setup.circuits.key_bytes(&setup.plan)?;
        let (params, plan) = (setup.circuits.params(), &setup.plan);
        println!(
            "{}",
            json!({"format": PLAN, "id": plan.id(), "model": setup.loaded.model.spec().name, "length": plan.tokens(),
                "profile": setup.profile.name, "ring_degree": params.degree(), "log_qp": params.log_qp(),
                "security_bits": params.security().bits, "seconds_predicted": plan.seconds(), "bootstraps": plan.refreshes().0,
                "bootstraps_by_layer": plan.refreshes_by_layer(), "key_bytes": stored, "key_bytes_resident": resident,
                "steps": plan.schedule()})
        );
        return Ok(true);
    }
    println!("{}", setup.summary());
    if args.explain {
        println!("{}", setup.plan.explain());
    }
    Ok(true)
}

fn finish(outcome: &Outcome<'_>, as_json: bool, json: Option<&Path>, html: Option<&Path>) -> anyhow::Result<bool> {
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
