//! Measuring what primitives cost on this machine.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cipherlm_circuits::bootstrap::BootstrapKeys;
use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{Encrypted, EncryptedVector, Machine, OpKind, Plain, SlotError};
use cipherlm_ckks::{Complex64, GaloisElement, KeyPurpose, KeyRequest, KeySet, Plaintext, SecretKey};

use crate::cost::{CostModel, kind_name, primitive_name};
use crate::error::{At, InferError, Result};
use crate::refresh::Circuits;

/// Values of a plaintext that repeats with every token, as nearly all of a transformer do.
const TOKEN: usize = 256;
/// Rotations in the measured runs.
const ROTATIONS: i64 = 8;
/// Levels between two entries.
const STEP: usize = 3;

impl CostModel {
    /// Times every primitive at a few levels and each refresh of `circuits`, on all threads; about
    /// a minute at N = 2^16, and the keys of the refreshes in memory.
    ///
    /// # Errors
    /// No randomness; keys that the parameters cannot hold.
    pub fn measure(circuits: &Circuits, machine: &str) -> Result<Self> {
        let params = circuits.params();
        let target = circuits.target()?;
        let secret = SecretKey::generate(params).map_err(failed)?;
        let mut table = Self::empty();
        table.machine = machine.to_owned();
        table.threads = cipherlm_ckks::ring::par::threads();
        let (bottom, top) = (target.chain.floor().max(1), target.input_level);
        let levels = (bottom..top).step_by(STEP).chain([top]);
        for level in levels {
            for (kind, seconds) in primitives(circuits, &secret, level)? {
                table.primitives.entry(primitive_name(kind)).or_default().insert(level, seconds);
            }
        }
        let keys = Arc::new(circuits.all_keys(&secret)?);
        let encrypted: Encrypted<Arc<BootstrapKeys>> =
            Encrypted::new(params, secret.id(), Arc::clone(&keys)).at("calibration")?;
        let encrypted = encrypted.with_refresher(circuits.refresher(&keys)?).at("calibration")?;
        for profile in &target.refreshes {
            let input = encrypt(&encrypted, &secret, profile.input_level)?;
            let refresh = || encrypted.refresh(&input, profile.kind, Some(profile.output_level));
            let seconds = time(2, refresh).at("calibration")?;
            table.refreshes.insert(kind_name(profile.kind), seconds);
        }
        Ok(table)
    }
}

/// Seconds of every primitive at one level.
fn primitives(circuits: &Circuits, secret: &SecretKey, level: usize) -> Result<Vec<(OpKind, f64)>> {
    let params = circuits.params();
    let slots = params.slots();
    let diagonals = |count: i64| {
        let plain = |shift: i64| {
            Plain::real((0..TOKEN).map(|i| ((i as i64 + shift) as f64).sin()).collect::<Vec<_>>())
        };
        LinearTransform::from_diagonals(slots, (0..count).map(|shift| (shift, plain(shift))))
            .and_then(|transform| transform.with_baby(slots))
            .at("calibration")
    };
    let (few, many) = (diagonals(ROTATIONS)?, diagonals(4 * ROTATIONS)?);
    let mut request = KeyRequest::new();
    let rotations =
        (1..4 * ROTATIONS).map(|steps| KeyPurpose::Galois(GaloisElement::rotation(params, steps)));
    let conjugation = KeyPurpose::Galois(GaloisElement::conjugation(params));
    rotations.chain([conjugation, KeyPurpose::Relinearise]).for_each(|purpose| {
        request.also(purpose, level);
    });
    let keys: KeySet = secret.key_set(&request).map_err(failed)?;
    let machine = Encrypted::new(params, secret.id(), keys).at("calibration")?;
    let x = encrypt(&machine, secret, level)?;
    let token = Plain::real((0..TOKEN).map(|i| (i as f64).cos()).collect::<Vec<_>>());
    let scale = machine.scale(&x);
    let run = |result: std::result::Result<f64, SlotError>| result.at("calibration");

    let encode = run(time(5, || {
        let values: Vec<Complex64> = token.values().collect();
        Ok(Plaintext::encode(params, &values, TOKEN, scale)?)
    }))?;
    let add = run(time(9, || machine.add_aligned(&x, &x)))?;
    let add_plain = run(time(9, || machine.add_plain(&x, &token)))?;
    let mul_plain = run(time(9, || machine.mul_plain_at(&x, &token, scale)))?;
    let mul_const = run(time(9, || machine.mul_plain_at(&x, &Plain::from(0.3), scale)))?;
    let evaluator = machine.evaluator();
    let y = machine.add_aligned(&x, &x).at("calibration")?;
    let (a, b) = (x.ciphertext(), y.ciphertext());
    let mul = run(time(9, || Ok(evaluator.mul(a, b)?)))?;
    let product = evaluator.mul(a, b).map_err(failed)?;
    let relin = run(time(5, || Ok(evaluator.relinearise(&product)?)))?;
    let wide = machine.mul_plain_at(&x, &token, scale).at("calibration")?;
    let rescale = run(time(9, || machine.rescale(&wide)))?;
    let rotate = run(time(5, || machine.rotate(&x, 1)))?;
    let conjugate = run(time(5, || machine.conjugate(&x)))?;
    // Hoisted parts follow from runs with different numbers of them.
    let count = ROTATIONS as f64;
    let steps: Vec<i64> = (1..=ROTATIONS).collect();
    let extended = |steps: &[i64]| {
        run(time(5, || {
            let hoisted = evaluator.hoist(a)?;
            for &steps in steps {
                black_box(evaluator.rotate_hoisted_qp(&hoisted, GaloisElement::rotation(params, steps))?);
            }
            Ok(())
        }))
    };
    let (one, all) = (extended(&steps[..1])?, extended(&steps)?);
    let key_product = (all - one).max(0.0) / (count - 1.0);
    let mod_up = (one - key_product).max(0.0);
    let outside = evaluator
        .hoist(a)
        .and_then(|hoisted| evaluator.rotate_hoisted_qp(&hoisted, GaloisElement::rotation(params, 1)))
        .map_err(failed)?;
    let mod_down = run(time(5, || Ok(evaluator.mod_down(&outside)?)))?;
    let transform = |transform: &LinearTransform| {
        run(time(3, || machine.linear_transform_rescale(&[&x], transform, scale)))
    };
    let (short, long) = (transform(&few)?, transform(&many)?);
    let plain_extended = ((long - short) / (3.0 * count) - key_product).max(0.0);
    Ok(vec![
        (OpKind::Encode, encode),
        (OpKind::Add, add),
        (OpKind::AddPlain, add_plain),
        (OpKind::MulPlain, mul_plain),
        (OpKind::MulConst, mul_const),
        (OpKind::Mul, mul),
        (OpKind::Relin, relin),
        (OpKind::Rescale, rescale),
        (OpKind::Rotate, rotate),
        (OpKind::Conjugate, conjugate),
        (OpKind::ModUp, mod_up),
        (OpKind::KeyProduct, key_product),
        (OpKind::MulPlainExtended, plain_extended),
        (OpKind::ModDown, mod_down),
    ])
}

fn encrypt<K: cipherlm_ckks::EvaluationKeys>(
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

/// Median seconds of a few runs after one that warms up.
fn time<T>(
    runs: usize,
    mut work: impl FnMut() -> std::result::Result<T, SlotError>,
) -> std::result::Result<f64, SlotError> {
    black_box(work()?);
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        black_box(work()?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[runs / 2])
}

fn failed(error: cipherlm_ckks::Error) -> InferError {
    InferError::Slots { node: "calibration".into(), source: error.into() }
}
