//! Plaintexts: integer coefficients kept compact, lifted to residues only where they are used.

use cipherlm_ring::{Coeff, Eval, Kernel, Limbs, Modulus, Poly, Secret, SmallCoeffs, Wiped};
use zeroize::Zeroizing;

use crate::{Error, Params, Scale};

/// An encoded message: integer coefficients of a polynomial in `X^(N / 2n)` for `n` slots, and a
/// scale.
///
/// A plaintext has no level and no residues: 8 bytes a coefficient whatever the modulus, and `2n`
/// coefficients for a vector of period `n`. [`Plaintext::lift`] makes the residues for the limbs of
/// one use. Wiped on drop; a [`LiftedPlaintext`] is not.
#[derive(Clone)]
pub struct Plaintext {
    params: Params,
    /// `2 * slots` integers; the coefficient is the integer times `2^shift`.
    integers: Wiped<i64>,
    shift: u32,
    slots: usize,
    scale: Scale,
}

impl Plaintext {
    pub(super) fn from_integers(
        params: Params,
        integers: Wiped<i64>,
        shift: u32,
        slots: usize,
        scale: Scale,
    ) -> Self {
        Self { params, integers, shift, slots, scale }
    }

    /// The parameter set it was encoded for.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Number of slots, which is the period of the vector.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Factor between message and coefficients.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        self.integers.len() * 8
    }

    /// log2 of the largest coefficient; negative infinity for the zero message.
    pub fn log2_max(&self) -> f64 {
        let largest = self.integers.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0);
        (largest as f64).log2() + f64::from(self.shift)
    }

    /// Feeds a hash with everything that tells this message from others of its parameter set.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let (high, low) = self.scale.to_parts();
        hasher.update(&(self.slots as u64).to_le_bytes()).update(&self.shift.to_le_bytes());
        hasher.update(&high.to_bits().to_le_bytes()).update(&low.to_bits().to_le_bytes());
        let mut bytes = Zeroizing::new([0u8; 4096]);
        for block in self.integers.chunks(bytes.len() / 8) {
            let bytes = &mut bytes[..8 * block.len()];
            bytes
                .as_chunks_mut()
                .0
                .iter_mut()
                .zip(block)
                .for_each(|(to, integer)| *to = integer.to_le_bytes());
            hasher.update(bytes);
        }
    }

    /// The `2 * slots` coefficients, to 53 bits.
    pub(crate) fn coefficients(&self) -> impl Iterator<Item = f64> + '_ {
        let factor = 2f64.powi(self.shift as i32);
        self.integers.iter().map(move |&c| c as f64 * factor)
    }

    /// Residues of the plaintext on `limbs`, in evaluation form, ready to multiply with or add to
    /// many ciphertexts.
    ///
    /// # Errors
    /// [`Error::MessageOverflow`] if a coefficient does not fit the modulus of these limbs.
    pub fn lift(&self, limbs: &Limbs) -> Result<LiftedPlaintext, Error> {
        self.check_fits("lift", limbs, 0.0)?;
        let subring = self.integers.len().max(MIN_SUBRING);
        let data = if subring * MIN_RUN <= self.params.degree() {
            self.lift_subring(limbs, subring)?
        } else {
            Data::Full(self.lift_full(limbs)?)
        };
        Ok(LiftedPlaintext {
            params: self.params.clone(),
            limbs: limbs.clone(),
            slots: self.slots,
            scale: self.scale,
            data,
        })
    }

    /// Refuses coefficients that leave less than `room` bits below half the modulus of these limbs.
    pub(crate) fn check_fits(&self, operation: &'static str, limbs: &Limbs, room: f64) -> Result<(), Error> {
        let (coefficient, modulus) = (self.log2_max(), self.params.log2_of(limbs)?);
        if coefficient < modulus - 1.0 - room {
            return Ok(());
        }
        Err(Error::MessageOverflow { operation, coefficient, modulus })
    }

    /// The message plus an error, for the limbs of a ciphertext. All that is between is wiped.
    pub(crate) fn with_error(&self, error: &SmallCoeffs, limbs: &Limbs) -> Result<Secret<Eval>, Error> {
        let ring = self.params.ring();
        if self.shift == 0 && self.integers.iter().all(|c| c.unsigned_abs() < 1 << 52) {
            // Sums that are exact as floats, and one transform for both.
            let gap = ring.degree() / self.integers.len();
            let mut sum = error.expose().iter().map(|&x| f64::from(x)).collect::<Wiped<f64>>();
            sum.iter_mut().step_by(gap).zip(self.integers.iter()).for_each(|(to, &c)| *to += c as f64);
            return Ok(Secret::new(Poly::<Coeff>::from_f64(ring, limbs, &sum)?).into_eval());
        }
        let mut sum = error.to_poly(ring, limbs)?.into_eval();
        let message = Secret::new(self.lift_full(limbs)?);
        sum.expose_mut().add_assign(message.expose())?;
        Ok(sum)
    }

    /// Residues as a full polynomial.
    pub(crate) fn lift_full(&self, limbs: &Limbs) -> Result<Poly<Eval>, Error> {
        let ring = self.params.ring();
        let gap = ring.degree() / self.integers.len();
        let poly = if gap == 1 {
            Poly::<Coeff>::from_i64(ring, limbs, &self.integers)?
        } else {
            let mut spread = Wiped::<i64>::zeros(ring.degree());
            spread.iter_mut().step_by(gap).zip(self.integers.iter()).for_each(|(to, from)| *to = *from);
            Poly::<Coeff>::from_i64(ring, limbs, &spread)?
        };
        let mut poly = poly.into_eval();
        if self.shift != 0 {
            poly.scale_integer_assign(1 << self.shift);
        }
        Ok(poly)
    }

    /// Residues in the subring of `degree`, in the order of the runs they fill.
    fn lift_subring(&self, limbs: &Limbs, degree: usize) -> Result<Data, Error> {
        let ring = self.params.ring();
        let order = self.params.subring_order(degree)?;
        let gap = degree / self.integers.len();
        let mut values = Vec::with_capacity(degree * limbs.len());
        let mut small = vec![0.0; degree];
        for limb in limbs.iter() {
            let modulus = ring.modulus(limb)?;
            let factor = modulus.pow(2, u64::from(self.shift));
            small.fill(0.0);
            for (to, &c) in small.iter_mut().step_by(gap).zip(self.integers.iter()) {
                *to = modulus.mul(modulus.reduce_i128(i128::from(c)), factor) as f64;
            }
            (ring.kernel().ntt_forward)(&*self.params.small_table(limb, degree)?, &mut small);
            values.extend(order.iter().map(|&i| small[i as usize]));
        }
        Ok(Data::Subring { degree, values })
    }
}

