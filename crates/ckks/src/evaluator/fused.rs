//! Rotations over the special primes, limb by limb: what one step writes is still in the cache when
//! the next reads it, and a limb of the digits is read from memory once for all rotations.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cipherlm_ring::{Automorphism, Eval, Poly, par};

use super::{Evaluator, ExtendedCiphertext, Hoisted, check_scales};
use crate::keys::{EvaluationKeys, GaloisElement, KeyPurpose, SwitchingKey};
use crate::{Ciphertext, Error};

/// Residues handled together: a block of every rotation stays in the second-level cache.
pub(super) const BLOCK: usize = 1024;

/// A rotation of a hoisted ciphertext, not yet performed.
pub(super) struct Step {
    pub(super) digits: Arc<Vec<Poly<Eval>>>,
    pub(super) turn: Turn,
}

/// What all rotations by the same number of steps share.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) key: Arc<SwitchingKey>,
    pub(super) automorphism: Arc<Automorphism>,
}

/// One limb of both halves of a ciphertext.
pub(super) type Pair<'a> = [&'a mut [f64]; 2];

/// Pairs of single limbs, handed from task to task: as many as there are threads.
#[derive(Default)]
pub(super) struct Workspace(Mutex<Vec<Work>>);

/// Each polynomial of one limb.
pub(super) type Work = Vec<[Poly<Eval>; 2]>;

impl<K: EvaluationKeys> Evaluator<K> {
    /// The sum of the hoisted ciphertext and its images under `elements`, none of which may be the
    /// identity, over the special primes.
    pub(crate) fn rotated_sum(
        &self,
        hoisted: &Hoisted<'_>,
        elements: &[GaloisElement],
        special: usize,
    ) -> Result<ExtendedCiphertext, Error> {
        let a = hoisted.ciphertext;
        let columns = self.columns("rotated_sum", &[(hoisted, elements)])?;
        let steps = || columns.groups.iter().flat_map(|group| group.1.iter().flatten());
        steps().try_for_each(|step| self.check_special(&step.turn.key, special))?;
        let mut sum = [self.extended(a, self.pair(a.level, special)?, special)];
        let workspace = Workspace::default();
        par::try_for_each(limbs_of(&mut sum), |(limb, outputs)| {
            workspace.with(self, 1, |work| {
                let (work, [out0, out1]) = only(work, outputs)?;
                self.times_p(a, limb, special, &(0..self.params.degree()), [out0, out1])?;
                for step in steps() {
                    self.rotated_limb(a, limb, special, step, work)?;
                    self.add_permuted(limb, &step.turn.automorphism, work, [out0, out1])?;
                }
                Ok(())
            })
        })?;
        let [sum] = sum;
        Ok(sum)
    }

    /// One automorphism of `a` plus `sum`, both over the same special primes as the key: a step of
    /// Horner's rule. Only the second half of `a` is divided by the special primes, to be taken
    /// apart for the key.
    pub(crate) fn rotate_qp_add(
        &self,
        a: &ExtendedCiphertext,
        element: GaloisElement,
        sum: ExtendedCiphertext,
    ) -> Result<ExtendedCiphertext, Error> {
        const OPERATION: &str = "rotate_qp_add";
        self.check_extended(OPERATION, a, &sum)?;
        check_scales(OPERATION, a.scale, sum.scale)?;
        let key = self.key_at(OPERATION, KeyPurpose::Galois(element), a.level, a.key_id)?;
        self.check_special(&key, a.special)?;
        let params = &self.params;
        let mod_down = params.ring().mod_down(params.limbs(a.level), &params.special_limbs(a.special))?;
        let digits = params.decomposition(a.level, key.shape())?.decompose(&mod_down.apply(&a.parts[1])?)?;
        let automorphism = self.permutation(element)?;
        let mut sums = [ExtendedCiphertext { slots: a.slots.max(sum.slots), ..sum }];
        let workspace = Workspace::default();
        par::try_for_each(limbs_of(&mut sums), |(limb, outputs)| {
            workspace.with(self, 1, |work| {
                let (work, output) = only(work, outputs)?;
                self.key_product_limb(limb, &mut [limb_pair(work)?], &[&digits], &key)?;
                let [first, _] = limb_pair(work)?;
                (params.ring().kernel().add)(params.ring().modulus(limb)?, first, a.parts[0].limb(limb)?);
                self.add_permuted(limb, &automorphism, work, output)
            })
        })?;
        let [sum] = sums;
        Ok(sum)
    }

