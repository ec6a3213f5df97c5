//! Sums, constants, plaintext products, levels and scales.

use cipherlm_ring::{Poly, par};
use num_complex::Complex64;

use super::{Evaluator, check_finite, check_scales};
use crate::encode::{LiftedPlaintext, Plaintext};
use crate::keys::EvaluationKeys;
use crate::{Ciphertext, Error, Scale};

impl<K: EvaluationKeys> Evaluator<K> {
    /// `a + b`. Levels and scales must be equal; both stay.
    ///
    /// # Errors
    /// [`Error::LevelMismatch`], [`Error::ScaleMismatch`], [`Error::KeyMismatch`],
    /// [`Error::ParamsMismatch`].
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, Error> {
        self.combine("add", a, b, false)
    }

    /// `a += b`; see [`Evaluator::add`].
    ///
    /// # Errors
    /// As [`Evaluator::add`]; `a` is unchanged then.
    pub fn add_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<(), Error> {
        self.check_pair("add", a, b)?;
        check_scales("add", a.scale, b.scale)?;
        for (x, y) in a.parts.iter_mut().zip(&b.parts) {
            x.add_assign(y)?;
        }
        for y in b.parts.iter().skip(a.parts.len()) {
            a.parts.push(y.clone());
        }
        touched(a, b.slots);
        Ok(())
    }

