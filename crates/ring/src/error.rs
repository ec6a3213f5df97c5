//! Everything a public function of this crate can refuse.

use crate::limbs::Limbs;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was refused; mismatches name both sides.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The modulus does not fit the arithmetic.
    #[error("modulus {modulus} is not below 2^{max_bits}; choose a smaller prime")]
    ModulusTooLarge {
        /// The modulus given.
        modulus: u64,
        /// Moduli must be below two to this power.
        max_bits: u32,
    },
    /// The modulus is not an odd prime.
    #[error("modulus {modulus} is not an odd prime; `ntt_primes` finds suitable ones")]
    NotPrime {
        /// The modulus given.
        modulus: u64,
    },
    /// The modulus has no root of unity of the order that the degree needs.
    #[error("prime {modulus} is not 1 modulo {} (twice the degree {degree})", 2 * degree)]
    NotNttFriendly {
        /// The prime given.
        modulus: u64,
        /// The ring degree.
        degree: usize,
    },
    /// The CPU cannot run the kernel that was asked for.
    #[error("kernel `{name}` is not one of {} that this CPU can run; `CIPHERLM_KERNEL` names \
             it", available.join(", "))]
    UnknownKernel {
        /// The name given.
        name: String,
        /// What it could have been.
        available: Vec<&'static str>,
    },
    /// The degree is not a supported power of two.
    #[error("degree {degree} is not a power of two between {min} and {max}")]
    UnsupportedDegree {
        /// The degree given.
        degree: usize,
        /// Smallest supported degree.
        min: usize,
        /// Largest supported degree.
        max: usize,
    },
    /// A prime size outside the supported range.
    #[error("no primes of {bits} bits: choose between 2 and {max_bits}")]
    PrimeBits {
        /// The size asked for, in bits.
        bits: f64,
        /// Largest supported size.
        max_bits: u32,
    },
    /// Fewer primes of the wanted size exist than were asked for.
    #[error("found {found} of {wanted} primes of {bits} bits for degree {degree}; use larger primes")]
    PrimesExhausted {
        /// The ring degree.
        degree: usize,
        /// The size asked for, in bits.
        bits: f64,
        /// How many were asked for.
        wanted: usize,
        /// How many exist.
        found: usize,
    },
    /// A prime or a limb occurs twice.
    #[error("{value} occurs more than once in the basis")]
    Duplicate {
        /// The repeated prime or limb index.
        value: u64,
    },
    /// A basis without primes.
    #[error("the {role} basis is empty")]
    EmptyBasis {
        /// Which basis.
        role: &'static str,
    },
    /// A limb index beyond the ring's pool.
    #[error("limb {index} does not exist: the ring has {count} primes")]
    LimbOutOfRange {
        /// The index given.
        index: usize,
        /// Primes in the ring.
        count: usize,
    },
    /// A limb that an operand needs is missing from another.
    #[error("{right_role} has limbs {right:?} and lacks some of {left_role}'s {left:?}")]
    LimbsMismatch {
        /// Which operand asks.
        left_role: &'static str,
        /// Its limbs.
        left: Limbs,
        /// Which operand was to provide them.
        right_role: &'static str,
        /// Its limbs.
        right: Limbs,
    },
    /// A limb asked for by name that a polynomial does not have.
    #[error("limb {index} was asked for, the polynomial has {limbs:?}")]
    MissingLimb {
        /// The pool index asked for.
        index: usize,
        /// The limbs there are.
        limbs: Limbs,
    },
    /// Two bases that must be disjoint share a prime.
    #[error("bases {left:?} and {right:?} must be disjoint")]
    LimbsOverlap {
        /// One basis.
        left: Limbs,
        /// The other.
        right: Limbs,
    },
    /// Operands of different rings.
    #[error(
        "operands belong to different rings: degree {left_degree} with {left_primes} primes, degree \
         {right_degree} with {right_primes} primes"
    )]
    RingMismatch {
        /// Degree of the first.
        left_degree: usize,
        /// Primes of the first.
        left_primes: usize,
        /// Degree of the second.
        right_degree: usize,
        /// Primes of the second.
        right_primes: usize,
    },
    /// A slice or list of the wrong length.
    #[error("{what}: expected {expected} entries, found {found}")]
    LengthMismatch {
        /// What was counted.
        what: &'static str,
        /// The right number.
        expected: usize,
        /// The number given.
        found: usize,
    },
    /// A residue that is not an integer in `[0, q)`.
    #[error("residue {value} at limb {limb}, position {position} is not an integer in [0, {modulus})")]
    ResidueOutOfRange {
        /// Pool index of the limb.
        limb: usize,
        /// Position in the limb.
        position: usize,
        /// The value found.
        value: f64,
        /// The limb's prime.
        modulus: u64,
    },
    /// A coefficient that is not finite or too large to convert exactly.
    #[error("coefficient {position} is {value}: not a finite number below 2^{max_bits}")]
    CoefficientOutOfRange {
        /// Index of the coefficient.
        position: usize,
        /// Its value.
        value: f64,
        /// Coefficients must be below two to this power.
        max_bits: u32,
    },
    /// An automorphism exponent that is not an odd number below twice the degree.
    #[error("Galois element {element} is not odd and below {} (twice the degree {degree})", 2 * degree)]
    NotAGaloisElement {
        /// The exponent given.
        element: usize,
        /// The ring degree.
        degree: usize,
    },
    /// A secret weight above the degree, or zero.
    #[error("Hamming weight {weight} is not between 1 and the degree {degree}")]
    BadWeight {
        /// The weight asked for.
        weight: usize,
        /// The ring degree.
        degree: usize,
    },
    /// The operating system gave no randomness.
    #[error("the operating system's entropy source failed: {0}")]
    Entropy(String),
}
