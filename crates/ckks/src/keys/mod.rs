//! Secret, public and switching keys, and the requests and sets that circuits exchange them by.

mod form;
mod galois;
mod public;
mod request;
mod root;
mod secret;
mod set;
mod store;
mod switching;

use std::fmt;

pub(crate) use form::KeyBody;
pub use form::KeyForm;
pub use galois::GaloisElement;
pub use public::PublicKey;
pub use request::{KeyRequest, MemoryBill};
pub use secret::SecretKey;
pub use set::{EvaluationKeys, KeySet, NoKeys};
pub use store::KeyStore;
pub use switching::SwitchingKey;
pub(crate) use switching::public_half;

/// Identifies a secret key without revealing it; every object made under the key carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; 32]);

impl KeyId {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What a switching key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeyPurpose {
    /// From the square of the secret to the secret.
    Relinearise,
    /// For one automorphism.
    Galois(GaloisElement),
    /// From another secret (first id) to this one.
    Switch(KeyId),
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relinearise => f.write_str("relinearisation"),
            Self::Galois(element) => write!(f, "{element}"),
            Self::Switch(from) => write!(f, "switching (from key {from})"),
        }
    }
}