    /// `x` switched by a key, over its special primes, plus `P` times the two `parts`.
    pub(super) fn switch_and_add(
        &self,
        x: &Poly<Eval>,
        parts: [&Poly<Eval>; 2],
        level: usize,
        key: &SwitchingKey,
    ) -> Result<[Poly<Eval>; 2], Error> {
        let special = key.shape().special;
        let digits = self.params.decomposition(level, key.shape())?.decompose(x)?;
        let mut pair = self.pair(level, special)?;
        let [c0, c1] = &mut pair;
        let tasks: Vec<_> = c0.iter_mut().zip(c1.iter_mut()).collect();
        let (ring, kernel) = (self.params.ring(), self.params.ring().kernel());
        par::try_for_each(tasks, |((limb, acc0), (_, acc1))| {
            self.key_product_limb(limb, &mut [[&mut *acc0, &mut *acc1]], &[&digits], key)?;
            if let Some(p) = self.special_residue(level, limb, special) {
                for (acc, part) in [acc0, acc1].into_iter().zip(parts) {
                    (kernel.mul_scalar_add)(ring.modulus(limb)?, acc, part.limb(limb)?, p);
                }
            }
            Ok::<_, Error>(())
        })?;
        Ok(pair)
    }

    pub(super) fn check_special(&self, key: &SwitchingKey, special: usize) -> Result<(), Error> {
        if key.shape().special == special {
            return Ok(());
        }
        let reason = "the ciphertext has a different number of special primes";
        Err(Error::BadKeyShape { level: key.shape().level, special: key.shape().special, reason })
    }

    /// Two polynomials to be overwritten.
    pub(super) fn pair(&self, level: usize, special: usize) -> Result<[Poly<Eval>; 2], Error> {
        let (ring, limbs) = (self.params.ring(), self.params.extended_limbs(level, special));
        Ok([Poly::scratch(ring, &limbs)?, Poly::scratch(ring, &limbs)?])
    }

    /// One limb of a rotation before its permutation.
    pub(super) fn rotated_limb(
        &self,
        a: &Ciphertext,
        limb: usize,
        special: usize,
        step: &Step,
        work: &mut [Poly<Eval>; 2],
    ) -> Result<(), Error> {
        self.key_product_limb(limb, &mut [limb_pair(work)?], &[&step.digits], &step.turn.key)?;
        if let Some(p) = self.special_residue(a.level, limb, special) {
            let ring = self.params.ring();
            let [first, _] = limb_pair(work)?;
            (ring.kernel().mul_scalar_add)(ring.modulus(limb)?, first, a.parts[0].limb(limb)?, p);
        }
        Ok(())
    }

    /// A block of one limb of `P a`.
    pub(super) fn times_p(
        &self,
        a: &Ciphertext,
        limb: usize,
        special: usize,
        block: &Range<usize>,
        outputs: Pair<'_>,
    ) -> Result<(), Error> {
        let p = self.special_residue(a.level, limb, special);
        for (output, part) in outputs.into_iter().zip(&a.parts) {
            match p {
                Some(p) => {
                    output.copy_from_slice(&part.limb(limb)?[block.clone()]);
                    (self.params.ring().kernel().mul_scalar)(self.params.ring().modulus(limb)?, output, p);
                }
                None => output.fill(0.0),
            }
        }
        Ok(())
    }

