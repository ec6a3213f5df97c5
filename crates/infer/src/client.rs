//! The two sides of a run. A [`Client`] holds the secret key, embeds and encrypts, decrypts and
//! decodes; a [`Server`] holds the model and public keys, and its type has no room for a secret.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cipherlm_circuits::slots::{Chain, Encrypted, Primitives, Scale};
use cipherlm_ckks::{
    Ciphertext, Complex64, Decrypted, EvaluationKeys, KeyId, KeyPurpose, Params, Plaintext, SecretKey,
};
use cipherlm_protocol::Answers;

use crate::answer;
use crate::error::{At, Error, Result};
use crate::plan::Plan;
use crate::run::Observer;
use crate::session::Session;
use crate::small::{self, Asked};
use crate::vector::Value;

/// A prompt on its way to the server: one ciphertext per input vector.
#[derive(Clone)]
pub struct EncryptedPrompt {
    /// The plan it was packed for.
    pub plan: String,
    /// The secret whose keys it is to be run with. The ciphertexts are under it, or under that of
    /// the same root in a smaller ring.
    pub key_id: KeyId,
    /// How many tokens it has, a public number: what fills it up is masked.
    pub length: usize,
    /// The positions that it wants answered, public too.
    pub asked: Asked,
    /// The vectors.
    pub ciphertexts: Vec<Ciphertext>,
}

/// Logits, or the last hidden state of a model of sentence vectors, on their way back.
#[derive(Clone)]
pub struct EncryptedLogits {
    /// The plan that produced them.
    pub plan: String,
    /// Tokens of the prompt that they answer.
    pub length: usize,
    /// The positions that they hold. One alone is a single vector in a small ring.
    pub asked: Asked,
    /// The vectors.
    pub ciphertexts: Vec<Ciphertext>,
}

/// The owner of the secret key.
pub struct Client {
    secret: SecretKey,
}

impl Client {
    /// A client with a new secret.
    ///
    /// # Errors
    /// No randomness.
    pub fn generate(params: &Params) -> Result<Self> {
        Ok(Self { secret: SecretKey::generate(params).map_err(ckks("secret key"))? })
    }

    /// A client with a secret made elsewhere.
    pub fn with_secret(secret: SecretKey) -> Self {
        Self { secret }
    }

    /// The secret, to make keys from.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// Identity of the secret.
    pub fn key_id(&self) -> KeyId {
        self.secret.id()
    }

    /// Embeds and encrypts a prompt at the plan's input level, after a look in the clear whether it
    /// stays in the model's ranges.
    ///
    /// # Errors
    /// What [`Plan::pack`] and [`Plan::ensure_in_range`] refuse; parameters other than the plan's.
    pub fn encrypt(&self, plan: &Plan, tokens: &[u32]) -> Result<EncryptedPrompt> {
        self.encrypt_after(plan, &[], tokens)
    }

    /// As [`Client::encrypt`], for tokens that follow those `before` in a session.
    ///
    /// # Errors
    /// As [`Client::encrypt`].
    pub fn encrypt_after(&self, plan: &Plan, before: &[u32], tokens: &[u32]) -> Result<EncryptedPrompt> {
        plan.ensure_in_range_after(before, tokens)?;
        let params = self.secret.params();
        let floor = plan.target.chain.floor();
        let own = if floor > 0 { Chain::above(params, floor) } else { Chain::of(params) };
        check_chain(plan, &own.at("parameters")?)?;
        let scale = plan.target.chain.scale(plan.input_level());
        let (vectors, level) = (plan.pack_at(tokens, before.len())?, plan.input_level());
        let ring = small::prompt_ring(params, plan.prompt_degree(), level)?;
        let ciphertexts = self.seal_in(ring.as_ref(), &vectors, level, scale)?;
        let (length, asked, key_id) = (tokens.len(), plan.asked(tokens.len()), self.key_id());
        Ok(EncryptedPrompt { plan: plan.id(), key_id, length, asked, ciphertexts })
    }

