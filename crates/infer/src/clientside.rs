//! The client's half without the model: a client plan, an embedding, a secret.

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::Chain;
use cipherlm_ckks::{Complex64, Decrypted, GaloisElement, KeyPurpose, KeyRequest, Params};
use cipherlm_model::{Embedding, Kind};
use cipherlm_protocol::{ClientPlan, Digest};

use crate::answer;
use crate::client::{Client, EncryptedLogits, EncryptedPrompt, check_plan, whole};
use crate::error::{At, Error, Result};
use crate::fold::enter_stream;
use crate::geometry::pack;
use crate::keyfolder::KeyOrder;
use crate::lanes;
use crate::small::{self, Asked, Reader, SmallRings};

/// A client plan that has been checked against the client's own parameters, with its embedding.
///
/// It encrypts and decrypts what [`Client`] does with the whole plan, but cannot run the model: of
/// a prompt it checks length, tokens and the range of the embedding. Values that leave their ranges
/// later spoil the answer, which [`ClientSide::decrypt`] sees.
pub struct ClientSide {
    plan: ClientPlan,
    params: Params,
    chain: Chain,
    /// The rings of small messages.
    small: SmallRings,
    embedding: Embedding,
}

impl ClientSide {
    /// Takes a plan whose parameters are those of `profile`, the client's own preset of the name
    /// that the plan gives, and the embedding's file.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for other parameters, another profile or another embedding;
    /// [`Error::ClientPlan`] for levels or layouts that these parameters do not have.
    pub fn new(plan: ClientPlan, profile: &Profile, embedding: &[u8]) -> Result<Self> {
        plan.check()?;
        let mismatch = |what, expected: String, found: String| Error::Mismatch { what, expected, found };
        if plan.profile != profile.name {
            return Err(mismatch("profile of the client plan", profile.name.to_owned(), plan.profile));
        }
        let params = profile.params().map_err(failed)?;
        let own = Digest::from(*params.hash().as_bytes());
        if own != plan.params {
            let (own, found) = (own.to_string(), plan.params.to_string());
            return Err(mismatch("parameters of the client plan", own, found));
        }
        let hash = Digest::of(embedding);
        if hash != plan.embedding.blake3 {
            let expected = plan.embedding.blake3.to_string();
            return Err(mismatch("embedding of the client plan", expected, hash.to_string()));
        }
        let refuse = |reason: &str| cipherlm_protocol::PlanError { reason: reason.into() };
        let (layout, top) = (&plan.layout, params.max_level());
        if layout.slots != params.slots() || layout.level > top || layout.floor > layout.level {
            return Err(refuse("its layout does not fit its parameters").into());
        }
        if plan.keys.iter().any(|key| key.level == 0 || key.level > top) {
            return Err(refuse("it asks for a key at a level that its parameters do not have").into());
        }
        let floor = layout.floor;
        let chain = if floor > 0 { Chain::above(&params, floor) } else { Chain::of(&params) };
        let chain = chain.at("parameters")?;
        let embedding = Embedding::from_bytes(plan.model.embedding.clone(), embedding)?;
        let small = SmallRings {
            prompt: small::prompt_ring(&params, plan.layout.degree, plan.layout.level)?,
            answer: small::answer_ring(&params, plan.answers.degree)?,
        };
        Ok(Self { plan, params, chain, small, embedding })
    }

    /// The plan.
    pub fn plan(&self) -> &ClientPlan {
        &self.plan
    }

    /// The client's own parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The rings of small messages.
    pub fn small_rings(&self) -> &SmallRings {
        &self.small
    }

    /// The keys to make for a server.
    ///
    /// # Errors
    /// [`Error::Slots`] for an automorphism that the ring does not have.
    pub fn key_order(&self) -> Result<KeyOrder> {
        let mut request = KeyRequest::new();
        for key in &self.plan.keys {
            let purpose = match key.galois {
                None => KeyPurpose::Relinearise,
                Some(element) => {
                    KeyPurpose::Galois(GaloisElement::new(&self.params, element).map_err(failed)?)
                }
            };
            request.also(purpose, key.level);
        }
        let (model, plan) = (self.plan.model.name.clone(), self.plan.plan.clone());
        let layout = &self.plan.layout;
        let refresh_input = layout.level <= layout.floor;
        let (tokens, prompts, small) = (layout.tokens, layout.prompts, self.small.clone());
        Ok(KeyOrder { model, tokens, prompts, plan, request, small, refresh_input })
    }

    /// Embeds and encrypts a prompt.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a length that the plan does not take,
    /// [`Error::EmbeddingRange`] for a token beyond the certified range, unknown tokens, a
    /// secret of other parameters.
    pub fn encrypt(&self, client: &Client, tokens: &[u32]) -> Result<EncryptedPrompt> {
        self.encrypt_each(client, &[tokens])
    }

    /// As [`Client::encrypt_each`].
    ///
    /// # Errors
    /// As [`ClientSide::encrypt`]; [`Error::Prompts`] for no prompts or more than the plan takes.
    pub fn encrypt_each(&self, client: &Client, prompts: &[&[u32]]) -> Result<EncryptedPrompt> {
        let (own, theirs) = (self.params.hash(), client.secret().params().hash());
        if own != theirs {
            let (expected, found) = (own.to_string(), theirs.to_string());
            return Err(Error::Mismatch { what: "parameters of the secret", expected, found });
        }
        let filled = lanes::fill(prompts, self.prompts())?;
        let packed = lanes::of_each(&filled, |tokens| self.pack(tokens))?;
        let (vectors, level) = (lanes::interleave(packed), self.plan.layout.level);
        let ciphertexts = client.seal_in(self.small.prompt.as_ref(), &vectors, level, self.scale())?;
        let lengths: Vec<usize> = filled.iter().map(|tokens| tokens.len()).collect();
        let asked = self.asked(lengths.first().copied().unwrap_or_default());
        Ok(EncryptedPrompt {
            plan: self.plan.plan.clone(),
            key_id: client.key_id(),
            lengths,
            asked,
            ciphertexts,
        })
    }

