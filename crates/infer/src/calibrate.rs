//! Measuring what primitives cost on this machine, in a few seconds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cipherlm_circuits::slots::{self, Encrypted, EncryptedVector, Machine, OpKind, Plain, Primitives};
use cipherlm_ckks::{
    Complex64, EvaluationKeys, GaloisElement, KeyPurpose, KeyRequest, KeySet, Params, Plaintext, SecretKey,
};
use rayon::prelude::*;

use crate::cost::{CostModel, DEGREE, Size};
use crate::error::{At, Error, Result};

/// Values of a plaintext that repeats with every token, as nearly all of a transformer do.
const TOKEN: usize = 256;
/// Levels that are measured, where the chain has them, beside its highest one.
const LEVELS: [usize; 5] = [3, 6, 10, 15, 22];
/// Rotations, each with a key.
const ROTATIONS: i64 = 3;
/// How long one primitive is repeated, and how often at most.
const BUDGET: Duration = Duration::from_millis(120);
const RUNS: usize = 7;

impl CostModel {
    /// Times every primitive at a few levels of a chain of degree 2^16, on all threads: some
    /// seconds, and half a GiB.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another degree; no randomness; keys that the parameters cannot
    /// hold.
    pub fn measure(params: &Params, machine: &str) -> Result<Self> {
        if params.degree() != DEGREE {
            return Err(Error::Mismatch {
                what: "ring degree of a price table",
                expected: DEGREE.to_string(),
                found: params.degree().to_string(),
            });
        }
        let kernel = params.ring().kernel_name();
        let mut table = Self::empty().with_parts_of(&Self::builtin(kernel));
        (table.machine, table.kernel) = (machine.to_owned(), kernel.to_owned());
        table.threads = cipherlm_ckks::ring::par::threads();
        let secret = SecretKey::generate(params).map_err(failed)?;
        let top = params.max_level();
        for level in LEVELS.into_iter().filter(|&level| level < top).chain([top]) {
            let size = Size::at(params, level);
            for (kind, seconds) in primitives(params, &secret, level)? {
                table.insert(kind, size, seconds);
            }
        }
        Ok(table)
    }
}

/// Seconds of every primitive at one level.
fn primitives(params: &Params, secret: &SecretKey, level: usize) -> Result<Vec<(OpKind, f64)>> {
    let mut request = KeyRequest::new();
    let elements = (1..=ROTATIONS).map(|steps| KeyPurpose::Galois(GaloisElement::rotation(params, steps)));
    elements.chain([KeyPurpose::Relinearise]).for_each(|purpose| {
        request.also(purpose, level);
    });
    let keys: KeySet = secret.key_set(&request).map_err(failed)?;
    let machine = Encrypted::new(params, secret.id(), keys).at("calibration")?;
    let x = encrypt(&machine, secret, level)?;
    let mut out = plain_products(&machine, &x)?;
    out.extend(arithmetic(&machine, &x)?);
    out.extend(rotations(&machine, &x)?);
    Ok(out)
}

fn plain_products<K: EvaluationKeys>(
    machine: &Encrypted<K>,
    x: &EncryptedVector,
) -> Result<Vec<(OpKind, f64)>> {
    let params = machine.params();
    let token = Plain::real((0..TOKEN).map(|i| (i as f64).cos()).collect::<Vec<_>>());
    let scale = machine.scale(x);
    let encode = seconds(|| {
        let values: Vec<Complex64> = token.values().collect();
        Ok(Plaintext::encode(params, &values, TOKEN, scale)?)
    })?;
    Ok(vec![
        (OpKind::Encode, encode),
        (OpKind::AddPlain, (seconds(|| machine.add_plain(x, &token))? - encode).max(0.0)),
        (OpKind::MulPlain, (seconds(|| machine.mul_plain_at(x, &token, scale))? - encode).max(0.0)),
        (OpKind::MulConst, seconds(|| machine.mul_plain_at(x, &Plain::from(0.3), scale))?),
    ])
}

