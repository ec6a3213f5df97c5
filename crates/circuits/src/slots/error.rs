//! What can go wrong in a slot circuit.

use super::Scale;

/// Result of a slot operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation that a machine refused. The machine's state is unchanged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operation needs more levels than the operand has left.
    #[error(
        "{operation} needs level {need}, the operand is at level {have}: refresh it earlier or place it \
         higher"
    )]
    LevelExhausted {
        /// The operation that was asked for.
        operation: &'static str,
        /// The operand's level.
        have: usize,
        /// The lowest level at which the operation works.
        need: usize,
    },
    /// A vector was asked to go up the chain, which only a refresh can do.
    #[error("cannot bring a vector from level {have} up to level {want}: only a refresh raises a level")]
    LevelRaise {
        /// The operand's level.
        have: usize,
        /// The level asked for.
        want: usize,
    },
    /// Two operands of a raw operation are at different levels.
    #[error("operands at levels {left} and {right}: bring both to one level first")]
    LevelMismatch {
        /// Level of the first operand.
        left: usize,
        /// Level of the second operand.
        right: usize,
    },
    /// Two operands of an addition have different scales.
    #[error(
        "operands with scales 2^{:.6} and 2^{:.6}: bring both to one scale first",
        left.log2(), right.log2()
    )]
    ScaleMismatch {
        /// Scale of the first operand.
        left: Scale,
        /// Scale of the second operand.
        right: Scale,
    },
    /// A plaintext scale came out below 1 bit: nothing of the plaintext would survive.
    #[error("{operation} would encode its plaintext at scale 2^{log2_scale:.1}: too small to hold anything")]
    ScaleTooSmall {
        /// The operation that was asked for.
        operation: &'static str,
        /// log2 of the scale.
        log2_scale: f64,
    },
    /// The values of a plaintext are not zero, but zero is what is left of them at the scale they
    /// are encoded at.
    #[error(
        "{operation}: values up to {value:.3e} round to nothing at scale 2^{log2_scale:.1}: multiply by a \
         larger value, in several steps if need be"
    )]
    ValueTooSmall {
        /// The operation that was asked for.
        operation: &'static str,
        /// Largest absolute value.
        value: f64,
        /// log2 of the scale.
        log2_scale: f64,
    },
    /// A value does not fit the modulus left at its level.
    #[error("{operation}: a slot of size {value:.3e} at level {level}, where at most {capacity:.3e} fits")]
    Overflow {
        /// The operation that was asked for.
        operation: &'static str,
        /// Largest absolute slot value.
        value: f64,
        /// Largest value that fits.
        capacity: f64,
        /// Level of the vector.
        level: usize,
    },
    /// A slot value is not a finite number.
    #[error("{operation}: a slot is not a finite number")]
    NotFinite {
        /// The operation that was asked for.
        operation: &'static str,
    },
    /// A plaintext's period does not divide the number of slots.
    #[error(
        "a plaintext of {have} values does not repeat evenly over {slots} slots: pad it to a power of two \
         of at most that"
    )]
    Period {
        /// Values given.
        have: usize,
        /// Slots of the machine.
        slots: usize,
    },
    /// An operation over a list got the wrong number of operands.
    #[error("{operation} takes {need} operands, got {have}")]
    OperandCount {
        /// The operation that was asked for.
        operation: &'static str,
        /// Operands given.
        have: usize,
        /// Operands needed.
        need: usize,
    },
    /// The machine was built without a refresh of this kind.
    #[error("no refresh of kind {kind:?} is configured on this machine")]
    NoRefresh {
        /// The kind asked for.
        kind: super::RefreshKind,
    },
    /// The requested target of a refresh is above what it reaches.
    #[error("a refresh reaches level {reaches}, level {want} was asked for")]
    RefreshTarget {
        /// Highest level after the refresh.
        reaches: usize,
        /// The level asked for.
        want: usize,
    },
    /// A refresh input has slots beyond the range that the refresh is precise on.
    #[error(
        "refresh input reaches {value:.3e}, the refresh is certified up to {limit:.3e}: scale the input down"
    )]
    RefreshRange {
        /// Largest real or imaginary part of a slot.
        value: f64,
        /// Certified range.
        limit: f64,
    },
    /// Slots do not have the shape that the operation promises (real, or repeating).
    #[error("{operation}: slots deviate from the promised form by {deviation:.3e}")]
    SlotShape {
        /// The operation that was asked for.
        operation: &'static str,
        /// Largest deviation found.
        deviation: f64,
    },
    /// The shape of a matrix or layout does not fit its use.
    #[error("{what}: {have} given, {need} needed")]
    Shape {
        /// What does not fit.
        what: &'static str,
        /// The size given.
        have: usize,
        /// The size needed.
        need: usize,
    },
    /// The tables of a chain contradict each other.
    #[error("modulus chain refused: {reason}")]
    Chain {
        /// What is wrong.
        reason: &'static str,
    },
    /// A polynomial evaluation plan was refused.
    #[error("polynomial refused: {reason}")]
    Polynomial {
        /// What is wrong.
        reason: String,
    },
    /// The evaluator refused: a missing key, operands of different owners, a scale out of range.
    #[error(transparent)]
    Ciphertext(#[from] cipherlm_ckks::Error),
}