    /// Encrypts vectors, each repeated over all slots, in a smaller ring where one is given.
    pub(crate) fn seal_in(
        &self,
        ring: Option<&Params>,
        vectors: &[Vec<f64>],
        level: usize,
        scale: Scale,
    ) -> Result<Vec<Ciphertext>> {
        let Some(ring) = ring else { return self.seal(vectors, level, scale) };
        let secret = self.secret.in_subring(ring).map_err(ckks("secret key"))?;
        Self { secret }.seal(vectors, level, scale)
    }

    /// Encrypts vectors, each repeated over all slots.
    pub(crate) fn seal(&self, vectors: &[Vec<f64>], level: usize, scale: Scale) -> Result<Vec<Ciphertext>> {
        let params = self.secret.params();
        let encrypt = |vector: &Vec<f64>| {
            let slots = vector
                .iter()
                .cycle()
                .take(params.slots())
                .map(|&x| Complex64::new(x, 0.0))
                .collect::<Vec<_>>();
            let plaintext =
                Plaintext::encode(params, &slots, slots.len(), scale).map_err(ckks("embedding"))?;
            self.secret.encrypt(&plaintext, level).map_err(ckks("embedding"))
        };
        vectors.iter().map(encrypt).collect()
    }

    /// Decrypts the logits of one position of the prompt, noise included: for the owner of the key
    /// alone.
    ///
    /// # Errors
    /// Logits of another plan or key; a position outside the plan; [`Error::NotAnAnswer`].
    pub fn decrypt(&self, plan: &Plan, logits: &EncryptedLogits, position: usize) -> Result<Vec<f64>> {
        check_plan(&plan.id, &logits.plan)?;
        self.read(&plan.answers(), plan.geometry().slots, logits, position, whole)
    }

    /// The results of a position, out of a whole answer or a small one.
    pub(crate) fn read(
        &self,
        answers: &Answers,
        slots: usize,
        logits: &EncryptedLogits,
        position: usize,
        decode: impl Fn(&Decrypted) -> std::result::Result<Vec<Complex64>, cipherlm_ckks::Error>,
    ) -> Result<Vec<f64>> {
        answer::check_position(answers, position, logits.length)?;
        let Asked::Position(held) = logits.asked else {
            return answer::read(answers, &self.open(logits, slots, decode)?, position);
        };
        if held != position {
            let advice = "the answer holds one position alone: ask for another, or for all, when encrypting";
            return Err(Error::Position { position, length: logits.length, advice });
        }
        let ring = small::ring(self.secret.params(), answers.degree).map_err(ckks("small answer"))?;
        let secret = self.secret.in_subring(&ring).map_err(ckks("small answer"))?;
        let small = Self { secret };
        match small.open(logits, ring.slots(), decode)?.as_slice() {
            [slots] => small::read(answers, slots, position),
            other => {
                let reason = format!("a small answer is one vector, this has {}", other.len());
                Err(Error::Malformed { what: "encrypted logits".into(), reason })
            }
        }
    }

    /// The vector of a text, of length 1, out of its encrypted last hidden state: pooled over its
    /// tokens as the model says, which is nothing that a server has to do.
    ///
    /// # Errors
    /// As [`Client::decrypt`]; a model that answers in tokens or classes.
    pub fn sentence(&self, plan: &Plan, hidden: &EncryptedLogits) -> Result<Vec<f64>> {
        if plan.answers_last() {
            return plan.found(&self.decrypt(plan, hidden, hidden.length.saturating_sub(1))?);
        }
        plan.sentence(&self.open_all(plan, hidden)?, hidden.length)
    }

    fn open_all(&self, plan: &Plan, logits: &EncryptedLogits) -> Result<Vec<Vec<Complex64>>> {
        check_plan(&plan.id, &logits.plan)?;
        if let Asked::Position(position) = logits.asked {
            let advice = "a sentence is made of all positions: ask for all when encrypting";
            return Err(Error::Position { position, length: logits.length, advice });
        }
        self.open(logits, plan.geometry().slots, whole)
    }

