//! What a bootstrapper takes, reports and declares.

use cipherlm_ckks::{KeyRequest, MemoryBill, Scale};

/// What the slots hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Complex numbers.
    Complex,
    /// Real numbers: half the modular reductions. Imaginary parts are lost.
    Real,
}

/// A step of the circuit, for progress reports; spans of the same names are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The transform at the bottom.
    SlotsToCoeffs,
    /// To the ephemeral secret, up, and back.
    ModRaise,
    /// The projection to fewer slots.
    SubSum,
    /// The transform at the top.
    CoeffsToSlots,
    /// The modular reduction.
    EvalMod,
    /// Done.
    Finished,
}

/// What a bootstrapper needs, known before any key exists.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// The lowest level of an input.
    pub input_level: usize,
    /// The level of the result.
    pub output_level: usize,
    /// Levels used between the raise and the result.
    pub depth: usize,
    /// Its keys, without the two of the ephemeral secret.
    pub keys: KeyRequest,
    /// Bytes of all keys, those of the ephemeral secret included.
    pub memory: MemoryBill,
    /// Bytes of the plaintexts: as they are kept, and with the residues that
    /// [`super::Bootstrapper::with_plaintext_budget`] allows to keep.
    pub plaintext_bytes: [u64; 2],
}

/// Where a bootstrap ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) level: usize,
    pub(super) scale: Scale,
}