    /// `a - b`. Levels and scales must be equal; both stay.
    ///
    /// # Errors
    /// As [`Evaluator::add`].
    pub fn sub(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, Error> {
        self.combine("sub", a, b, true)
    }

    /// `a + b` or `a - b`, limb by limb: a copied limb is still in the cache when the other is
    /// added.
    fn combine(
        &self,
        operation: &'static str,
        a: &Ciphertext,
        b: &Ciphertext,
        negate: bool,
    ) -> Result<Ciphertext, Error> {
        self.check_pair(operation, a, b)?;
        check_scales(operation, a.scale, b.scale)?;
        let (ring, kernel) = (self.params.ring(), self.params.ring().kernel());
        let mut parts = Vec::with_capacity(a.parts.len().max(b.parts.len()));
        for (x, y) in a.parts.iter().zip(&b.parts) {
            let mut sum = Poly::scratch(ring, x.limbs())?;
            let sources = x.iter().map(|(limb, x)| Ok((ring.modulus(limb)?, x, y.limb(limb)?)));
            let sources = sources.collect::<Result<Vec<_>, Error>>()?;
            let limbs = sum.iter_mut().zip(sources);
            par::each(ring.degree() * limbs.len(), limbs, |((_, out), (m, x, y))| {
                out.copy_from_slice(x);
                if negate { (kernel.sub)(m, out, y) } else { (kernel.add)(m, out, y) }
            });
            parts.push(sum);
        }
        parts.extend(a.parts.iter().skip(parts.len()).cloned());
        for y in b.parts.iter().skip(parts.len()) {
            let mut y = y.clone();
            if negate {
                y.neg_assign();
            }
            parts.push(y);
        }
        Ok(Ciphertext { parts, slots: a.slots.max(b.slots), ..self.shell(a) })
    }

    /// `a -= b`; see [`Evaluator::sub`].
    ///
    /// # Errors
    /// As [`Evaluator::add`]; `a` is unchanged then.
    pub fn sub_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<(), Error> {
        self.check_pair("sub", a, b)?;
        check_scales("sub", a.scale, b.scale)?;
        for (x, y) in a.parts.iter_mut().zip(&b.parts) {
            x.sub_assign(y)?;
        }
        for y in b.parts.iter().skip(a.parts.len()) {
            let mut y = y.clone();
            y.neg_assign();
            a.parts.push(y);
        }
        touched(a, b.slots);
        Ok(())
    }

    /// `-a`.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`].
    pub fn neg(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        let mut result = a.clone();
        self.neg_assign(&mut result)?;
        Ok(result)
    }

    /// `a = -a`.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`].
    pub fn neg_assign(&self, a: &mut Ciphertext) -> Result<(), Error> {
        self.check_one("neg", a)?;
        a.parts.iter_mut().for_each(|p| p.neg_assign());
        a.seed = None;
        Ok(())
    }

    /// `a + plaintext`. The scales must be equal; level and scale stay.
    ///
    /// # Errors
    /// [`Error::ScaleMismatch`], [`Error::ParamsMismatch`], [`Error::MessageOverflow`].
    pub fn add_plain(&self, a: &Ciphertext, plaintext: &Plaintext) -> Result<Ciphertext, Error> {
        self.combine_plain("add_plain", a, plaintext, false)
    }

    /// `a - plaintext`; see [`Evaluator::add_plain`].
    ///
    /// # Errors
    /// As [`Evaluator::add_plain`].
    pub fn sub_plain(&self, a: &Ciphertext, plaintext: &Plaintext) -> Result<Ciphertext, Error> {
        self.combine_plain("sub_plain", a, plaintext, true)
    }

    fn combine_plain(
        &self,
        operation: &'static str,
        a: &Ciphertext,
        plaintext: &Plaintext,
        negate: bool,
    ) -> Result<Ciphertext, Error> {
        self.check_one(operation, a)?;
        self.params.check_same(operation, plaintext.params())?;
        check_scales(operation, a.scale, plaintext.scale())?;
        let mut result = a.clone();
        plaintext.lift(self.params.limbs(a.level))?.add_to(&mut result.parts[0], negate)?;
        // `c1` is unchanged, so a fresh ciphertext stays seeded.
        result.slots = a.slots.max(plaintext.slots());
        Ok(result)
    }

    /// `a + value` in every slot; level and scale stay. The constant is rounded to a unit of the
    /// scale, below which nothing of the sum can be told anyway.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::ParamsMismatch`], [`Error::MessageOverflow`].
    pub fn add_const(&self, a: &Ciphertext, value: Complex64) -> Result<Ciphertext, Error> {
        check_finite(value)?;
        self.add_plain(a, &Plaintext::constant(&self.params, value, a.scale)?)
    }

    /// `a * plaintext`, slot by slot. The scales multiply; rescale afterwards.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] if the product does not fit the level, [`Error::ParamsMismatch`],
    /// [`Error::MessageOverflow`].
    pub fn mul_plain(&self, a: &Ciphertext, plaintext: &Plaintext) -> Result<Ciphertext, Error> {
        self.check_one("mul_plain", a)?;
        self.params.check_same("mul_plain", plaintext.params())?;
        self.check_room("mul_plain", a.level, a.scale * plaintext.scale())?;
        self.mul_lifted(a, &plaintext.lift(self.params.limbs(a.level))?)
    }

    /// As [`Evaluator::mul_plain`] with a plaintext lifted before, to at least the limbs of `a`.
    ///
    /// # Errors
    /// As [`Evaluator::mul_plain`]; [`Error::LevelMismatch`] if the plaintext was lifted to fewer
    /// limbs.
    pub fn mul_lifted(&self, a: &Ciphertext, plaintext: &LiftedPlaintext) -> Result<Ciphertext, Error> {
        self.check_one("mul_plain", a)?;
        self.params.check_same("mul_plain", plaintext.params())?;
        let scale = a.scale * plaintext.scale();
        self.check_room("mul_plain", a.level, scale)?;
        let parts = a.parts.iter().map(|p| plaintext.times(p)).collect::<Result<_, _>>()?;
        let slots = a.slots.max(plaintext.slots());
        Ok(Ciphertext { parts, scale, slots, seed: None, ..self.shell(a) })
    }

    /// `acc += a * plaintext`: the inner step of sums of products. Levels and the scale of the
    /// product must match `acc`.
    ///
    /// # Errors
    /// As [`Evaluator::mul_lifted`]; [`Error::ScaleMismatch`], [`Error::LevelMismatch`];
    /// [`Error::NotLinear`] if `a` has more parts than `acc`.
    pub fn mul_lifted_add(
        &self,
        acc: &mut Ciphertext,
        a: &Ciphertext,
        plaintext: &LiftedPlaintext,
    ) -> Result<(), Error> {
        self.check_pair("mul_lifted_add", acc, a)?;
        self.params.check_same("mul_lifted_add", plaintext.params())?;
        check_scales("mul_lifted_add", acc.scale, a.scale * plaintext.scale())?;
        if a.parts.len() > acc.parts.len() {
            return Err(Error::NotLinear { operation: "mul_lifted_add", parts: a.parts.len() });
        }
        for (acc, part) in acc.parts.iter_mut().zip(&a.parts) {
            plaintext.mul_add(acc, part)?;
        }
        touched(acc, a.slots.max(plaintext.slots()));
        Ok(())
    }

    /// `a * value`, the constant encoded at `scale` and rounded to a unit of it; the scales
    /// multiply. A real constant is a scalar product, a complex one a product with a two-term
    /// polynomial.
    ///
    /// The error of the product is that of the constant: at most `1 / (2 scale)` times `a`, in each
    /// part. A constant other than zero that is smaller than a unit of the scale, so that little or
    /// nothing of it would be left, is refused.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::BadScale`] (for a constant below `1 / scale` with the scale
    /// it needs), [`Error::LevelExhausted`], [`Error::MessageOverflow`], [`Error::ParamsMismatch`].
    pub fn mul_const(&self, a: &Ciphertext, value: Complex64, scale: Scale) -> Result<Ciphertext, Error> {
        let (size, log2) = (value.norm().log2(), scale.log2());
        if value != Complex64::ZERO && log2 + size < 0.0 {
            let max = crate::encode::MAX_COEFFICIENT_BITS;
            return Err(Error::BadScale { operation: "mul_const", log2, min: -size, max });
        }
        self.mul_const_rounded(a, value, scale)
    }

    /// As [`Evaluator::mul_const`], for a term of a sum: there a constant below a unit of the scale
    /// is rounded to zero as everything else is to a unit.
    pub(crate) fn mul_const_rounded(
        &self,
        a: &Ciphertext,
        value: Complex64,
        scale: Scale,
    ) -> Result<Ciphertext, Error> {
        self.check_one("mul_const", a)?;
        check_finite(value)?;
        crate::encode::check_scale("mul_const", scale)?;
        let product_scale = a.scale * scale;
        self.check_room("mul_const", a.level, product_scale)?;
        let largest = scale.log2() + value.norm().log2();
        let modulus = self.params.log_q(a.level) - 1.0;
        if largest >= modulus.min(105.0) {
            return Err(Error::MessageOverflow { operation: "mul_const", coefficient: largest, modulus });
        }
        if value.im != 0.0 {
            return self.mul_plain(a, &Plaintext::constant(&self.params, value, scale)?);
        }
        let (hi, lo) = scale.round_times(value.re);
        let integer = hi as i128 + lo as i128;
        let mut result = Ciphertext { scale: product_scale, seed: None, ..a.clone() };
        result.parts.iter_mut().for_each(|p| p.scale_integer_assign(integer));
        Ok(result)
    }

    /// `a * integer`, exactly; level and scale stay.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`].
    pub fn mul_integer(&self, a: &Ciphertext, integer: i64) -> Result<Ciphertext, Error> {
        self.check_one("mul_integer", a)?;
        let mut result = Ciphertext { seed: None, ..a.clone() };
        result.parts.iter_mut().for_each(|p| p.scale_integer_assign(i128::from(integer)));
        Ok(result)
    }

    /// `a * i`, exactly; level and scale stay.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`].
    pub fn mul_i(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        self.check_one("mul_i", a)?;
        self.mul_plain(a, &Plaintext::encode_coefficients(&self.params, &[0.0, 1.0], Scale::ONE)?)
    }

    /// Divides by the primes of the current level, rounding: one level down, the scale divided by
    /// [`Params::rescale_factor`](crate::Params::rescale_factor).
    ///
    /// The rounding costs every slot about `N / 4` units of the new scale (for a dense secret). A
    /// scale below that would leave no bit of a message of size 1, as after one rescale too many,
    /// and is refused.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] at level 0, [`Error::BadScale`] if the scale would fall below the
    /// rounding error.
    pub fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        let (level, scale) = self.rescaled("rescale", a.level, a.scale)?;
        self.check_one("rescale", a)?;
        let mod_down =
            self.params.ring().mod_down(self.params.limbs(level), &self.params.group_limbs(a.level))?;
        let parts = a.parts.iter().map(|p| mod_down.apply(p)).collect::<Result<_, _>>()?;
        Ok(Ciphertext { parts, level, scale, seed: None, ..self.shell(a) })
    }

