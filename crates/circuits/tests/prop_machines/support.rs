//! Random circuits and the three machines to run them on.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{
    self, Chain, Clear, Encrypted, EncryptedVector, KeyUse, Machine, OpKind, Plain, Primitives,
};
use cipherlm_ckks::ring::Seed;
use cipherlm_ckks::{Complex64, KeyRequest, Params, Plaintext, SecretKey, presets};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// `PROPTEST_CASES` cases, or so many.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(default), failure_persistence: None, ..ProptestConfig::default() }
}

/// Levels of the test chain; the inputs of a circuit are spread over the upper ones.
pub(crate) const LEVELS: usize = 6;

pub(crate) fn params() -> Params {
    presets::insecure::small(1 << 11, 45.0, LEVELS).unwrap()
}

/// One step of a circuit; indices are taken modulo the vectors made so far.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Add(usize, usize),
    Sub(usize, usize),
    Neg(usize),
    AddPlain(usize, u8),
    MulPlain(usize, u8),
    MulPlainLazy(usize, u8),
    MulConst(usize, i8),
    Mul(usize, usize),
    MulLazy(usize, usize),
    Square(usize),
    MulSum([usize; 4]),
    Settle(usize),
    ToLevel(usize, usize),
    Rotate(usize, i64),
    RotateMany(usize, [i64; 3]),
    RotateSum(usize),
    RotateAdd(usize, [i64; 2]),
    Conjugate(usize),
    MulI(usize),
    TwiceReal(usize),
    Linear(usize, u8),
    Block([usize; 2], u8),
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let v = || 0..64usize;
    prop_oneof![
        (v(), v()).prop_map(|(a, b)| Op::Add(a, b)),
        (v(), v()).prop_map(|(a, b)| Op::Sub(a, b)),
        v().prop_map(Op::Neg),
        (v(), any::<u8>()).prop_map(|(a, s)| Op::AddPlain(a, s)),
        (v(), any::<u8>()).prop_map(|(a, s)| Op::MulPlain(a, s)),
        (v(), any::<u8>()).prop_map(|(a, s)| Op::MulPlainLazy(a, s)),
        (v(), -8i8..8).prop_map(|(a, s)| Op::MulConst(a, s)),
        (v(), v()).prop_map(|(a, b)| Op::Mul(a, b)),
        (v(), v()).prop_map(|(a, b)| Op::MulLazy(a, b)),
        v().prop_map(Op::Square),
        [v(), v(), v(), v()].prop_map(Op::MulSum),
        v().prop_map(Op::Settle),
        (v(), 0..=LEVELS).prop_map(|(a, l)| Op::ToLevel(a, l)),
        (v(), -2000..2000i64).prop_map(|(a, k)| Op::Rotate(a, k)),
        (v(), [-9..9i64, -9..9i64, 0..900i64]).prop_map(|(a, k)| Op::RotateMany(a, k)),
        v().prop_map(Op::RotateSum),
        (v(), [-9..9i64, 0..900i64]).prop_map(|(a, k)| Op::RotateAdd(a, k)),
        v().prop_map(Op::Conjugate),
        v().prop_map(Op::MulI),
        v().prop_map(Op::TwiceReal),
        (v(), any::<u8>()).prop_map(|(a, s)| Op::Linear(a, s)),
        ([v(), v()], any::<u8>()).prop_map(|(a, s)| Op::Block(a, s)),
    ]
}

/// Values in [-1, 1] that depend on a seed.
pub(crate) fn value(seed: usize, index: usize) -> f64 {
    ((seed * 37 + index * 73 + 11) % 101) as f64 / 50.5 - 1.0
}

fn plain(seed: u8) -> Plain {
    let seed = seed as usize;
    let period = 1usize << (seed % 11);
    match seed % 3 {
        0 => {
            (0..period).map(|i| Complex64::new(value(seed, i), value(seed + 1, i))).collect::<Vec<_>>().into()
        }
        _ => (0..period).map(|i| value(seed, i)).collect::<Vec<_>>().into(),
    }
}

fn transform(slots: usize, seed: u8, inputs: usize, outputs: usize) -> LinearTransform {
    let shifts = (0..2 + seed as i64 % 9).map(|k| (k * (1 + seed as i64 % 5)) - 6);
    let size = shifts.clone().count() * inputs;
    let mut diagonals = Vec::new();
    for shift in shifts {
        for (output, input) in (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))) {
            let seed = (shift + 9) as u8 ^ seed;
            diagonals.push((output, input, shift, plain(seed).scaled(1.0 / size as f64)));
        }
    }
    LinearTransform::block(slots, outputs, inputs, diagonals).unwrap()
}

