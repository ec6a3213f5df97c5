//! The bootstrapping circuit.

use cipherlm_ring::{Eval, Limbs, Poly};
use rayon::prelude::*;

use super::dft::{self, DiagonalMatrix, even_layers};
use super::eval_mod::EvalMod;
use super::machine::Encrypted;
use super::profile::{DftLevel, Profile};
use super::transform::Transform;
use crate::keys::EvaluationKeys;
use crate::params::KeyShape;
use crate::{
    Ciphertext, Error, Evaluator, ExtendedCiphertext, GaloisElement, KeyPurpose, KeyRequest, MemoryBill, Params, Scale,
};

/// What the slots hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Complex numbers.
    Complex,
    /// Real numbers: half the modular reductions. Imaginary parts are lost.
    Real,
}

/// A step of the circuit, for progress reports; spans of the same names are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The transform at the bottom.
    SlotsToCoeffs,
    /// To the ephemeral secret, up, and back.
    ModRaise,
    /// The projection to fewer slots.
    SubSum,
    /// The transform at the top.
    CoeffsToSlots,
    /// The modular reduction.
    EvalMod,
    /// Done.
    Finished,
}

/// What a bootstrapper needs, known before any key exists.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// The lowest level of an input.
    pub input_level: usize,
    /// The level of the result.
    pub output_level: usize,
    /// Levels used between the raise and the result.
    pub depth: usize,
    /// Its keys, without the two of the ephemeral secret.
    pub keys: KeyRequest,
    /// Bytes of all keys, those of the ephemeral secret included.
    pub memory: MemoryBill,
    /// Bytes of the plaintexts: as they are kept, and with the residues that [`Bootstrapper::with_plaintext_budget`] allows to keep.
    pub plaintext_bytes: [u64; 2],
}

/// A bootstrapping circuit for one number of slots: prepared plaintexts, no keys.
pub struct Bootstrapper {
    params: Params,
    profile: Profile,
    slots: usize,
    content: Content,
    down: Vec<Transform>,
    up: Vec<Transform>,
    eval_mod: EvalMod,
    plaintext_budget: u64,
}

/// Smallest number of slots that can be bootstrapped.
const MIN_SLOTS: usize = 8;

impl Bootstrapper {
    /// The circuit of `profile` for ciphertexts of up to `slots` slots. Fewer slots are cheaper.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`] if `params` are not those of the profile, [`Error::BadSlots`] for a number of slots below 8, above N/2 or not a power of two.
    pub fn new(params: &Params, profile: &Profile, slots: usize, content: Content) -> Result<Self, Error> {
        check_chain(params, profile)?;
        params.check_slots(slots)?;
        if slots < MIN_SLOTS {
            return Err(Error::BadSlots { slots, max: params.slots() });
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
            eval_mod: profile.circuit(),
            plaintext_budget: 1 << 30,
        };
        bootstrapper.down = bootstrapper.slots_to_coeffs(&down)?;
        bootstrapper.up = bootstrapper.coeffs_to_slots(&up)?;
        Ok(bootstrapper)
    }

    /// Keeps residues of plaintexts between calls as long as they fit `bytes`; default 1 GiB. Less memory, more time.
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
        for shape in [KeyShape { level: 0, special: 1 }, KeyShape::cheapest(&self.params, self.raised_level())?] {
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

    /// Refreshes `input`: the same message at [`Bootstrapper::output_level`] and the default scale of that level.
    ///
    /// The message must not exceed 1 in the real and imaginary part of any slot; the error of the result is that of the profile.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] below [`Bootstrapper::input_level`], [`Error::BadSlots`] for more slots than the circuit's, [`Error::BadScale`] if the scale of
    /// the input leaves less than the profile's message ratio, [`Error::MissingKey`], and mismatches of parameters or keys. All but missing keys are found before
    /// any work.
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
        let scale = self.params.default_scale(self.output_level());
        self.bootstrap_at(evaluator, input, scale, progress)
    }