/// Residues of a plaintext on some limbs; see [`Plaintext::lift`]. For public data: it is not
/// wiped.
///
/// In evaluation order the residues of a subring plaintext are constant over runs of `N / 2n`, so
/// only `2n` residues a limb are kept and products are scalar products over runs.
#[derive(Clone)]
pub struct LiftedPlaintext {
    params: Params,
    limbs: Limbs,
    slots: usize,
    scale: Scale,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Full(Poly<Eval>),
    Subring { degree: usize, values: Vec<f64> },
}

/// Values of a subring polynomial repeat over aligned runs of 16 and more; below that it is lifted
/// in full.
const MIN_RUN: usize = 16;
/// The smallest degree of the transform.
const MIN_SUBRING: usize = 16;

impl LiftedPlaintext {
    /// The parameter set it was encoded for.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Limbs the residues exist on; operands may live on fewer.
    pub fn limbs(&self) -> &Limbs {
        &self.limbs
    }

    /// Number of slots of the plaintext.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Scale of the plaintext.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Full(poly) => poly.limbs().len() * self.params.degree() * 8,
            Data::Subring { values, .. } => values.len() * 8,
        }
    }

    /// `poly * self`, on the limbs of `poly`; all of them must be lifted.
    pub(crate) fn times(&self, poly: &Poly<Eval>) -> Result<Poly<Eval>, Error> {
        let mut product = Poly::scratch(self.params.ring(), poly.limbs())?;
        self.for_each_limb(&mut product, Some(poly), |kernel, m, to, from, value| match value {
            Value::Limb(limb) => (kernel.mul_to)(m, to, from, limb),
            Value::Scalar(w) => {
                to.copy_from_slice(from);
                (kernel.mul_scalar)(m, to, w);
            }
        })?;
        Ok(product)
    }

    /// `acc += poly * self`, on the limbs of `acc`.
    pub(crate) fn mul_add(&self, acc: &mut Poly<Eval>, poly: &Poly<Eval>) -> Result<(), Error> {
        self.for_each_limb(acc, Some(poly), |kernel, m, to, from, value| match value {
            Value::Limb(limb) => (kernel.mul_add)(m, to, from, limb),
            Value::Scalar(w) => (kernel.mul_scalar_add)(m, to, from, w),
        })
    }

    /// The residues of a block of one limb; `work`, as long as the block, is used if they have to
    /// be spread out.
    pub(crate) fn block<'a>(
        &'a self,
        limb: usize,
        block: std::ops::Range<usize>,
        work: &'a mut [f64],
    ) -> Result<&'a [f64], Error> {
        match &self.data {
            Data::Full(poly) => Ok(&poly.limb(limb)?[block]),
            Data::Subring { degree, values } => {
                let position = self.limbs.position(limb).ok_or_else(|| self.missing(limb))?;
                let values = &values[position * degree..][..*degree];
                let run = self.params.degree() / degree;
                if run >= work.len() {
                    work.fill(values[block.start / run]);
                } else {
                    let values = &values[block.start / run..block.end / run];
                    work.chunks_exact_mut(run).zip(values).for_each(|(to, &w)| to.fill(w));
                }
                Ok(work)
            }
        }
    }

    /// `poly += self`, or `poly -= self`.
    pub(crate) fn add_to(&self, poly: &mut Poly<Eval>, negate: bool) -> Result<(), Error> {
        self.for_each_limb(poly, None, |kernel, m, to, _, value| match value {
            Value::Limb(limb) if negate => (kernel.sub)(m, to, limb),
            Value::Limb(limb) => (kernel.add)(m, to, limb),
            Value::Scalar(w) => {
                let w = if negate { m.sub_f64(0.0, w) } else { w };
                to.iter_mut().for_each(|x| *x = m.add_f64(*x, w));
            }
        })
    }

    /// Calls `op` on pieces of the limbs of `to`, with the same pieces of `from`, in parallel over
    /// limbs.
    fn for_each_limb(
        &self,
        to: &mut Poly<Eval>,
        from: Option<&Poly<Eval>>,
        op: impl Fn(&Kernel, &Modulus, &mut [f64], &[f64], Value<'_>) + Sync + Send,
    ) -> Result<(), Error> {
        for limb in to.limbs().iter() {
            if !self.limbs.contains(limb) || from.is_some_and(|p| !p.limbs().contains(limb)) {
                return Err(self.missing(limb));
            }
        }
        let ring = self.params.ring().clone();
        let kernel = ring.kernel();
        to.for_each_limb(|index, modulus, output| {
            let input = from.and_then(|p| p.limb(index).ok()).unwrap_or(&[]);
            match &self.data {
                Data::Full(poly) => {
                    if let Ok(limb) = poly.limb(index) {
                        op(kernel, modulus, output, input, Value::Limb(limb));
                    }
                }
                Data::Subring { degree, values } => {
                    let position = self.limbs.position(index).unwrap_or(0);
                    let values = &values[position * degree..][..*degree];
                    let run = output.len() / degree;
                    for (i, (out, &w)) in output.chunks_exact_mut(run).zip(values).enumerate() {
                        let part = if input.is_empty() { input } else { &input[i * run..][..run] };
                        op(kernel, modulus, out, part, Value::Scalar(w));
                    }
                }
            }
        });
        Ok(())
    }

    fn missing(&self, limb: usize) -> Error {
        Error::LevelOutOfRange { operation: "lifted plaintext", level: limb, max: self.limbs.len() }
    }
}

enum Value<'a> {
    Limb(&'a [f64]),
    Scalar(f64),
}
