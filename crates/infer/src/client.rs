//! The two sides of a run. A [`Client`] holds the secret key, embeds and encrypts, decrypts and
//! decodes; a [`Server`] holds the model and public keys, and its type has no room for a secret.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cipherlm_circuits::slots::{Chain, Encrypted, Primitives, Scale};
use cipherlm_ckks::{
    Ciphertext, Complex64, Decrypted, EvaluationKeys, KeyId, KeyPurpose, Params, Plaintext, SecretKey,
};

use crate::answer;
use crate::error::{At, Error, Result};
use crate::lanes;
use crate::plan::Plan;
use crate::refresh::Circuits;
use crate::run::Observer;
use crate::session::Session;
use crate::small::{self, Asked, Reader};
use crate::vector::Value;

/// A prompt, or several for one pass, on the way to the server: one ciphertext per input vector.
#[derive(Clone)]
pub struct EncryptedPrompt {
    /// The plan it was packed for.
    pub plan: String,
    /// The secret whose keys it is to be run with. The ciphertexts are under it, or under that of
    /// the same root in a smaller ring.
    pub key_id: KeyId,
    /// How many tokens each prompt has, public numbers: what fills them up is masked. As many as
    /// the plan has places for; one that fills a place counts as a prompt.
    pub lengths: Vec<usize>,
    /// The positions that are to be answered, public too.
    pub asked: Asked,
    /// The vectors.
    pub ciphertexts: Vec<Ciphertext>,
}

