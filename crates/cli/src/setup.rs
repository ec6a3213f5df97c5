//! A model, its parameters and its plan: everything that exists before any key.

use crate::exit::usage;
use crate::model::Loaded;
use crate::options::Wanted;
use crate::system::{available_memory, gib, threads};
use anyhow::{Context, bail};
use cipherlm_infer::{
    Candidate, Chosen, Circuits, ClientFolder, CostModel, Options, Plan, Recipe, sample_tokens,
};
use std::sync::Arc;

/// Prompt lengths that plans are made for.
const LENGTHS: [usize; 4] = [16, 32, 64, 128];

pub(crate) struct Setup {
    pub(crate) loaded: Loaded,
    /// What circuits and plan were compiled from.
    pub(crate) recipe: Recipe,
    pub(crate) circuits: Circuits,
    pub(crate) plan: Plan,
    /// What other profiles would have made of it, if they were compared.
    pub(crate) candidates: Vec<Candidate>,
    /// The length that was asked for: the plan's is the next power of two.
    asked: usize,
}

impl Setup {
    /// Plans the model for `length` tokens, or for the smallest length that holds `need`.
    pub(crate) fn new(
        loaded: Loaded,
        length: Option<usize>,
        need: usize,
        wanted: &Wanted,
        cost: &CostModel,
    ) -> anyhow::Result<Self> {
        let length = match length {
            Some(length) if length < need => {
                return Err(usage(format!("--length {length} is too short: {need} tokens have to fit")));
            }
            Some(length) => length,
            None => length_for(need)?,
        };
        Self::on(loaded, length, wanted, cost)
    }

    /// Plans the model for exactly `length` tokens.
    pub(crate) fn on(
        loaded: Loaded,
        length: usize,
        wanted: &Wanted,
        cost: &CostModel,
    ) -> anyhow::Result<Self> {
        let context = loaded.model.shape().context;
        if length > context {
            return Err(usage(format!("--length {length}: the model takes {context} tokens")));
        }
        cipherlm_model::ensure_certified(&loaded.model)?;
        let Loaded { index, refresh_input, prompts, .. } = &loaded;
        let (index, refresh_input, prompts) = (index.clone(), *refresh_input, *prompts);
        let options = Options { tokens: length, prompts, index, refresh_input, ..Options::default() };
        let options = options.with_tokenizer(&loaded.tokenizer)?;
        let model = Arc::new(loaded.model.clone());
        let chosen = match wanted {
            Wanted::This(profile) => Chosen::this(&model, profile, &options, cost)?,
            Wanted::Cheapest(tolerance) => {
                Chosen::cheapest(&model, &loaded.tokenizer, &options, cost, *tolerance)?
            }
        };
        let Chosen { profile, circuits, plan, candidates } = chosen;
        let recipe = Recipe { model, profile, options, cost: cost.clone() };
        Ok(Self { loaded, recipe, circuits, plan, candidates, asked: length })
    }

    /// Mean square error of a logit and share of answers that stay the same, as simulated noise
    /// predicts them for the sample text.
    pub(crate) fn predicted_quality(&self) -> anyhow::Result<(f64, f64)> {
        let known = self.candidates.iter().find(|candidate| candidate.profile == self.recipe.profile.name);
        if let Some((mse, same)) = known.and_then(|candidate| candidate.mse.zip(candidate.same)) {
            return Ok((mse, same));
        }
        let tokens = sample(&self.loaded, self.plan.tokens().min(self.loaded.model.shape().context))?;
        self.plan.predicted_quality(&self.circuits, &tokens).context("predicting the error")
    }

    /// What a client of this plan needs.
    pub(crate) fn client_folder(&self) -> anyhow::Result<ClientFolder> {
        let made = self.plan.client_plan(&self.circuits, self.recipe.profile.name, &self.loaded.tokenizer)?;
        let (plan, [tokenizer, embedding]) = made;
        Ok(ClientFolder { plan, tokenizer, embedding })
    }

