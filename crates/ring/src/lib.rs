#![doc = include_str!("../README.md")]

mod arena;
mod convert;
mod error;
mod extension;
mod galois;
mod inner_product;
pub mod kernel;
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

pub use convert::DoubleDouble;
pub use error::{Error, Result};
pub use extension::{Decomposition, Extension};
pub use galois::Automorphism;
pub use inner_product::{KeySlice, inner_product, inner_product_add, inner_product_many};
pub use kernel::{Kernel, NttTable, eval_exponent};
pub use limbs::Limbs;
pub use mod_down::ModDown;
pub use modulus::{MAX_MODULUS_BITS, Modulus};
pub use packed::{PackedPair, inner_product_packed};
pub use poly::{Coeff, Domain, Eval, Poly};
pub use prime::{is_prime, ntt_primes, primes_near};
pub use ring::{MAX_DEGREE, MIN_DEGREE, Ring};
pub use sample::{Seed, Stream};
pub use secret::{Secret, SmallCoeffs};
