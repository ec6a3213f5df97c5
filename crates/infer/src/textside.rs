//! The client's half of a plan, from text to text.

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_model::{Kind, Tokenizer};

use crate::client::{Client, EncryptedLogits, EncryptedPrompt};
use crate::clientfolder::ClientFolder;
use crate::clientside::ClientSide;
use crate::error::{Error, Result};
use crate::keyfolder::KeyFolder;
use crate::lanes;
use crate::ownkeys::own_profile;
use crate::plan::Plan;

/// Bits of a logit's range that are shown, and what bounds the error of a slot: measured errors are
/// below 2^-13.
const SHOWN_BITS: f64 = 8.0;
const SLOT_ERROR: f64 = 1.0 / 4096.0;

/// A [`ClientSide`] with its tokenizer: prompts are text, and results are tokens or classes.
pub struct TextSide {
    /// Encrypts tokens and reads answers.
    pub side: ClientSide,
    /// Makes tokens of text.
    pub tokenizer: Tokenizer,
}

/// The results of an answer at one position.
pub struct Opened {
    /// As they are, noise included: for the owner of the key alone.
    pub own: Vec<f64>,
    /// Rounded, for others to see.
    pub rounded: Vec<f64>,
}

impl Opened {
    /// The numbers of the largest results, best first; the earlier of equals.
    pub fn top(&self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.own.len() as u32).collect();
        order.sort_by(|a, b| self.own[*b as usize].total_cmp(&self.own[*a as usize]));
        order.truncate(count);
        order
    }
}

impl TextSide {
    /// The half of a client plan, for the client's own profile of the name that it gives.
    ///
    /// # Errors
    /// As [`ClientFolder::tokenizer`] and [`ClientSide::new`].
    pub fn new(folder: ClientFolder, profile: &Profile) -> Result<Self> {
        let tokenizer = folder.tokenizer()?;
        let side = ClientSide::new(folder.plan, profile, &folder.embedding)?;
        Ok(Self { side, tokenizer })
    }

    /// The half of a client plan that belongs to these keys.
    ///
    /// # Errors
    /// [`Error::OtherPlan`] for a plan that the keys were not made for; as [`TextSide::new`].
    pub fn of_keys(keys: &KeyFolder, folder: ClientFolder) -> Result<Self> {
        if folder.plan.plan != keys.plan {
            let (found, expected) = (folder.plan.plan, keys.plan.clone());
            return Err(Error::OtherPlan { expected, found });
        }
        Self::new(folder, &own_profile(&keys.profile, keys.log_degree)?)
    }

    /// The prompt's tokens.
    ///
    /// # Errors
    /// As [`prompt_tokens`].
    pub fn tokens(&self, prompt: &str) -> Result<Vec<u32>> {
        let model = &self.side.plan().model;
        prompt_tokens(&self.tokenizer, &model.prefix, model.embedding.context, prompt)
    }

    /// Encrypts a prompt, after whatever can be checked here: with the whole plan at hand, whether
    /// all of the prompt stays in certified ranges.
    ///
    /// # Errors
    /// As [`Plan::ensure_in_range`] and [`ClientSide::encrypt`].
    pub fn encrypt(&self, client: &Client, plan: Option<&Plan>, tokens: &[u32]) -> Result<EncryptedPrompt> {
        self.encrypt_each(client, plan, &[tokens])
    }

    /// As [`TextSide::encrypt`], several prompts for one pass.
    ///
    /// # Errors
    /// As [`Plan::ensure_in_range`] and [`ClientSide::encrypt_each`].
    pub fn encrypt_each(
        &self,
        client: &Client,
        plan: Option<&Plan>,
        prompts: &[&[u32]],
    ) -> Result<EncryptedPrompt> {
        lanes::check_count(prompts.len(), self.side.prompts())?;
        if let Some(plan) = plan {
            lanes::of_each(prompts, |tokens| plan.ensure_in_range(tokens))?;
        }
        self.side.encrypt_each(client, prompts)
    }

    /// The results at a position.
    ///
    /// # Errors
    /// As [`ClientSide::decrypt`] and [`ClientSide::decrypt_public`].
    pub fn open(&self, client: &Client, answer: &EncryptedLogits, position: usize) -> Result<Opened> {
        Ok(self.open_each(client, answer, &[position])?.swap_remove(0))
    }

    /// As [`TextSide::open`], the results of the first prompts of a pass, each at its own of
    /// `positions`.
    ///
    /// # Errors
    /// As [`ClientSide::decrypt_each`] and [`ClientSide::decrypt_public_each`].
    pub fn open_each(
        &self,
        client: &Client,
        answer: &EncryptedLogits,
        positions: &[usize],
    ) -> Result<Vec<Opened>> {
        let own = self.side.decrypt_each(client, answer, positions)?;
        let rounded = self.side.decrypt_public_each(client, answer, positions, SHOWN_BITS, SLOT_ERROR)?;
        let opened = |(mut own, mut rounded): (Vec<f64>, Vec<f64>)| {
            own.truncate(self.choices());
            rounded.truncate(self.choices());
            Opened { own, rounded }
        };
        Ok(own.into_iter().zip(rounded).map(opened).collect())
    }

    /// How many results of the model mean something.
    fn choices(&self) -> usize {
        let answers = self.side.plan().answers.results;
        let kind = self.side.plan().model.kind;
        if kind == Kind::Decoder { self.tokenizer.vocab().min(answers) } else { answers }
    }

    /// What results stand for.
    pub fn meaning(&self, choices: &[u32]) -> String {
        meaning(self.side.plan().model.kind, &self.tokenizer, choices)
    }
}

/// The tokens of a prompt that is not empty and fits the model behind its public tokens.
///
/// # Errors
/// [`Error::EmptyPrompt`], [`Error::LongPrompt`], text that has no tokens.
pub fn prompt_tokens(
    tokenizer: &Tokenizer,
    prefix: &[u32],
    context: usize,
    prompt: &str,
) -> Result<Vec<u32>> {
    let tokens = tokenizer.encode(prompt)?;
    // Public tokens that the text repeats are there already, all of them or the mark that opens a
    // text.
    let opening = tokenizer.encode("")?;
    let repeats = |mark: &&[u32]| !mark.is_empty() && prefix.starts_with(mark);
    let known =
        [prefix, opening.as_slice()].into_iter().filter(repeats).find_map(|mark| tokens.strip_prefix(mark));
    let tokens = known.unwrap_or(&tokens).to_vec();
    // Marks around a text make tokens of an empty one.
    if prompt.is_empty() || tokens.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    let context = context.saturating_sub(prefix.len());
    if tokens.len() > context {
        return Err(Error::LongPrompt { length: tokens.len(), context });
    }
    Ok(tokens)
}

/// What results of a kind of model stand for: text of tokens, or numbers of classes.
pub fn meaning(kind: Kind, tokenizer: &Tokenizer, choices: &[u32]) -> String {
    let numbered = |what: &str| {
        let names: Vec<String> = choices.iter().map(|number| format!("{what} {number}")).collect();
        names.join(", ")
    };
    match kind {
        Kind::Decoder => tokenizer.decode(choices).unwrap_or_default(),
        Kind::Embedder { .. } => numbered("feature"),
        Kind::Encoder { .. } => numbered("class"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_results_come_first_and_the_earlier_of_equals() {
        let opened = Opened { own: vec![1.0, 3.0, -2.0, 3.0], rounded: vec![0.0; 4] };
        assert_eq!(opened.top(3), [1, 3, 0]);
        assert_eq!(opened.top(9).len(), 4);
    }
}