    /// As [`Client::decrypt`], rounded for others to see: to multiples of 2^-`bits` of the largest
    /// logit that the plan provides for, when `error_bound` bounds the error of a slot in the same
    /// units.
    ///
    /// # Errors
    /// As [`Client::decrypt`], and when the bound does not leave that many bits.
    pub fn decrypt_public(
        &self,
        plan: &Plan,
        logits: &EncryptedLogits,
        position: usize,
        bits: f64,
        error_bound: f64,
    ) -> Result<Vec<f64>> {
        check_plan(&plan.id, &logits.plan)?;
        let decode = |message: &Decrypted| message.decode_public(bits, error_bound);
        self.read(&plan.answers(), plan.geometry().slots, logits, position, decode)
    }

    /// All slots of the vectors.
    pub(crate) fn open(
        &self,
        logits: &EncryptedLogits,
        slots: usize,
        decode: impl Fn(&Decrypted) -> std::result::Result<Vec<Complex64>, cipherlm_ckks::Error>,
    ) -> Result<Vec<Vec<Complex64>>> {
        let open = |ciphertext: &Ciphertext| {
            let message = self.secret.decrypt(ciphertext).map_err(|error| match error {
                // What is next to the modulus has wrapped around on the way.
                cipherlm_ckks::Error::MessageOverflow { coefficient, modulus, .. } => {
                    let what = "a coefficient";
                    Error::NotAnAnswer { what, found: coefficient.exp2(), bound: modulus.exp2() / 8.0 }
                }
                error => ckks("logits")(error),
            })?;
            let decoded = decode(&message).map_err(ckks("logits"))?;
            Ok(decoded.iter().copied().cycle().take(slots).collect())
        };
        logits.ciphertexts.iter().map(open).collect()
    }
}

/// What prompts of a ring of their own are encrypted under.
pub const PROMPT_SECRET: &str = "secret of the prompt";

/// The owner of the model.
pub struct Server<K> {
    machine: Encrypted<K>,
    /// Held by the run that writes the machine's log.
    turn: Mutex<()>,
}

impl<K: EvaluationKeys> Server<K> {
    /// A server with a machine that holds the client's evaluation keys.
    pub fn new(machine: Encrypted<K>) -> Self {
        Self { machine, turn: Mutex::new(()) }
    }

    /// The machine.
    pub fn machine(&self) -> &Encrypted<K> {
        &self.machine
    }

    /// Runs the plan on an encrypted prompt and answers what it asks for: one position in a small
    /// ring, or all that the plan answers. Runs of one server take turns: each uses all threads,
    /// and the machine has one log.
    ///
    /// # Errors
    /// A prompt for another plan, parameter set or key; missing keys; [`Error::Position`] for
    /// a position that the prompt does not have; [`Error::Stopped`] when the observer says so.
    pub fn run(
        &self,
        plan: &Plan,
        prompt: EncryptedPrompt,
        observer: &mut dyn Observer<Encrypted<K>>,
    ) -> Result<EncryptedLogits> {
        let (length, asked) = (prompt.length, prompt.asked);
        let input = self.accept(plan, prompt)?;
        let answers = plan.answers();
        if let Asked::Position(position) = asked {
            answer::check_position(&answers, position, length)?;
        }
        let _turn = self.turn();
        let outputs = plan.run_text(&self.machine, input, length, observer)?;
        match asked {
            Asked::Position(position) if answers.degree > 0 => {
                let token = if answers.last { 0 } else { position };
                let gathered = small::gather(&self.machine, &answers, &outputs, token)?;
                let small = small::project(self.machine.evaluator(), &gathered, answers.degree)?;
                Ok(EncryptedLogits { plan: plan.id(), length, asked, ciphertexts: vec![small] })
            }
            _ => self.hand_out(plan, length, &outputs),
        }
    }