/// Logits, or the last hidden state of a model of sentence vectors, on their way back.
#[derive(Clone)]
pub struct EncryptedLogits {
    /// The plan that produced them.
    pub plan: String,
    /// Tokens of each prompt that they answer.
    pub lengths: Vec<usize>,
    /// The positions that they hold. One alone of each prompt is a single vector in a small ring.
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
        self.encrypt_each(plan, &[tokens])
    }

    /// As [`Client::encrypt`], for several prompts in one pass, up to [`Plan::prompts`]: the last
    /// one fills the places that are left.
    ///
    /// # Errors
    /// As [`Client::encrypt`]; [`Error::Prompts`] for none or too many.
    pub fn encrypt_each(&self, plan: &Plan, prompts: &[&[u32]]) -> Result<EncryptedPrompt> {
        let filled = lanes::fill(prompts, plan.prompts())?;
        lanes::of_each(prompts, |tokens| plan.ensure_in_range(tokens))?;
        let lengths = filled.iter().map(|tokens| tokens.len()).collect();
        self.encrypt_vectors(plan, &plan.pack_each(&filled)?, lengths)
    }

    /// As [`Client::encrypt`], for tokens that follow those `before` in a session.
    ///
    /// # Errors
    /// As [`Client::encrypt`]; [`Error::Unsupported`] with a plan of several prompts, which has no
    /// sessions.
    pub fn encrypt_after(&self, plan: &Plan, before: &[u32], tokens: &[u32]) -> Result<EncryptedPrompt> {
        if plan.prompts() > 1 {
            let advice = "encrypt the prompts alone, or plan for one prompt and a session";
            return Err(Error::Unsupported { feature: "a session of several prompts", advice });
        }
        plan.ensure_in_range_after(before, tokens)?;
        self.encrypt_vectors(plan, &plan.pack_at(tokens, before.len())?, vec![tokens.len()])
    }

    fn encrypt_vectors(
        &self,
        plan: &Plan,
        vectors: &[Vec<f64>],
        lengths: Vec<usize>,
    ) -> Result<EncryptedPrompt> {
        let params = self.secret.params();
        let floor = plan.target.chain.floor();
        let own = if floor > 0 { Chain::above(params, floor) } else { Chain::of(params) };
        check_chain(plan, &own.at("parameters")?)?;
        let (scale, level) = (plan.target.chain.scale(plan.input_level()), plan.input_level());
        let ring = small::prompt_ring(params, plan.prompt_degree(), level)?;
        let ciphertexts = self.seal_in(ring.as_ref(), vectors, level, scale)?;
        let asked = plan.asked(lengths.first().copied().unwrap_or_default());
        Ok(EncryptedPrompt { plan: plan.id(), key_id: self.key_id(), lengths, asked, ciphertexts })
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
        Ok(self.decrypt_each(plan, logits, &[position])?.swap_remove(0))
    }

    /// As [`Client::decrypt`], the logits of every prompt of a pass, each at its own of
    /// `positions`. Fewer positions than prompts: those of the first ones.
    ///
    /// # Errors
    /// As [`Client::decrypt`]; [`Error::Prompts`] for no positions, or more than there are prompts.
    pub fn decrypt_each(
        &self,
        plan: &Plan,
        logits: &EncryptedLogits,
        positions: &[usize],
    ) -> Result<Vec<Vec<f64>>> {
        check_plan(&plan.id, &logits.plan)?;
        self.read(&plan.reader(), logits, positions, whole)
    }

    /// The results of the first prompts, each at a position, out of a whole answer or a small one.
    pub(crate) fn read(
        &self,
        reader: &Reader,
        logits: &EncryptedLogits,
        positions: &[usize],
        decode: impl Fn(&Decrypted) -> std::result::Result<Vec<Complex64>, cipherlm_ckks::Error>,
    ) -> Result<Vec<Vec<f64>>> {
        lanes::check_places(logits.lengths.len(), reader.prompts)?;
        lanes::check_count(positions.len(), reader.prompts)?;
        for (&position, &length) in positions.iter().zip(&logits.lengths) {
            answer::check_position(&reader.answers, position, length)?;
            if reader.held(logits.asked, length).is_some_and(|held| held != position) {
                let advice =
                    "the answer holds one position alone: ask for another, or for all, when encrypting";
                return Err(Error::Position { position, length, advice });
            }
        }
        let places = || positions.iter().enumerate();
        if logits.asked == Asked::All {
            let vectors = self.open(logits, reader.slots, decode)?;
            return places().map(|(prompt, &at)| reader.whole(&vectors, prompt, at)).collect();
        }
        let ring = small::ring(self.secret.params(), reader.answers.degree).map_err(ckks("small answer"))?;
        let secret = self.secret.in_subring(&ring).map_err(ckks("small answer"))?;
        let small = Self { secret };
        match small.open(logits, ring.slots(), decode)?.as_slice() {
            [slots] => places().map(|(prompt, &at)| reader.small(slots, prompt, at)).collect(),
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
        Ok(self.sentences(plan, hidden)?.swap_remove(0))
    }

    /// As [`Client::sentence`], of every text of a pass.
    ///
    /// # Errors
    /// As [`Client::sentence`].
    pub fn sentences(&self, plan: &Plan, hidden: &EncryptedLogits) -> Result<Vec<Vec<f64>>> {
        let lengths = &hidden.lengths;
        if plan.answers_last() {
            let last: Vec<usize> = lengths.iter().map(|length| length.saturating_sub(1)).collect();
            return self.decrypt_each(plan, hidden, &last)?.iter().map(|row| plan.found(row)).collect();
        }
        plan.check_texts(lengths)?;
        let vectors = self.open_all(plan, hidden)?;
        let own = |(prompt, &length): (usize, &usize)| {
            plan.sentence(&lanes::lane_of_each(&vectors, plan.prompts(), prompt), length)
        };
        lengths.iter().enumerate().map(own).collect()
    }

    fn open_all(&self, plan: &Plan, logits: &EncryptedLogits) -> Result<Vec<Vec<Complex64>>> {
        check_plan(&plan.id, &logits.plan)?;
        let (reader, length) = (plan.reader(), logits.lengths.first().copied().unwrap_or_default());
        if let Some(position) = reader.held(logits.asked, length) {
            let advice = "a sentence is made of all positions: ask for all when encrypting";
            return Err(Error::Position { position, length, advice });
        }
        self.open(logits, reader.slots, whole)
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
        Ok(self.read(&plan.reader(), logits, &[position], decode)?.swap_remove(0))
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

impl<K: EvaluationKeys + 'static> Server<Arc<K>> {
    /// A server that has these keys and bootstraps by these circuits.
    ///
    /// # Errors
    /// None for circuits as [`Circuits::new`] makes them: of one parameter set.
    pub fn open(circuits: &Circuits, key_id: KeyId, keys: &Arc<K>) -> Result<Self> {
        let machine = Encrypted::new(circuits.params(), key_id, Arc::clone(keys)).at("keys")?;
        Ok(Self::new(machine.with_refresher(circuits.refresher(keys)?).at("bootstrapping")?))
    }
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
    /// A prompt for another plan, parameter set or key, or of another number of prompts; missing
    /// keys; [`Error::Position`] for a position that a prompt does not have; [`Error::Stopped`]
    /// when the observer says so.
    pub fn run(
        &self,
        plan: &Plan,
        prompt: EncryptedPrompt,
        observer: &mut dyn Observer<Encrypted<K>>,
    ) -> Result<EncryptedLogits> {
        let (lengths, asked) = (prompt.lengths.clone(), prompt.asked);
        let input = self.accept(plan, prompt)?;
        let reader = plan.reader();
        let tokens = reader.tokens(asked, &lengths)?;
        let _turn = self.turn();
        let outputs = plan.run_texts(&self.machine, input, &lengths, observer)?;
        match tokens {
            Some(tokens) if reader.answers.degree > 0 => {
                let gathered = plan.gather(&self.machine, &outputs, &tokens)?;
                let small = small::project(self.machine.evaluator(), &gathered, reader.answers.degree)?;
                Ok(EncryptedLogits { plan: plan.id(), lengths, asked, ciphertexts: vec![small] })
            }
            _ => self.hand_out(plan, lengths, &outputs),
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
        let lengths = prompt.lengths.clone();
        let input = self.accept(plan, prompt)?;
        let _turn = self.turn();
        self.hand_out(plan, lengths, &plan.run_session(&self.machine, input, session, observer)?)
    }

    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn accept(&self, plan: &Plan, prompt: EncryptedPrompt) -> Result<Value<Encrypted<K>>> {
        check_plan(&plan.id, &prompt.plan)?;
        plan.check_texts(&prompt.lengths)?;
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
        lengths: Vec<usize>,
        outputs: &Value<Encrypted<K>>,
    ) -> Result<EncryptedLogits> {
        let bottom = |v: &_| {
            let level = bottom(self.machine.chain(), self.machine.scale(v), self.machine.level(v));
            Ok::<_, Error>(self.machine.drop_to(v, level).at("output")?.ciphertext().clone())
        };
        Ok(EncryptedLogits {
            plan: plan.id(),
            lengths,
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
