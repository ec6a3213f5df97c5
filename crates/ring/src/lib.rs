//! RNS polynomial arithmetic for lattice cryptography: fast negacyclic NTT, basis extension, samplers.

mod error;
pub mod kernel;
mod limbs;
mod modulus;
mod prime;
mod ring;

pub use error::{Error, Result};
pub use kernel::{Kernel, eval_exponent};
pub use limbs::Limbs;
pub use modulus::{MAX_MODULUS_BITS, Modulus};
pub use prime::{is_prime, ntt_primes, primes_near};
pub use ring::{MAX_DEGREE, MIN_DEGREE};
