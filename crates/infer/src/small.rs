//! Small messages: prompts in the smallest ring that holds them, and answers at one position in a
//! ring of their own at the lowest modulus, instead of every position's in the ring of the circuit.
//!
//! A prompt repeats over the slots of the circuit's ring, so a subring holds all of it, if it is
//! secure at the modulus of the prompt. The server embeds it
//! ([`Evaluator::embed`](cipherlm_ckks::Evaluator::embed)).
//!
//! Behind the last step one token is cut out of each output vector, below the floor of the
//! circuits, where bootstraps left modulus that nothing else uses. The vectors are put side by side
//! and the sum passes to a subring ([`Evaluator::project`](cipherlm_ckks::Evaluator::project)). Results lie
//! in slots `(token + vector) * features ..` of the subring, modulo their number; all others hold
//! nothing. Of several prompts each has its own of these slots, as it has of the circuit's.

use cipherlm_circuits::slots::{
    self, Chain, EncryptedVector, Machine, Noise, NoiseVector, Plain, Primitives, Scale,
};
use cipherlm_ckks::params::security_limit;
use cipherlm_ckks::ring::{Seed, Stream};
use cipherlm_ckks::{
    Complex64, EvaluationKeys, Evaluator, KeyShape, MemoryBill, Params, SecretDistribution, SecretKey,
    SwitchingKey,
};
use cipherlm_model::Kind;
use cipherlm_protocol::Answers;
use rayon::prelude::*;

use crate::answer::{self, at_most};
use crate::error::{At, Error, Result};
use crate::geometry::Geometry;
use crate::lanes;

/// Positions of a prompt whose results an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// One, the same of every prompt, which makes for a small answer where the plan has them.
    Position(usize),
    /// Of every prompt the one at which its own answer stands: a decoder's last token, an encoder's
    /// first.
    Each,
    /// All that the plan answers.
    All,
}

/// What a client asks for by itself; see [`crate::Plan::asked`].
pub(crate) fn usual(kind: Kind, answers: &Answers, prompts: usize, length: usize) -> Asked {
    match kind {
        Kind::Embedder { .. } if !answers.last => Asked::All,
        _ if prompts > 1 => Asked::Each,
        _ => Asked::Position(answer::position(kind, answers, length)),
    }
}

/// How the vectors of an answer are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    pub(crate) kind: Kind,
    pub(crate) answers: Answers,
    /// Slots of a vector in the ring of the circuit.
    pub(crate) slots: usize,
    /// Prompts that share a vector.
    pub(crate) prompts: usize,
}

impl Reader {
    /// The position of a text of `length` tokens that an answer holds; none for all of them.
    pub(crate) fn held(&self, asked: Asked, length: usize) -> Option<usize> {
        match asked {
            Asked::Position(position) => Some(position),
            Asked::Each => Some(answer::position(self.kind, &self.answers, length)),
            Asked::All => None,
        }
    }

    /// Where each text's results stand that are asked for, among the tokens of the outputs; none
    /// for all of them.
    ///
    /// # Errors
    /// [`Error::Position`] for a position that a text does not have.
    pub(crate) fn tokens(&self, asked: Asked, lengths: &[usize]) -> Result<Option<Vec<usize>>> {
        let token = |&length: &usize| {
            let Some(position) = self.held(asked, length) else { return Ok(None) };
            answer::check_position(&self.answers, position, length)?;
            Ok(Some(if self.answers.last { 0 } else { position }))
        };
        lengths.iter().map(token).collect()
    }

    /// The results of one prompt at a position, out of all slots of all vectors.
    ///
    /// # Errors
    /// As [`answer::read`].
    pub(crate) fn whole(
        &self,
        vectors: &[Vec<Complex64>],
        prompt: usize,
        position: usize,
    ) -> Result<Vec<f64>> {
        answer::read(&self.answers, &lanes::lane_of_each(vectors, self.prompts, prompt), position)
    }

    /// The same out of the slots of a small answer.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn small(&self, slots: &[Complex64], prompt: usize, position: usize) -> Result<Vec<f64>> {
        read(&self.answers, &lanes::lane(slots, self.prompts, prompt), position)
    }
}

/// log2 of the room between the results and the modulus: what is no answer is far beyond them.
const ROOM_BITS: f64 = 11.0;

/// The set of small answers of degree `degree`: the bottom modulus, and one special prime for the
/// key that leads there.
pub(crate) fn ring(params: &Params, degree: usize) -> std::result::Result<Params, cipherlm_ckks::Error> {
    params.subring(degree, 0, 1)
}

/// [`ring`] where there is one: a degree of 0 stands for none.
pub(crate) fn answer_ring(params: &Params, degree: usize) -> Result<Option<Params>> {
    (degree > 0).then(|| ring(params, degree).map_err(failed)).transpose()
}

