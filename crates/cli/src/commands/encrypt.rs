//! `cipherlm encrypt`: a prompt, or several for one pass, into a file for the server.

use crate::console::{out_json, say};
use crate::options::{IndexOption, PlanSource, PromptOption, PromptsOption};
use crate::outputs::Outputs;
use crate::party::{Party, description};
use crate::system::mib;
use anyhow::{Context, bail};
use cipherlm_files::{Access, shown};
use cipherlm_infer::{Asked, Client, KeyFolder, Note, SECRET_FILE, SERVER_FOLDER, TextSide, load_secret};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `keygen` made.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    prompt: PromptOption,
    #[command(flatten)]
    prompts: PromptsOption,
    /// Where to write the encrypted prompt; a note with the prompt's tokens, for `decrypt`, is put
    /// beside it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The position to ask for, from 0, or `all`, which makes for a large answer (default: the last
    /// token, the first one of a classifier, all of a model of sentence vectors; of several prompts
    /// that of each).
    #[arg(long, value_name = "POSITION", value_parser = positions)]
    position: Option<Asked>,
    #[command(flatten)]
    source: PlanSource,
    #[command(flatten)]
    index: IndexOption,
    /// Overwrite what is there.
    #[arg(long)]
    force: bool,
}

/// Encrypts a prompt, or several for one pass.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let out = outputs.file("--out", &options.out, options.force)?;
    let note_out = outputs.file("the note beside --out", &Note::beside(&options.out), options.force)?;
    let texts = match options.prompts.read()? {
        Some(texts) => texts,
        None => vec![options.prompt.read(None)?],
    };
    let keys = description(&options.keys)?;
    ensure_they_fit(&texts, &keys, &options.keys)?;
    let party = Party::of(&keys, &options.source, options.index.library()?.as_ref())?;
    let side = &party.text.side;
    let prompts = tokens(&party.text, &texts, options.position)?;
    let client = Client::with_secret(load_secret(&options.keys.join(SECRET_FILE), side.params())?);
    let all: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let what = if all.len() > 1 { "encrypting the prompts" } else { "encrypting the prompt" };
    let mut prompt = party.encrypt(&client, &all).context(what)?;
    prompt.asked = options.position.unwrap_or(prompt.asked);
    let prompt = prompt.to_bytes();
    let mut others = prompts.into_iter();
    let tokens = others.next().unwrap_or_default();
    let (format, others) = (Note::FORMAT.into(), others.collect());
    let note = Note { format, plan: keys.plan, key_id: keys.key_id, tokens, others };
    // The note first: an encrypted prompt without one could not be read back.
    note_out.write(&serde_json::to_vec(&note)?, Access::Owner)?;
    out.write(&prompt, Access::Everyone)?;
    if as_json {
        out_json(&json!({
            "prompt": shown(out.path()),
            "note": shown(note_out.path()),
            "bytes": prompt.len(),
            "tokens": note.prompts().map(<[u32]>::len).max(),
            "prompts": note.prompts().count(),
            "public_prefix_tokens": side.plan().model.prefix.len(),
            "plan": note.plan,
        }));
    } else {
        let mib = mib(prompt.len() as u64);
        say!("encrypted prompt  {}  ({mib:.1} MiB; for the server)", shown(out.path()));
        if side.prompts() > 1 {
            say!("prompts           {} of {} places", note.prompts().count(), side.prompts());
        }
        if !side.plan().model.prefix.is_empty() {
            say!(
                "in the clear      {} tokens before it, which the server knows",
                side.plan().model.prefix.len()
            );
        }
        say!("note              {}  (keep it: it holds the prompt)", shown(note_out.path()));
        say!(
            "next              on the server: cipherlm run --keys {} --input {} --out answer.bin",
            shown(&options.keys.join(SERVER_FOLDER)),
            shown(out.path())
        );
    }
    Ok(true)
}

/// Refuses more prompts than the keys are for, before anything is planned.
fn ensure_they_fit(texts: &[String], keys: &KeyFolder, folder: &Path) -> anyhow::Result<()> {
    if texts.len() <= keys.prompts {
        return Ok(());
    }
    bail!(
        "--prompts: {} prompts, and the keys in {} are for {} in one pass: split the file, or make keys with \
         `cipherlm keygen --prompts {}`",
        texts.len(),
        shown(folder),
        keys.prompts,
        texts.len().next_power_of_two()
    )
}

/// The tokens of every prompt; where there are several, a refusal says which one it is for.
fn tokens(text: &TextSide, prompts: &[String], asked: Option<Asked>) -> anyhow::Result<Vec<Vec<u32>>> {
    let one = |prompt: &String| -> anyhow::Result<Vec<u32>> {
        let tokens = text.tokens(prompt)?;
        if let Some(Asked::Position(position)) = asked {
            text.side.check_position(position, tokens.len()).context("--position")?;
        }
        Ok(tokens)
    };
    let numbered = |(number, prompt)| match prompts {
        [_] => one(prompt),
        _ => one(prompt).with_context(|| format!("prompt {number}")),
    };
    (1..).zip(prompts).map(numbered).collect()
}

/// `all` or a position.
fn positions(text: &str) -> Result<Asked, String> {
    match text.parse() {
        _ if text == "all" => Ok(Asked::All),
        Ok(position @ 0..=0xf_ffff) => Ok(Asked::Position(position)),
        _ => Err("a position from 0, or `all`".into()),
    }
}