fn arithmetic<K: EvaluationKeys>(machine: &Encrypted<K>, x: &EncryptedVector) -> Result<Vec<(OpKind, f64)>> {
    let y = machine.add_aligned(x, x).at("calibration")?;
    let (evaluator, a, b) = (machine.evaluator(), x.ciphertext(), y.ciphertext());
    let product = evaluator.mul(a, b).map_err(failed)?;
    let wide = machine.mul_plain_at(x, &Plain::from(0.3), machine.scale(x)).at("calibration")?;
    Ok(vec![
        (OpKind::Add, seconds(|| machine.add_aligned(x, &y))?),
        (OpKind::Mul, seconds(|| Ok(evaluator.mul(a, b)?))?),
        (OpKind::Relin, seconds(|| Ok(evaluator.relinearise(&product)?))?),
        (OpKind::Rescale, seconds(|| machine.rescale(&wide))?),
    ])
}

/// A rotation whole and in its parts, and the product of a rotation with a plaintext that is
/// encoded for it, as linear transforms have them.
fn rotations<K: EvaluationKeys>(machine: &Encrypted<K>, x: &EncryptedVector) -> Result<Vec<(OpKind, f64)>> {
    let (params, evaluator, a) = (machine.params(), machine.evaluator(), x.ciphertext());
    let rotate = seconds(|| machine.rotate(x, 1))?;
    // Keys take turns, so that none is found in the cache.
    let mut turn = 0;
    let mut element = || {
        turn = turn % ROTATIONS + 1;
        GaloisElement::rotation(params, turn)
    };
    let hoisted = evaluator.hoist(a).map_err(failed)?;
    let key_product = seconds(|| Ok(evaluator.rotate_hoisted_qp(&hoisted, element())?))?;
    let first = seconds(|| Ok(evaluator.rotate_hoisted_qp(&evaluator.hoist(a)?, element())?))?;
    let outside = evaluator.rotate_hoisted_qp(&hoisted, element()).map_err(failed)?;
    let mod_down = seconds(|| Ok(evaluator.mod_down(&outside)?))?;
    let token: Vec<Complex64> = (0..TOKEN).map(|i| Complex64::new((i as f64).sin(), 0.0)).collect();
    let limbs = params.extended_limbs(x.ciphertext().level(), outside.special());
    let lifted =
        || -> slots::Result<_> { Ok(Plaintext::encode(params, &token, TOKEN, a.scale())?.lift(&limbs)?) };
    let mut sum = evaluator.mul_plain_qp(&outside, &lifted().at("calibration")?).map_err(failed)?;
    // As many at a time as there are threads, since transforms encode theirs so.
    let threads = rayon::current_num_threads();
    let product = seconds(|| {
        let batch: Vec<_> = (0..threads).into_par_iter().map(|_| lifted()).collect::<slots::Result<_>>()?;
        batch.iter().try_for_each(|one| Ok(evaluator.mul_plain_qp_accumulate(&mut sum, &outside, one)?))
    })? / threads as f64;
    Ok(vec![
        (OpKind::Rotate, rotate),
        (OpKind::Conjugate, rotate),
        (OpKind::ModUp, (first - key_product).max(rotate / 10.0)),
        (OpKind::KeyProduct, key_product),
        (OpKind::MulPlainExtended, product),
        (OpKind::ModDown, mod_down),
    ])
}

fn encrypt<K: EvaluationKeys>(
    machine: &Encrypted<K>,
    secret: &SecretKey,
    level: usize,
) -> Result<EncryptedVector> {
    let params = machine.params();
    let slots: Vec<Complex64> = (0..params.slots()).map(|i| Complex64::new((i as f64).sin(), 0.0)).collect();
    let scale = machine.chain().scale(level);
    let plaintext = Plaintext::encode(params, &slots, slots.len(), scale).map_err(failed)?;
    machine.input(secret.encrypt(&plaintext, level).map_err(failed)?).at("calibration")
}

/// Seconds of some work after one run that warms up: the second fastest of a few runs, which a
/// neighbour on the machine disturbs least and luck does not make.
fn seconds<T>(mut work: impl FnMut() -> slots::Result<T>) -> Result<f64> {
    black_box(work().at("calibration")?);
    let begin = Instant::now();
    let mut times = Vec::with_capacity(RUNS);
    while times.len() < 2 || (times.len() < RUNS && begin.elapsed() < BUDGET) {
        let start = Instant::now();
        black_box(work().at("calibration")?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[1.min(times.len() - 1)])
}

fn failed(error: cipherlm_ckks::Error) -> Error {
    Error::Slots { node: "calibration".into(), source: error.into() }
}
