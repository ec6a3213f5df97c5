//! Memory that secrets went through.

use cipherlm_ring::Seed;
use zeroize::Zeroize;

/// The digest as a seed. The state of the hasher, which has seen a secret, is wiped.
pub(crate) fn finish(mut hasher: blake3::Hasher) -> Seed {
    let mut digest = hasher.finalize();
    hasher.zeroize();
    let seed = Seed::from_bytes(*digest.as_bytes());
    digest.zeroize();
    seed
}
