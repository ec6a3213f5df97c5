//! The parties as separate programs, files in and files out. [`client`] holds the secret key; [`server`] names no type that could.

pub(crate) mod client;
pub(crate) mod server;

use crate::encrypted::{Setup, insecure_profile};
use anyhow::{Context, bail};
use cipherlm_ckks::bootstrap::Profile;
use cipherlm_infer::KeyFolder;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a client keeps of a prompt: where the answer stands, and the tokens, to compare it with.
#[derive(Serialize, Deserialize)]
struct Note {
    format: String,
    plan: String,
    key_id: String,
    tokens: Vec<u32>,
}

pub(crate) const NOTE: &str = "cipherlm client note 1";

/// The profile that a description names.
fn profile(name: &str, log_degree: u32) -> anyhow::Result<Profile> {
    let secure = [Profile::n16(), Profile::n16_fast()].into_iter().find(|p| p.name == name);
    match secure {
        Some(profile) => Ok(profile),
        None if name == insecure_profile(10)?.name => insecure_profile(log_degree),
        None => bail!("these keys are for the profile `{name}`, which this version does not have: make new ones"),
    }
}

/// Loads the model and makes the plan again that a description names.
fn setup_of(keys: &KeyFolder, model: Option<&Path>) -> anyhow::Result<Setup> {
    let loaded = crate::model::load(model)?;
    let profile = profile(&keys.profile, keys.log_degree)?;
    if profile.insecure {
        eprintln!("WARNING: these keys are for a small ring and protect nothing");
    }
    let setup = Setup::on(loaded, keys.tokens, profile)?;
    let plan = setup.plan.id();
    if plan != keys.plan {
        bail!(
            "the keys were made for plan {} of model {} at {} tokens, and this model ({}) compiles to plan {plan}: pass the same \
             --model to every command, or make new keys with this version of cipherlm",
            keys.plan,
            keys.model,
            keys.tokens,
            setup.loaded.model.spec().name,
        );
    }
    Ok(setup)
}

/// The description in a folder that `keygen` made.
fn description(directory: &Path) -> anyhow::Result<KeyFolder> {
    let found = KeyFolder::find(directory)?;
    let (keys, _) = found.with_context(|| {
        format!("{} is not a folder that `cipherlm keygen` made: it holds no keys.json", directory.display())
    })?;
    Ok(keys)
}

/// Refuses an output that is there already, before any work is done for it.
fn must_be_new(file: &Path, force: bool) -> anyhow::Result<()> {
    if file.exists() && !force {
        bail!("{} is already there: choose another name, or pass --force to replace it", file.display());
    }
    Ok(())
}

/// Writes a file of its owner alone, aside first: under its final name it is whole.
fn write_private(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_mode(file, bytes, 0o600)
}

fn write_public(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_mode(file, bytes, 0o644)
}

fn write_mode(file: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut aside = file.as_os_str().to_owned();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    let write = || {
        // A left-over of another mode would keep it.
        let _ = std::fs::remove_file(&aside);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        std::fs::rename(&aside, file)
    };
    write().with_context(|| format!("writing {}", file.display()))
}

fn read(file: &Path, what: &str, next: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("reading the {what} {}: {next}", file.display()))
}