    /// What will run, in a few lines.
    pub(crate) fn summary(&self) -> String {
        let params = self.circuits.params();
        let shape = self.loaded.model.shape();
        let (bootstraps, _) = self.plan.refreshes();
        let (stored, resident) = self.circuits.key_bytes(&self.plan).unwrap_or_default();
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let costs = self.plan.costs(&self.circuits);
        let [prompt, answer] = costs.map_or([0.0; 2], |c| [kib(c.prompt_bytes), kib(c.answer_bytes)]);
        let tokens = self.plan.tokens();
        let rounded = match self.asked {
            asked if asked < tokens => format!(" (the power of two that holds {asked})"),
            _ => String::new(),
        };
        let prompts = self.plan.prompts();
        let (together, a_prompt) = match prompts {
            1 => (String::new(), String::new()),
            _ => (
                format!(" for each of {prompts} prompts"),
                format!(", {:.1} s a prompt", self.plan.seconds() / prompts as f64),
            ),
        };
        format!(
            "model       {}: {} layers x {}, {} parameters\n\
             parameters  N = 2^{}, log QP {:.0}, {:.0}-bit security, profile {}; kernel {}, {} threads\n\
             plan        {tokens} tokens{rounded}{together}, {} steps, {bootstraps} bootstraps {:?} a layer, \
             about {:.1} s predicted{a_prompt}\n\
             keys        {:.2} GiB stored, {:.2} GiB in memory\n\
             messages    {prompt:.0} KiB there, {answer:.0} KiB back\n\
             memory      about {:.1} GiB for a run, keys included",
            self.loaded.name(),
            shape.layers,
            shape.d_model,
            shape.parameters(),
            params.log_degree(),
            params.log_qp(),
            params.security().bits,
            self.recipe.profile.name,
            params.ring().kernel_name(),
            threads(),
            self.plan.steps(),
            self.plan.refreshes_by_layer(),
            self.plan.seconds(),
            gib(stored),
            gib(resident),
            gib(resident + self.plan.working_bytes()),
        )
    }

    /// Refuses before any work when the keys cannot fit the memory that is free.
    pub(crate) fn price_memory(&self) -> anyhow::Result<()> {
        let (_, resident) = self.circuits.key_bytes(&self.plan)?;
        self.price_run(resident)
    }

    /// As [`Setup::price_memory`], with `keys` bytes of keys in memory.
    pub(crate) fn price_run(&self, keys: u64) -> anyhow::Result<()> {
        let need = keys + self.plan.working_bytes();
        if let Some(have) = available_memory().filter(|have| *have < need) {
            bail!(
                "{:.1} GiB of memory are needed and {:.1} GiB are free: close other programs or use a \
                 shorter --length",
                gib(need),
                gib(have)
            );
        }
        Ok(())
    }
}

/// The smallest planned length that holds `need` tokens.
pub(crate) fn length_for(need: usize) -> anyhow::Result<usize> {
    let found = LENGTHS.into_iter().find(|l| *l >= need);
    found.with_context(|| format!("{need} tokens do not fit the longest plan of 128: shorten the prompt"))
}

/// As many prompts as the model is loaded for, of exactly `length` tokens: one after the other from
/// the shipped sample text, repeated.
pub(crate) fn samples(loaded: &Loaded, length: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let own = sample(loaded, length)?;
    let text = sample_tokens(&loaded.tokenizer, own.len().saturating_mul(loaded.prompts))?;
    Ok(text.chunks_exact(own.len()).map(<[u32]>::to_vec).collect())
}

/// A prompt of exactly `length` tokens: the shipped sample text, repeated.
pub(crate) fn sample(loaded: &Loaded, length: usize) -> anyhow::Result<Vec<u32>> {
    let most = loaded.model.shape().context;
    if length == 0 || length > most {
        return Err(usage(format!("--length {length}: the model takes 1 to {most} tokens")));
    }
    let tokens = sample_tokens(&loaded.tokenizer, length)?;
    if tokens.is_empty() {
        bail!("the model's tokenizer makes no tokens of the sample text: give a prompt");
    }
    Ok(tokens)
}