    /// As [`Bootstrapper::bootstrap_with`], with a result of exactly `scale`, which must be within a bit of the profile's.
    ///
    /// # Errors
    /// As [`Bootstrapper::bootstrap`], and [`Error::BadScale`].
    pub fn bootstrap_at<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
        scale: Scale,
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Ciphertext, Error> {
        self.check(evaluator, input)?;
        let (log2, nominal) = (scale.log2(), self.profile.scale);
        if !(nominal - 1.0..=nominal + 1.0).contains(&log2) {
            return Err(Error::BadScale { operation: "bootstrap", log2, min: nominal - 1.0, max: nominal + 1.0 });
        }
        progress(Stage::SlotsToCoeffs);
        let bottom = self.to_bottom(evaluator, input)?;
        progress(Stage::ModRaise);
        let sparse = self.encapsulate(evaluator, &bottom)?;
        drop(bottom);
        self.finish(evaluator, sparse, scale, progress)?.with_slots(input.slots())
    }

    /// Refreshes two real vectors by one complex bootstrap: half the cost of two.
    ///
    /// Needs [`Content::Complex`] and both inputs at one level and scale; what is left of imaginary parts is lost.
    ///
    /// # Errors
    /// As [`Bootstrapper::bootstrap`]; [`Error::LevelMismatch`] and [`Error::ScaleMismatch`] between the inputs.
    pub fn bootstrap_pair<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        first: &Ciphertext,
        second: &Ciphertext,
    ) -> Result<(Ciphertext, Ciphertext), Error> {
        let packed = evaluator.add(first, &evaluator.mul_i(second)?)?;
        self.check(evaluator, &packed)?;
        let sparse = self.encapsulate(evaluator, &self.to_bottom(evaluator, &packed)?)?;
        let scale = self.params.default_scale(self.output_level());
        let parts = self.reduced(evaluator, sparse, scale, &mut |_| {})?;
        let [real, imaginary] = parts.as_slice() else {
            return Err(Error::OperandCount { operation: "bootstrap_pair", left: parts.len(), right: 2 });
        };
        let part =
            |part: &Ciphertext, slots| self.combine(evaluator, std::slice::from_ref(part), scale)?.with_slots(slots);
        Ok((part(real, first.slots())?, part(imaginary, second.slots())?))
    }

    /// Everything from the ciphertext under the ephemeral secret on.
    pub(super) fn finish<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        sparse: Ciphertext,
        scale: Scale,
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Ciphertext, Error> {
        let parts = self.reduced(evaluator, sparse, scale, progress)?;
        let result = self.combine(evaluator, &parts, scale)?;
        progress(Stage::Finished);
        Ok(result)
    }

    /// The results of the modular reductions: of the real parts and, for complex content, of the imaginary parts.
    fn reduced<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        sparse: Ciphertext,
        scale: Scale,
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Vec<Ciphertext>, Error> {
        let ratio = (self.params.rescale_factor(0) / sparse.scale()).log2();
        let mut raised = self.raise(evaluator, sparse)?;
        if self.slots < self.params.slots() {
            progress(Stage::SubSum);
            raised = self.project(evaluator, raised)?;
        }
        progress(Stage::CoeffsToSlots);
        let inputs = self.to_slots(evaluator, raised)?;
        progress(Stage::EvalMod);
        self.reduce(evaluator, inputs, scale, ratio)
    }

    fn check<K: EvaluationKeys>(&self, evaluator: &Evaluator<K>, input: &Ciphertext) -> Result<(), Error> {
        const OPERATION: &str = "bootstrap";
        self.params.check_same(OPERATION, evaluator.params())?;
        self.params.check_same(OPERATION, input.params())?;
        if !input.is_linear() {
            return Err(Error::NotLinear { operation: OPERATION, parts: input.parts().len() });
        }
        if input.level() < self.input_level() {
            return Err(Error::LevelExhausted { operation: OPERATION, have: input.level(), need: self.input_level() });
        }
        if input.slots() > self.slots {
            return Err(Error::BadSlots { slots: input.slots(), max: self.slots });
        }
        let (log2, nominal) = (input.scale().log2(), self.profile.scale);
        // Half a bit of the ratio is in reserve, and messages below 1/2 may have twice the scale; a smaller scale only loses precision.
        if !(nominal - 8.0..=nominal + 1.5).contains(&log2) {
            return Err(Error::BadScale { operation: OPERATION, log2, min: nominal - 8.0, max: nominal + 1.5 });
        }
        for element in self.sub_sum().into_iter().flatten() {
            evaluator.keys().galois(element, self.raised_level())?;
        }
        evaluator.keys().relin(self.eval_level())?;
        evaluator.keys().key(KeyPurpose::Switch(input.key_id()), 0)?;
        Ok(())
    }

    fn to_bottom<K: EvaluationKeys>(&self, evaluator: &Evaluator<K>, input: &Ciphertext) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("slots_to_coeffs").entered();
        let mut value = evaluator.drop_to_level(input, self.input_level())?;
        for transform in &self.down {
            value = evaluator.mod_down_rescale(&transform.apply(evaluator, &value, true)?)?;
        }
        Ok(value)
    }

    fn encapsulate<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        bottom: &Ciphertext,
    ) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("encapsulate").entered();
        let to_sparse = evaluator.keys().key(KeyPurpose::Switch(bottom.key_id()), 0)?;
        evaluator.switch_key(bottom, &to_sparse)
    }

    fn raise<K: EvaluationKeys>(&self, evaluator: &Evaluator<K>, sparse: Ciphertext) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("mod_raise").entered();
        let level = self.raised_level();
        let (id, slots) = (sparse.key_id(), sparse.slots());
        let from_sparse = evaluator.keys().key(KeyPurpose::Switch(id), level)?;
        let limbs = self.params.limbs(level);
        let parts = sparse
            .into_parts()
            .into_iter()
            .map(|part| lift_centred(&self.params, part, limbs))
            .collect::<Result<_, _>>()?;
        let raised = Ciphertext::from_parts(&self.params, id, parts, level, self.params.rescale_factor(0), slots)?;
        evaluator.switch_key(&raised, &from_sparse)
    }

    fn project<K: EvaluationKeys>(&self, evaluator: &Evaluator<K>, mut value: Ciphertext) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("sub_sum").entered();
        for elements in self.sub_sum() {
            let hoisted = evaluator.hoist(&value)?;
            let mut sum: Option<ExtendedCiphertext> = None;
            for element in elements {
                let rotated = evaluator.rotate_hoisted_qp(&hoisted, element)?;
                match &mut sum {
                    Some(sum) => evaluator.add_qp_assign(sum, &rotated)?,
                    None => sum = Some(rotated),
                }
            }
            if let Some(sum) = sum {
                evaluator.add_assign(&mut value, &evaluator.mod_down(&sum)?)?;
            }
        }
        let gap = (self.params.slots() / self.slots) as f64;
        let scale = value.scale() * Scale::new(gap);
        value.with_scale(scale)
    }

    /// The inputs `i·x/B` of the modular reduction: of the real parts and, for complex content, of the imaginary parts.
    fn to_slots<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        mut value: Ciphertext,
    ) -> Result<Vec<Ciphertext>, Error> {
        let _span = tracing::debug_span!("coeffs_to_slots").entered();
        let Some((last, first)) = self.up.split_last() else {
            return Err(Error::OperandCount { operation: "coefficients to slots", left: 0, right: 1 });
        };
        for transform in first {
            let keep = self.keeps(transform);
            value = evaluator.mod_down_rescale(&transform.apply(evaluator, &value, keep)?)?;
        }
        let value = evaluator.mod_down(&last.apply(evaluator, &value, true)?)?;
        let conjugate = evaluator.conjugate(&value)?;
        let real = evaluator.mul_i(&evaluator.add(&value, &conjugate)?)?;
        let mut inputs = vec![real];
        if self.content == Content::Complex {
            inputs.push(evaluator.sub(&value, &conjugate)?);
        }
        drop((value, conjugate));
        // The values are multiples of x known only here: all of it is in the scale.
        let scale = Scale::new(self.profile.input_scale.exp2());
        inputs.into_iter().map(|input| evaluator.rescale(&input)?.with_scale(scale)).collect()
    }

    fn reduce<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        inputs: Vec<Ciphertext>,
        scale: Scale,
        ratio: f64,
    ) -> Result<Vec<Ciphertext>, Error> {
        let _span = tracing::debug_span!("eval_mod").entered();
        let evaluate = |input: Ciphertext| {
            let value = self.eval_mod.evaluate(&mut Encrypted { evaluator }, &input, scale.to_f64(), ratio)?;
            drop(input);
            evaluator.relinearise(&value)
        };
        if rayon::current_num_threads() == 1 {
            return inputs.into_iter().map(evaluate).collect();
        }
        inputs.into_par_iter().map(evaluate).collect()
    }

    /// `2·Im` of one result, or of two as real and imaginary part, rescaled: the refreshed message.
    fn combine<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        parts: &[Ciphertext],
        scale: Scale,
    ) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("combine").entered();
        let [real, rest @ ..] = parts else {
            return Err(Error::OperandCount { operation: "modular reduction", left: 0, right: 1 });
        };
        let turned = evaluator.mul_i(real)?;
        let result = match rest.first() {
            // 2·Im x = -(ix + conj(ix)).
            None => {
                let mut sum = evaluator.conjugate(&turned)?;
                evaluator.add_assign(&mut sum, &turned)?;
                evaluator.neg(&sum)?
            }
            // (x + iy - conj(x - iy))/i = (y - ix) - conj(y + ix).
            Some(imaginary) => {
                let imaginary = imaginary.clone().with_scale(turned.scale())?;
                let conjugate = evaluator.conjugate(&evaluator.add(&imaginary, &turned)?)?;
                let mut difference = evaluator.sub(&imaginary, &turned)?;
                evaluator.sub_assign(&mut difference, &conjugate)?;
                difference
            }
        };
        // The scale of the exponential was chosen so that this is its scale, up to the rounding of f64.
        evaluator.rescale(&result)?.with_scale(scale)
    }

    /// The automorphisms whose sums project to the subring of `slots` slots, step by step: each step adds all of its automorphisms, which share one
    /// decomposition, to what it has. Wider steps are faster and take more keys.
    fn sub_sum(&self) -> Vec<Vec<GaloisElement>> {
        let doublings = (self.params.slots() / self.slots).ilog2();
        let width = if doublings <= 6 { 3 } else { 2 };
        let mut steps = Vec::new();
        let mut done = 0;
        while done < doublings {
            let now = width.min(doublings - done);
            let rotation = |k: i64| GaloisElement::rotation(&self.params, k * ((self.slots as i64) << done));
            steps.push((1..1 << now).map(rotation).collect());
            done += now;
        }
        steps
    }

    fn eval_level(&self) -> usize {
        self.output_level() + self.profile.eval_mod.len()
    }

    /// Residues are kept for as many stages, the small ones first, as the budget allows.
    fn keeps(&self, transform: &Transform) -> bool {
        let own = transform.bytes().1;
        let smaller: u64 = self.up.iter().map(|t| t.bytes().1).filter(|&b| b < own).sum();
        smaller + own <= self.plaintext_budget
    }

    fn slots_to_coeffs(&self, layers: &[u32]) -> Result<Vec<Transform>, Error> {
        let top = layers.len();
        let drift = (self.profile.bottom - self.profile.ratio - self.profile.scale) / top as f64;
        let prepare = |(i, matrix): (usize, DiagonalMatrix)| {
            let level = top - i;
            let scale = self.params.rescale_factor(level) * Scale::new(drift.exp2());
            Transform::new(&self.params, &matrix, level, scale)
        };
        dft::slots_to_coeffs(self.slots, layers).into_iter().enumerate().map(prepare).collect()
    }

    fn coeffs_to_slots(&self, layers: &[u32]) -> Result<Vec<Transform>, Error> {
        let count = layers.len();
        let gap = (self.params.slots() / self.slots) as f64;
        // Scales of x between the stages, each layer taken as a half of the sum.
        let result = Scale::new(self.profile.input_scale.exp2() / (2.0 * self.eval_mod.bound()));
        let between = result * Scale::new(self.profile.headroom.exp2());
        let mut scale = self.params.rescale_factor(0) * Scale::new(gap);
        let mut transforms = Vec::with_capacity(count);
        for (i, matrix) in dft::coeffs_to_slots(self.slots, layers).iter().enumerate() {
            let level = self.eval_level() + count - i;
            let next = if i + 1 == count { result } else { between };
            let growth = Scale::new(f64::from(layers[i]).exp2());
            let plain = next * self.params.rescale_factor(level) / (scale * growth);
            transforms.push(Transform::new(&self.params, matrix, level, plain)?);
            scale = next;
        }
        Ok(transforms)
    }
}

