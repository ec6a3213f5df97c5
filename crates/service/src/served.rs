//! The plan that a server runs, with what its clients may read of it.

use std::collections::BTreeSet;

use axum::body::Bytes;
use cipherlm_ckks::{KeyPurpose, KeyShape, Params};
use cipherlm_infer::{Circuits, KeyOrder, Plan};
use cipherlm_model::Tokenizer;
use cipherlm_protocol::{ClientPlan, Digest};

use crate::error::Result;

/// One compiled plan.
pub struct Served {
    pub(crate) circuits: Circuits,
    pub(crate) plan: Plan,
    pub(crate) client: ClientPlan,
    pub(crate) client_json: String,
    blobs: [Bytes; 2],
    pub(crate) order: KeyOrder,
    pub(crate) asked: BTreeSet<(KeyPurpose, usize)>,
    /// Shapes of the keys of small messages: from the ring of prompts, to that of answers.
    pub(crate) small: [Option<KeyShape>; 2],
}

impl Served {
    /// What a server needs of a plan. `profile` is the name of its preset.
    ///
    /// # Errors
    /// As [`Plan::client_plan`].
    pub fn new(circuits: Circuits, plan: Plan, profile: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let (client, blobs) = plan.client_plan(&circuits, profile, tokenizer)?;
        let order = KeyOrder::of(&circuits, &plan)?;
        let asked = order.request.iter().collect();
        let small = order.small.shapes(circuits.params())?;
        let blobs = blobs.map(Bytes::from);
        Ok(Self { client_json: client.to_json()?, circuits, plan, client, blobs, order, asked, small })
    }

    /// Identity of the plan.
    pub fn plan_id(&self) -> &str {
        &self.client.plan
    }

    pub(crate) fn params(&self) -> &Params {
        self.circuits.params()
    }

    /// The public file of that hash.
    pub(crate) fn blob(&self, hash: Digest) -> Option<Bytes> {
        let hashes = [self.client.tokenizer.blake3, self.client.embedding.blake3];
        let at = hashes.iter().position(|known| *known == hash)?;
        // All readers share its memory.
        Some(self.blobs[at].clone())
    }
}
