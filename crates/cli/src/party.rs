//! The parties as separate programs, files in and files out: what their commands share.

use crate::clientfolder::ClientFolder;
use crate::console::warn;
use crate::library::Library;
use crate::model::Loaded;
use crate::options::{PlanSource, Wanted, insecure_profile};
use crate::prices::PricesOption;
use crate::setup::Setup;
use anyhow::{Context, bail};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::{Params, SecretKey};
use cipherlm_files::{printable, shown};
use cipherlm_infer::{Client, ClientSide, CostModel, EncryptedLogits, EncryptedPrompt, KeyFolder};
use cipherlm_model::{Kind, Tokenizer};
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

/// Bits of a logit's range that are shown, and what bounds the error of a slot: measured errors are
/// below 2^-13.
const SHOWN_BITS: f64 = 8.0;
const SLOT_ERROR: f64 = 1.0 / 4096.0;

/// What a client keeps of a prompt: where the answer stands, and the tokens, to compare it with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) format: String,
    pub(crate) plan: String,
    pub(crate) key_id: String,
    pub(crate) tokens: Vec<u32>,
}

/// The profile of that name: the client's own, whatever a description says of it.
pub(crate) fn profile(name: &str, log_degree: u32) -> anyhow::Result<Profile> {
    match Profile::named(name) {
        Some(profile) => Ok(profile),
        None if name == insecure_profile(10)?.name => insecure_profile(log_degree),
        None => bail!("the profile `{}` is not one of this version: make new keys", printable(name)),
    }
}

/// The client's half of a plan, made of the model or of a client plan alone.
pub(crate) struct Party {
    pub(crate) side: ClientSide,
    pub(crate) tokenizer: Tokenizer,
    /// Absent where only the client plan is at hand.
    pub(crate) setup: Option<Setup>,
}

impl Party {
    /// The half that belongs to these keys; `library`: documents of a search.
    pub(crate) fn of(
        keys: &KeyFolder,
        source: &PlanSource,
        library: Option<&Library>,
    ) -> anyhow::Result<Self> {
        let Some(folder) = source.plan() else {
            let loaded = source.load()?;
            let loaded = match library {
                Some(library) => library.put_on(loaded)?,
                None => loaded,
            };
            let setup = setup_of(keys, loaded, None)?;
            let folder = setup.client_folder()?;
            let side = ClientSide::new(folder.plan, &setup.profile, &folder.embedding)?;
            return Ok(Self { side, tokenizer: setup.loaded.tokenizer.clone(), setup: Some(setup) });
        };
        let party = Self::of_folder(keys, ClientFolder::load(folder)?).context("--plan")?;
        library.map_or(Ok(()), |library| library.check_count(party.side.documents()))?;
        Ok(party)
    }

    /// The half of a client plan that belongs to these keys.
    pub(crate) fn of_folder(keys: &KeyFolder, folder: ClientFolder) -> anyhow::Result<Self> {
        let found = &folder.plan.plan;
        if *found != keys.plan {
            bail!(
                "the client plan is {found}, the keys were made for plan {}: pass the plan that \
                 they were made with, or make new keys",
                keys.plan
            );
        }
        let profile = profile(&keys.profile, keys.log_degree)?;
        if profile.insecure {
            warn("these keys are for a small ring and protect nothing");
        }
        let tokenizer = folder.tokenizer()?;
        let side = ClientSide::new(folder.plan, &profile, &folder.embedding)?;
        Ok(Self { side, tokenizer, setup: None })
    }

    /// The prompt's tokens.
    pub(crate) fn tokens(&self, prompt: &str) -> anyhow::Result<Vec<u32>> {
        let model = &self.side.plan().model;
        crate::model::prompt_tokens(&self.tokenizer, &model.prefix, model.embedding.context, prompt)
    }

    /// Encrypts a prompt, after whatever can be checked here: with the model, whether all of it
    /// stays in certified ranges.
    pub(crate) fn encrypt(&self, client: &Client, tokens: &[u32]) -> anyhow::Result<EncryptedPrompt> {
        if let Some(setup) = &self.setup {
            setup.plan.ensure_in_range(tokens)?;
        }
        Ok(self.side.encrypt(client, tokens)?)
    }

    /// The results at a position: as they are, for the owner of the key, and rounded, for others to
    /// see.
    pub(crate) fn open(
        &self,
        client: &Client,
        answer: &EncryptedLogits,
        position: usize,
    ) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let mut own = self.side.decrypt(client, answer, position)?;
        let mut rounded = self.side.decrypt_public(client, answer, position, SHOWN_BITS, SLOT_ERROR)?;
        own.truncate(self.choices());
        rounded.truncate(self.choices());
        Ok((own, rounded))
    }

    /// How many results of the model mean something.
    pub(crate) fn choices(&self) -> usize {
        let answers = self.side.plan().answers.results;
        let kind = self.side.plan().model.kind;
        if kind == Kind::Decoder { self.tokenizer.vocab().min(answers) } else { answers }
    }

    /// What results stand for.
    pub(crate) fn answer(&self, choices: &[u32]) -> String {
        crate::model::meaning(self.side.plan().model.kind, &self.tokenizer, choices)
    }
}

/// Makes the plan of a model again that a description names.
pub(crate) fn setup_of(
    keys: &KeyFolder,
    loaded: Loaded,
    prices: Option<&PricesOption>,
) -> anyhow::Result<Setup> {
    let profile = profile(&keys.profile, keys.log_degree)?;
    if profile.insecure {
        warn("these keys are for a small ring and protect nothing");
    }
    // Only who runs the plan asks how long that takes.
    let cost = match prices {
        Some(prices) => prices.table(profile.insecure)?,
        None => CostModel::default(),
    };
    let loaded = Loaded { refresh_input: keys.refresh_input, ..loaded };
    let setup = Setup::on(loaded, keys.tokens, &Wanted::This(profile), &cost)?;
    let plan = setup.plan.id();
    if plan != keys.plan {
        bail!(
            "the keys were made for plan {} of model {} at {} tokens, and this model ({}) compiles to plan \
             {plan}: pass the same --model, --index and --public-prefix to every command, or make new keys \
             with this version of cipherlm",
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
