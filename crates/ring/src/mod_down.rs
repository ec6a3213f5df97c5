//! Division by dropped primes: mod_down and rescale.

use std::sync::Arc;

use crate::error::Result;
use crate::extension::Extension;
use crate::limbs::Limbs;
use crate::poly::{Eval, Poly, check_contains};
use crate::ring::Ring;

/// `x -> round(x / prod(drop))`, from limbs `keep + drop` to `keep`.
///
/// `mod_down` drops the special primes, `rescale` one or several chain primes, and one call with
/// both fuses them: the cost is one inverse transform per dropped and one forward transform per
/// kept limb, whatever is dropped. Rounding is to nearest; the product of odd primes leaves no
/// ties.
#[derive(Debug)]
pub struct ModDown {
    keep: Limbs,
    drop: Limbs,
    extension: Arc<Extension>,
    /// `prod(drop)^-1 mod q` for each kept `q`.
    inverses: Vec<f64>,
}

impl ModDown {
    /// Prepares the constants; [`Ring::mod_down`] keeps them.
    pub fn new(ring: &Ring, keep: &Limbs, drop: &Limbs) -> Result<Self> {
        let extension = ring.extension(drop, keep)?;
        let inverses = keep
            .iter()
            .map(|i| {
                let m = ring.modulus_at(i);
                let product = drop.iter().fold(1, |product, d| m.mul(product, ring.modulus_at(d).value()));
                m.pow(product, m.value() - 2) as f64
            })
            .collect();
        Ok(Self { keep: keep.clone(), drop: drop.clone(), extension, inverses })
    }

    /// The limbs of the result.
    pub fn keep(&self) -> &Limbs {
        &self.keep
    }

    /// The limbs divided away.
    pub fn drop(&self) -> &Limbs {
        &self.drop
    }

    /// The rounded quotient, over the kept limbs; `x` may have further limbs, which are ignored.
    pub fn apply(&self, x: &Poly<Eval>) -> Result<Poly<Eval>> {
        let mut quotient = Poly::scratch(x.ring(), &self.keep)?;
        self.apply_into(x, &mut quotient)?;
        Ok(quotient)
    }

    /// As [`ModDown::apply`], overwriting `quotient`, whose limbs must be the kept ones.
    pub fn apply_into(&self, x: &Poly<Eval>, quotient: &mut Poly<Eval>) -> Result<()> {
        self.check(x.limbs(), quotient.limbs())?;
        let dropped = x.to_coeff(&self.drop)?;
        self.extension.apply_raw(&dropped, quotient)?;
        let (ring, kernel) = (Arc::clone(x.ring()), x.ring().kernel());
        quotient.for_each_limb(|index, m, limb| {
            if let (Some(p), Some(k)) = (x.limbs().position(index), self.keep.position(index)) {
                (kernel.ntt_forward)(ring.table(index), limb);
                (kernel.rsub_mul_scalar)(m, limb, x.at(p), self.inverses[k]);
            }
        });
        Ok(())
    }

    fn check(&self, x: &Limbs, quotient: &Limbs) -> Result<()> {
        check_contains("kept limbs", &self.keep, "dividend", x)?;
        check_contains("dropped limbs", &self.drop, "dividend", x)?;
        check_contains("quotient", quotient, "kept limbs", &self.keep)?;
        check_contains("kept limbs", &self.keep, "quotient", quotient)
    }
}

impl Ring {
    /// The division by the product of `drop`, built once; rescaling is the case of one or a few
    /// chain primes.
    pub fn mod_down(&self, keep: &Limbs, drop: &Limbs) -> Result<Arc<ModDown>> {
        self.derived().get((keep.clone(), drop.clone()), || ModDown::new(self, keep, drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prime::ntt_primes;
    use crate::sample::{Seed, uniform};

    #[test]
    fn repeated_work_reuses_its_buffers() {
        let ring = Ring::new(1024, &ntt_primes(1024, 40, 8, &[]).unwrap()).unwrap();
        let x: Poly<Eval> = uniform(&ring, &ring.limbs(), &Seed::from_bytes([1; 32]), "test", 0).unwrap();
        let down = ring.mod_down(&Limbs::range(0..6), &Limbs::range(6..8)).unwrap();
        assert!(Arc::ptr_eq(&down, &ring.mod_down(&Limbs::range(0..6), &Limbs::range(6..8)).unwrap()));
        let mut held = Vec::new();
        for _ in 0..4 {
            let y = down.apply(&x).unwrap();
            drop(y.clone().into_coeff());
            drop(y);
            held.push(ring.pool().bytes());
        }
        assert!(held[0] > 0 && held.iter().all(|&bytes| bytes == held[0]), "{held:?}");
    }
}
