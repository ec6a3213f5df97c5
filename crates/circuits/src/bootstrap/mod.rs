//! Bootstrapping: back to a high level, without the secret key.
//!
//! A ciphertext near the end of its levels is
//!
//! 1. transformed so that its slots become coefficients (few limbs are left, so this is cheap);
//! 2. switched to a sparse ephemeral secret at the bottom modulus `q`;
//! 3. lifted to the full modulus, centred: coefficients become `m + q·I` with `|I| <= h/2` for a
//!    secret of weight `h`, always;
//! 4. switched back to the dense secret;
//! 5. transformed so that its coefficients become slots again;
//! 6. freed of the integer part, real and imaginary parts apart ([`EvalMod`]).
//!
//! The order is that of "slim" bootstrapping (Chen and Han, "Homomorphic lower digits removal and
//! improved FHE bootstrapping"), the ephemeral secret is sparse-secret encapsulation (Bossuat,
//! Troncoso-Pastoriza and Hubaux, "Bootstrapping for approximate homomorphic encryption with
//! negligible failure-probability ..."), and the chain is settled by [`simulate`].

mod circuit;
mod dft;
mod eval_mod;
mod family;
mod iterate;
mod keys;
mod machine;
mod prepare;
mod profile;
mod refresher;
mod shorten;
pub mod simulate;
mod stages;
#[cfg(test)]
mod tests;
mod transform;
mod types;
mod validate;
mod work;

pub use circuit::Bootstrapper;
pub use eval_mod::EvalMod;
pub use keys::BootstrapKeys;
pub use profile::{DftLevel, Profile};
pub use refresher::BootstrapRefresher;
pub use types::{Content, Declaration, Stage};
pub use work::{Work, WorkStage};
