//! Plans of a conversation, and servers for them.

use crate::exit::usage;
use crate::setup;
use crate::system::{available_memory, gib, processor, threads};
use anyhow::bail;
use cipherlm_circuits::bootstrap::{BootstrapKeys, Profile};
use cipherlm_infer::{
    Chosen, Circuits, Client, CostModel, Error, Geometry, Options, Plan, Purpose, Server, Tolerance,
};
use cipherlm_model::Model;
use std::sync::Arc;

pub(super) type Keys = Arc<BootstrapKeys>;

/// Plans of one conversation, before any key exists.
pub(super) struct Plans {
    /// Name of the profile.
    pub(super) profile: &'static str,
    pub(super) circuits: Circuits,
    pub(super) prompt: Plan,
    /// Of a token over the cache. Without one every token takes a pass of the whole text.
    pub(super) token: Option<Plan>,
}

/// What plans are made for.
pub(super) struct Conversation<'c> {
    pub(super) model: &'c Arc<Model>,
    pub(super) prompt: &'c [u32],
    /// Tokens after it.
    pub(super) tokens: usize,
    pub(super) cost: &'c CostModel,
}

impl Conversation<'_> {
    /// `feedback`: logits to be expected, if the server is to go on alone.
    pub(super) fn plans(&self, profile: &Profile, feedback: Option<&[Vec<f64>]>) -> anyhow::Result<Plans> {
        let circuits = Circuits::new(profile)?;
        let shape = self.model.shape();
        let one = Geometry::new(shape, 1, circuits.params().slots())?;
        if !one.holds_cache(shape.context) {
            if feedback.is_some() {
                return Err(usage(
                    "--alone: keys and values of this model's context fit no vector, so nothing is there to \
                     go on from: leave it out",
                ));
            }
            // The last token is not read again.
            let tokens = setup::length_for(self.prompt.len() + self.tokens - 1)?;
            let prompt = self.compile(&circuits, &Options { tokens, ..Options::default() })?;
            return Ok(Plans { profile: profile.name, circuits, prompt, token: None });
        }
        let period = one.period();
        let mut circuits = circuits.with_sparse(profile, period)?;
        let choice = shape.vocab.next_power_of_two();
        if feedback.is_some() && choice > period {
            circuits = circuits.with_sparse(profile, choice)?;
        }
        let plan = |purpose, tokens| {
            let levels_left = usize::from(purpose == Purpose::Token && feedback.is_some());
            self.compile(&circuits, &Options { tokens, purpose, levels_left, ..Options::default() })
        };
        let prompt = plan(Purpose::PromptForSession, setup::length_for(self.prompt.len())?)?;
        let token = plan(Purpose::Token, 1)?;
        let token = match feedback {
            Some(rows) => token.with_feedback(rows)?,
            None => token,
        };
        Ok(Plans { profile: profile.name, prompt, token: Some(token), circuits })
    }

    fn compile(&self, circuits: &Circuits, options: &Options) -> cipherlm_infer::Result<Plan> {
        let target = circuits.target()?.with_cost(self.cost.clone());
        Plan::compile(Arc::clone(self.model), target, options)
    }

    /// Those of the profile with the shortest predicted conversation among those whose predicted
    /// answer to the prompt is within the tolerance, or of the most exact one where none is: every
    /// token is checked.
    pub(super) fn cheapest(&self) -> anyhow::Result<Plans> {
        let usual = self.plans(&Profile::n16(), None)?;
        // Minutes a profile for a pass that takes minutes: the most exact one has the room.
        if usual.token.is_none() {
            return Ok(usual);
        }
        let (mut found, mut refused) = (vec![usual], None);
        for profile in Chosen::family().into_iter().filter(|profile| profile.name != Profile::n16().name) {
            match self.plans(&profile, None) {
                Ok(plans) => found.push(plans),
                Err(error) => match error.downcast_ref() {
                    Some(Error::NoPlacement { .. }) => refused = Some(error),
                    _ => return Err(error),
                },
            }
        }
        let seconds =
            |plans: &Plans| plans.prompt.seconds() + (self.tokens - 1) as f64 * plans.later().seconds();
        found.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let tolerance = Tolerance::default();
        let mut closest: Option<(f64, Plans)> = None;
        for plans in found {
            let (mse, same) = match plans.prompt.predicted_quality(&plans.circuits, self.prompt) {
                Err(error @ Error::Slots { .. }) => {
                    refused = Some(error.into());
                    continue;
                }
                quality => quality?,
            };
            if mse <= tolerance.mse && same >= tolerance.same {
                return Ok(plans);
            }
            if closest.as_ref().is_none_or(|(least, _)| mse < *least) {
                closest = Some((mse, plans));
            }
        }
        match (closest, refused) {
            (Some((_, plans)), _) => Ok(plans),
            (None, Some(error)) => Err(error),
            (None, None) => bail!("there is no profile to choose from"),
        }
    }
}

impl Plans {
    /// The plan of the tokens after the first.
    pub(super) fn later(&self) -> &Plan {
        self.token.as_ref().unwrap_or(&self.prompt)
    }

    pub(super) fn summary(&self) -> String {
        let params = self.circuits.params();
        format!(
            "model       {}\nparameters  N = 2^{}, log QP {:.0}, {:.0}-bit security, profile {}; {}\n\
             plans       prompt of {}: about {:.0} s; a token: about {:.0} s, {} bootstraps {:?} a layer",
            cipherlm_files::printable(&self.prompt.model().spec().name),
            params.log_degree(),
            params.log_qp(),
            params.security().bits,
            self.profile,
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