/// Runs one step; every machine must agree on whether it is possible.
pub(crate) fn step<M: Machine>(m: &M, pool: &[M::Vector], op: &Op) -> slots::Result<Vec<M::Vector>> {
    let v = |index: usize| &pool[index % pool.len()];
    let one = |result: slots::Result<M::Vector>| result.map(|vector| vec![vector]);
    match op {
        Op::Add(a, b) => one(m.add(v(*a), v(*b))),
        Op::Sub(a, b) => one(m.sub(v(*a), v(*b))),
        Op::Neg(a) => one(m.neg(v(*a))),
        Op::AddPlain(a, seed) => one(m.add_plain(v(*a), &plain(*seed))),
        Op::MulPlain(a, seed) => one(m.mul_plain(v(*a), &plain(*seed))),
        Op::MulPlainLazy(a, seed) => one(m.mul_plain_lazy(v(*a), &plain(*seed))),
        Op::MulConst(a, c) => one(m.mul_const(v(*a), Complex64::new(f64::from(*c) / 8.0, 0.0))),
        Op::Mul(a, b) => one(m.mul(v(*a), v(*b))),
        Op::MulLazy(a, b) => one(m.mul_lazy(v(*a), v(*b))),
        Op::Square(a) => one(m.square(v(*a))),
        Op::MulSum([a, b, c, d]) => one(m.mul_sum(&[(v(*a), v(*b)), (v(*c), v(*d))])),
        Op::Settle(a) => one(m.settle(v(*a))),
        Op::ToLevel(a, level) => one(m.to_level(v(*a), *level)),
        Op::Rotate(a, steps) => one(m.rotate(v(*a), *steps)),
        Op::RotateMany(a, steps) => m.rotate_many(v(*a), steps),
        Op::RotateSum(a) => one(m.rotate_sum(v(*a), 3, 4)),
        Op::RotateAdd(a, steps) => one(m.rotate_add(v(*a), steps)),
        Op::Conjugate(a) => one(m.conjugate(v(*a))),
        Op::MulI(a) => one(m.mul_i(v(*a))),
        Op::TwiceReal(a) => one(m.twice_real(v(*a))),
        Op::Linear(a, seed) => one(m.linear_transform(v(*a), &transform(m.slots(), *seed, 1, 1))),
        Op::Block([a, b], seed) => m.linear_transforms(&[v(*a), v(*b)], &transform(m.slots(), *seed, 2, 2)),
    }
}

/// Runs a circuit; steps that fail add nothing. Returns all vectors, and for each step what
/// happened.
pub(crate) fn run<M: Machine>(m: &M, inputs: Vec<M::Vector>, ops: &[Op]) -> (Vec<M::Vector>, Vec<String>) {
    let mut pool = inputs;
    let mut trace = Vec::new();
    for op in ops {
        match step(m, &pool, op) {
            Ok(made) => {
                let state = |v: &M::Vector| format!("level {} scale 2^{:.9}", m.level(v), m.scale(v).log2());
                trace.push(made.iter().map(state).collect::<Vec<_>>().join(", "));
                pool.extend(made);
            }
            Err(error) => trace.push(format!("{error:?}")),
        }
    }
    (pool, trace)
}

/// The steps of `ops` that keep every slot below 4 and succeed, found on the clear machine.
pub(crate) fn tame(params: &Params, ops: &[Op]) -> Vec<Op> {
    let m = Clear::new(Chain::of(params).unwrap());
    let mut pool = clear_inputs(&m);
    let mut kept = Vec::new();
    for op in ops {
        let Ok(made) = step(&m, &pool, op) else { continue };
        let small = |v: &cipherlm_circuits::slots::ClearVector| {
            v.slots().unwrap().iter().all(|slot| slot.norm() < 4.0)
        };
        if made.iter().all(small) {
            pool.extend(made);
            kept.push(op.clone());
        }
    }
    kept
}

impl Op {
    /// Where the operands are named.
    fn operands(&mut self) -> Vec<&mut usize> {
        match self {
            Self::Add(a, b) | Self::Sub(a, b) | Self::Mul(a, b) | Self::MulLazy(a, b) => vec![a, b],
            Self::MulSum(list) => list.iter_mut().collect(),
            Self::Block(list, _) => list.iter_mut().collect(),
            Self::Neg(a) | Self::Square(a) | Self::Settle(a) | Self::RotateSum(a) | Self::Conjugate(a) => {
                vec![a]
            }
            Self::MulI(a) | Self::TwiceReal(a) | Self::AddPlain(a, _) | Self::MulPlain(a, _) => vec![a],
            Self::MulPlainLazy(a, _) | Self::MulConst(a, _) | Self::ToLevel(a, _) | Self::Rotate(a, _) => {
                vec![a]
            }
            Self::RotateMany(a, _) | Self::RotateAdd(a, _) | Self::Linear(a, _) => vec![a],
        }
    }

    /// Whether errors of several slots, or of a slot and its conjugate, meet in one.
    fn mixes(&self) -> bool {
        matches!(
            self,
            Self::RotateSum(_)
                | Self::RotateAdd(..)
                | Self::Linear(..)
                | Self::Block(..)
                | Self::TwiceReal(_)
        )
    }
}

