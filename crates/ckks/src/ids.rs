//! What objects are told apart by: keys, parameters, secrets, automorphisms. These types know
//! nothing of the objects themselves, so errors can name them.

use std::fmt;

/// Identifies a secret key without revealing it; every object made under the key carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; 32]);

impl KeyId {
    /// The id with these bytes, as somebody names it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

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
    /// From another secret (first id) to that of a subring: what comes before a projection.
    Project(KeyId),
}

impl KeyPurpose {
    /// The other secret of a key between two secrets.
    pub fn source(self) -> Option<KeyId> {
        match self {
            Self::Switch(from) | Self::Project(from) => Some(from),
            Self::Relinearise | Self::Galois(_) => None,
        }
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relinearise => f.write_str("relinearisation"),
            Self::Galois(element) => write!(f, "{element}"),
            Self::Switch(from) => write!(f, "switching (from key {from})"),
            Self::Project(from) => write!(f, "projection (from key {from})"),
        }
    }
}

/// Blake3 hash of everything that defines a parameter set; carried by every serialised object.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParamsHash(pub(crate) [u8; 32]);

impl ParamsHash {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ParamsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ParamsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParamsHash({self})")
    }
}

/// How the coefficients of a secret are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretDistribution {
    /// Uniform in {-1, 0, 1}. The distribution of every main secret.
    Ternary,
    /// Exactly `weight` coefficients are +-1. Only for ephemeral secrets at a small modulus.
    Sparse {
        /// Number of nonzero coefficients.
        weight: usize,
    },
    /// A dense ternary secret of a ring of that degree, as a polynomial in `X^(N/degree)`. What is
    /// encrypted under it is as secure as in the smaller ring.
    Subring {
        /// Degree of the smaller ring.
        degree: usize,
    },
}

impl fmt::Display for SecretDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ternary => f.write_str("dense ternary"),
            Self::Sparse { weight } => write!(f, "weight-{weight} ternary"),
            Self::Subring { degree } => write!(f, "dense ternary (of the subring of degree {degree})"),
        }
    }
}

/// An odd exponent `g < 2N`; `X -> X^g` permutes the slots of a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GaloisElement {
    pub(crate) element: usize,
    /// `2N`.
    pub(crate) order: usize,
}

impl GaloisElement {
    /// The exponent `g`.
    pub fn element(self) -> usize {
        self.element
    }

    /// The rotation that this is, to the left and in the nearer direction, and whether a
    /// conjugation follows.
    pub fn steps(self) -> (i64, bool) {
        // Powers of 5 are 1 modulo 4; the others are those of their negatives.
        let conjugate = self.element % 4 == 3;
        let rotation = if conjugate { self.order - self.element } else { self.element };
        // 5^(2^k) is 1 + 2^(k+2) modulo twice that, so each bit of the exponent shows in one bit of
        // the power.
        let (mut steps, mut reached, mut power, slots) = (0, 1usize, 5usize, self.order / 4);
        for bit in 0..slots.trailing_zeros() {
            if (reached ^ rotation) & (4 << bit) != 0 {
                steps |= 1i64 << bit;
                reached = product(reached, power, self.order);
            }
            power = product(power, power, self.order);
        }
        let slots = slots as i64;
        (if 2 * steps > slots { steps - slots } else { steps }, conjugate)
    }

    /// True for the identity, which needs no key.
    pub fn is_identity(self) -> bool {
        self.element == 1
    }
}

impl fmt::Display for GaloisElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps() {
            (0, true) => write!(f, "conjugation (X^{})", self.element),
            (steps, true) => write!(f, "conjugation and rotation by {steps} (X^{})", self.element),
            (steps, false) => write!(f, "rotation by {steps} (X^{})", self.element),
        }
    }
}

/// `a b` modulo `order`, in 64 bits on every target: exponents have up to 18.
pub(crate) fn product(a: usize, b: usize, order: usize) -> usize {
    (a as u64 * b as u64 % order as u64) as usize
}
