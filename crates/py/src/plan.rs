//! Plans: what an encrypted run will be.

use crate::refusal::{Refusal, Result};
use crate::watch::watched;
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::Clear;
use cipherlm_infer::{
    Chosen, ClientFolder, CostModel, Options, Progress, Tolerance, insecure_profile, own_profile,
};
use cipherlm_model::{Kind, Model, Tokenizer};
use pyo3::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;
/// A profile without security, and log2 of the degree of its ring where none is named.
const INSECURE: &str = "insecure";
const INSECURE_DEGREE: u32 = 10;

/// A model compiled for one length and one profile.
pub(crate) struct Made {
    pub(crate) chosen: Chosen,
    /// How many results of the model mean something.
    choices: usize,
}

impl Made {
    /// Compiles; without a profile, the cheapest one that is secure and precise enough is taken.
    pub(crate) fn new(
        model: &Arc<Model>,
        tokenizer: &Tokenizer,
        tokens: usize,
        profile: Option<&str>,
    ) -> Result<Self> {
        let context = model.shape().context;
        if tokens == 0 || tokens > context {
            let text = format!("a plan for {tokens} tokens: this model takes 1 to {context}");
            return Err(Refusal::new("PlanRefused", text));
        }
        cipherlm_model::ensure_certified(model)?;
        let kernel = cipherlm_ckks::ring::kernel::Kernel::chosen().map_err(cipherlm_ckks::Error::from)?;
        let cost = CostModel::builtin(kernel.name);
        let options = Options { tokens, ..Options::default() }.with_tokenizer(tokenizer)?;
        let chosen = match profile {
            Some(name) => Chosen::this(model, &named(name)?, &options, &cost)?,
            None => Chosen::cheapest(model, tokenizer, &options, &cost, Tolerance::default())?,
        };
        let choices = match model.shape().kind {
            Kind::Decoder => tokenizer.vocab(),
            Kind::Encoder { classes } => classes,
            Kind::Embedder { .. } => model.shape().d_model,
        };
        Ok(Self { chosen, choices })
    }

    /// The answer to tokens by the machine that computes in the clear.
    pub(crate) fn clear(&self, tokens: &[u32]) -> Result<Vec<f64>> {
        let plan = &self.chosen.plan;
        let machine: Clear = plan.clear_machine();
        let vectors = plan.pack(tokens)?.into_iter();
        let input = vectors.map(|vector| machine.input(vector, plan.input_level()));
        let input = input.collect::<std::result::Result<Vec<_>, _>>()?;
        let outputs = plan.run_text(&machine, input, tokens.len(), &mut |_: &Progress<'_>| true)?;
        let real: Vec<Vec<f64>> = outputs.iter().map(|vector| vector.real()).collect();
        Ok(self.cut(plan.logits(&real, plan.answer_position(tokens.len()))?))
    }

    /// The same with the errors of one simulated encryption.
    pub(crate) fn noise(&self, tokens: &[u32], seed: u64) -> Result<Vec<f64>> {
        let Chosen { plan, circuits, .. } = &self.chosen;
        let machine = plan.noise_machine(circuits.params(), circuits.key_request(plan), seed)?;
        let forecast = plan.forecast(&machine, tokens)?;
        Ok(self.cut(forecast.noisy_logits(plan, plan.answer_position(tokens.len()))?))
    }

    fn cut(&self, mut row: Vec<f64>) -> Vec<f64> {
        row.truncate(self.choices);
        row
    }
}

/// The profile of a name: one of the secure ones, or `insecure` with the degree of a small ring.
fn named(name: &str) -> Result<Profile> {
    let small = name.strip_prefix(INSECURE).map(|rest| match rest.strip_prefix('-') {
        Some(degree) => degree.parse().ok(),
        None if rest.is_empty() => Some(INSECURE_DEGREE),
        None => None,
    });
    match small {
        Some(Some(log_degree)) => Ok(insecure_profile(log_degree)?),
        Some(None) => {
            let text = format!("the profile `{name}`: small rings are `insecure-8` to `insecure-15`");
            Err(Refusal::new("PlanRefused", text))
        }
        None => Profile::named(name).ok_or_else(|| {
            let family: Vec<&str> = Profile::family().iter().map(|profile| profile.name).collect();
            let text = format!("there is no profile `{name}`: take one of {}", family.join(", "));
            Refusal::new("PlanRefused", text)
        }),
    }
}

/// What an encrypted run will be, before any key exists.
///
/// Made by `Model.plan`, fetched with `Server.plan`, or read from a folder with `Plan.load`. Only
/// the first of these knows the circuit.
#[pyclass(frozen, module = "cipherlm", name = "Plan")]
pub(crate) struct PyPlan {
    pub(crate) folder: ClientFolder,
    pub(crate) profile: Profile,
    pub(crate) made: Option<Arc<Made>>,
}

impl PyPlan {
    pub(crate) fn of_model(
        model: &Arc<Model>,
        tokenizer: &Tokenizer,
        tokens: usize,
        profile: Option<&str>,
    ) -> Result<Self> {
        let made = Made::new(model, tokenizer, tokens, profile)?;
        let Chosen { plan, circuits, profile, .. } = &made.chosen;
        let (plan, [tokenizer, embedding]) = plan.client_plan(circuits, profile.name, tokenizer)?;
        let (folder, profile) = (ClientFolder { plan, tokenizer, embedding }, profile.clone());
        Ok(Self { folder, profile, made: Some(Arc::new(made)) })
    }

