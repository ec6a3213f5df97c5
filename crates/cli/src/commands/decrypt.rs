//! `cipherlm decrypt`: the most likely next token, or the class, out of an encrypted answer; of
//! several prompts in one pass that of each.

use crate::console::{out_json, say};
use crate::library::{Hit, Library, best};
use crate::options::{IndexOption, PlanSource, count};
use crate::party::{Party, description, load_note, read_message};
use crate::sampler::argmax;
use crate::sentence::dot;
use crate::setup::Setup;
use anyhow::{Context, bail};
use cipherlm_files::shown;
use cipherlm_infer::{Client, EncryptedLogits, Found, Note, Opened, SECRET_FILE, TextSide, load_secret};
use cipherlm_model::{Kind, Mode};
use clap::Args;
use serde_json::{Value, json};
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
    /// The prompt's position to read, from 0, of several prompts the same of each (default: the one
    /// that was asked for; of an answer at all of them the last token, or the first one of a
    /// classifier).
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
    let opened = open(options, &party.text, note.as_ref())?;
    let checked: Vec<Option<&[u32]>> = match note.as_ref().filter(|_| options.check) {
        Some(note) => note.prompts().map(Some).collect(),
        None => vec![None; opened.len()],
    };
    if party.text.side.documents() > 0 {
        let (Some((_, opened)), tokens) = (opened.first(), checked.first().copied().flatten()) else {
            bail!("the answer holds no prompt");
        };
        return documents(&opened.own, &party, library.as_ref(), tokens, options.top, as_json);
    }
    let answers = opened.into_iter().zip(checked);
    let answers = answers
        .map(|((position, opened), tokens)| Answer::new(&party, position, opened, tokens, options.top));
    let answers = answers.collect::<anyhow::Result<Vec<_>>>()?;
    let pass = answers.iter().all(Answer::passes);
    if as_json {
        let mut rows = answers.iter().map(|answer| answer.json(&party.text));
        let mut object = match keys.prompts {
            1 => rows.next().unwrap_or_default(),
            _ => json!({"prompts": rows.collect::<Vec<_>>()}),
        };
        object["pass"] = pass.into();
        out_json(&object);
        return Ok(pass);
    }
    for (number, answer) in (1..).zip(&answers) {
        if keys.prompts > 1 {
            say!("prompt {number}");
        }
        answer.print(&party.text);
    }
    Ok(pass)
}

/// What an answer says to one prompt.
struct Answer {
    position: usize,
    /// Results, best first.
    order: Vec<u32>,
    rounded: Vec<f64>,
    check: Option<Check>,
}

impl Answer {
    /// `tokens`: those of the prompt, to compare with the model in the clear.
    fn new(
        party: &Party,
        position: usize,
        opened: Opened,
        tokens: Option<&[u32]>,
        top: usize,
    ) -> anyhow::Result<Self> {
        let check = match (tokens, &party.setup) {
            (Some(tokens), Some(setup)) => Some(check(setup, seen(tokens, setup, position), &opened.own)?),
            _ => None,
        };
        Ok(Self { position, order: opened.top(top), rounded: opened.rounded, check })
    }

    fn passes(&self) -> bool {
        self.check.as_ref().is_none_or(|check| check.same_token)
    }

    fn best(&self, text: &TextSide) -> String {
        text.meaning(self.order.get(..1).unwrap_or_default())
    }

    fn json(&self, text: &TextSide) -> Value {
        let row =
            |t: &u32| json!({"token": t, "text": text.meaning(&[*t]), "logit": self.rounded[*t as usize]});
        let check = self
            .check
            .as_ref()
            .map(|c| json!({"same_token": c.same_token, "max_abs_error": c.max_abs_error, "mse": c.mse}));
        json!({
            "position": self.position,
            "token": self.order.first(),
            "text": self.best(text),
            "top": self.order.iter().map(row).collect::<Vec<_>>(),
            "check": check,
        })
    }

    fn print(&self, text: &TextSide) {
        let best = self.best(text);
        match text.side.plan().model.kind {
            Kind::Decoder => say!("next token        {best:?}"),
            Kind::Encoder { .. } | Kind::Embedder { .. } => say!("answer            {best}"),
        }
        if self.order.len() > 1 {
            let rows = self.order.iter();
            rows.for_each(|t| say!("  {:>9.3}  {:?}", self.rounded[*t as usize], text.meaning(&[*t])));
        }
        if let Some(c) = &self.check {
            let word = if c.same_token { "the same answer" } else { "ANOTHER ANSWER" };
            let (worst, mse) = (c.max_abs_error, c.mse);
            say!(
                "clear model       {word}; largest difference of a logit {worst:.1e}, mean square {mse:.1e}"
            );
        }
    }
}

/// For each prompt the position that is read, and the results there. Without a note nobody knows
/// which prompts only fill a place: all are read.
fn open(options: &Options, text: &TextSide, note: Option<&Note>) -> anyhow::Result<Vec<(usize, Opened)>> {
    let params = text.side.params();
    let bytes = read_message(&options.input, "answer", "it is what `cipherlm run` wrote")?;
    let answer = EncryptedLogits::from_bytes(params, text.side.small_rings(), &bytes)
        .with_context(|| format!("{}: ask the server for the answer again", shown(&options.input)))?;
    let client = Client::with_secret(load_secret(&options.keys.join(SECRET_FILE), params)?);
    let mut positions = text.side.positions(&answer);
    positions.truncate(note.map_or(usize::MAX, |note| note.prompts().count()));
    if let Some(position) = options.position {
        positions.fill(position);
    }
    let again = || format!("{} is no answer to a prompt under these keys", shown(&options.input));
    let opened = text.open_each(&client, &answer, &positions).with_context(again)?;
    Ok(positions.into_iter().zip(opened).collect())
}

/// The tokens that the result at a position depends on.
fn seen<'t>(tokens: &'t [u32], setup: &Setup, position: usize) -> &'t [u32] {
    match setup.loaded.model.shape().kind {
        Kind::Decoder => &tokens[..tokens.len().min(position + 1)],
        Kind::Encoder { .. } | Kind::Embedder { .. } => tokens,
    }
}

/// The best documents of a search, beside those of the model in the clear where that is asked for.
fn documents(
    answer: &[f64],
    party: &Party,
    library: Option<&Library>,
    tokens: Option<&[u32]>,
    top: usize,
    as_json: bool,
) -> anyhow::Result<bool> {
    let found = Found::of(answer, party.text.side.plan().model.embedding.d_model)?;
    let hits = best(&found.scores, top);
    let rows = match library {
        Some(library) => library.rows(&hits),
        None => {
            let row = |(hit, place): (&Hit, usize)| {
                let (document, score) = (hit.at, hit.shown());
                json!({"place": place, "document": document, "score": score})
            };
            hits.iter().zip(1..).map(row).collect()
        }
    };
    let check = match (tokens, &party.setup, library) {
        (Some(tokens), Some(setup), Some(library)) => {
            let vector = setup.loaded.reference(Mode::Polynomial, tokens)?;
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
