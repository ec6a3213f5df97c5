//! One homomorphic DFT stage: a diagonal matrix, its plaintexts and its evaluation.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::dft::DiagonalMatrix;
use cipherlm_ckks::keys::EvaluationKeys;
use cipherlm_ckks::params::KeyShape;
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, Evaluator, ExtendedCiphertext, GaloisElement, KeyPurpose, KeyRequest,
    LiftedPlaintext, Params, Plaintext, Scale, hazmat,
};

/// A stage at its level.
///
/// Shifts are `k·stride` with `k = giant·babies + baby`; the baby rotations share one
/// decomposition, the giant steps one key: `Σ_g rot_g(Σ_b d_{g,b}·rot_b(x))` by Horner's rule in
/// the rotation by `babies·stride`.
pub(super) struct Transform {
    params: Params,
    level: usize,
    stride: usize,
    babies: usize,
    /// `plaintexts[giant][baby]`, each rotated back by its giant step.
    plaintexts: Vec<Vec<Option<Plaintext>>>,
    bytes_lifted: u64,
    lifted: Mutex<Option<Arc<Lifted>>>,
}

const OPERATION: &str = "homomorphic DFT";

type Lifted = Vec<Vec<Option<LiftedPlaintext>>>;

impl Transform {
    /// Encodes `matrix` for ciphertexts at `level` with plaintexts at `scale`.
    pub(super) fn new(
        params: &Params,
        matrix: &DiagonalMatrix,
        level: usize,
        scale: Scale,
    ) -> Result<Self, Error> {
        let stride = matrix.stride();
        let count = matrix.diagonals().map(|(s, _)| s / stride + 1).max().unwrap_or(1);
        let babies = baby_steps(count);
        let mut plaintexts: Vec<Vec<Option<Plaintext>>> = vec![vec![None; babies]; count.div_ceil(babies)];
        for (shift, diagonal) in matrix.diagonals() {
            let (giant, baby) = (shift / stride / babies, shift / stride % babies);
            let back = giant * babies * stride;
            let period = matrix.period();
            let values: Vec<Complex64> =
                (0..period).map(|i| diagonal[(i + matrix.slots() - back) % period]).collect();
            plaintexts[giant][baby] = Some(Plaintext::encode(params, &values, period, scale)?);
        }
        let limbs = (params.limb_count(level) + params.special_count()) as u64;
        let bytes_lifted =
            plaintexts.iter().flatten().flatten().map(|p| 2 * p.slots() as u64 * 8 * limbs).sum();
        Ok(Self {
            params: params.clone(),
            level,
            stride,
            babies,
            plaintexts,
            bytes_lifted,
            lifted: Mutex::new(None),
        })
    }

    /// Adds its keys, cut to its level.
    pub(super) fn request(&self, params: &Params, request: &mut KeyRequest) {
        for element in self.elements(params) {
            request.also(KeyPurpose::Galois(element), self.level);
        }
    }

    /// The level at which it works.
    pub(super) fn level(&self) -> usize {
        self.level
    }

    /// Rotations that share the decomposition, giant steps, and diagonals.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let babies = self.used_babies().into_iter().filter(|&baby| baby != 0).count();
        let diagonals = self.plaintexts.iter().flatten().flatten().count();
        (babies, self.plaintexts.len().saturating_sub(1), diagonals)
    }

    /// Bytes of the encoded plaintexts, and of their residues while they are kept.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.plaintexts.iter().flatten().flatten().map(|p| p.bytes() as u64).sum(), self.bytes_lifted)
    }

    /// Applies the stage. The result still carries the special primes and the plaintexts' scale.
    pub(super) fn apply<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
        keep: bool,
    ) -> Result<ExtendedCiphertext, Error> {
        let params = &self.params;
        let mut elements = vec![self.rotation(params, 0); self.babies];
        for baby in self.used_babies() {
            elements[baby] = self.rotation(params, baby);
        }
        let hoisted = evaluator.hoist(input)?;
        let columns = hazmat::columns(evaluator, OPERATION, &[(&hoisted, elements.as_slice())])?;
        let special = match columns.specials().into_iter().flatten().next() {
            Some(special) => special,
            None => self.special(evaluator, input)?,
        };
        let lifted = self.lift(special, keep)?;
        let (mut sums, _) = hazmat::rotated_rows(evaluator, &columns, special, &lifted)?;
        drop((columns, hoisted));
        let Some(mut total) = sums.pop() else {
            return Err(Error::OperandCount { operation: OPERATION, left: 0, right: 0 });
        };
        while let Some(sum) = sums.pop() {
            total = hazmat::rotate_qp_add(evaluator, &total, self.rotation(params, self.babies), sum)?;
        }
        Ok(total)
    }

    /// The number of special primes of its keys.
    fn special<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
    ) -> Result<usize, Error> {
        match self.elements(&self.params).first() {
            Some(&element) => {
                hazmat::galois_special(evaluator, OPERATION, element, input.level(), input.key_id())
            }
            None => Ok(KeyShape::cheapest(&self.params, self.level)?.special),
        }
    }

    /// The residues of the plaintexts, made or kept from before.
    fn lift(&self, special: usize, keep: bool) -> Result<Arc<Lifted>, Error> {
        let limbs = self.params.extended_limbs(self.level, special);
        if let Some(lifted) = self.lifted.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && lifted.iter().flatten().flatten().all(|plaintext| plaintext.limbs().contains_all(&limbs))
        {
            return Ok(lifted.clone());
        }
        let row = |row: &Vec<Option<Plaintext>>| {
            row.iter().map(|p| p.as_ref().map(|p| p.lift(&limbs)).transpose()).collect::<Result<Vec<_>, _>>()
        };
        let lifted = Arc::new(self.plaintexts.iter().map(row).collect::<Result<Vec<_>, _>>()?);
        if keep {
            *self.lifted.lock().unwrap_or_else(PoisonError::into_inner) = Some(lifted.clone());
        }
        Ok(lifted)
    }

    /// Makes the residues now that the first call would make.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        self.lift(KeyShape::cheapest(&self.params, self.level)?.special, true).map(drop)
    }

    fn used_babies(&self) -> BTreeSet<usize> {
        self.plaintexts
            .iter()
            .flat_map(|row| row.iter().enumerate().filter(|(_, p)| p.is_some()).map(|(b, _)| b))
            .collect()
    }

    fn rotation(&self, params: &Params, strides: usize) -> GaloisElement {
        GaloisElement::rotation(params, (strides * self.stride) as i64)
    }

    fn elements(&self, params: &Params) -> BTreeSet<GaloisElement> {
        let giant = (self.plaintexts.len() > 1).then_some(self.babies);
        self.used_babies()
            .into_iter()
            .chain(giant)
            .map(|s| self.rotation(params, s))
            .filter(|e| !e.is_identity())
            .collect()
    }
}

/// Baby steps for `count` shifts: a giant step costs as much as eight baby steps, but every baby
/// step costs a key.
fn baby_steps(count: usize) -> usize {
    match count {
        0..=8 => count.next_power_of_two(),
        9..=16 => 4,
        17..=32 => 8,
        33..=128 => 16,
        _ => 32,
    }
}
