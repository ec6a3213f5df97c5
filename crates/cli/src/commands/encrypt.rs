//! `cipherlm encrypt`: a prompt into a file for the server.

use crate::console::{out_json, say};
use crate::options::{IndexOption, PlanSource, PromptOption};
use crate::outputs::Outputs;
use crate::party::{Party, description};
use anyhow::Context;
use cipherlm_files::{Access, shown};
use cipherlm_infer::{Asked, Client, Note, SECRET_FILE, SERVER_FOLDER, load_secret};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `keygen` made.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    prompt: PromptOption,
    /// Where to write the encrypted prompt; a note with the prompt's tokens, for `decrypt`, is put
    /// beside it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The position to ask for, from 0, or `all`, which makes for a large answer (default: the last
    /// token, the first one of a classifier, all of a model of sentence vectors).
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

/// Encrypts a prompt.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let out = outputs.file("--out", &options.out, options.force)?;
    let note_out = outputs.file("the note beside --out", &Note::beside(&options.out), options.force)?;
    let text = options.prompt.read(None)?;
    let keys = description(&options.keys)?;
    let party = Party::of(&keys, &options.source, options.index.library()?.as_ref())?;
    let side = &party.text.side;
    let tokens = party.text.tokens(&text)?;
    let client = Client::with_secret(load_secret(&options.keys.join(SECRET_FILE), side.params())?);
    if let Some(Asked::Position(position)) = options.position {
        side.check_position(position, tokens.len()).context("--position")?;
    }
    let mut prompt = party.encrypt(&client, &tokens).context("encrypting the prompt")?;
    prompt.asked = options.position.unwrap_or(prompt.asked);
    let prompt = prompt.to_bytes();
    let note = Note { format: Note::FORMAT.into(), plan: keys.plan, key_id: keys.key_id, tokens };
    // The note first: an encrypted prompt without one could not be read back.
    note_out.write(&serde_json::to_vec(&note)?, Access::Owner)?;
    out.write(&prompt, Access::Everyone)?;
    if as_json {
        out_json(&json!({
            "prompt": shown(out.path()),
            "note": shown(note_out.path()),
            "bytes": prompt.len(),
            "tokens": note.tokens.len(),
            "public_prefix_tokens": side.plan().model.prefix.len(),
            "plan": note.plan,
        }));
    } else {
        let mib = prompt.len() as f64 / 1048576.0;
        say!("encrypted prompt  {}  ({mib:.1} MiB; for the server)", shown(out.path()));
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

/// `all` or a position.
fn positions(text: &str) -> Result<Asked, String> {
    match text.parse() {
        _ if text == "all" => Ok(Asked::All),
        Ok(position @ 0..=0xf_ffff) => Ok(Asked::Position(position)),
        _ => Err("a position from 0, or `all`".into()),
    }
}
