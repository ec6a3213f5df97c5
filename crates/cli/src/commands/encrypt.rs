//! `cipherlm encrypt`: a prompt into a file for the server.

use crate::flags;
use crate::party::{
    NOTE, Note, SECRET, SERVER, description, load_secret, must_be_new, note_beside, setup_of, write_private,
    write_public,
};
use anyhow::Context;
use cipherlm_infer::Client;
use serde_json::json;

/// Encrypts a prompt.
pub(crate) fn run(args: &flags::Encrypt, as_json: bool) -> anyhow::Result<bool> {
    must_be_new(&args.out, args.force)?;
    let note_file = note_beside(&args.out);
    must_be_new(&note_file, args.force)?;
    let keys = description(&args.keys)?;
    let setup = setup_of(&keys, args.model.as_deref())?;
    let tokens = setup.loaded.tokens(&args.prompt, 0)?;
    let client = Client::with_secret(load_secret(&args.keys.join(SECRET), setup.circuits.params())?);
    let prompt = client.encrypt(&setup.plan, &tokens).context("encrypting the prompt")?.to_bytes();
    let note = Note { format: NOTE.into(), plan: keys.plan, key_id: keys.key_id, tokens };
    // The note first: an encrypted prompt without one could not be read back.
    write_private(&note_file, &serde_json::to_vec(&note)?)?;
    write_public(&args.out, &prompt)?;
    if as_json {
        let tokens = note.tokens.len();
        println!(
            "{}",
            json!({"prompt": args.out, "note": note_file, "bytes": prompt.len(), "tokens": tokens, "plan": note.plan})
        );
    } else {
        println!(
            "encrypted prompt  {}  ({:.1} MiB; for the server)",
            args.out.display(),
            prompt.len() as f64 / 1048576.0
        );
        println!("note              {}  (keep it: it holds the prompt)", note_file.display());
        println!(
            "next              on the server: cipherlm run --keys {} --input {} --out answer.bin",
            args.keys.join(SERVER).display(),
            args.out.display()
        );
    }
    Ok(true)
}
