//! The plan that a server runs, with what its clients may read of it.

use std::collections::BTreeSet;

use axum::body::Bytes;
use cipherlm_ckks::{KeyPurpose, KeyShape, Params, ring};
use cipherlm_infer::{Circuits, KeyOrder, Plan, Recipe};
use cipherlm_model::Tokenizer;
use cipherlm_protocol::{ClientPlan, Digest};

use crate::error::Result;

/// One compiled plan: what requests are judged by. What runs take is compiled again for them, and
/// forgotten while there are none.
pub struct Served {
    recipe: Recipe,
    /// Of no circuit: nothing is computed with them, so they stay small.
    params: Params,
    pub(crate) client: ClientPlan,
    pub(crate) client_json: String,
    blobs: [Bytes; 2],
    pub(crate) order: KeyOrder,
    pub(crate) asked: BTreeSet<(KeyPurpose, usize)>,
    /// Shapes of the keys of small messages: from the ring of prompts, to that of answers.
    pub(crate) small: [Option<KeyShape>; 2],
}

/// What runs take.
pub(crate) struct Engine {
    pub(crate) circuits: Circuits,
    pub(crate) plan: Plan,
    pub(crate) order: KeyOrder,
}

impl Served {
    /// What a server needs of a plan and its circuits, which were compiled from `recipe`.
    ///
    /// # Errors
    /// As [`Plan::client_plan`].
    pub fn new(circuits: Circuits, plan: Plan, recipe: Recipe, tokenizer: &Tokenizer) -> Result<Self> {
        let (client, blobs) = plan.client_plan(&circuits, recipe.profile.name, tokenizer)?;
        let (params, order) = (recipe.params()?, KeyOrder::of(&circuits, &plan)?);
        let asked = order.request.iter().collect();
        let small = order.small.shapes(&params)?;
        let blobs = blobs.map(Bytes::from);
        Ok(Self { client_json: client.to_json()?, recipe, params, client, blobs, order, asked, small })
    }

    /// Identity of the plan.
    pub fn plan_id(&self) -> &str {
        &self.client.plan
    }

    pub(crate) fn params(&self) -> &Params {
        &self.params
    }

    /// Compiles what runs take: a second for two layers at full size, more for deep models.
    pub(crate) fn engine(&self) -> cipherlm_infer::Result<Engine> {
        let (circuits, plan) = self.recipe.compile()?;
        // Rings of its own as well: what runs leave in them goes with it.
        let order = KeyOrder { small: circuits.small_rings(&plan)?, ..self.order.clone() };
        Ok(Engine { circuits, plan, order })
    }

    /// Frees what requests left for reuse, and returns all free memory of the process to the
    /// system.
    pub(crate) fn rest(&self) {
        let small = &self.order.small;
        let sets = [Some(&self.params), small.prompt.as_ref(), small.answer.as_ref()];
        sets.into_iter().flatten().for_each(|params| params.ring().free_buffers());
        ring::return_free_memory();
    }

    /// The public file of that hash.
    pub(crate) fn blob(&self, hash: Digest) -> Option<Bytes> {
        let hashes = [self.client.tokenizer.blake3, self.client.embedding.blake3];
        let at = hashes.iter().position(|known| *known == hash)?;
        // All readers share its memory.
        Some(self.blobs[at].clone())
    }
}
