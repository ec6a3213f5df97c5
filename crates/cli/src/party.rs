//! The parties as separate programs, files in and files out: what their commands share.

use crate::console::warn;
use crate::options::{Wanted, insecure_profile};
use crate::prices::PricesOption;
use crate::setup::Setup;
use anyhow::{Context, bail};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::{Params, SecretKey};
use cipherlm_files::shown;
use cipherlm_infer::{CostModel, KeyFolder};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The secret, in the client's folder.
pub(crate) const SECRET: &str = "secret.key";
/// The evaluation keys, in the client's folder.
pub(crate) const SERVER: &str = "server";
/// Format of a note.
pub(crate) const NOTE: &str = "cipherlm client note 1";
/// Largest encrypted prompt or answer that is read, in bytes.
const MESSAGE_BYTES: u64 = 4 << 30;
/// Largest note and secret key.
const SMALL_BYTES: u64 = 16 << 20;

/// What a client keeps of a prompt: where the answer stands, and the tokens, to compare it with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) format: String,
    pub(crate) plan: String,
    pub(crate) key_id: String,
    pub(crate) tokens: Vec<u32>,
}

/// The profile that a description names.
fn profile(name: &str, log_degree: u32) -> anyhow::Result<Profile> {
    match Profile::named(name) {
        Some(profile) => Ok(profile),
        None if name == insecure_profile(10)?.name => insecure_profile(log_degree),
        None => {
            bail!("these keys are for the profile `{name}`, which this version does not have: make new ones")
        }
    }
}

/// Loads the model and makes the plan again that a description names.
pub(crate) fn setup_of(
    keys: &KeyFolder,
    model: Option<&Path>,
    prices: Option<&PricesOption>,
) -> anyhow::Result<Setup> {
    let loaded = crate::model::load(model)?;
    let profile = profile(&keys.profile, keys.log_degree)?;
    if profile.insecure {
        warn("these keys are for a small ring and protect nothing");
    }
    // Only who runs the plan asks how long that takes.
    let cost = match prices {
        Some(prices) => prices.table(profile.insecure)?,
        None => CostModel::default(),
    };
    let setup = Setup::on(loaded, keys.tokens, &Wanted::This(profile), &cost)?;
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
pub(crate) fn description(directory: &Path) -> anyhow::Result<KeyFolder> {
    let found = KeyFolder::find(directory).context("--keys")?;
    let (keys, _) = found.with_context(|| {
        format!(
            "--keys: {} is not a folder that `cipherlm keygen` made: it holds no keys.json",
            shown(directory)
        )
    })?;
    Ok(keys)
}

/// Reads an encrypted prompt or answer.
pub(crate) fn read_message(file: &Path, what: &str, next: &str) -> anyhow::Result<Vec<u8>> {
    cipherlm_files::read(file, MESSAGE_BYTES).with_context(|| format!("--input: the {what}: {next}"))
}

/// Reads the note beside an encrypted prompt.
pub(crate) fn load_note(file: &Path) -> anyhow::Result<Note> {
    let text = cipherlm_files::read_text(file, SMALL_BYTES)
        .context("--note: it lies beside the encrypted prompt")?;
    let note: Note = serde_json::from_str(&text)
        .with_context(|| format!("--note: {} is no note of `encrypt`", shown(file)))?;
    if note.format != NOTE || note.tokens.is_empty() {
        bail!("--note: {} is no note of `encrypt` in this version's format ({NOTE})", shown(file));
    }
    Ok(note)
}

/// Where `encrypt` leaves the note of a prompt.
pub(crate) fn note_beside(prompt: &Path) -> PathBuf {
    let mut name = prompt.as_os_str().to_owned();
    name.push(".note");
    name.into()
}

/// Reads the secret key; refuses a file that others may read.
pub(crate) fn load_secret(file: &Path, params: &Params) -> anyhow::Result<SecretKey> {
    let missing =
        || format!("the secret key {}: pass the folder that `cipherlm keygen` made with --keys", shown(file));
    let mode = std::fs::metadata(file).with_context(missing)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{} can be read by others (mode {:03o}): chmod 600 {0}", shown(file), mode & 0o777);
    }
    let bytes = Zeroizing::new(cipherlm_files::read(file, SMALL_BYTES).with_context(missing)?);
    SecretKey::from_secret_bytes(params, &bytes).with_context(|| {
        format!("{} is not the secret key of these parameters: restore it, or make new keys", shown(file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_of_every_description_is_found_again() {
        for made in Profile::family().into_iter().chain([insecure_profile(10).unwrap()]) {
            assert_eq!(profile(made.name, made.log_degree).unwrap(), made);
        }
        assert_eq!(profile("n16-fast", 16).unwrap().name, "n16-14");
        assert!(profile("n17", 17).is_err() && insecure_profile(16).is_err());
    }

    #[test]
    fn a_note_stands_beside_its_prompt() {
        assert_eq!(note_beside(Path::new("a/prompt.bin")), Path::new("a/prompt.bin.note"));
    }
}
