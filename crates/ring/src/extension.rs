//! Basis extension and the digits of hybrid key switching.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernel::ExtendTable;
use crate::limbs::Limbs;
use crate::par;
use crate::poly::{Coeff, Domain, Eval, Poly, check_contains};
use crate::ring::Ring;

/// Coefficients handled together: one block of every source limb stays in the L2 cache.
const BLOCK: usize = 1024;

/// Exact centred basis extension: the integer in `(-Q/2, Q/2)` with the given residues, modulo
/// other primes.
#[derive(Debug)]
pub struct Extension {
    ring_id: u64,
    from: Limbs,
    to: Limbs,
    table: ExtendTable,
}

impl Extension {
    /// Prepares the constants for extending from some limbs to some others; [`Ring::extension`]
    /// keeps them.
    pub fn new(ring: &Ring, from: &Limbs, to: &Limbs) -> Result<Self> {
        ring.check_limbs("source", from)?;
        ring.check_limbs("target", to)?;
        if !from.is_disjoint(to) {
            return Err(Error::LimbsOverlap { left: from.clone(), right: to.clone() });
        }
        let [sources, targets] =
            [from, to].map(|limbs| limbs.iter().map(|i| *ring.modulus_at(i)).collect::<Vec<_>>());
        let table = ExtendTable::new(&sources, &targets);
        Ok(Self { ring_id: ring.id(), from: from.clone(), to: to.clone(), table })
    }

    /// The limbs read.
    pub fn from(&self) -> &Limbs {
        &self.from
    }

    /// The limbs written.
    pub fn to(&self) -> &Limbs {
        &self.to
    }

    /// Reads the source limbs of `source` and overwrites the target limbs of `target`, which may
    /// both have others.
    pub fn apply_into(&self, source: &Poly<Coeff>, target: &mut Poly<Coeff>) -> Result<()> {
        self.apply_raw(source, target)
    }

    /// As [`Extension::apply_into`], into a new polynomial over the target limbs.
    pub fn apply(&self, source: &Poly<Coeff>) -> Result<Poly<Coeff>> {
        let mut target = Poly::scratch(source.ring(), &self.to)?;
        self.apply_into(source, &mut target)?;
        Ok(target)
    }

    /// Raises `x` from the source limbs to source and target limbs (`mod_up`), in evaluations.
    ///
    /// Costs an inverse transform per source limb and a forward one per target limb.
    pub fn mod_up(&self, x: &Poly<Eval>) -> Result<Poly<Eval>> {
        let mut raised = Poly::scratch(x.ring(), &self.from.union(&self.to))?;
        self.raise(x, &x.to_coeff(&self.from)?, &mut raised)?;
        Ok(raised)
    }

    /// As [`Extension::mod_up`] with the coefficients of `x`, overwriting source and target limbs
    /// of `raised`.
    fn raise(&self, x: &Poly<Eval>, coeff: &Poly<Coeff>, raised: &mut Poly<Eval>) -> Result<()> {
        check_contains("extension source", &self.from, "raised polynomial", raised.limbs())?;
        self.apply_raw(coeff, raised)?;
        let (ring, forward) = (Arc::clone(x.ring()), x.ring().kernel().ntt_forward);
        raised.for_each_limb(|index, _, limb| match x.limbs().position(index) {
            Some(p) if self.from.contains(index) => limb.copy_from_slice(x.at(p)),
            _ if self.to.contains(index) => forward(ring.table(index), limb),
            _ => {}
        });
        Ok(())
    }

    /// Extension into limbs of any domain: key switching writes coefficients where evaluations will
    /// stand.
    pub(crate) fn apply_raw<D: Domain>(&self, source: &Poly<Coeff>, target: &mut Poly<D>) -> Result<()> {
        check_ring(self.ring_id, &self.table, &self.from, &self.to, source.ring())?;
        source.ring().check_same(target.ring())?;
        check_contains("extension source", &self.from, "polynomial", source.limbs())?;
        check_contains("extension target", &self.to, "polynomial", target.limbs())?;
        let (n, kernel) = (source.ring().degree(), source.ring().kernel());
        let sources: Vec<&[f64]> =
            self.from.iter().filter_map(|i| source.limbs().position(i)).map(|p| source.at(p)).collect();
        let mut blocks: Vec<Vec<&mut [f64]>> =
            (0..n.div_ceil(BLOCK)).map(|_| Vec::with_capacity(self.to.len())).collect();
        for (_, limb) in target.iter_mut().filter(|(index, _)| self.to.contains(*index)) {
            for (block, part) in blocks.iter_mut().zip(limb.chunks_mut(BLOCK)) {
                block.push(part);
            }
        }
        let residues = n * (self.from.len() + self.to.len());
        par::each(residues, blocks.into_iter().enumerate(), |(b, mut outputs)| {
            let range = b * BLOCK..n.min((b + 1) * BLOCK);
            let inputs: Vec<&[f64]> = sources.iter().map(|s| &s[range.clone()]).collect();
            (kernel.extend)(&self.table, &inputs, &mut outputs);
        });
        Ok(())
    }
}