    /// Forgets the primes above `level`; message and scale stay.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] if `level` is above that of `a`.
    pub fn drop_to_level(&self, a: &Ciphertext, level: usize) -> Result<Ciphertext, Error> {
        self.check_one("drop_to_level", a)?;
        if level > a.level {
            return Err(Error::LevelExhausted { operation: "drop_to_level", have: a.level, need: level });
        }
        let limbs = self.params.limbs(level);
        let parts = a.parts.iter().map(|p| p.keep(limbs)).collect::<Result<_, _>>()?;
        Ok(Ciphertext { parts, level, seed: a.seed, ..self.shell(a) })
    }

    /// Brings `a` to exactly `scale` at the cost of one level: multiplies by the integer nearest to
    /// `scale * rescale_factor / a.scale()` and rescales. The rounding of that integer is a
    /// relative error of the message of at most half its inverse, so integers below 2^20 are
    /// refused.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] at level 0, [`Error::BadScale`] if the integer would be below 2^20
    /// or above 2^100.
    pub fn match_scale(&self, a: &Ciphertext, scale: Scale) -> Result<Ciphertext, Error> {
        self.check_one("match_scale", a)?;
        if a.level == 0 {
            return Err(Error::LevelExhausted { operation: "match_scale", have: 0, need: 1 });
        }
        let factor = scale * self.params.rescale_factor(a.level) / a.scale;
        let log2 = if factor.is_usable() { factor.log2() } else { f64::NAN };
        if !(20.0..=100.0).contains(&log2) {
            return Err(Error::BadScale { operation: "match_scale", log2, min: 20.0, max: 100.0 });
        }
        let raised = self.mul_const(a, Complex64::ONE, factor)?;
        Ok(Ciphertext { scale, ..self.rescale(&raised)? })
    }

