//! The bootstrapping circuit.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::eval_mod::EvalMod;
use super::profile::{Profile, stages};
use super::transform::Transform;
use super::types::{Content, Declaration, Goal, Stage};
use cipherlm_ckks::keys::EvaluationKeys;
use cipherlm_ckks::params::KeyShape;
use cipherlm_ckks::{
    Ciphertext, Error, Evaluator, GaloisElement, KeyPurpose, KeyRequest, Params, Scale, SecretDistribution,
    hazmat,
};

/// A bootstrapping circuit for one number of slots: prepared plaintexts, no keys.
///
/// ```
/// use cipherlm_circuits::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile};
/// use cipherlm_ckks::{Ciphertext, Evaluator, KeyRequest, Plaintext, Scale, SecretKey};
/// let profile = Profile::insecure(7); // a real one in a ring without security
/// assert!(profile.reduction_errors()?.iter().all(|error| *error < 1e-6));
/// let params = profile.params()?;
/// let circuit = Bootstrapper::new(&params, &profile, 32, Content::Complex)?;
/// let circuit = circuit.with_plaintext_budget(1 << 20);
/// println!("{}", circuit.declare()?.memory); // before any key is made
///
/// let secret = SecretKey::generate(&params)?;
/// let keys = BootstrapKeys::generate(&secret, &[&circuit], &KeyRequest::new())?;
/// let evaluator = Evaluator::new(&params, keys);
/// let (level, scale) = (circuit.input_level(), params.default_scale(circuit.output_level()));
/// let encrypt = |value: f64, level, scale| {
///     secret.encrypt(&Plaintext::encode_real(&params, &[value], 32, scale)?, level)
/// };
/// let error = |found: &Ciphertext, value: f64| -> Result<f64, cipherlm_ckks::Error> {
///     Ok((secret.decrypt(found)?.decode().as_slice()[0] - value).norm())
/// };
/// // Two real vectors for the price of one.
/// let (x, y) = (encrypt(0.25, level, scale)?, encrypt(-0.5, level, scale)?);
/// let (x, y) = circuit.bootstrap_pair(&evaluator, &x, &y)?;
/// assert!(error(&x, 0.25)?.max(error(&y, -0.5)?) < 2f64.powi(-20));
/// // A message of more bits for the price of two.
/// let fine = encrypt(0.25, level + 1, scale * Scale::from_log2(16))?;
/// assert!(error(&circuit.bootstrap_twice(&evaluator, &fine, 16)?, 0.25)? < 2f64.powi(-36));
/// # Ok::<(), cipherlm_ckks::Error>(())
/// ```
pub struct Bootstrapper {
    pub(super) params: Params,
    pub(super) profile: Profile,
    pub(super) slots: usize,
    pub(super) content: Content,
    pub(super) down: Vec<Transform>,
    pub(super) up: Vec<Transform>,
    pub(super) eval_mod: EvalMod,
    pub(super) plaintext_budget: u64,
    /// The chains of lower results, by level.
    pub(super) shortened: Mutex<BTreeMap<usize, Params>>,
}

/// Smallest number of slots that can be bootstrapped.
const MIN_SLOTS: usize = 8;

impl Bootstrapper {
    /// The circuit of `profile` for ciphertexts of up to `slots` slots. Fewer slots are cheaper.
    ///
    /// # Errors
    /// As [`Profile::validate`]; [`Error::InvalidParams`] or [`Error::LevelExhausted`] if `params`
    /// are not those of the profile; [`Error::BadSlots`] for a number of slots below 8, above N/2
    /// or not a power of two; [`Error::BadScale`] if the profile leaves a transform no scale for
    /// its plaintexts.
    pub fn new(params: &Params, profile: &Profile, slots: usize, content: Content) -> Result<Self, Error> {
        profile.validate()?;
        profile.check(params)?;
        if slots < MIN_SLOTS || !slots.is_power_of_two() || slots > params.slots() {
            return Err(Error::BadSlots { slots, min: MIN_SLOTS, max: params.slots() });
        }
        let layers = slots.ilog2();
        let down = stages(&profile.slots_to_coeffs, layers);
        let up = stages(&profile.coeffs_to_slots, layers);
        let mut bootstrapper = Self {
            params: params.clone(),
            profile: profile.clone(),
            slots,
            content,
            down: Vec::new(),
            up: Vec::new(),
            eval_mod: profile.circuit()?,
            plaintext_budget: 1 << 30,
            shortened: Mutex::default(),
        };
        bootstrapper.down = bootstrapper.slots_to_coeffs(&down)?;
        bootstrapper.up = bootstrapper.coeffs_to_slots(&up)?;
        Ok(bootstrapper)
    }

