//! RNS polynomials, with the domain in the type.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::arena::Buffer;
use crate::error::{Error, Result};
use crate::limbs::Limbs;
use crate::modulus::Modulus;
use crate::par;
use crate::ring::Ring;

/// Marks polynomials held by their coefficients.
#[derive(Clone, Copy, Debug)]
pub enum Coeff {}

/// Marks polynomials held by their values at the odd powers of `psi`, in the order of
/// [`eval_exponent`](crate::eval_exponent).
#[derive(Clone, Copy, Debug)]
pub enum Eval {}

/// [`Coeff`] or [`Eval`].
pub trait Domain: sealed::Sealed + Send + Sync + 'static {
    /// `"Coeff"` or `"Eval"`.
    const NAME: &'static str;
}

impl Domain for Coeff {
    const NAME: &'static str = "Coeff";
}

impl Domain for Eval {
    const NAME: &'static str = "Eval";
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Coeff {}
    impl Sealed for super::Eval {}
}

/// A polynomial modulo `X^N + 1` and a product of primes: one limb of `N` residues for each of its
/// primes.
///
/// Binary operations work on the limbs of the left side (or of the accumulator); the other operands
/// may have more. So a plaintext or a key made for a high level serves all levels below. Memory
/// comes from the ring's pool and returns to it.
///
/// ```
/// use cipherlm_ring::{Coeff, Limbs, Poly, Ring, ntt_primes};
/// let ring = Ring::new(16, &ntt_primes(16, 40, 3, &[])?)?;
/// let mut x15 = [0; 16];
/// x15[15] = 1;
/// let a = Poly::<Coeff>::from_i64(&ring, &Limbs::range(0..2), &x15)?.into_eval();
/// let mut square = a.clone();
/// square.mul_assign(&a)?; // X^30 = -X^14
/// assert_eq!(square.into_coeff().to_f64()[14], -1.0);
/// # Ok::<(), cipherlm_ring::Error>(())
/// ```
#[derive(Clone)]
pub struct Poly<D> {
    ring: Arc<Ring>,
    limbs: Limbs,
    buffer: Buffer,
    domain: PhantomData<D>,
}

impl<D: Domain> Poly<D> {
    /// The zero polynomial over some limbs of the ring.
    pub fn zero(ring: &Arc<Ring>, limbs: &Limbs) -> Result<Self> {
        let mut poly = Self::scratch(ring, limbs)?;
        poly.buffer.as_mut_slice().fill(0.0);
        Ok(poly)
    }

    /// A polynomial to be overwritten: its residues are left over from earlier use and may not even
    /// be canonical.
    pub fn scratch(ring: &Arc<Ring>, limbs: &Limbs) -> Result<Self> {
        ring.check_limbs("polynomial", limbs)?;
        Ok(Self::scratch_over(ring, limbs))
    }

    /// As [`Poly::scratch`], for limbs known to be in the ring.
    pub(crate) fn scratch_over(ring: &Arc<Ring>, limbs: &Limbs) -> Self {
        let buffer = ring.pool().take(limbs.len() * ring.stride());
        Self { ring: Arc::clone(ring), limbs: limbs.clone(), buffer, domain: PhantomData }
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The limbs, as indices into the ring's pool.
    pub fn limbs(&self) -> &Limbs {
        &self.limbs
    }

    /// The `N` residues modulo the prime at a pool index.
    pub fn limb(&self, index: usize) -> Result<&[f64]> {
        self.position(index).map(|p| self.at(p))
    }

    /// The `N` residues modulo the prime at a pool index; the caller keeps them canonical.
    pub fn limb_mut(&mut self, index: usize) -> Result<&mut [f64]> {
        let (p, stride, n) = (self.position(index)?, self.ring.stride(), self.ring.degree());
        Ok(&mut self.buffer.as_mut_slice()[p * stride..][..n])
    }

    /// All limbs in order, with their pool indices.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, &[f64])> + '_ {
        self.limbs.iter().enumerate().map(|(p, index)| (index, self.at(p)))
    }

