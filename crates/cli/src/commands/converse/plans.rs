//! Plans of a conversation, and servers for them.

use crate::exit::usage;
use crate::setup;
use crate::system::{available_memory, gib, processor, threads};
use anyhow::bail;
use cipherlm_circuits::bootstrap::{BootstrapKeys, Profile};
use cipherlm_infer::{Circuits, Client, Geometry, Options, Plan, Purpose, Server};
use cipherlm_model::Model;
use std::sync::Arc;

pub(super) type Keys = Arc<BootstrapKeys>;

/// Plans of one conversation, before any key exists.
pub(super) struct Plans {
    pub(super) circuits: Circuits,
    pub(super) prompt: Plan,
    /// Of a token over the cache. Without one every token takes a pass of the whole text.
    pub(super) token: Option<Plan>,
}

impl Plans {
    /// For a prompt and the tokens after it. `feedback`: logits to be expected, if the server is to
    /// go on alone.
    pub(super) fn new(
        profile: &Profile,
        model: &Arc<Model>,
        (prompt, tokens): (usize, usize),
        feedback: Option<&[Vec<f64>]>,
    ) -> anyhow::Result<Self> {
        let circuits = Circuits::new(profile)?;
        let one = Geometry::new(model.shape(), 1, circuits.params().slots())?;
        if !one.holds_cache(model.shape().context) {
            if feedback.is_some() {
                return Err(usage(
                    "--alone: keys and values of this model's context fit no vector, so nothing is there to \
                     go on from: leave it out",
                ));
            }
            // The last token is not read again.
            let tokens = setup::length_for(prompt + tokens - 1)?;
            let options = Options { tokens, ..Options::default() };
            let prompt = Plan::compile(Arc::clone(model), circuits.target()?, &options)?;
            return Ok(Self { circuits, prompt, token: None });
        }
        let period = one.period();
        let mut circuits = circuits.with_sparse(profile, period)?;
        let choice = model.shape().vocab.next_power_of_two();
        if feedback.is_some() && choice > period {
            circuits = circuits.with_sparse(profile, choice)?;
        }
        let plan = |purpose, tokens| {
            let levels_left = usize::from(purpose == Purpose::Token && feedback.is_some());
            let options = Options { tokens, purpose, levels_left, ..Options::default() };
            Plan::compile(Arc::clone(model), circuits.target()?, &options)
        };
        let prompt = plan(Purpose::PromptForSession, setup::length_for(prompt)?)?;
        let token = plan(Purpose::Token, 1)?;
        let token = match feedback {
            Some(rows) => token.with_feedback(rows)?,
            None => token,
        };
        Ok(Self { prompt, token: Some(token), circuits })
    }

    /// The plan of the tokens after the first.
    pub(super) fn later(&self) -> &Plan {
        self.token.as_ref().unwrap_or(&self.prompt)
    }

    pub(super) fn summary(&self) -> String {
        let params = self.circuits.params();
        format!(
            "model       {}\nparameters  N = 2^{}, log QP {:.0}, {:.0}-bit security; {}\nplans       \
             prompt of {}: about {:.0} s; a token: about {:.0} s, {} bootstraps {:?} a layer",
            cipherlm_files::printable(&self.prompt.model().spec().name),
            params.log_degree(),
            params.log_qp(),
            params.security().bits,
            hardware(params),
            self.prompt.tokens(),
            self.prompt.seconds(),
            self.later().seconds(),
            self.later().refreshes().0,
            self.later().refreshes_by_layer(),
        )
    }

    /// A server for one of the plans, with keys for that plan alone: those of the other need not be
    /// in memory at the same time.
    pub(super) fn serve(&self, client: &Client, plan: &Plan) -> anyhow::Result<Server<Keys>> {
        let (_, resident) = self.circuits.key_bytes(plan)?;
        let need = plan.memory(resident).total();
        if let Some(have) = available_memory().filter(|have| *have < need) {
            bail!(
                "{:.1} GiB of memory are needed and {:.1} GiB are free: close other programs",
                gib(need),
                gib(have)
            );
        }
        let keys = self.circuits.keys(client.secret(), plan)?;
        Ok(Server::open(&self.circuits, client.key_id(), &keys)?)
    }
}

/// What runs the computation.
pub(super) fn hardware(params: &cipherlm_ckks::Params) -> String {
    format!("{}, kernel {}, {} threads", processor(), params.ring().kernel_name(), threads())
}
