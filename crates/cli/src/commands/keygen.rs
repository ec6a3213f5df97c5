//! `cipherlm keygen`: a secret key, and the evaluation keys that a server needs for one plan.

use crate::console::Console;
use crate::flags;
use crate::party::{SECRET, SERVER, description, load_secret, write_private};
use crate::setup::{Setup, insecure_profile};
use crate::system::{available_memory, free_disk, gib};
use anyhow::{Context, bail};
use cipherlm_ckks::SecretKey;
use cipherlm_infer::KeyFolder;
use serde_json::json;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Instant;

/// Makes the keys, after saying what they will take.
pub(crate) fn run(args: &flags::Keygen, as_json: bool) -> anyhow::Result<bool> {
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