    /// Keeps residues of plaintexts between calls as long as they fit `bytes`; default 1 GiB. Less
    /// memory, more time.
    pub fn with_plaintext_budget(mut self, bytes: u64) -> Self {
        self.plaintext_budget = bytes;
        self
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Number of slots it refreshes.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// What the slots hold.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The lowest level of an input.
    pub fn input_level(&self) -> usize {
        self.down.len()
    }

    /// The level of the result.
    pub fn output_level(&self) -> usize {
        self.profile.output_level()
    }

    /// The level to which the ciphertext is raised.
    pub fn raised_level(&self) -> usize {
        self.eval_level() + self.up.len()
    }

    /// Depth, keys and memory, before any key is made.
    ///
    /// # Errors
    /// [`Error::BadKeyShape`] if the parameters cannot hold the keys.
    pub fn declare(&self) -> Result<Declaration, Error> {
        let keys = self.key_request();
        let mut memory = keys.bill(&self.params)?;
        for shape in
            [KeyShape { level: 0, special: 1 }, KeyShape::cheapest(&self.params, self.raised_level())?]
        {
            memory.keys += 1;
            memory.stored_bytes += shape.stored_bytes(&self.params);
            memory.resident_bytes += shape.resident_bytes(&self.params);
        }
        let plaintexts: Vec<_> = self.down.iter().chain(&self.up).map(Transform::bytes).collect();
        let compact: u64 = plaintexts.iter().map(|b| b.0).sum();
        let lifted: u64 = plaintexts.iter().map(|b| b.1).sum();
        Ok(Declaration {
            input_level: self.input_level(),
            output_level: self.output_level(),
            depth: self.raised_level() - self.output_level(),
            keys,
            memory,
            plaintext_bytes: [compact, compact + lifted.min(self.plaintext_budget)],
        })
    }

    /// The evaluation keys, each at the level of its use.
    pub fn key_request(&self) -> KeyRequest {
        let mut request = KeyRequest::new();
        for transform in self.down.iter().chain(&self.up) {
            transform.request(&self.params, &mut request);
        }
        for element in self.sub_sum().into_iter().flatten() {
            request.also(KeyPurpose::Galois(element), self.raised_level());
        }
        let conjugation = KeyPurpose::Galois(GaloisElement::conjugation(&self.params));
        request.also(KeyPurpose::Relinearise, self.eval_level());
        request.also(conjugation, self.eval_level() + 1);
        request.also(conjugation, self.output_level() + 1);
        request
    }

    /// Refreshes `input`: the same message at [`Bootstrapper::output_level`] and the default scale
    /// of that level.
    ///
    /// The error of the result is that of the profile as long as the real and the imaginary part of
    /// every slot, times the scale of the input, are at most `2^(profile.scale + 1/2)`: 1 at the
    /// nominal scale, with half a bit in reserve. A slot beyond that loses bits, by the fifth power
    /// of its size ([`Profile::reduction_errors`]), and one beyond `2^(profile.ratio - 1)` comes
    /// back as another value; the other slots keep theirs.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] below [`Bootstrapper::input_level`], [`Error::BadSlots`] for more
    /// slots than the circuit's, [`Error::BadScale`] if the scale of the input is not within 8 bits
    /// below and 1.5 above the profile's, [`Error::MissingKey`], [`Error::InvalidParams`] for keys
    /// of another ephemeral weight, and mismatches of parameters or keys: all found before any
    /// work, but for keys that the source has and that turn out to be others.
    pub fn bootstrap<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
    ) -> Result<Ciphertext, Error> {
        self.bootstrap_with(evaluator, input, &mut |_| {})
    }

    /// As [`Bootstrapper::bootstrap`], calling `progress` when each stage begins.
    ///
    /// # Errors
    /// As [`Bootstrapper::bootstrap`].
    pub fn bootstrap_with<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Ciphertext, Error> {
        let level = self.output_level();
        self.bootstrap_to(evaluator, input, level, self.params.default_scale(level), progress)
    }

    /// As [`Bootstrapper::bootstrap_with`], to `level` and exactly `scale`, which must be within a
    /// bit of the profile's.
    ///
    /// The levels between `level` and [`Bootstrapper::output_level`] take no part in the circuit:
    /// fewer levels cost less time.
    ///
    /// # Errors
    /// As [`Bootstrapper::bootstrap`]; [`Error::BadScale`], and [`Error::LevelOutOfRange`] for a
    /// level above the circuit's.
    pub fn bootstrap_to<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
        level: usize,
        scale: Scale,
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Ciphertext, Error> {
        let goal = self.goal(level, scale)?;
        self.check(evaluator, input)?;
        progress(Stage::SlotsToCoeffs);
        let bottom = self.to_bottom(evaluator, input)?;
        progress(Stage::ModRaise);
        let sparse = self.encapsulate(evaluator, &bottom)?;
        drop(bottom);
        let fresh = self.finish(evaluator, sparse, goal, progress)?;
        evaluator.drop_to_level(&fresh, level)?.with_slots(input.slots())
    }

