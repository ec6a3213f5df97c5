//! Secret, public and switching keys, and the requests and sets that circuits exchange them by.

mod form;
mod galois;
mod generate;
pub(crate) mod packed_poly;
mod public;
mod request;
mod root;
mod secret;
mod set;
pub(crate) mod size;
mod switching;

pub use crate::ids::{GaloisElement, KeyId, KeyPurpose};
pub use form::KeyForm;
pub(crate) use form::{KeyBody, public_half};
pub use public::PublicKey;
pub use request::KeyRequest;
pub use secret::SecretKey;
pub use set::{EvaluationKeys, KeySet, NoKeys};
pub use size::MemoryBill;
pub use switching::SwitchingKey;
