//! One trait of slot operations and the machines that carry it out.
//!
//! A circuit (a polynomial, a matrix product, a whole transformer) is written once against
//! [`Machine`] and runs on whatever has [`Primitives`]:
//! - [`Clear`]: double-precision slots with exact level and scale accounting, in milliseconds, or
//!   without any slots at all to find out what a circuit needs;
//! - [`Noise`]: the same plus the error that encryption would add, tracked and optionally injected;
//! - ciphertexts, on [`Encrypted`].
//!
//! [`Interleaved`] lets several vectors go through a circuit at once, in the slots of any of them.
//!
//! # Levels and scales
//! Every vector has a level (rescales left) and a scale (the factor between slots and ring
//! coefficients). Each level has a canonical scale ([`Chain`]). The plain verbs (`mul`,
//! `mul_plain`, `mul_const`, `mul_sum`, `linear_transform`) take canonical vectors at any levels,
//! bring them to one level, and return a canonical vector, one level down. The `_lazy` verbs leave
//! out the last rescale: their results are *products* at the same level, all at one scale, so that
//! they can be added before a single rescale. Operands that are still products are rescaled when a
//! verb needs it. Plaintexts and constants are encoded at the scale that makes the result exact, so
//! a circuit never has to think about scales, and no rounding ever hides in one.

mod align;
mod chain;
mod clear;
mod encrypted;
mod error;
mod interleaved;
mod log;
mod machine;
mod noise;
mod plain;
mod primitives;
mod types;

pub use chain::Chain;
pub(crate) use chain::square_root;
pub use cipherlm_ckks::Scale;
pub use clear::{Clear, ClearVector};
pub use encrypted::{Encrypted, EncryptedVector, Refresher};
pub use error::{Error, Result};
pub use interleaved::Interleaved;
pub use log::{KeyUse, LabelGuard, OpKind, OpLog, OpRow, OpTotal};
pub use machine::Machine;
pub use noise::{Noise, NoiseVector};
pub use plain::Plain;
pub use primitives::Primitives;
pub use types::{Combination, RefreshKind, RefreshProfile};
