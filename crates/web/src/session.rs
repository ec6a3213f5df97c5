//! One client and one server's plan: from a text to a ciphertext, from a ciphertext to the next
//! token.

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::SecretKey;
use cipherlm_infer::{Client, ClientFolder, EncryptedLogits, TextSide, own_profile};
use cipherlm_model::Kind;
use cipherlm_protocol::{Blob, ClientPlan, Digest};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A server's client plan, checked, before its files are there.
pub struct Offer {
    plan: ClientPlan,
    profile: Profile,
}

/// What the page has to know of an offer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts<'o> {
    /// Name of the model.
    pub model: &'o str,
    /// Whether it continues text; else it sorts texts into classes.
    pub continues: bool,
    /// The plan.
    pub plan: &'o str,
    /// The parameters.
    pub profile: &'o str,
    /// log2 of their ring degree.
    pub log_degree: u32,
    /// Whether they protect nothing.
    pub insecure: bool,
    /// Longest text, in tokens.
    pub tokens: usize,
    /// The tokenizer's file.
    pub tokenizer: Blob,
    /// The embedding's file.
    pub embedding: Blob,
    /// Bytes of a prompt.
    pub prompt_bytes: u64,
    /// Bytes of an answer, at most.
    pub answer_bytes: u64,
    /// Seconds of a run, as predicted.
    pub seconds: f64,
}

impl Offer {
    /// Reads a client plan. Its parameters are this client's own of the name that it gives: the
    /// page has small rings for trying things out, and says of each that it protects nothing.
    ///
    /// # Errors
    /// [`Error::Plan`], [`Error::Infer`] and [`Error::Profile`] for parameters that this version
    /// does not have, [`Error::Kind`].
    pub fn read(json: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(json).map_err(|_| Error::Text("the client plan"))?;
        let plan = ClientPlan::from_json(text)?;
        if matches!(plan.model.kind, Kind::Embedder { .. }) {
            return Err(Error::Kind);
        }
        let profile = own_profile(&plan.profile, plan.log_degree)?;
        if profile.log_degree != plan.log_degree {
            return Err(Error::Profile { name: plan.profile, log_degree: plan.log_degree });
        }
        Ok(Self { plan, profile })
    }

    /// What the page has to know.
    pub fn facts(&self) -> Facts<'_> {
        let ClientPlan { model, costs, .. } = &self.plan;
        Facts {
            model: &model.name,
            continues: model.kind == Kind::Decoder,
            plan: &self.plan.plan,
            profile: self.profile.name,
            log_degree: self.profile.log_degree,
            insecure: self.profile.insecure,
            tokens: self.plan.layout.tokens,
            tokenizer: self.plan.tokenizer,
            embedding: self.plan.embedding,
            prompt_bytes: costs.prompt_bytes,
            answer_bytes: costs.answer_bytes.max(costs.whole_answer_bytes),
            seconds: costs.seconds,
        }
    }

    /// Takes the secret and the plan's files, each compared with the plan.
    ///
    /// # Errors
    /// [`Error::Hash`] and [`Error::Infer`] for files of another plan, [`Error::Secret`] for a
    /// secret of other parameters.
    pub fn open(self, secret: &[u8], tokenizer: Vec<u8>, embedding: Vec<u8>) -> Result<Session> {
        check("the tokenizer", &tokenizer, self.plan.tokenizer.blake3)?;
        let side = TextSide::new(ClientFolder { plan: self.plan, tokenizer, embedding }, &self.profile)?;
        let secret = SecretKey::from_secret_bytes(side.side.params(), secret).map_err(Error::Secret)?;
        let client = Client::with_secret(secret);
        Ok(Session { side, client, prompt: Zeroizing::default(), made: Zeroizing::default() })
    }
}

fn check(what: &'static str, bytes: &[u8], expected: Digest) -> Result<()> {
    let found = Digest::of(bytes);
    if found == expected { Ok(()) } else { Err(Error::Hash { what, expected, found }) }
}

/// A client with its secret, and the text so far. All of it is wiped on drop, but for what the
/// tokenizer keeps of words that it has seen.
pub struct Session {
    side: TextSide,
    client: Client,
    prompt: Zeroizing<Vec<u32>>,
    made: Zeroizing<Vec<u32>>,
}