    /// As [`Server::run`], within a session: a plan for prompts fills its cache, a plan for tokens
    /// adds one token to it.
    ///
    /// # Errors
    /// As [`Server::run`] and [`Plan::run_session`].
    pub fn run_session(
        &self,
        plan: &Plan,
        prompt: EncryptedPrompt,
        session: &mut Session<Encrypted<K>>,
        observer: &mut dyn Observer<Encrypted<K>>,
    ) -> Result<EncryptedLogits> {
        let length = prompt.length;
        let input = self.accept(plan, prompt)?;
        let _turn = self.turn();
        self.hand_out(plan, length, &plan.run_session(&self.machine, input, session, observer)?)
    }

    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn accept(&self, plan: &Plan, prompt: EncryptedPrompt) -> Result<Value<Encrypted<K>>> {
        check_plan(&plan.id, &prompt.plan)?;
        check_chain(plan, self.machine.chain())?;
        let (params, degree) = (self.machine.params(), plan.prompt_degree());
        let expected = small::prompt_ring(params, degree, plan.input_level())?;
        let expected = expected.as_ref().unwrap_or(params);
        let take = |ciphertext: Ciphertext| {
            if ciphertext.params() != expected {
                let (expected, found) = (expected.hash().to_string(), ciphertext.params().hash().to_string());
                return Err(Error::Mismatch { what: "ring of the prompt", expected, found });
            }
            if degree == 0 {
                return self.machine.input(ciphertext).at("input");
            }
            // It fills its own ring, and repeats in this one.
            let evaluator = self.machine.evaluator();
            let (from, level) = (KeyPurpose::Switch(ciphertext.key_id()), ciphertext.level());
            if evaluator.keys().check(from, level).is_err() {
                let (expected, found) = ("that of a key here".into(), ciphertext.key_id().to_string());
                return Err(Error::Mismatch { what: PROMPT_SECRET, expected, found });
            }
            let embedded = evaluator.embed(&ciphertext);
            let whole = embedded.and_then(|ciphertext| ciphertext.with_slots(params.slots()));
            self.machine.input(whole.map_err(ckks("input"))?).at("input")
        };
        prompt.ciphertexts.into_iter().map(take).collect()
    }

    pub(crate) fn hand_out(
        &self,
        plan: &Plan,
        length: usize,
        outputs: &Value<Encrypted<K>>,
    ) -> Result<EncryptedLogits> {
        let bottom = |v: &_| {
            let level = bottom(self.machine.chain(), self.machine.scale(v), self.machine.level(v));
            Ok::<_, Error>(self.machine.drop_to(v, level).at("output")?.ciphertext().clone())
        };
        Ok(EncryptedLogits {
            plan: plan.id(),
            length,
            asked: Asked::All,
            ciphertexts: outputs.iter().map(bottom).collect::<Result<_>>()?,
        })
    }
}

/// The lowest level that still carries logits up to a thousand: whatever modulus is left over goes
/// nowhere.
pub(crate) fn bottom(chain: &Chain, scale: Scale, top: usize) -> usize {
    (0..top).find(|&level| chain.capacity(level, scale) >= 1024.0).unwrap_or(top)
}

/// All slots, noise included.
pub(crate) fn whole(message: &Decrypted) -> std::result::Result<Vec<Complex64>, cipherlm_ckks::Error> {
    Ok(message.decode().as_slice().to_vec())
}

pub(crate) fn check_plan(expected: &str, found: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (expected.to_owned(), found.to_owned());
    Err(Error::Mismatch { what: "plan of the ciphertexts", expected, found })
}

fn check_chain(plan: &Plan, chain: &Chain) -> Result<()> {
    if *chain == plan.target.chain {
        return Ok(());
    }
    let name = |chain: &Chain| {
        format!("{} slots, {} levels above {}", chain.slots(), chain.top() - chain.floor(), chain.floor())
    };
    Err(Error::Mismatch {
        what: "parameters of the plan",
        expected: name(&plan.target.chain),
        found: name(chain),
    })
}

fn ckks(node: &'static str) -> impl Fn(cipherlm_ckks::Error) -> Error {
    move |error| Error::Slots { node: node.to_owned(), source: error.into() }
}