/// The set of prompts of degree `degree` at `level`, none for 0. No key is made in it: only the
/// modulus of the prompts themselves counts.
pub(crate) fn prompt_ring(params: &Params, degree: usize, level: usize) -> Result<Option<Params>> {
    (degree > 0).then(|| params.subring(degree, level, 0).map_err(failed)).transpose()
}

/// The rings of small messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SmallRings {
    /// Of prompts, at their level.
    pub prompt: Option<Params>,
    /// Of answers at one position.
    pub answer: Option<Params>,
}

impl SmallRings {
    /// Shapes of the keys from the ring of prompts and to that of answers.
    ///
    /// # Errors
    /// As [`KeyShape::cheapest`].
    pub fn shapes(&self, params: &Params) -> Result<[Option<KeyShape>; 2]> {
        let prompt = self.prompt.as_ref().map(|ring| KeyShape::cheapest(params, ring.max_level()));
        let shape = |ring: &Params| KeyShape { level: ring.max_level(), special: ring.special_count() };
        Ok([prompt.transpose().map_err(failed)?, self.answer.as_ref().map(shape)])
    }

    /// The keys themselves.
    pub(crate) fn keys(&self, secret: &SecretKey) -> Result<[Option<SwitchingKey>; 2]> {
        let prompt = self.prompt.as_ref().map(|ring| secret.embedding_key(ring));
        let answer = self.answer.as_ref().map(|ring| secret.projection_key(ring));
        Ok([prompt.transpose().map_err(failed)?, answer.transpose().map_err(failed)?])
    }

    /// The bill of other keys with these.
    ///
    /// # Errors
    /// As [`SmallRings::shapes`].
    pub(crate) fn add_to(&self, mut bill: MemoryBill, params: &Params) -> Result<MemoryBill> {
        for shape in self.shapes(params)?.into_iter().flatten() {
            bill.keys += 1;
            bill.stored_bytes += shape.stored_bytes(params);
            bill.resident_bytes += shape.resident_bytes(params);
        }
        Ok(bill)
    }
}

/// The least degrees at which small messages are secure with a margin.
#[derive(Debug, Clone)]
pub(crate) struct Degrees {
    /// Of answers.
    answer: usize,
    /// Of prompts, by their level.
    prompts: Vec<usize>,
}

impl Degrees {
    /// Those of a parameter set; a sixteenth of the degree of a ring that is not secure itself.
    pub(crate) fn of(params: &Params) -> Self {
        let least = |log_q: f64| {
            if params.is_insecure() {
                return (params.degree() / 16).max(16);
            }
            let fits = |degree: &usize| {
                let limit = security_limit(*degree, SecretDistribution::Ternary);
                limit.is_some_and(|limit| log_q <= f64::from(limit.soft))
            };
            (0..params.log_degree()).map(|log| 1 << log).find(fits).unwrap_or(params.degree())
        };
        let special = params.log2_of(&params.special_limbs(1)).unwrap_or(f64::INFINITY);
        let prompts = (0..=params.max_level()).map(|level| least(params.log_q(level))).collect();
        Self { answer: least(params.log_q(0) + special), prompts }
    }

    /// Degree of the ring of one period of all prompts at `level`; 0 if none below that of the
    /// circuit does.
    pub(crate) fn prompt(&self, geometry: &Geometry, level: usize) -> usize {
        let least = self.prompts.get(level).copied().unwrap_or(usize::MAX);
        let need = (2 * geometry.period() * geometry.prompts).max(least);
        if need < 2 * geometry.vector_slots() { need } else { 0 }
    }
}

/// Degree of the ring that holds one position's results of every prompt; 0 if none below that of
/// the circuit does.
pub(crate) fn degree(answers: &Answers, geometry: &Geometry, degrees: Option<&Degrees>) -> usize {
    let Some(degrees) = degrees else { return 0 };
    let need = 2 * answers.vectors * answers.features * geometry.prompts;
    let need = need.next_power_of_two().max(degrees.answer);
    if need < 2 * geometry.vector_slots() { need } else { 0 }
}

/// The scale of a small answer.
fn scale(chain: &Chain) -> Scale {
    Scale::from_log2((chain.modulus(0).log2() - ROOM_BITS).floor() as i32)
}

/// Cuts one of `tokens` of each prompt out of the output vectors and puts what is left of them side
/// by side, at level 0. The mean over the slots of a subring's slot is then the value of one.
/// `machine` as a prompt sees it.
pub(crate) fn gather<M: Machine>(
    machine: &M,
    answers: &Answers,
    outputs: &[M::Vector],
    tokens: &[usize],
) -> Result<M::Vector> {
    let small = answers.degree / 2 / tokens.len().max(1);
    let period = (answers.tokens * answers.features).max(small);
    let mask = |token: usize| {
        let mut mask = vec![0.0; period];
        mask[token * answers.features..][..answers.features].fill(period as f64 / small as f64);
        Ok(Plain::real(mask))
    };
    let mask = lanes::join(&lanes::by_text(tokens, mask)?, machine.slots());
    put_together(machine, answers, outputs, &mask).at("answer")
}