/// A prompt on its way to the server.
pub struct Sealed {
    /// Its hash: the name of the job.
    pub job: Digest,
    /// The encrypted prompt.
    pub bytes: Vec<u8>,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The next token, or the class.
    pub token: u32,
    /// All that was added to the text so far, the token included; the name of a class.
    pub text: String,
    /// Whether the text ends here.
    pub end: bool,
    /// Tokens for which there is room still.
    pub room: usize,
    /// The best results, with logits rounded so that they may be shown.
    pub top: Vec<Choice>,
}

/// One of the best results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The token, or the class.
    pub token: u32,
    /// How it reads.
    pub text: String,
    /// Its logit, rounded to eight bits of its range.
    pub logit: f64,
}

impl Session {
    /// Identity of the secret, in hexadecimal: the name that its keys have on the server.
    pub fn key(&self) -> String {
        self.client.key_id().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Begins with a text and encrypts it.
    ///
    /// # Errors
    /// [`Error::Room`], [`Error::Infer`] for a text without tokens, for tokens outside the
    /// certified range, or without randomness.
    pub fn begin(&mut self, text: &str) -> Result<Sealed> {
        let tokens = Zeroizing::new(self.side.tokens(text)?);
        match (tokens.len(), self.capacity()) {
            (length, capacity) if length > capacity => return Err(Error::Room { length, capacity }),
            _ => self.prompt = tokens,
        }
        self.made = Zeroizing::default();
        self.seal()
    }

    /// Encrypts the text with the tokens that were added to it.
    ///
    /// # Errors
    /// [`Error::Order`] before the first answer, else as [`Session::begin`].
    pub fn go_on(&self) -> Result<Sealed> {
        if self.made.is_empty() {
            return Err(Error::Order { what: "an answer" });
        }
        self.seal()
    }

    fn seal(&self) -> Result<Sealed> {
        let tokens = Zeroizing::new([self.prompt.as_slice(), &self.made].concat());
        let bytes = self.side.encrypt(&self.client, None, &tokens)?.to_bytes();
        Ok(Sealed { job: Digest::of(&bytes), bytes })
    }

    /// Longest text.
    fn capacity(&self) -> usize {
        let plan = self.side.side.plan();
        plan.layout.tokens.min(plan.model.embedding.context.saturating_sub(plan.model.prefix.len()))
    }

    /// Decrypts an answer, whose hash the server named, and adds its token to the text; shows the
    /// best `count` results.
    ///
    /// # Errors
    /// [`Error::Order`] before a prompt; [`Error::Hash`] for other bytes; [`Error::Infer`] for an
    /// answer of another plan or key, or for what is none. Whoever sees one must not ask again: it
    /// would tell the server something about a decryption.
    pub fn read(&mut self, answer: &[u8], named: Digest, count: usize) -> Result<Answer> {
        if self.prompt.is_empty() {
            return Err(Error::Order { what: "a prompt" });
        }
        check("the answer", answer, named)?;
        let half = &self.side.side;
        let logits = EncryptedLogits::from_bytes(half.params(), half.small_rings(), answer)?;
        let position = half.answer_position(self.prompt.len() + self.made.len());
        let continues = half.plan().model.kind == Kind::Decoder;
        let opened = self.side.open(&self.client, &logits, position)?;
        let best = opened.top(count.max(1));
        let (rounded, _own) = (opened.rounded, Zeroizing::new(opened.own));
        let token = best.first().copied().ok_or(Error::Order { what: "a plan with results" })?;
        let choice = |&token: &u32| {
            let text = self.side.meaning(&[token]);
            Choice { token, text, logit: rounded[token as usize] }
        };
        let top = best.iter().map(choice).collect();
        if !continues {
            return Ok(Answer { token, text: self.side.meaning(&[token]), end: true, room: 0, top });
        }
        let tokenizer = &self.side.tokenizer;
        let end = tokenizer.is_end(token);
        if !end {
            self.made.push(token);
        }
        let text = tokenizer.decode_continuation(&self.prompt, &self.made)?;
        let room = (self.capacity() + 1).saturating_sub(self.prompt.len() + self.made.len());
        Ok(Answer { token, text, end, room, top })
    }
}
