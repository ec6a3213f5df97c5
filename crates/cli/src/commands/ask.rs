//! `cipherlm ask`: a prompt to a server and back, encrypted all the way.

use crate::console::{out_json, say};
use crate::network::{ServerOption, party_of, wait};
use crate::options::{PlanSource, PromptOption, count};
use crate::party::description;
use crate::progress::Console;
use crate::system::mib;
use anyhow::Context;
use cipherlm_infer::{Client, EncryptedLogits, SECRET_FILE, load_secret};
use cipherlm_model::Kind;
use cipherlm_protocol::Event;
use clap::Args;
use serde_json::json;
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `keygen` made.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    server: ServerOption,
    #[command(flatten)]
    prompt: PromptOption,
    #[command(flatten)]
    source: PlanSource,
    /// Show this many of the most likely tokens, with logits rounded so that they may be shared.
    #[arg(long, default_value = "1", value_parser = count(1..=1 << 20))]
    top: usize,
    /// Keep the encrypted prompt and answer in these files, for `run` and `decrypt`.
    #[arg(long, num_args = 2, value_names = ["PROMPT", "ANSWER"])]
    keep: Vec<PathBuf>,
}

/// Asks one prompt.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let text = options.prompt.read(None)?;
    let keys = description(&options.keys)?;
    let remote = options.server.remote()?;
    let party = party_of(&keys, &options.source, &remote)?;
    let side = &party.text.side;
    let tokens = party.text.tokens(&text)?;
    let client = Client::with_secret(load_secret(&options.keys.join(SECRET_FILE), side.params())?);
    let prompt = party.encrypt(&client, &[&tokens]).context("encrypting the prompt")?.to_bytes();
    let (console, clock) = (RefCell::new(Console::new(!as_json)), Instant::now());
    let answer = wait(cipherlm_remote::ask(&remote, &keys.key_id, &keys.plan, &prompt, |event| {
        show(&mut console.borrow_mut(), event);
    }))?;
    console.borrow().done();
    let seconds = clock.elapsed().as_secs_f64();
    for (file, bytes) in options.keep.iter().zip([&prompt, &answer]) {
        use cipherlm_files::{Access, Existing, write};
        write(file, bytes, Existing::Refuse, Access::Everyone).context("--keep")?;
    }
    let answered = EncryptedLogits::from_bytes(side.params(), side.small_rings(), &answer)?;
    let opened = party.text.open(&client, &answered, side.answer_position(tokens.len()))?;
    let (order, rounded) = (opened.top(options.top), opened.rounded);
    let best = party.text.meaning(order.get(..1).unwrap_or_default());
    if as_json {
        let row =
            |t: &u32| json!({"token": t, "text": party.text.meaning(&[*t]), "logit": rounded[*t as usize]});
        out_json(&json!({
            "token": order.first(),
            "text": best,
            "top": order.iter().map(row).collect::<Vec<_>>(),
            "seconds": seconds,
            "prompt_bytes": prompt.len(),
            "answer_bytes": answer.len(),
        }));
        return Ok(true);
    }
    match side.plan().model.kind {
        Kind::Decoder => say!("next token        {best:?}"),
        Kind::Encoder { .. } | Kind::Embedder { .. } => say!("answer            {best}"),
    }
    if options.top > 1 {
        order.iter().for_each(|t| say!("  {:>9.3}  {:?}", rounded[*t as usize], party.text.meaning(&[*t])));
    }
    say!(
        "took              {seconds:.1} s; {:.1} MiB sent, {:.1} MiB received",
        mib(prompt.len() as u64),
        mib(answer.len() as u64)
    );
    Ok(true)
}

/// The events of a job on the screen.
fn show(console: &mut Console, event: &Event) {
    match event {
        Event::Queued { position, starts_in } => {
            console.stage(&format!("queued behind {position}, starts in about {starts_in:.0} s"), 0, 1);
        }
        Event::Loading { keys, of } => {
            console.stage("the server loads the keys", *keys as u64, *of as u64);
        }
        Event::Step { step, steps, name, layer, level, refresh, elapsed, left } => {
            let seconds = |x: &f64| Duration::try_from_secs_f64(*x).unwrap_or_default();
            console.step(&cipherlm_infer::Progress {
                step: *step,
                steps: *steps,
                name,
                layer: *layer,
                level: *level,
                refresh: *refresh,
                elapsed: seconds(elapsed),
                left: seconds(left),
            });
        }
        _ => {}
    }
}