    /// Level and scale after a rescale.
    pub(super) fn rescaled(
        &self,
        operation: &'static str,
        level: usize,
        scale: Scale,
    ) -> Result<(usize, Scale), Error> {
        let below = level.checked_sub(1).ok_or(Error::LevelExhausted { operation, have: 0, need: 1 })?;
        let scale = scale / self.params.rescale_factor(level);
        let log2 = if scale.is_usable() { scale.log2() } else { f64::NAN };
        let min = crate::noise::rounding_bits(f64::from(self.params.log_degree()));
        let max = crate::encode::MAX_COEFFICIENT_BITS;
        if !(min..=max).contains(&log2) {
            return Err(Error::BadScale { operation, log2, min, max });
        }
        Ok((below, scale))
    }

    /// Everything of `a` but its polynomials.
    pub(super) fn shell(&self, a: &Ciphertext) -> Ciphertext {
        Ciphertext {
            params: a.params.clone(),
            key_id: a.key_id,
            parts: Vec::new(),
            level: a.level,
            scale: a.scale,
            slots: a.slots,
            seed: None,
        }
    }
}

/// After an operation in place: no longer fresh, and as many slots as the wider operand.
fn touched(a: &mut Ciphertext, slots: usize) {
    a.seed = None;
    a.slots = a.slots.max(slots);
}