fn put_together<M: Machine>(
    machine: &M,
    answers: &Answers,
    outputs: &[M::Vector],
    mask: &Plain,
) -> slots::Result<M::Vector> {
    let chain = machine.chain();
    let _label = machine.log().label("answer");
    let floor = chain.floor().max(1);
    // One level for the rotations, if there is one: then their errors are divided away.
    let low = usize::from(floor > 1);
    let below = if low > 0 { chain.modulus(low) } else { Scale::ONE };
    let goal = scale(chain) * below * chain.modulus(floor);
    let cut = |vector: &M::Vector| {
        let vector = machine.drop_to(vector, floor)?;
        let product = machine.mul_plain_at(&vector, mask, goal / machine.scale(&vector))?;
        machine.drop_to(&machine.rescale(&product)?, low)
    };
    let cut = outputs.par_iter().map(cut).collect::<slots::Result<Vec<_>>>()?;
    let none = slots::Error::OperandCount { operation: "answer", have: 0, need: 1 };
    let mut vectors = cut.into_iter().rev();
    let mut sum = vectors.next().ok_or(none)?;
    for vector in vectors {
        sum = machine.add_aligned(&machine.rotate(&sum, -(answers.features as i64))?, &vector)?;
    }
    if low > 0 { machine.rescale(&sum) } else { Ok(sum) }
}

/// A gathered answer in the ring of small answers.
pub(crate) fn project<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    gathered: &EncryptedVector,
    degree: usize,
) -> Result<cipherlm_ckks::Ciphertext> {
    let project = || evaluator.project(gathered.ciphertext(), &ring(evaluator.params(), degree)?);
    project().map_err(failed)
}

/// The rows of a small answer in the places that a whole one has them: of each output vector one
/// token, zeros elsewhere.
pub(crate) fn spread<T: Copy + Default>(answers: &Answers, slots: &[T], token: usize) -> Vec<Vec<T>> {
    let period = answers.tokens * answers.features;
    let mut out = vec![vec![T::default(); period]; answers.vectors];
    for (column, (vector, place)) in answer::places(answers, token).enumerate() {
        out[vector][place] = slots[(token * answers.features + column) % slots.len()];
    }
    out
}

/// The results of a position out of the slots of a small answer, checked as [`answer::read`] does;
/// what lies outside of them has to be nothing.
///
/// # Errors
/// As [`answer::read`].
pub(crate) fn read(answers: &Answers, slots: &[Complex64], position: usize) -> Result<Vec<f64>> {
    let token = if answers.last { 0 } else { position };
    let used = answers.vectors * answers.features;
    let start = token * answers.features + used;
    let rest = (0..slots.len().saturating_sub(used)).map(|i| slots[(start + i) % slots.len()].norm());
    at_most("a slot that holds nothing", rest, answer::SLACK)?;
    answer::read(answers, &spread(answers, slots, token), position)
}

/// What a simulated client reads of a gathered answer: the exact slots of the subring, and those
/// with the errors of one encryption.
pub(crate) fn simulate(machine: &Noise, gathered: &NoiseVector, degree: usize) -> Result<[Vec<f64>; 2]> {
    let model = machine.model();
    let ring = ring(model.params(), degree).map_err(failed)?;
    let deviation = (model.projection(&ring, machine.scale(gathered)) / 2.0).sqrt();
    let mut errors = Stream::new(&Seed::from_bytes([1; 32]), "small answer", 0);
    let mut uniform = || (errors.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut normal = || {
        let (radius, angle) = ((-2.0 * (1.0 - uniform()).ln()).sqrt(), std::f64::consts::TAU * uniform());
        radius * angle.cos()
    };
    let [exact, noisy] = [gathered.exact(), gathered.noisy()].map(|slots| mean(slots, degree / 2));
    Ok([exact, noisy.into_iter().map(|x| x + deviation * normal()).collect()])
}

/// The real parts of the means that a projection takes.
fn mean(slots: &[Complex64], small: usize) -> Vec<f64> {
    let mut sums = vec![0.0; small];
    slots.iter().enumerate().for_each(|(slot, value)| sums[slot % small] += value.re);
    let count = (slots.len() / small) as f64;
    sums.into_iter().map(|sum| sum / count).collect()
}

fn failed(error: cipherlm_ckks::Error) -> Error {
    Error::Slots { node: "small answer".into(), source: error.into() }
}
