#![doc = include_str!("../README.md")]

mod arena;
mod bounds;
mod cache;
mod convert;
mod error;
mod extension;
mod galois;
pub mod kernel;
mod key_product;
mod limbs;
mod mod_down;
mod modulus;
mod packed;
pub mod par;
mod poly;
mod prime;
mod ring;
pub mod sample;
mod secret;

pub use bounds::{MAX_DEGREE, MAX_MODULUS_BITS, MIN_DEGREE};
pub use convert::DoubleDouble;
pub use error::{Error, Result};
pub use extension::{Decomposition, Extension};
pub use galois::Automorphism;
pub use kernel::{Kernel, NttTable, eval_exponent};
pub use key_product::{KeyDigits, KeyFill, KeyLimb, key_product};
pub use limbs::Limbs;
pub use mod_down::ModDown;
pub use modulus::Modulus;
pub use packed::PackedPair;
pub use poly::{Coeff, Domain, Eval, Poly};
pub use prime::{is_prime, ntt_primes, primes_near};
pub use ring::Ring;
pub use sample::{Seed, Stream};
pub use secret::{Secret, SmallCoeffs};