    /// Prompts that a pass takes.
    pub fn prompts(&self) -> usize {
        self.plan.layout.prompts
    }

    /// As [`crate::Plan::asked`].
    pub fn asked(&self, length: usize) -> Asked {
        small::usual(self.plan.model.kind, &self.plan.answers, self.prompts(), length)
    }

    /// As [`Client::decrypt`].
    ///
    /// # Errors
    /// As [`Client::decrypt`].
    pub fn decrypt(&self, client: &Client, logits: &EncryptedLogits, position: usize) -> Result<Vec<f64>> {
        Ok(self.decrypt_each(client, logits, &[position])?.swap_remove(0))
    }

    /// As [`Client::decrypt_each`].
    ///
    /// # Errors
    /// As [`Client::decrypt_each`].
    pub fn decrypt_each(
        &self,
        client: &Client,
        logits: &EncryptedLogits,
        positions: &[usize],
    ) -> Result<Vec<Vec<f64>>> {
        self.read(client, logits, positions, whole)
    }

    /// As [`Client::decrypt_public`].
    ///
    /// # Errors
    /// As [`Client::decrypt_public`].
    pub fn decrypt_public(
        &self,
        client: &Client,
        logits: &EncryptedLogits,
        position: usize,
        bits: f64,
        error_bound: f64,
    ) -> Result<Vec<f64>> {
        Ok(self.decrypt_public_each(client, logits, &[position], bits, error_bound)?.swap_remove(0))
    }

    /// As [`ClientSide::decrypt_public`], the results of every prompt of a pass, each at its own of
    /// `positions`.
    ///
    /// # Errors
    /// As [`Client::decrypt_public`] and [`Client::decrypt_each`].
    pub fn decrypt_public_each(
        &self,
        client: &Client,
        logits: &EncryptedLogits,
        positions: &[usize],
        bits: f64,
        error_bound: f64,
    ) -> Result<Vec<Vec<f64>>> {
        self.read(client, logits, positions, |message| message.decode_public(bits, error_bound))
    }

    /// The position of each prompt at which an answer is read: the one that it holds, or else the
    /// one at which the prompt's answer stands.
    pub fn positions(&self, logits: &EncryptedLogits) -> Vec<usize> {
        let reader = self.reader();
        let position =
            |&length: &usize| reader.held(logits.asked, length).unwrap_or(self.answer_position(length));
        logits.lengths.iter().map(position).collect()
    }

    /// Refuses a position that no answer to a prompt of `length` tokens has.
    ///
    /// # Errors
    /// [`Error::Position`].
    pub fn check_position(&self, position: usize, length: usize) -> Result<()> {
        answer::check_position(&self.plan.answers, position, length)
    }

    /// Position at which the answer to a prompt of `tokens` tokens stands.
    pub fn answer_position(&self, tokens: usize) -> usize {
        answer::position(self.plan.model.kind, &self.plan.answers, tokens)
    }

    /// Documents that a question is compared with; none where the plan is for no search.
    pub fn documents(&self) -> usize {
        let ClientPlan { model, answers, .. } = &self.plan;
        let searches = matches!(model.kind, Kind::Embedder { .. }) && answers.last;
        if searches { answers.results.saturating_sub(model.embedding.d_model) } else { 0 }
    }

    fn read(
        &self,
        client: &Client,
        logits: &EncryptedLogits,
        positions: &[usize],
        decode: impl Fn(&Decrypted) -> std::result::Result<Vec<Complex64>, cipherlm_ckks::Error>,
    ) -> Result<Vec<Vec<f64>>> {
        check_plan(&self.plan.plan, &logits.plan)?;
        client.read(&self.reader(), logits, positions, decode)
    }

    fn reader(&self) -> Reader {
        let ClientPlan { model, answers, layout, .. } = &self.plan;
        Reader { kind: model.kind, answers: *answers, slots: layout.slots, prompts: layout.prompts }
    }

    fn scale(&self) -> cipherlm_circuits::slots::Scale {
        self.chain.scale(self.plan.layout.level)
    }

    /// One period of real slots of one prompt for each input vector.
    fn pack(&self, tokens: &[u32]) -> Result<Vec<Vec<f64>>> {
        let (layout, model) = (&self.plan.layout, &self.plan.model.embedding);
        let (length, capacity) = (tokens.len(), layout.tokens);
        if length == 0 || length > capacity {
            let advice = "shorten the prompt or plan for a longer one";
            return Err(Error::Prompt { length, capacity, advice });
        }
        let padded: Vec<u32> = tokens.iter().copied().cycle().take(capacity).collect();
        let mut rows = self.embedding.rows(&padded, self.plan.model.prefix.len())?;
        for (position, row) in rows.chunks_exact(model.d_model).enumerate() {
            let found = row.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            if found > layout.range {
                return Err(Error::EmbeddingRange { position, found, bound: layout.range });
            }
        }
        enter_stream(&mut rows, model.d_model, layout.centred, layout.unit);
        let period = layout.tokens * layout.features;
        let mut packed = pack(&rows, model.d_model, layout.features, period);
        packed.resize(layout.vectors, vec![0.0; period]);
        Ok(packed)
    }
}

fn failed(error: cipherlm_ckks::Error) -> Error {
    Error::Slots { node: "client plan".into(), source: error.into() }
}
