//! `cipherlm decrypt`: the most likely next token out of an encrypted answer.

use crate::flags;
use crate::party::{SECRET, description, load_note, load_secret, read, setup_of};
use crate::sampler::argmax;
use crate::setup::Setup;
use anyhow::{Context, bail};
use cipherlm_infer::{Client, EncryptedLogits};
use cipherlm_model::{Mode, Positions, Runner};
use serde_json::json;

/// Bits of a logit's range that are shown, and what bounds the error of a slot: measured errors are below 2^-13.
const SHOWN_BITS: f64 = 8.0;
const SLOT_ERROR: f64 = 1.0 / 4096.0;

/// Decrypts an answer and says the most likely next token.
pub(crate) fn run(args: &flags::Decrypt, as_json: bool) -> anyhow::Result<bool> {
    let keys = description(&args.keys)?;
    let setup = setup_of(&keys, args.model.as_deref())?;
    let note = args.note.as_deref().map(load_note).transpose()?;
    if note.as_ref().is_some_and(|note| note.plan != keys.plan || note.key_id != keys.key_id) {
        bail!(
            "the note belongs to a prompt under other keys: pass the note that lies beside the prompt of this answer"
        );
    }
    let last = note.as_ref().map(|n| n.tokens.len().saturating_sub(1));
    let position = args.position.or(last).context("pass --note or --position")?;
    let params = setup.circuits.params();
    let bytes = read(&args.input, "answer", "it is what `cipherlm run` wrote")?;
    let answer = EncryptedLogits::from_bytes(params, &bytes)
        .with_context(|| format!("{}: ask the server for the answer again", args.input.display()))?;
    let client = Client::with_secret(load_secret(&args.keys.join(SECRET), params)?);
    let again = || format!("{} is no answer to a prompt under these keys", args.input.display());
    let own = client.decrypt(&setup.plan, &answer, position).with_context(again)?;
    let shown = client.decrypt_public(&setup.plan, &answer, position, SHOWN_BITS, SLOT_ERROR).with_context(again)?;
    let known = setup.loaded.known(&own);
    let token = argmax(known) as u32;
    let mut order: Vec<usize> = (0..known.len()).collect();
    order.sort_by(|a, b| own[*b].total_cmp(&own[*a]));
    let top: Vec<(u32, f64)> = order.iter().take(args.top.max(1)).map(|&i| (i as u32, shown[i])).collect();
    let check = match note.as_ref().filter(|_| args.check) {
        Some(note) => Some(check(&setup, &note.tokens[..=position.min(note.tokens.len() - 1)], &own)?),
        None => None,
    };
    let pass = check.as_ref().is_none_or(|c| c.same_token);
    if as_json {
        let list: Vec<_> =
            top.iter().map(|(t, logit)| json!({"token": t, "text": setup.text(&[*t]), "logit": logit})).collect();
        let check = check.map(|c| json!({"same_token": c.same_token, "max_abs_error": c.max_abs_error, "mse": c.mse}));
        println!(
            "{}",
            json!({"position": position, "token": token, "text": setup.text(&[token]), "top": list, "check": check, "pass": pass})
        );
        return Ok(pass);
    }
    println!("next token        {:?}", setup.text(&[token]));
    if args.top > 1 {
        top.iter().for_each(|(t, logit)| println!("  {logit:>9.3}  {:?}", setup.text(&[*t])));
    }
    if let Some(c) = check {
        let word = if c.same_token { "the same token" } else { "ANOTHER TOKEN" };
        println!(
            "clear model       {word}; largest difference of a logit {:.1e}, mean square {:.1e}",
            c.max_abs_error, c.mse
        );
    }
    Ok(pass)
}

struct Check {
    same_token: bool,
    max_abs_error: f64,
    mse: f64,
}

/// The answer against the polynomial model in the clear.
fn check(setup: &Setup, tokens: &[u32], answer: &[f64]) -> anyhow::Result<Check> {
    let rows = Runner::new(&setup.loaded.model, Mode::Polynomial)?.forward(tokens, Positions::Last)?;
    let clear = rows.last().context("the clear model returned no logits")?;
    let errors = answer.iter().zip(clear).map(|(a, b)| (a - b).abs());
    Ok(Check {
        same_token: argmax(setup.loaded.known(answer)) == argmax(setup.loaded.known(clear)),
        max_abs_error: errors.clone().fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m }),
        mse: errors.map(|e| e * e).sum::<f64>() / answer.len().max(1) as f64,
    })
}
