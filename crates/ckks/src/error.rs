//! The one error type of the crate: every variant names both sides of a mismatch and what to do
//! about it.

use crate::ids::{KeyId, KeyPurpose, ParamsHash, SecretDistribution};

/// Everything that can go wrong on caller-supplied data.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ring layer refused (a prime, a degree, a basis).
    #[error("ring: {0}")]
    Ring(#[from] cipherlm_ring::Error),

    /// A parameter field has a value that cannot be used.
    #[error("parameter `{field}` = {value}: {allowed}")]
    InvalidParams {
        /// Name of the builder field.
        field: &'static str,
        /// The value given.
        value: f64,
        /// What is accepted.
        allowed: &'static str,
    },

    /// The modulus is too large for 128-bit security at this degree and secret.
    #[error(
        "{what}: {log_qp:.1} bits of modulus at degree {degree} with a {secret} secret is below 128-bit \
         security (limit {limit} bits); use a larger degree, fewer levels or smaller primes"
    )]
    Insecure {
        /// The object whose modulus was checked ("parameters", "switching key", ...).
        what: &'static str,
        /// Ring degree N.
        degree: usize,
        /// Distribution of the secret.
        secret: SecretDistribution,
        /// log2 of the modulus the object lives at.
        log_qp: f64,
        /// Largest modulus accepted.
        limit: u32,
    },

    /// The security table has no row for this degree and secret.
    #[error(
        "no security estimate for degree {degree} with a {secret} secret; supported: 2^12..2^17, dense or \
         weight >= 30 from 2^13"
    )]
    NoSecurityEstimate {
        /// Ring degree N.
        degree: usize,
        /// Distribution of the secret.
        secret: SecretDistribution,
    },

    /// Two objects of different parameter sets met.
    #[error(
        "{operation}: parameters {left} and {right} differ; both operands must be built from the same Params"
    )]
    ParamsMismatch {
        /// The operation refused.
        operation: &'static str,
        /// Hash of the left (or expected) parameters.
        left: ParamsHash,
        /// Hash of the right (or offered) parameters.
        right: ParamsHash,
    },

    /// Two objects of different secret keys met.
    #[error(
        "{operation}: key {left} and key {right} differ; a ciphertext works only with keys of its own secret"
    )]
    KeyMismatch {
        /// The operation refused.
        operation: &'static str,
        /// Key id of the left operand.
        left: KeyId,
        /// Key id of the right operand.
        right: KeyId,
    },

    /// Two ciphertexts at different levels met where equal levels are needed.
    #[error("{operation}: levels {left} and {right} differ; drop the higher one to the lower level first")]
    LevelMismatch {
        /// The operation refused.
        operation: &'static str,
        /// Level of the left operand.
        left: usize,
        /// Level of the right operand.
        right: usize,
    },

    /// An operation needs more levels than are left.
    #[error(
        "{operation}: needs level {need} or more, have {have}; bootstrap first or use a deeper parameter set"
    )]
    LevelExhausted {
        /// The operation refused.
        operation: &'static str,
        /// Level of the operand.
        have: usize,
        /// Lowest level accepted.
        need: usize,
    },

    /// A level outside of the chain was asked for.
    #[error("{operation}: level {level} is above {max}")]
    LevelOutOfRange {
        /// The operation refused.
        operation: &'static str,
        /// The level asked for.
        level: usize,
        /// Highest level accepted.
        max: usize,
    },

    /// Two scales that must be equal are not.
    #[error(
        "{operation}: scales 2^{left:.6} and 2^{right:.6} differ; encode at the scale of the other \
         operand or use `match_scale`"
    )]
    ScaleMismatch {
        /// The operation refused.
        operation: &'static str,
        /// log2 of the left scale.
        left: f64,
        /// log2 of the right scale.
        right: f64,
    },

    /// A scale that is not a finite number between 1 and the modulus, or leaves no room for a
    /// factor.
    #[error("{operation}: scale 2^{log2:.3} is unusable here; it must lie between 2^{min:.1} and 2^{max:.1}")]
    BadScale {
        /// The operation refused.
        operation: &'static str,
        /// log2 of the scale given (NaN when it has none).
        log2: f64,
        /// log2 of the smallest scale accepted.
        min: f64,
        /// log2 of the largest scale accepted.
        max: f64,
    },

    /// A slot count that is not a power of two in the range of the operation.
    #[error("{slots} slots: must be a power of two, at least {min} and at most {max}")]
    BadSlots {
        /// The count given.
        slots: usize,
        /// Smallest count accepted.
        min: usize,
        /// Largest count accepted.
        max: usize,
    },

    /// More values than slots.
    #[error("{given} values do not fit {slots} slots")]
    TooManyValues {
        /// Number of values given.
        given: usize,
        /// Slots available.
        slots: usize,
    },

    /// A value that is NaN or infinite.
    #[error("value {index} is not finite")]
    NotFinite {
        /// Position of the first such value.
        index: usize,
    },

    /// A message does not fit below the modulus.
    #[error(
        "{operation}: coefficients of 2^{coefficient:.1} do not fit a modulus of 2^{modulus:.1}; lower the \
         scale or the values"
    )]
    MessageOverflow {
        /// The operation refused.
        operation: &'static str,
        /// log2 of the largest coefficient.
        coefficient: f64,
        /// log2 of the modulus.
        modulus: f64,
    },

    /// A degree-2 ciphertext where a linear one is needed.
    #[error("{operation}: the ciphertext has {parts} parts; relinearise it first")]
    NotLinear {
        /// The operation refused.
        operation: &'static str,
        /// Number of polynomials in the ciphertext.
        parts: usize,
    },

    /// No evaluation key for this purpose at this level.
    #[error("no {purpose} key for level {level}; request it before key generation")]
    MissingKey {
        /// What the key would be for.
        purpose: KeyPurpose,
        /// Level of the ciphertext.
        level: usize,
    },

    /// An evaluation key used for something else than it was made for.
    #[error("{operation}: a {have} key was offered where a {need} key is needed")]
    WrongKey {
        /// The operation refused.
        operation: &'static str,
        /// Purpose of the key offered.
        have: KeyPurpose,
        /// Purpose needed.
        need: KeyPurpose,
    },

    /// A shape of switching key that these parameters cannot have.
    #[error("switching key at level {level} with {special} special primes: {reason}")]
    BadKeyShape {
        /// Level of the key.
        level: usize,
        /// Special primes of the key.
        special: usize,
        /// Why it is refused.
        reason: &'static str,
    },

    /// A Galois element that is even or not below 2N.
    #[error("{element} is not a Galois element of a ring of degree {degree}: it must be odd and below \
             {}", 2 * degree)]
    BadGaloisElement {
        /// The element given.
        element: usize,
        /// Ring degree N.
        degree: usize,
    },

    /// An operation over several operands got none, or lists of different lengths.
    #[error("{operation}: {left} and {right} operands; both lists must be equally long and not empty")]
    OperandCount {
        /// The operation refused.
        operation: &'static str,
        /// Operands on the left.
        left: usize,
        /// Operands on the right.
        right: usize,
    },

    /// A result cannot be shown with so many bits.
    #[error("sharing a decrypted result: {reason} (asked for {asked:.1} bits, bound allows {allowed:.1})")]
    Sharing {
        /// Bits of precision asked for.
        asked: f64,
        /// Bits that the error bound leaves.
        allowed: f64,
        /// Why it is refused.
        reason: &'static str,
    },

    /// A bound on the error of a decrypted result that cannot be true.
    #[error(
        "sharing a decrypted result: an error bound of {bound:e} is below {least:e}, the error of one \
         fresh encryption at this scale; take the bound from the prediction of the noise machine"
    )]
    ErrorBound {
        /// The bound given.
        bound: f64,
        /// What no circuit can undercut.
        least: f64,
    },

    /// Flooded releases of one key under two contracts, or counted in two places.
    #[error(
        "sharing: this key shares {} results with {} bits, counted {have_place}; asked for {} with {}, \
         counted \
         {asked_place}: go on with what was agreed first, or make a new key", have.1, have.0, asked.1, asked.0
    )]
    SharingContract {
        /// Security in bits and number of releases that the key has.
        have: (u32, u32),
        /// Where they are counted.
        have_place: String,
        /// Security and releases asked for.
        asked: (u32, u32),
        /// Where they should be counted.
        asked_place: String,
    },

    /// All flooded results that a key may release have been released.
    #[error("sharing: all {releases} flooded results of this key are released; make a new key")]
    SharingSpent {
        /// The number that the contract allows.
        releases: u32,
    },

    /// A file or directory could not be read or written.
    #[error("{}: {kind}", path.display())]
    Storage {
        /// The file or directory.
        path: std::path::PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },

    /// A root seed of 32 zeros, which everybody knows.
    #[error(
        "root seed: all 32 bytes are zero, so it was never drawn; use `SecretKey::generate`, or 32 \
         bytes of the system's randomness"
    )]
    ZeroSeed,

    /// Something that cannot happen has happened. No result is given.
    #[error("internal fault: {what}; nothing you passed explains this, so please report it")]
    Internal {
        /// What was found.
        what: &'static str,
    },

    /// Bytes that are not a valid object.
    #[error("wire: {0}")]
    Wire(#[from] WireError),
}