    /// All limbs in order, with their pool indices; the caller keeps residues canonical.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (usize, &mut [f64])> + '_ {
        let n = self.ring.degree();
        let chunks = self.buffer.as_mut_slice().chunks_exact_mut(self.ring.stride());
        self.limbs.iter().zip(chunks.map(move |c| &mut c[..n]))
    }

    /// Calls `f(pool index, modulus, residues)` on all limbs, in parallel; `f` keeps residues
    /// canonical.
    pub fn for_each_limb(&mut self, f: impl Fn(usize, &Modulus, &mut [f64]) + Sync + Send) {
        let ring = Arc::clone(&self.ring);
        let residues = ring.degree() * self.limbs.len();
        par::each(residues, self.iter_mut(), |(index, limb)| f(index, ring.modulus_at(index), limb));
    }

    /// Checks that every residue is an integer in `[0, q)`: for data from outside, after writing to
    /// [`Poly::limb_mut`].
    pub fn check(&self) -> Result<()> {
        for (limb, residues) in self.iter() {
            let q = self.ring.modulus_at(limb);
            let bad = |x: &f64| !(*x >= 0.0 && *x < q.float() && x.fract() == 0.0) || x.is_sign_negative();
            if let Some(position) = residues.iter().position(bad) {
                let value = residues[position];
                return Err(Error::ResidueOutOfRange { limb, position, value, modulus: q.value() });
            }
        }
        Ok(())
    }

    /// `self += other`.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        let add = self.ring.kernel().add;
        self.zip_limbs("left side", other, "right side", add)
    }

    /// `self -= other`.
    pub fn sub_assign(&mut self, other: &Self) -> Result<()> {
        let sub = self.ring.kernel().sub;
        self.zip_limbs("left side", other, "right side", sub)
    }

    /// `self = -self`.
    pub fn neg_assign(&mut self) {
        let neg = self.ring.kernel().neg;
        self.for_each_limb(|_, m, a| neg(m, a));
    }

    /// Multiplies each limb by its own constant, one per limb of `self`, in order; reduced on the
    /// way in.
    pub fn scale_assign(&mut self, constants: &[u64]) -> Result<()> {
        check_len("constants, one per limb", self.limbs.len(), constants.len())?;
        let (mul_scalar, limbs) = (self.ring.kernel().mul_scalar, self.limbs.clone());
        self.for_each_limb(|index, m, a| mul_scalar(m, a, constant(&limbs, constants, index, m)));
        Ok(())
    }

    /// Multiplies by one integer.
    pub fn scale_integer_assign(&mut self, integer: i128) {
        let mul_scalar = self.ring.kernel().mul_scalar;
        self.for_each_limb(|_, m, a| mul_scalar(m, a, m.reduce_i128(integer) as f64));
    }

    /// `self += other * constants` on the limbs `on` alone (all present in both), with one constant
    /// for each of them.
    ///
    /// Adding `P * c` to an accumulator over `Q P` is the case `on = Q`, `constants = P mod q_i`.
    pub fn add_scaled_assign(&mut self, other: &Self, on: &Limbs, constants: &[u64]) -> Result<()> {
        self.ring.check_same(&other.ring)?;
        check_len("constants, one per limb", on.len(), constants.len())?;
        check_contains("limbs to add on", on, "accumulator", &self.limbs)?;
        check_contains("limbs to add on", on, "summand", &other.limbs)?;
        let mul_scalar_add = self.ring.kernel().mul_scalar_add;
        self.for_each_limb(|index, m, acc| {
            if let (Some(_), Some(p)) = (on.position(index), other.limbs.position(index)) {
                mul_scalar_add(m, acc, other.at(p), constant(on, constants, index, m));
            }
        });
        Ok(())
    }

    /// A copy of some of the limbs.
    pub fn keep(&self, limbs: &Limbs) -> Result<Self> {
        check_contains("limbs to keep", limbs, "polynomial", &self.limbs)?;
        let mut kept = Self::scratch(&self.ring, limbs)?;
        kept.zip_limbs("limbs to keep", self, "polynomial", |_, dst, src| dst.copy_from_slice(src))?;
        Ok(kept)
    }

    /// The limb at a position, in the order of `limbs`.
    pub(crate) fn at(&self, position: usize) -> &[f64] {
        &self.buffer.as_slice()[position * self.ring.stride()..][..self.ring.degree()]
    }

    pub(crate) fn position(&self, index: usize) -> Result<usize> {
        self.limbs.position(index).ok_or_else(|| Error::MissingLimb { index, limbs: self.limbs.clone() })
    }

    /// All memory behind the polynomial, for wiping: padding too.
    pub(crate) fn raw_mut(&mut self) -> &mut [f64] {
        self.buffer.store_mut()
    }

    /// Moves the polynomial out, leaving one without limbs that only wants to be dropped.
    pub(crate) fn take(&mut self) -> Self {
        let limbs = std::mem::replace(&mut self.limbs, Limbs::range(0..0));
        Self { ring: Arc::clone(&self.ring), limbs, buffer: self.buffer.take(), domain: PhantomData }
    }

    pub(crate) fn cast<E: Domain>(self) -> Poly<E> {
        Poly { ring: self.ring, limbs: self.limbs, buffer: self.buffer, domain: PhantomData }
    }

    /// Calls `f` on each limb of `self` with the same limb of `other`, in parallel.
    pub(crate) fn zip_limbs<E: Domain>(
        &mut self,
        role: &'static str,
        other: &Poly<E>,
        other_role: &'static str,
        f: impl Fn(&Modulus, &mut [f64], &[f64]) + Sync + Send,
    ) -> Result<()> {
        self.ring.check_same(&other.ring)?;
        check_contains(role, &self.limbs, other_role, &other.limbs)?;
        self.for_each_limb(|index, m, a| {
            if let Some(p) = other.limbs.position(index) {
                f(m, a, other.at(p));
            }
        });
        Ok(())
    }

    /// Calls `f` on each limb of `self` with the same limbs of two others, in parallel.
    pub(crate) fn zip2_limbs(
        &mut self,
        role: &'static str,
        a: (&Self, &'static str),
        b: (&Self, &'static str),
        f: impl Fn(&Modulus, &mut [f64], &[f64], &[f64]) + Sync + Send,
    ) -> Result<()> {
        for (other, other_role) in [a, b] {
            self.ring.check_same(&other.ring)?;
            check_contains(role, &self.limbs, other_role, &other.limbs)?;
        }
        self.for_each_limb(|index, m, acc| {
            if let (Some(p), Some(q)) = (a.0.limbs.position(index), b.0.limbs.position(index)) {
                f(m, acc, a.0.at(p), b.0.at(q));
            }
        });
        Ok(())
    }
}

impl Poly<Coeff> {
    /// Coefficients to evaluations, in place.
    pub fn into_eval(mut self) -> Poly<Eval> {
        let (ring, forward) = (Arc::clone(&self.ring), self.ring.kernel().ntt_forward);
        self.for_each_limb(|index, _, a| forward(ring.table(index), a));
        self.cast()
    }
}

impl Poly<Eval> {
    /// Evaluations to coefficients, in place.
    pub fn into_coeff(mut self) -> Poly<Coeff> {
        let (ring, inverse) = (Arc::clone(&self.ring), self.ring.kernel().ntt_inverse);
        self.for_each_limb(|index, _, a| inverse(ring.table(index), a, 1.0));
        self.cast()
    }

    /// The coefficients of some of the limbs, leaving `self` as it is.
    pub fn to_coeff(&self, limbs: &Limbs) -> Result<Poly<Coeff>> {
        check_contains("limbs to transform", limbs, "polynomial", &self.limbs)?;
        let mut poly = Poly::<Coeff>::scratch(&self.ring, limbs)?;
        let inverse = self.ring.kernel().ntt_inverse;
        poly.for_each_limb(|index, _, dst| {
            if let Some(p) = self.limbs.position(index) {
                dst.copy_from_slice(self.at(p));
                inverse(self.ring.table(index), dst, 1.0);
            }
        });
        Ok(poly)
    }

    /// `self *= other`, the negacyclic product.
    pub fn mul_assign(&mut self, other: &Self) -> Result<()> {
        let mul = self.ring.kernel().mul;
        self.zip_limbs("left side", other, "right side", mul)
    }

    /// `a * b` over the limbs of `a`.
    pub fn mul(a: &Self, b: &Self) -> Result<Self> {
        let mut product = Self::scratch(&a.ring, &a.limbs)?;
        product.zip2_limbs("product", (a, "left side"), (b, "right side"), a.ring.kernel().mul_to)?;
        Ok(product)
    }

    /// `self += a * b`.
    pub fn mul_add_assign(&mut self, a: &Self, b: &Self) -> Result<()> {
        let mul_add = self.ring.kernel().mul_add;
        self.zip2_limbs("accumulator", (a, "left side"), (b, "right side"), mul_add)
    }
}

impl<D: Domain> PartialEq for Poly<D> {
    /// Same ring, same limbs, same residues.
    fn eq(&self, other: &Self) -> bool {
        self.ring.check_same(&other.ring).is_ok()
            && self.limbs == other.limbs
            && self.iter().zip(other.iter()).all(|(a, b)| a == b)
    }
}

impl<D: Domain> std::fmt::Debug for Poly<D> {
    /// Shape only: residues are long, and may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Poly<{}>(N = {}, limbs {:?})", D::NAME, self.ring.degree(), self.limbs)
    }
}

pub(crate) fn check_len(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::LengthMismatch { what, expected, found }) }
}

pub(crate) fn check_contains(
    left_role: &'static str,
    left: &Limbs,
    right_role: &'static str,
    right: &Limbs,
) -> Result<()> {
    if right.contains_all(left) {
        Ok(())
    } else {
        Err(Error::LimbsMismatch { left_role, left: left.clone(), right_role, right: right.clone() })
    }
}

fn constant(limbs: &Limbs, constants: &[u64], index: usize, m: &Modulus) -> f64 {
    limbs.position(index).map_or(0.0, |p| m.reduce(constants[p]) as f64)
}
