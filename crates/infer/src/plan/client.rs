//! What a client has to know of a plan.

use cipherlm_ckks::{Ciphertext, KeyPurpose, Params};
use cipherlm_model::{Embedding, EmbeddingShape, Tokenizer};
use cipherlm_protocol::{Blob, ClientPlan, Costs, Digest, KeyAsked, Layout, ModelFacts, PLAN_FORMAT};

use super::Plan;
use crate::client::bottom;
use crate::error::{Error, Result, broken};
use crate::files;
use crate::fold::Purpose;
use crate::refresh::Circuits;

impl Plan {
    /// All that a client has to know of this plan, with the files that go with it: the tokenizer
    /// and the embedding. No other weight leaves the server.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a plan of a session; keys that the parameters cannot hold.
    pub fn client_plan(
        &self,
        circuits: &Circuits,
        profile: &str,
        tokenizer: &Tokenizer,
    ) -> Result<(ClientPlan, [Vec<u8>; 2])> {
        if self.folded.purpose != Purpose::Prompt {
            let advice = "plan with `Purpose::Prompt`";
            return Err(Error::Unsupported { feature: "a session over a client plan", advice });
        }
        let (params, shape) = (circuits.params(), self.folded.shape());
        let tokenizer = tokenizer.to_json()?.into_bytes();
        let embedding = Embedding::bytes_of(&self.folded.model)?;
        let blob = |bytes: &[u8]| Blob { blake3: Digest::of(bytes), bytes: bytes.len() as u64 };
        let range = self.folded.model.site("embed").map(|site| site.range.magnitude());
        let plan = ClientPlan {
            format: PLAN_FORMAT.into(),
            plan: self.id(),
            model: ModelFacts {
                name: self.folded.model.spec().name.clone(),
                kind: shape.kind,
                embedding: EmbeddingShape::of(shape),
                prefix: self.public_prefix().to_vec(),
            },
            profile: profile.to_owned(),
            log_degree: params.log_degree(),
            params: Digest::from(*params.hash().as_bytes()),
            purpose: "prompt".into(),
            layout: Layout {
                slots: self.folded.geometry.vector_slots(),
                prompts: self.prompts(),
                features: self.folded.geometry.features,
                tokens: self.folded.geometry.tokens,
                vectors: self.input_width(),
                level: self.input_level(),
                floor: self.target.chain.floor(),
                degree: self.prompt_degree(),
                centred: self.folded.centred(),
                unit: self.folded.units.entry,
                range: range.ok_or_else(|| broken("a planned model has the site `embed`"))?,
            },
            answers: self.answers(),
            tokenizer: blob(&tokenizer),
            embedding: blob(&embedding),
            keys: self.keys_asked(circuits)?,
            costs: self.costs(circuits)?,
        };
        plan.check()?;
        Ok((plan, [tokenizer, embedding]))
    }

    fn keys_asked(&self, circuits: &Circuits) -> Result<Vec<KeyAsked>> {
        let asked = |(purpose, level)| match purpose {
            KeyPurpose::Relinearise => Ok(KeyAsked { galois: None, level }),
            KeyPurpose::Galois(element) => Ok(KeyAsked { galois: Some(element.element()), level }),
            other => Err(broken(&format!("a plan asks for no {other} key"))),
        };
        circuits.key_request(self).iter().map(asked).collect()
    }

    /// What keys, messages and a run take.
    ///
    /// # Errors
    /// Keys that the parameters cannot hold.
    pub fn costs(&self, circuits: &Circuits) -> Result<Costs> {
        let (key_bytes, key_bytes_resident) = circuits.key_bytes(self)?;
        let params = circuits.params();
        let prompt_ring = circuits.prompt_ring(self)?;
        let prompt_ring = prompt_ring.as_ref().unwrap_or(params);
        let fresh = Ciphertext::stored_bytes(prompt_ring, self.input_level(), true);
        let (prompt_head, head) = (files::prompt_head(self.prompts()), files::logits_head(self.prompts()));
        let whole = head + self.answers().vectors as u64 * self.answer_vector_bytes(params);
        let small = circuits.answer_ring(self)?.map(|ring| head + Ciphertext::stored_bytes(&ring, 0, false));
        Ok(Costs {
            key_bytes,
            key_bytes_resident,
            prompt_bytes: prompt_head + self.input_width() as u64 * fresh,
            answer_bytes: small.unwrap_or(whole),
            whole_answer_bytes: whole,
            seconds: self.seconds(),
        })
    }

    fn answer_vector_bytes(&self, params: &Params) -> u64 {
        let chain = &self.target.chain;
        let top = self.graph.nodes.len().checked_sub(1).map_or(0, |last| self.level_after(last));
        Ciphertext::stored_bytes(params, bottom(chain, chain.scale(top), top), false)
    }
}