/// Why some bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the header or the body needs.
    #[error("{have} bytes given, {need} needed")]
    Truncated {
        /// Bytes given.
        have: u64,
        /// Bytes needed.
        need: u64,
    },
    /// Bytes after the end of the object.
    #[error("{extra} bytes after the end of the object")]
    TrailingBytes {
        /// How many.
        extra: u64,
    },
    /// Not one of this crate's objects.
    #[error("unknown magic number")]
    Magic,
    /// Another version of the format.
    #[error(
        "format version {found}, this build reads {expected}; make the object again with this build (a \
         secret key of another version cannot be carried over: make a new secret, and new keys from it)"
    )]
    Version {
        /// Version in the header.
        found: u16,
        /// Version read by this build.
        expected: u16,
    },
    /// Another type of object.
    #[error("object of type {found}, expected type {expected}")]
    Type {
        /// Type tag in the header.
        found: u16,
        /// Type tag expected.
        expected: u16,
    },
    /// A body length other than the parameters imply.
    #[error("body of {found} bytes, the parameters imply {expected}")]
    BodyLength {
        /// Length in the header.
        found: u64,
        /// Length implied by the parameters.
        expected: u64,
    },
    /// The body does not have the hash of the header.
    #[error("body hash differs: the object is damaged")]
    Checksum,
    /// A field whose value is impossible.
    #[error("field `{field}` has the impossible value {value}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value (bit pattern for floats).
        value: u64,
    },
    /// A residue that is not below its prime.
    #[error("residue {value} of limb {limb} is not below its prime {prime}")]
    Residue {
        /// Position of the limb in the object.
        limb: usize,
        /// The residue.
        value: u64,
        /// The prime.
        prime: u64,
    },
}
