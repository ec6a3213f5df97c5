//! The client's commands: `keygen`, `encrypt`, `decrypt`.

use super::{NOTE, Note, description, must_be_new, read, setup_of, write_private, write_public};
use crate::clear::argmax;
use crate::encrypted::{Console, Setup, insecure_profile};
use crate::flags;
use crate::system::{available_memory, free_disk, gib};
use anyhow::{Context, bail};
use cipherlm_ckks::{Params, SecretKey};
use cipherlm_infer::{Client, EncryptedLogits, KeyFolder};
use cipherlm_model::{Mode, Positions, Runner};
use serde_json::json;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;
use zeroize::Zeroizing;

/// The secret, in the client's folder.
const SECRET: &str = "secret.key";
/// The evaluation keys, in the client's folder.
const SERVER: &str = "server";
/// Bits of a logit's range that are shown, and what bounds the error of a slot: measured errors are below 2^-13.
const SHOWN_BITS: f64 = 8.0;
const SLOT_ERROR: f64 = 1.0 / 4096.0;

/// Makes the keys, after saying what they will take.
pub(crate) fn keygen(args: &flags::Keygen, as_json: bool) -> anyhow::Result<bool> {
    let profile = match args.insecure_ring {
        Some(log_degree) => insecure_profile(log_degree)?,
        None => args.profile.chain(),
    };
    let setup = Setup::on(crate::model::load(args.model.as_deref())?, args.length, profile)?;
    let mut console = Console::new(!as_json);
    console.line(&setup.summary());
    let secret_file = args.out.join(SECRET);
    let (stored, resident) = setup.circuits.key_bytes(&setup.plan)?;
    if args.dry_run {
        if as_json {
            println!("{}", json!({"stored_bytes": stored, "resident_bytes": resident, "plan": setup.plan.id()}));
        }
        return Ok(true);
    }
    if secret_file.exists() && !args.resume {
        bail!(
            "{} is already there and will not be replaced: pass --resume to complete its evaluation keys, or choose another --out",
            secret_file.display()
        );
    }
    let server = args.out.join(SERVER);
    let have = folder_bytes(&server);
    check_room(&setup, &args.out, stored.saturating_sub(have))?;
    let clock = Instant::now();
    let params = setup.circuits.params();
    let secret = if secret_file.exists() {
        let keys = description(&args.out)?;
        if keys.plan != setup.plan.id() {
            bail!(
                "the keys in {} are for model {} at {} tokens (plan {}), not for this plan {}: use the same options, or another --out",
                args.out.display(),
                keys.model,
                keys.tokens,
                keys.plan,
                setup.plan.id()
            );
        }
        load_secret(&secret_file, params)?
    } else {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&args.out)
            .with_context(|| format!("creating {}", args.out.display()))?;
        let secret = SecretKey::generate(params)?;
        KeyFolder::describe(secret.id(), &setup.circuits, &setup.plan, setup.profile.name)?.save(&args.out)?;
        write_private(&secret_file, &secret.to_secret_bytes())?;
        secret
    };
    let keys = KeyFolder::describe(secret.id(), &setup.circuits, &setup.plan, setup.profile.name)?;
    keys.write(&server, &secret, &setup.circuits, &setup.plan, |done| {
        console.stage(&format!("evaluation keys, {:.2} of {:.2} GiB", gib(done), gib(stored)), done, stored);
    })?;
    console.done();
    let seconds = clock.elapsed().as_secs_f64();
    if as_json {
        println!(
            "{}",
            json!({"secret_key": secret_file, "evaluation_keys": server, "key_id": keys.key_id, "plan": keys.plan, "keys": keys.keys,
                "stored_bytes": keys.stored_bytes, "security_bits": keys.security_bits, "seconds": seconds})
        );
    } else {
        println!("secret key        {}  (keep it; whoever has it can read everything)", secret_file.display());
        println!(
            "evaluation keys   {}  ({} keys, {:.2} GiB; for the server)",
            server.display(),
            keys.keys,
            gib(stored)
        );
        println!("made in           {seconds:.1} s");
        println!("next              cipherlm encrypt --keys {} --prompt TEXT --out prompt.bin", args.out.display());
    }
    Ok(true)
}

/// Encrypts a prompt.
pub(crate) fn encrypt(args: &flags::Encrypt, as_json: bool) -> anyhow::Result<bool> {
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

/// Decrypts an answer and says the most likely next token.
pub(crate) fn decrypt(args: &flags::Decrypt, as_json: bool) -> anyhow::Result<bool> {
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
    let token = argmax(&own) as u32;
    let mut order: Vec<usize> = (0..own.len()).collect();
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
        same_token: argmax(answer) == argmax(clear),
        max_abs_error: errors.clone().fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m }),
        mse: errors.map(|e| e * e).sum::<f64>() / answer.len().max(1) as f64,
    })
}

fn load_note(file: &Path) -> anyhow::Result<Note> {
    let bytes = read(file, "note", "it lies beside the encrypted prompt")?;
    let note: Note =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no note of `encrypt`", file.display()))?;
    if note.format != NOTE || note.tokens.is_empty() {
        bail!("{} is no note of `encrypt` in this version's format ({NOTE})", file.display());
    }
    Ok(note)
}

fn note_beside(prompt: &Path) -> PathBuf {
    let mut name = prompt.as_os_str().to_owned();
    name.push(".note");
    name.into()
}

/// Reads the secret key; refuses a file that others may read.
fn load_secret(file: &Path, params: &Params) -> anyhow::Result<SecretKey> {
    let missing =
        || format!("the secret key {}: pass the folder that `cipherlm keygen` made with --keys", file.display());
    let mode = std::fs::metadata(file).with_context(missing)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{} can be read by others (mode {:03o}): chmod 600 {0}", file.display(), mode & 0o777);
    }
    let bytes = Zeroizing::new(std::fs::read(file).with_context(missing)?);
    SecretKey::from_secret_bytes(params, &bytes).with_context(|| {
        format!("{} is not the secret key of these parameters: restore it, or make new keys", file.display())
    })
}

/// Refuses before any work when disk or memory are short.
fn check_room(setup: &Setup, out: &Path, bytes: u64) -> anyhow::Result<()> {
    if let Some(free) = free_disk(out).filter(|free| *free < bytes) {
        bail!(
            "the keys take {:.2} GiB on disk and {:.2} GiB are free at {}: free some, or choose another --out or a shorter --length",
            gib(bytes),
            gib(free),
            out.display()
        );
    }
    // One key a thread is in memory at a time, with its intermediate values.
    let need = setup.plan.working_bytes() / 2;
    if let Some(have) = available_memory().filter(|have| *have < need) {
        bail!(
            "making keys takes {:.2} GiB of memory and {:.2} GiB are free: close other programs",
            gib(need),
            gib(have)
        );
    }
    Ok(())
}

/// Bytes of the files in a folder; nothing if there is none.
fn folder_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).filter(std::fs::Metadata::is_file).map(|m| m.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlm_ckks::bootstrap::Profile;

    #[test]
    fn the_profile_of_every_description_is_found_again() {
        for made in [Profile::n16(), Profile::n16_fast(), insecure_profile(10).unwrap()] {
            assert_eq!(super::super::profile(made.name, made.log_degree).unwrap(), made);
        }
        assert!(super::super::profile("n17", 17).is_err() && insecure_profile(16).is_err());
    }

    #[test]
    fn a_note_stands_beside_its_prompt() {
        assert_eq!(note_beside(Path::new("a/prompt.bin")), Path::new("a/prompt.bin.note"));
    }
}
