//! `cipherlm decrypt`: the most likely next token, or the class, out of an encrypted answer.

use crate::console::{out_json, say};
use crate::library::{Hit, Library, best};
use crate::options::{IndexOption, PlanSource, count};
use crate::party::{Party, description, load_note, read_message};
use crate::sampler::argmax;
use crate::sentence::dot;
use crate::setup::Setup;
use anyhow::{Context, bail};
use cipherlm_files::shown;
use cipherlm_infer::{
    Asked, Client, EncryptedLogits, Found, Note, Opened, SECRET_FILE, TextSide, load_secret,
};
use cipherlm_model::{Kind, Mode};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `keygen` made.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The encrypted answer.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The note that `encrypt` left beside the prompt.
    #[arg(long, value_name = "FILE", required_unless_present = "position")]
    note: Option<PathBuf>,
    /// The prompt's position to read, from 0 (default: the one that was asked for; of an answer at
    /// all of them the last token, or the first one of a classifier).
    #[arg(long, value_parser = count(0..=1 << 20))]
    position: Option<usize>,
    #[command(flatten)]
    source: PlanSource,
    #[command(flatten)]
    index: IndexOption,
    /// Show this many of the most likely tokens, with logits rounded so that they may be shared; of
    /// a search, this many of the best documents.
    #[arg(long, default_value = "1", value_parser = count(1..=1 << 20))]
    top: usize,
    /// Compare with the model in the clear; needs the note and the model.
    #[arg(long, requires = "note", conflicts_with = "plan")]
    check: bool,
}

/// Decrypts an answer and says what it is.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let keys = description(&options.keys)?;
    let note = options.note.as_deref().map(load_note).transpose()?;
    if note.as_ref().is_some_and(|note| note.plan != keys.plan || note.key_id != keys.key_id) {
        bail!(
            "the note belongs to a prompt under other keys: pass the note that lies beside the prompt of \
             this answer"
        );
    }
    let library = options.index.library()?;
    let party = Party::of(&keys, &options.source, library.as_ref())?;
    let (position, opened) = open(options, &party.text)?;
    let own = &opened.own;
    if party.text.side.documents() > 0 {
        let note = note.as_ref().filter(|_| options.check);
        return documents(own, &party, library.as_ref(), note, options.top, as_json);
    }
    let check = match (note.as_ref().filter(|_| options.check), &party.setup) {
        (Some(note), Some(setup)) => Some(check(setup, seen(note, setup, position), own)?),
        _ => None,
    };
    let pass = check.as_ref().is_none_or(|c| c.same_token);
    let (order, rounded) = (opened.top(options.top), &opened.rounded);
    let best = party.text.meaning(order.get(..1).unwrap_or_default());
    if as_json {
        let row =
            |t: &u32| json!({"token": t, "text": party.text.meaning(&[*t]), "logit": rounded[*t as usize]});
        let check = check
            .map(|c| json!({"same_token": c.same_token, "max_abs_error": c.max_abs_error, "mse": c.mse}));
        let top: Vec<_> = order.iter().map(row).collect();
        out_json(&json!({
            "position": position,
            "token": order.first(),
            "text": best,
            "top": top,
            "check": check,
            "pass": pass
        }));
        return Ok(pass);
    }
    match party.text.side.plan().model.kind {
        Kind::Decoder => say!("next token        {best:?}"),
        Kind::Encoder { .. } | Kind::Embedder { .. } => say!("answer            {best}"),
    }
    if options.top > 1 {
        order.iter().for_each(|t| say!("  {:>9.3}  {:?}", rounded[*t as usize], party.text.meaning(&[*t])));
    }
    if let Some(c) = check {
        let word = if c.same_token { "the same answer" } else { "ANOTHER ANSWER" };
        let (worst, mse) = (c.max_abs_error, c.mse);
        say!("clear model       {word}; largest difference of a logit {worst:.1e}, mean square {mse:.1e}");
    }
    Ok(pass)
}

/// The position that is read, and the results there.
fn open(options: &Options, text: &TextSide) -> anyhow::Result<(usize, Opened)> {
    let params = text.side.params();
    let bytes = read_message(&options.input, "answer", "it is what `cipherlm run` wrote")?;
    let answer = EncryptedLogits::from_bytes(params, text.side.small_rings(), &bytes)
        .with_context(|| format!("{}: ask the server for the answer again", shown(&options.input)))?;
    let client = Client::with_secret(load_secret(&options.keys.join(SECRET_FILE), params)?);
    let held = match answer.asked {
        Asked::Position(position) => position,
        Asked::All => text.side.answer_position(answer.length),
    };
    let position = options.position.unwrap_or(held);
    let again = || format!("{} is no answer to a prompt under these keys", shown(&options.input));
    Ok((position, text.open(&client, &answer, position).with_context(again)?))
}

/// The tokens that the result at a position depends on.
fn seen<'n>(note: &'n Note, setup: &Setup, position: usize) -> &'n [u32] {
    match setup.loaded.model.shape().kind {
        Kind::Decoder => &note.tokens[..note.tokens.len().min(position + 1)],
        Kind::Encoder { .. } | Kind::Embedder { .. } => &note.tokens,
    }
}

/// The best documents of a search, beside those of the model in the clear where that is asked for.
fn documents(
    answer: &[f64],
    party: &Party,
    library: Option<&Library>,
    note: Option<&Note>,
    top: usize,
    as_json: bool,
) -> anyhow::Result<bool> {
    let found = Found::of(answer, party.text.side.plan().model.embedding.d_model)?;
    let hits = best(&found.scores, top);
    let rows = match library {
        Some(library) => library.rows(&hits),
        None => {
            let row = |(hit, place): (&Hit, usize)| json!({"place": place, "document": hit.at, "score": hit.shown()});
            hits.iter().zip(1..).map(row).collect()
        }
    };
    let check = match (note, &party.setup, library) {
        (Some(note), Some(setup), Some(library)) => {
            let vector = setup.loaded.reference(Mode::Polynomial, &note.tokens)?;
            let wanted = best(&library.scores(&vector), 1);
            let same = wanted.first().map(|hit| hit.at) == hits.first().map(|hit| hit.at);
            Some((same, dot(&vector, &found.vector)))
        }
        _ => None,
    };
    let pass = check.is_none_or(|(same, _)| same);
    if as_json {
        let check = check.map(|(same, cosine)| json!({"same_first": same, "cosine": cosine}));
        out_json(&json!({"documents": found.scores.len(), "results": rows, "check": check, "pass": pass}));
        return Ok(pass);
    }
    for hit in &hits {
        match library.map(|library| &library.documents[hit.at]) {
            Some(document) => say!("{:>8.3}  {:<10} {}", hit.score, document.id, document.text),
            None => say!("{:>8.3}  document {} of {}", hit.score, hit.at, found.scores.len()),
        }
    }
    if let Some((same, cosine)) = check {
        let word = if same { "the same first answer" } else { "ANOTHER FIRST ANSWER" };
        say!("clear model       {word}; cosine of the question's vector {cosine:.6}");
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
    let clear = setup.loaded.reference(Mode::Polynomial, tokens)?;
    let errors = answer.iter().zip(&clear).map(|(a, b)| (a - b).abs());
    Ok(Check {
        same_token: argmax(answer) == argmax(&clear),
        max_abs_error: errors.clone().fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m }),
        mse: errors.map(|e| e * e).sum::<f64>() / answer.len().max(1) as f64,
    })
}