/// How many butterfly layers each stage does for `layers` in all: as on a full ciphertext, with fewer stages for fewer layers.
fn stages(levels: &[DftLevel], layers: u32) -> Vec<u32> {
    if levels.iter().map(|l| l.layers).sum::<u32>() == layers {
        return levels.iter().map(|l| l.layers).collect();
    }
    let most = levels.iter().map(|l| l.layers).max().unwrap_or(1).max(1);
    even_layers(layers, layers.div_ceil(most).clamp(1, levels.len() as u32))
}

/// The coefficients of a polynomial modulo the bottom prime, as the integers in `[-q/2, q/2]`, modulo many primes.
fn lift_centred(params: &Params, part: Poly<Eval>, limbs: &Limbs) -> Result<Poly<Eval>, Error> {
    let part = part.into_coeff();
    let coefficients: Vec<i64> = if part.limbs().len() == 1 {
        let q = params.prime(0) as i64;
        let centred = |&x: &f64| {
            let x = x as i64;
            if 2 * x > q { x - q } else { x }
        };
        part.limb(0)?.iter().map(centred).collect()
    } else {
        part.to_f64().iter().map(|&x| x as i64).collect()
    };
    Ok(Poly::from_i64(params.ring(), limbs, &coefficients)?.into_eval())
}

/// The parameters must be those that the profile builds.
fn check_chain(params: &Params, profile: &Profile) -> Result<(), Error> {
    if params.degree() != 1 << profile.log_degree {
        return Err(Error::InvalidParams {
            field: "ring degree",
            value: params.degree() as f64,
            allowed: "that of the bootstrapping profile; build the parameters with Profile::params",
        });
    }
    if params.max_level() < profile.levels() {
        return Err(Error::LevelExhausted {
            operation: "bootstrapping profile",
            have: params.max_level(),
            need: profile.levels(),
        });
    }
    let expected = std::iter::once(profile.bottom)
        .chain(profile.slots_to_coeffs.iter().rev().map(|l| l.bits))
        .chain(std::iter::repeat_n(profile.scale, profile.user_levels))
        .chain(profile.eval_mod.iter().rev().copied())
        .chain(profile.coeffs_to_slots.iter().rev().map(|l| l.bits));
    for (level, bits) in expected.enumerate() {
        if (params.group_bits(level) - bits).abs() > 0.1 {
            return Err(Error::InvalidParams {
                field: "level bits",
                value: params.group_bits(level),
                allowed: "those of the bootstrapping profile; build the parameters with Profile::params",
            });
        }
    }
    Ok(())
}