    /// Refreshes two real vectors by one complex bootstrap: half the cost of two.
    ///
    /// Needs [`Content::Complex`] and both inputs at one level and scale; what is left of imaginary
    /// parts is lost.
    ///
    /// # Errors
    /// As [`Bootstrapper::bootstrap`]; [`Error::LevelMismatch`] and [`Error::ScaleMismatch`]
    /// between the inputs, [`Error::OperandCount`] for a circuit of real content.
    pub fn bootstrap_pair<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        first: &Ciphertext,
        second: &Ciphertext,
    ) -> Result<(Ciphertext, Ciphertext), Error> {
        let level = self.output_level();
        self.bootstrap_pair_to(evaluator, first, second, level, self.params.default_scale(level))
    }

    /// As [`Bootstrapper::bootstrap_pair`], to `level` and exactly `scale`; see
    /// [`Bootstrapper::bootstrap_to`].
    ///
    /// # Errors
    /// As the two.
    pub fn bootstrap_pair_to<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        first: &Ciphertext,
        second: &Ciphertext,
        level: usize,
        scale: Scale,
    ) -> Result<(Ciphertext, Ciphertext), Error> {
        if self.content != Content::Complex {
            return Err(Error::OperandCount {
                operation: "bootstrap_pair of a circuit for real content",
                left: 1,
                right: 2,
            });
        }
        let goal = self.goal(level, scale)?;
        self.check(evaluator, first)?;
        let packed = evaluator.add(first, &evaluator.mul_i(second)?)?;
        self.check(evaluator, &packed)?;
        let sparse = self.encapsulate(evaluator, &self.to_bottom(evaluator, &packed)?)?;
        let [real, imaginary] = self.finish_apart(evaluator, sparse, goal)?;
        let part = |part: Ciphertext, slots| evaluator.drop_to_level(&part, level)?.with_slots(slots);
        Ok((part(real, first.slots())?, part(imaginary, second.slots())?))
    }

    fn goal(&self, level: usize, scale: Scale) -> Result<Goal, Error> {
        if level > self.output_level() {
            return Err(Error::LevelOutOfRange { operation: "bootstrap", level, max: self.output_level() });
        }
        let (log2, nominal) = (scale.log2(), self.profile.scale);
        if !(nominal - 1.0..=nominal + 1.0).contains(&log2) {
            return Err(Error::BadScale {
                operation: "bootstrap",
                log2,
                min: nominal - 1.0,
                max: nominal + 1.0,
            });
        }
        Ok(Goal { level, scale })
    }

    fn check<K: EvaluationKeys>(&self, evaluator: &Evaluator<K>, input: &Ciphertext) -> Result<(), Error> {
        const OPERATION: &str = "bootstrap";
        hazmat::check_same(&self.params, OPERATION, evaluator.params())?;
        hazmat::check_same(&self.params, OPERATION, input.params())?;
        if !input.is_linear() {
            return Err(Error::NotLinear { operation: OPERATION, parts: input.parts().len() });
        }
        if input.level() < self.input_level() {
            return Err(Error::LevelExhausted {
                operation: OPERATION,
                have: input.level(),
                need: self.input_level(),
            });
        }
        if input.slots() > self.slots {
            return Err(Error::BadSlots { slots: input.slots(), min: 1, max: self.slots });
        }
        let (log2, nominal) = (input.scale().log2(), self.profile.scale);
        // Half a bit of the ratio is in reserve, and messages below 1/2 may have twice the scale; a
        // smaller scale only loses precision.
        if !(nominal - 8.0..=nominal + 1.5).contains(&log2) {
            return Err(Error::BadScale {
                operation: OPERATION,
                log2,
                min: nominal - 8.0,
                max: nominal + 1.5,
            });
        }
        let to_sparse =
            hazmat::key_at(evaluator, OPERATION, KeyPurpose::Switch(input.key_id()), 0, input.key_id())?;
        // The overflow that the polynomial covers is that of this weight.
        let want = SecretDistribution::Sparse { weight: self.profile.ephemeral_weight };
        if to_sparse.distribution() != want {
            let value = match to_sparse.distribution() {
                SecretDistribution::Sparse { weight } => weight as f64,
                _ => f64::INFINITY,
            };
            let allowed = "that of the bootstrapper's profile: these keys are those of another profile";
            return Err(Error::InvalidParams { field: "ephemeral weight", value, allowed });
        }
        evaluator.keys().check(KeyPurpose::Switch(to_sparse.key_id()), self.raised_level())?;
        for (purpose, level) in self.key_request().iter() {
            evaluator.keys().check(purpose, level)?;
        }
        Ok(())
    }

    pub(super) fn eval_level(&self) -> usize {
        self.output_level() + self.profile.eval_mod.len()
    }
}