/// As [`tame`], with operands renamed so that no error meets itself: every vector is used once, and
/// slots are mixed at most once on the way from the inputs.
pub(crate) fn apart(params: &Params, inputs: &[(Vec<Complex64>, usize)], ops: &[Op]) -> Vec<Op> {
    let m = Clear::new(Chain::of(params).unwrap());
    let mut pool: Vec<_> =
        inputs.iter().map(|(values, level)| m.input(values.clone(), *level).unwrap()).collect();
    let mut mixed = vec![false; pool.len()];
    let mut unused: Vec<usize> = (0..pool.len()).collect();
    let mut kept = Vec::new();
    for op in ops {
        if matches!(op, Op::MulConst(_, 0)) {
            // Exactly zero, without any error to predict.
            continue;
        }
        let (mut op, mut left) = (op.clone(), unused.clone());
        let mixes = op.mixes();
        let mut before = false;
        for operand in op.operands() {
            if !left.is_empty() {
                *operand = left.swap_remove(*operand % left.len());
                before |= mixed[*operand];
            } else {
                before = true;
                *operand = usize::MAX;
            }
        }
        if op.operands().iter().any(|operand| **operand == usize::MAX) || mixes && before {
            continue;
        }
        let Ok(made) = step(&m, &pool, &op) else { continue };
        if made.iter().all(|v| v.slots().unwrap().iter().all(|slot| slot.norm() < 4.0)) {
            // Results of one operation share their errors: one of them is used further.
            left.push(pool.len());
            mixed.extend(made.iter().map(|_| mixes || before));
            pool.extend(made);
            unused = left;
            kept.push(op);
        }
    }
    kept
}

/// Values and level of each input of a circuit.
pub(crate) fn input_values(slots: usize) -> [(Vec<Complex64>, usize); 3] {
    let vector =
        |seed: usize| (0..slots).map(|i| Complex64::new(value(seed, i), value(seed + 5, i))).collect();
    [(vector(1), LEVELS), (vector(2), LEVELS - 1), (vector(3), LEVELS - 3)]
}

/// Inputs for a circuit that uses each once. They have one size, so that products do not leave the
/// errors to a few slots, of which the worst would be anybody's guess.
pub(crate) fn many_inputs(slots: usize) -> Vec<(Vec<Complex64>, usize)> {
    let vector = |seed: usize| (0..slots).map(|i| Complex64::cis(PI * value(seed, i))).collect();
    (0..8).map(|k| (vector(k + 1), LEVELS - k % 3)).collect()
}

pub(crate) fn clear_inputs(m: &Clear) -> Vec<cipherlm_circuits::slots::ClearVector> {
    input_values(m.slots()).into_iter().map(|(values, level)| m.input(values, level).unwrap()).collect()
}

/// An encrypted machine with the keys of `request`, and the secret on the other side.
pub(crate) struct Setup {
    pub(crate) machine: Encrypted,
    pub(crate) secret: SecretKey,
}

/// The next seed of this test: the same in every run, other ones under another `PROPTEST_RNG_SEED`.
fn next_seed() -> Seed {
    thread_local!(static DRAWN: Cell<u64> = const { Cell::new(0) });
    let base = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&base.unwrap_or(1).to_le_bytes());
    bytes[8..16].copy_from_slice(&DRAWN.replace(DRAWN.get() + 1).to_le_bytes());
    Seed::from_bytes(bytes)
}

impl Setup {
    pub(crate) fn new(params: &Params, request: &KeyRequest) -> Self {
        let secret = SecretKey::from_seed(params, next_seed()).unwrap();
        let keys = secret.key_set(request).unwrap();
        Self { machine: Encrypted::new(params, secret.id(), keys).unwrap(), secret }
    }

    pub(crate) fn encrypt(&self, values: &[Complex64], level: usize) -> EncryptedVector {
        let (params, scale) = (self.machine.params(), self.machine.chain().scale(level));
        let plaintext = Plaintext::encode(params, values, params.slots(), scale).unwrap();
        let ciphertext = self.secret.encrypt_with_seed(&plaintext, level, &next_seed()).unwrap();
        self.machine.input(ciphertext).unwrap()
    }

    pub(crate) fn decrypt(&self, vector: &EncryptedVector) -> Vec<Complex64> {
        let full = vector.ciphertext().clone().with_slots(self.machine.slots()).unwrap();
        self.secret.decrypt(&full).unwrap().decode().as_slice().to_vec()
    }
}

/// Largest distance of two vectors.
pub(crate) fn distance(a: &[Complex64], b: &[Complex64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max)
}

/// Counts by kind and level, without encodings (which machines without plaintexts do not do).
pub(crate) fn counts<M: Machine>(m: &M) -> BTreeMap<(OpKind, usize), u64> {
    let rows = m.log().rows().into_iter().filter(|row| row.kind != OpKind::Encode && row.total.count > 0);
    rows.map(|row| ((row.kind, row.level), row.total.count)).collect()
}

/// The keys a circuit used.
pub(crate) fn keys<M: Machine>(m: &M) -> Vec<(KeyUse, Vec<usize>)> {
    m.log().keys().into_iter().map(|(key, levels)| (key, levels.into_iter().collect())).collect()
}