    /// A plan of another party: the profile is our own of the name that it gives.
    pub(crate) fn of_folder(folder: ClientFolder) -> Result<Self> {
        let profile = own_profile(&folder.plan.profile, folder.plan.log_degree)?;
        Ok(Self { folder, profile, made: None })
    }

    pub(crate) fn made(&self, what: &str) -> Result<&Arc<Made>> {
        self.made.as_ref().ok_or_else(|| {
            let text =
                format!("{what} needs the model, and this plan is a client's: make it with Model.plan");
            Refusal::new("PlanRefused", text)
        })
    }
}

#[pymethods]
impl PyPlan {
    /// Reads the plan in a folder that `save` or `cipherlm plan --client` made.
    #[staticmethod]
    fn load(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        watched(py, None, |_| Self::of_folder(ClientFolder::load(&folder)?))
    }

    /// Writes what a client needs of this plan into a folder: no weights but the embedding.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        watched(py, None, |_| Ok(self.folder.save(Path::new(&folder))?))
    }

    /// Identity of the plan: keys, prompts and answers name it.
    #[getter]
    fn id(&self) -> &str {
        &self.folder.plan.plan
    }

    /// Name of the model.
    #[getter]
    fn model(&self) -> &str {
        &self.folder.plan.model.name
    }

    /// Longest prompt, in tokens.
    #[getter]
    fn tokens(&self) -> usize {
        self.folder.plan.layout.tokens
    }

    /// Name of the profile.
    #[getter]
    fn profile(&self) -> &str {
        self.profile.name
    }

    /// Whether the ring is a small one that protects nothing.
    #[getter]
    fn insecure(&self) -> bool {
        self.profile.insecure
    }

    /// Degree of the ring.
    #[getter]
    fn ring_degree(&self) -> usize {
        1 << self.profile.log_degree
    }

    /// GiB of evaluation keys in files.
    #[getter]
    fn key_gib(&self) -> f64 {
        self.folder.plan.costs.key_bytes as f64 / GIB
    }

    /// GiB of evaluation keys in a server's memory.
    #[getter]
    fn memory_gib(&self) -> f64 {
        self.folder.plan.costs.key_bytes_resident as f64 / GIB
    }

    /// Predicted seconds of a run, by the built-in prices.
    #[getter]
    fn seconds(&self) -> f64 {
        self.folder.plan.costs.seconds
    }

    /// Bytes of an encrypted prompt.
    #[getter]
    fn prompt_bytes(&self) -> u64 {
        self.folder.plan.costs.prompt_bytes
    }

    /// Bytes of an encrypted answer.
    #[getter]
    fn answer_bytes(&self) -> u64 {
        self.folder.plan.costs.answer_bytes
    }

    /// Every step with its levels, and why it is bootstrapped.
    fn explain(&self) -> PyResult<String> {
        Ok(self.made("explain()")?.chosen.plan.explain())
    }

    fn __repr__(&self) -> String {
        let security = if self.profile.insecure { ", NO SECURITY" } else { "" };
        format!(
            "<cipherlm.Plan {:?}, {} tokens, {} in a ring of degree 2^{}{security}, {:.2} GiB of keys, \
             about {:.1} s>",
            self.folder.plan.model.name,
            self.tokens(),
            self.profile.name,
            self.profile.log_degree,
            self.key_gib(),
            self.seconds(),
        )
    }
}
