#![doc = include_str!("../README.md")]
//!
//! # Level, scale and noise
//!
//! Three numbers describe a ciphertext, and every operation states what it does to them.
//!
//! **Level.** A ciphertext at level `l` is a pair of polynomials modulo `q0 * g1 * ... * gl`, a
//! prefix of the chain of the parameters. [`Evaluator::rescale`] divides by `gl` and leads to level
//! `l - 1`; at level 0 no product is possible any more. Dropping levels is free and exact; going up
//! takes a bootstrap. Lower levels are faster: the time of a key switch falls faster than the
//! number of primes. Two operands must be at one level, which [`Evaluator::drop_to_level`]
//! arranges.
//!
//! **Scale.** Messages are real and ciphertexts hold integers, so a message is stored as
//! `round(scale * message)`. A product has the product of the scales; the rescale after it divides
//! by `gl`, which was chosen close to the scale, so that it comes back near to where it was. Near,
//! not equal: primes are not powers of two. The scale is therefore tracked to 106 bits, sums refuse
//! operands whose scales differ by more than 2^-60, and differences are removed where a product is
//! made anyway: a constant or plaintext is encoded at the scale that makes the *result* right
//! ([`Params::rescale_factor`] keeps the scale exactly), or [`Evaluator::match_scale`] spends a
//! level on it. [`Params::default_scale`] is what a product of two canonical operands from the
//! level above arrives with.
//!
//! **Noise.** Encryption adds an error of a few units to every coefficient, key switching and
//! rescaling add a rounding error of the size of the secret, and products multiply errors with
//! messages. In a slot, the error is that of `N` coefficients added up with random signs, and
//! divided by the scale: at N = 2^16 and a dense secret, a rescale costs 2^13.9 units, so a scale
//! of 2^45 leaves about 30 bits behind the point. Errors do not show: a message drowned in noise
//! decrypts without complaint unless the noise fills the modulus, which is why precision is planned
//! with the [noise model](noise) before anything is encrypted. The integer part has room too:
//! `|message| * scale` must stay below 7/8 of half the modulus, at level 0 of `q0 / 2`. Encryption
//! and decryption refuse what is beyond.
//!
//! # Keys and trust
//!
//! Products need a relinearisation key and each rotation a Galois key; all are public and belong to
//! one secret. Objects carry the hash of their parameters and the id of their key, and operations
//! on objects that do not belong together are refused instead of decrypting to noise. Evaluation
//! needs no secret: [`Evaluator`] cannot hold one. Ciphertexts are malleable by design, so
//! authenticate them where they travel.

mod ciphertext;
mod debug;
mod decrypted;
mod embedding;
pub mod encode;
mod encrypt;
mod error;
pub mod evaluator;
pub mod hazmat;
mod ids;
pub mod keys;
pub mod noise;
pub mod params;
mod scale;
mod secrecy;
mod sharing;
pub mod wire;

pub use ciphertext::Ciphertext;
pub use decrypted::{DecodedSlots, Decrypted, ErrorBound};
pub use encode::{LiftedPlaintext, Plaintext};
pub use error::{Error, WireError};
pub use evaluator::{Evaluator, ExtendedCiphertext, Hoisted};
pub use keys::{
    EvaluationKeys, GaloisElement, KeyForm, KeyId, KeyPurpose, KeyRequest, KeySet, MemoryBill, NoKeys,
    PublicKey, SecretKey, SwitchingKey,
};
pub use num_complex::Complex64;
pub use params::{KeyShape, Params, ParamsBuilder, ParamsHash, SecretDistribution, presets};
pub use scale::Scale;
pub use sharing::{Sharing, SharingContract};
pub use wire::{KeyStore, Wire};

/// The ring layer, for those who work below the level of slots.
pub use cipherlm_ring as ring;