    /// The product of the special primes modulo a prime of the level; `None` for a special prime,
    /// modulo which it is zero.
    fn special_residue(&self, level: usize, limb: usize, special: usize) -> Option<f64> {
        let limbs = self.params.limbs(level);
        limbs.contains(limb).then(|| self.params.special_residue(limb, special) as f64)
    }

    /// Adds an image of one limb of both halves.
    fn add_permuted(
        &self,
        limb: usize,
        automorphism: &Automorphism,
        work: &mut [Poly<Eval>; 2],
        outputs: Pair<'_>,
    ) -> Result<(), Error> {
        let ring = self.params.ring();
        let (modulus, kernel) = (ring.modulus(limb)?, ring.kernel());
        let mut image = [0.0; BLOCK];
        for (source, output) in source_pair(work)?.into_iter().zip(outputs) {
            for (output, index) in output.chunks_mut(BLOCK).zip(automorphism.index().chunks(BLOCK)) {
                let image = &mut image[..output.len()];
                (kernel.permute)(image, source, index);
                (kernel.add)(modulus, output, image);
            }
        }
        Ok(())
    }
}

impl Workspace {
    /// Calls `f` with `count` pairs of limbs to be overwritten.
    pub(super) fn with<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        count: usize,
        f: impl FnOnce(&mut [[Poly<Eval>; 2]]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut work = match free {
            Some(work) => work,
            None => {
                let (ring, one) = (evaluator.params.ring(), evaluator.params.special_limbs(1));
                let pair = |_| Ok::<_, Error>([Poly::scratch(ring, &one)?, Poly::scratch(ring, &one)?]);
                (0..count).map(pair).collect::<Result<_, _>>()?
            }
        };
        f(&mut work)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(work);
        Ok(())
    }
}

/// The limbs of several ciphertexts with the same limbs: one task for each, with its part of every
/// ciphertext.
pub(super) fn limbs_of(list: &mut [ExtendedCiphertext]) -> Vec<(usize, Vec<Pair<'_>>)> {
    let count = list.first().map_or(0, |sum| sum.parts[0].limbs().len());
    let mut tasks: Vec<(usize, Vec<Pair<'_>>)> = (0..count).map(|_| (0, Vec::new())).collect();
    for sum in list {
        let [c0, c1] = &mut sum.parts;
        for (task, ((limb, a), (_, b))) in tasks.iter_mut().zip(c0.iter_mut().zip(c1.iter_mut())) {
            task.0 = limb;
            task.1.push([a, b]);
        }
    }
    tasks
}

/// The pair of the workspace and the limbs of the result, where there is one of each.
fn only<'w, 'o>(
    work: &'w mut [[Poly<Eval>; 2]],
    outputs: Vec<Pair<'o>>,
) -> Result<(&'w mut [Poly<Eval>; 2], Pair<'o>), Error> {
    match (work.first_mut(), outputs.into_iter().next()) {
        (Some(work), Some(output)) => Ok((work, output)),
        _ => Err(Error::Internal { what: "a task of the limbs of one ciphertext without its limbs" }),
    }
}

const NO_LIMB: Error = Error::Internal { what: "a polynomial of the workspace without a limb" };

/// The only limbs of a pair of the workspace.
fn limb_pair(work: &mut [Poly<Eval>; 2]) -> Result<Pair<'_>, Error> {
    let [first, second] =
        work.each_mut().map(|poly| poly.iter_mut().next().map(|(_, limb)| limb).ok_or(NO_LIMB));
    Ok([first?, second?])
}

pub(super) fn source_pair(work: &[Poly<Eval>; 2]) -> Result<[&[f64]; 2], Error> {
    let [first, second] = work.each_ref().map(|poly| poly.iter().next().map(|(_, limb)| limb).ok_or(NO_LIMB));
    Ok([first?, second?])
}