/// A table may be used with its own ring, or with one that has the same primes in the same places.
fn check_ring(id: u64, table: &ExtendTable, from: &Limbs, to: &Limbs, ring: &Ring) -> Result<()> {
    if id == ring.id() {
        return Ok(());
    }
    for (index, modulus) in from.iter().zip(&table.from).chain(to.iter().zip(&table.to)) {
        if ring.modulus(index)? != modulus {
            return Err(Error::RingMismatch {
                left_degree: ring.degree(),
                left_primes: table.from.len() + table.to.len(),
                right_degree: ring.degree(),
                right_primes: ring.prime_count(),
            });
        }
    }
    Ok(())
}

impl Ring {
    /// The centred basis extension between two disjoint sets of limbs, built once.
    pub fn extension(&self, from: &Limbs, to: &Limbs) -> Result<Arc<Extension>> {
        self.derived().get((from.clone(), to.clone()), || Extension::new(self, from, to))
    }
}

/// The gadget of hybrid key switching: cuts the chain `Q` into digits, and raises each to all of
/// `Q P`.
///
/// The digit of `x` for the limbs `D` is the centred `x mod prod(D)`;
/// `x = sum_D digit_D * g_D mod Q` where `g_D` is 1 modulo the primes of `D` and 0 modulo the
/// others of `Q`.
#[derive(Debug)]
pub struct Decomposition {
    chain: Limbs,
    all: Limbs,
    digits: Vec<(Limbs, Arc<Extension>)>,
}

impl Decomposition {
    /// Digits of a chain, extended to the chain and the special primes.
    ///
    /// `digits` must be disjoint and cover `chain`; limbs of digits above the chain are left out,
    /// and so are digits that have no limb in it, so that one list serves all levels.
    pub fn new(ring: &Ring, chain: &Limbs, digits: &[Limbs], special: &Limbs) -> Result<Self> {
        ring.check_limbs("chain", chain)?;
        if !chain.is_disjoint(special) {
            return Err(Error::LimbsOverlap { left: chain.clone(), right: special.clone() });
        }
        let all = chain.union(special);
        ring.check_limbs("chain and special", &all)?;
        let mut covered = Limbs::range(0..0);
        let mut list = Vec::new();
        for digit in digits {
            let digit = digit.intersection(chain);
            if digit.is_empty() {
                continue;
            }
            if !covered.is_disjoint(&digit) {
                return Err(Error::LimbsOverlap { left: covered, right: digit });
            }
            covered = covered.union(&digit);
            let rest = all.difference(&digit);
            // A single digit without special primes has nothing to extend to.
            let extension = if rest.is_empty() { None } else { Some(ring.extension(&digit, &rest)?) };
            list.extend(extension.map(|e| (digit, e)));
        }
        check_contains("chain", chain, "digits", &covered)?;
        if list.is_empty() {
            return Err(Error::EmptyBasis { role: "special" });
        }
        Ok(Self { chain: chain.clone(), all, digits: list })
    }

    /// Number of digits at this level.
    pub fn len(&self) -> usize {
        self.digits.len()
    }

    /// Never: there is at least one digit.
    pub fn is_empty(&self) -> bool {
        self.digits.is_empty()
    }

    /// The limbs of the digits' results: chain and special primes.
    pub fn limbs(&self) -> &Limbs {
        &self.all
    }

    /// The chain that is decomposed.
    pub fn chain(&self) -> &Limbs {
        &self.chain
    }

    /// The chain limbs of digit `d`, for each `d`.
    pub fn digit_limbs(&self) -> impl ExactSizeIterator<Item = &Limbs> + '_ {
        self.digits.iter().map(|(limbs, _)| limbs)
    }

    /// All digits of `x`, raised to chain and special primes (`mod_up`); `x` must have the chain's
    /// limbs.
    ///
    /// Costs `l` inverse and `digits * (l + k) - l` forward transforms; share it among rotations of
    /// one ciphertext.
    pub fn decompose(&self, x: &Poly<Eval>) -> Result<Vec<Poly<Eval>>> {
        check_contains("chain", &self.chain, "decomposed polynomial", x.limbs())?;
        let coeff = x.to_coeff(&self.chain)?;
        self.digits
            .iter()
            .map(|(_, extension)| {
                let mut raised = Poly::scratch(x.ring(), &self.all)?;
                extension.raise(x, &coeff, &mut raised)?;
                Ok(raised)
            })
            .collect()
    }
}
