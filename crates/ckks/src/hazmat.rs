//! What circuits are made of below the public verbs, for crates that write their own.
//!
//! These functions check keys, parameters and levels as every operation does, so a wrong call is
//! refused and never a wrong result of the arithmetic. What they leave to the caller is the
//! *meaning*: their results carry special primes, levels that belong to a shortened chain, or
//! constants rounded to zero. Use [`Evaluator`] unless you write a circuit whose speed depends on
//! one of them.

use std::sync::Arc;

pub use crate::evaluator::Columns;
use cipherlm_ring::Wiped;
use num_complex::Complex64;

use crate::{
    Ciphertext, Error, EvaluationKeys, Evaluator, ExtendedCiphertext, GaloisElement, Hoisted, KeyId,
    KeyPurpose, LiftedPlaintext, Params, Scale, SecretKey, SwitchingKey,
};

/// Rotations of hoisted ciphertexts, each with its key, digits and permutation at hand: those of
/// the first ciphertext, then those of the next. Each key is asked for once and held by the result.
///
/// # Errors
/// [`Error::MissingKey`], [`Error::ParamsMismatch`], and [`Error::KeyMismatch`],
/// [`Error::LevelMismatch`] or [`Error::ScaleMismatch`] between the ciphertexts.
pub fn columns<'a, K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    operation: &'static str,
    inputs: &[(&Hoisted<'a>, &[GaloisElement])],
) -> Result<Columns<'a>, Error> {
    evaluator.columns(operation, inputs)
}

/// For each row of plaintexts the sum of `plaintext * rotation` over the pairs that are present,
/// one place in the row for each of `columns`: the baby-step half of a linear transform, all giant
/// steps at once, limb by limb. With the sums comes the part of the time, in `0..=1`, that went
/// into rotations and not into products.
///
/// # Errors
/// [`Error::OperandCount`] for a row without plaintexts or of another length than the columns,
/// [`Error::BadKeyShape`] for a plaintext in the column of a key that does not have `special`
/// special primes, [`Error::ParamsMismatch`], [`Error::ScaleMismatch`] for plaintexts of one row at
/// two scales.
pub fn rotated_rows<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    columns: &Columns<'_>,
    special: usize,
    rows: &[Vec<Option<LiftedPlaintext>>],
) -> Result<(Vec<ExtendedCiphertext>, f64), Error> {
    evaluator.rotated_rows(columns, special, rows)
}

/// The sum of the hoisted ciphertext and its images under `elements`, none of which may be the
/// identity, over `special` special primes.
///
/// # Errors
/// As [`rotated_rows`].
pub fn rotated_sum<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    hoisted: &Hoisted<'_>,
    elements: &[GaloisElement],
    special: usize,
) -> Result<ExtendedCiphertext, Error> {
    evaluator.rotated_sum(hoisted, elements, special)
}

/// One automorphism of `a` plus `sum`, both over the same special primes as the key: a step of
/// Horner's rule.
///
/// # Errors
/// As [`rotated_rows`], [`Error::LevelMismatch`].
pub fn rotate_qp_add<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    a: &ExtendedCiphertext,
    element: GaloisElement,
    sum: ExtendedCiphertext,
) -> Result<ExtendedCiphertext, Error> {
    evaluator.rotate_qp_add(a, element, sum)
}

/// The key of the evaluator's source for `purpose` on ciphertexts of the secret `key_id` at
/// `level`, checked to fit.
///
/// # Errors
/// [`Error::MissingKey`], [`Error::WrongKey`], [`Error::KeyMismatch`], [`Error::ParamsMismatch`],
/// [`Error::LevelOutOfRange`].
pub fn key_at<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    operation: &'static str,
    purpose: KeyPurpose,
    level: usize,
    key_id: KeyId,
) -> Result<Arc<SwitchingKey>, Error> {
    evaluator.key_at(operation, purpose, level, key_id)
}

/// Special primes of the Galois key that serves ciphertexts of the secret `key_id` at `level`.
///
/// # Errors
/// As [`key_at`].
pub fn galois_special<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    operation: &'static str,
    element: GaloisElement,
    level: usize,
    key_id: KeyId,
) -> Result<usize, Error> {
    Ok(evaluator.key_at(operation, KeyPurpose::Galois(element), level, key_id)?.shape().special)
}

/// `a` under the secret that the source's key from the secret of `a` leads to.
///
/// # Errors
/// As [`key_at`].
pub fn switch_by_source<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    operation: &'static str,
    a: &Ciphertext,
) -> Result<Ciphertext, Error> {
    evaluator.switch_by_source(operation, a)
}

/// [`Evaluator::mul_const`] for a term of a sum: a constant below a unit of `scale` is rounded to
/// zero, as everything else there is to a unit.
///
/// # Errors
/// As [`Evaluator::mul_const`], but for a small constant.
pub fn mul_const_rounded<K: EvaluationKeys>(
    evaluator: &Evaluator<K>,
    a: &Ciphertext,
    value: Complex64,
    scale: Scale,
) -> Result<Ciphertext, Error> {
    evaluator.mul_const_rounded(a, value, scale)
}

/// Refuses an object of the parameters `other` in an operation on those of `params`.
///
/// # Errors
/// [`Error::ParamsMismatch`].
pub fn check_same(params: &Params, operation: &'static str, other: &Params) -> Result<(), Error> {
    params.check_same(operation, other)
}

/// The parameters seen without some levels, for circuits that pass from the levels above them to
/// those below: higher levels move down, everything else stays, the hash too, so that keys of the
/// whole chain serve it. Objects at levels above the lowest one left out must not leave the
/// circuit; the evaluator refuses to mix them with those of the whole chain.
pub fn without_levels(params: &Params, left_out: &[usize]) -> Params {
    params.without_levels(left_out)
}

/// Squared sizes of the secret's own slots, relative to their mean: how much worse than the average
/// slot each one rounds. As secret as the key, and wiped on drop.
///
/// # Errors
/// [`Error::Ring`].
pub fn slot_profile(secret: &SecretKey) -> Result<Wiped<f64>, Error> {
    secret.slot_profile()
}
