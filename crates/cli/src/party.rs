//! The parties as separate programs, files in and files out: what their commands share.

use crate::console::warn;
use crate::library::Library;
use crate::model::Loaded;
use crate::options::{PlanSource, Wanted};
use crate::prices::PricesOption;
use crate::setup::Setup;
use anyhow::{Context, bail};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_files::shown;
use cipherlm_infer::{
    Client, ClientFolder, ClientSide, CostModel, EncryptedPrompt, KeyFolder, Note, TextSide, own_profile,
};
use std::path::Path;

/// Largest encrypted prompt or answer that is read, in bytes.
const MESSAGE_BYTES: u64 = 4 << 30;

/// The client's half of a plan, made of the model or of a client plan alone.
pub(crate) struct Party {
    pub(crate) text: TextSide,
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
            let side = ClientSide::new(folder.plan, &setup.recipe.profile, &folder.embedding)?;
            let text = TextSide { side, tokenizer: setup.loaded.tokenizer.clone() };
            return Ok(Self { text, setup: Some(setup) });
        };
        let party = Self::of_folder(keys, client_folder(folder)?).context("--plan")?;
        library.map_or(Ok(()), |library| library.check_count(party.text.side.documents()))?;
        Ok(party)
    }

    /// The half of a client plan that belongs to these keys.
    pub(crate) fn of_folder(keys: &KeyFolder, folder: ClientFolder) -> anyhow::Result<Self> {
        let text = TextSide::of_keys(keys, folder)?;
        warn_of_small_ring(&own_profile(&keys.profile, keys.log_degree)?);
        Ok(Self { text, setup: None })
    }

    /// Encrypts prompts for one pass, after whatever can be checked here.
    pub(crate) fn encrypt(&self, client: &Client, prompts: &[&[u32]]) -> anyhow::Result<EncryptedPrompt> {
        Ok(self.text.encrypt_each(client, self.setup.as_ref().map(|setup| &setup.plan), prompts)?)
    }
}

/// The folder that `plan --client` made.
pub(crate) fn client_folder(folder: &Path) -> anyhow::Result<ClientFolder> {
    ClientFolder::load(folder).with_context(|| format!("--plan: {}", shown(folder)))
}

fn warn_of_small_ring(profile: &Profile) {
    if profile.insecure {
        warn("these keys are for a small ring and protect nothing");
    }
}

/// Makes the plan of a model again that a description names.
pub(crate) fn setup_of(
    keys: &KeyFolder,
    loaded: Loaded,
    prices: Option<&PricesOption>,
) -> anyhow::Result<Setup> {
    let profile = own_profile(&keys.profile, keys.log_degree)?;
    warn_of_small_ring(&profile);
    // Only who runs the plan asks how long that takes.
    let cost = match prices {
        Some(prices) => prices.table(profile.insecure)?,
        None => CostModel::default(),
    };
    let loaded = Loaded { refresh_input: keys.refresh_input, prompts: keys.prompts, ..loaded };
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
    Note::load(file).context("--note: it lies beside the encrypted prompt")
}
