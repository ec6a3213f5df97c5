//! Parameters of a ring inside another: the same primes at a smaller degree.

use super::Params;
use super::builder::Assembled;
use super::chain::Chain;
use crate::Error;

impl Params {
    /// The set of degree `degree`, below that of this one, with the primes of levels `0..=level`
    /// and the first `special` special primes. Levels and limbs of its ciphertexts are numbered as
    /// here, and it passes the security check for itself: its whole modulus, special primes
    /// included, at the smaller degree. Without special primes it has no switching keys, and only
    /// ciphertexts count.
    ///
    /// Ciphertexts pass from one to the other by [`Evaluator::project`](crate::Evaluator::project)
    /// and [`Evaluator::embed`](crate::Evaluator::embed).
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`]; [`Error::InvalidParams`] for a degree that is none of a subring
    /// or special primes that are not there; [`Error::Insecure`] and [`Error::NoSecurityEstimate`],
    /// unless this set is insecure; [`Error::Ring`].
    pub fn subring(&self, degree: usize, level: usize, special: usize) -> Result<Self, Error> {
        self.check_level("subring", level)?;
        let invalid =
            |field, value: usize, allowed| Error::InvalidParams { field, value: value as f64, allowed };
        if degree >= self.degree() || !self.degree().is_multiple_of(degree.max(1)) {
            return Err(invalid(
                "degree of a subring",
                degree,
                "a power of two below the degree of the ring",
            ));
        }
        if special > self.special_count() {
            return Err(invalid("special primes", special, "as many as the larger ring has"));
        }
        let groups = (0..=level).map(|level| self.primes_of(&self.group_limbs(level))).collect();
        let special = self.primes_of(&self.special_limbs(special));
        let group_bits = (0..=level).map(|level| self.group_bits(level)).collect();
        let assembled = Assembled { degree, group_bits, chain: Chain { groups, special } };
        if self.is_insecure() { assembled.insecure() } else { assembled.checked() }
    }
}
