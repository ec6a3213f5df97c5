//! Named parameter sets; the name is what they deliver.
//!
//! | preset | log2 N | levels x bits | log QP | security | slots |
//! |---|---|---|---|---|---|
//! | [`levels24_scale45`] | 16 | 24 x 45 | 1580 | 141 bits | 32768 |
//! | [`levels12_scale45`] | 15 | 12 x 45 | 840 | 132 bits | 16384 |
//! | [`levels5_scale45`] | 14 | 5 x 45 | 416 | 132 bits | 8192 |
//! | [`levels3_scale40`] | 13 | 3 x 40 | 207 | 132 bits | 4096 |
//!
//! All have a dense ternary secret and no bootstrapping; see [`insecure`] for small rings to test
//! with.
//!
//! ```
//! use cipherlm_ckks::presets::{levels3_scale40, levels5_scale45};
//! use cipherlm_ckks::presets::{levels12_scale45, levels24_scale45};
//! let small = [levels3_scale40()?, levels5_scale45()?];
//! let large = [levels12_scale45()?, levels24_scale45()?];
//! for (params, levels) in small.iter().chain(&large).zip([3, 5, 12, 24]) {
//!     assert!(params.max_level() == levels && params.security().bits >= 128.0);
//! }
//! # Ok::<(), cipherlm_ckks::Error>(())
//! ```

use super::{Params, ParamsBuilder};
use crate::Error;

/// 24 multiplications at a scale of 2^45, 32768 slots, 3 digits: deep circuits without
/// bootstrapping.
pub fn levels24_scale45() -> Result<Params, Error> {
    levels24_builder().build()
}

/// 12 multiplications at a scale of 2^45, 16384 slots.
pub fn levels12_scale45() -> Result<Params, Error> {
    Params::builder().degree(1 << 15).base(50.0).levels(45.0, 12).special(50, 5).build()
}

/// 5 multiplications at a scale of 2^45, 8192 slots.
pub fn levels5_scale45() -> Result<Params, Error> {
    Params::builder().degree(1 << 14).base(50.0).levels(45.0, 5).special(47, 3).build()
}

/// 3 multiplications at a scale of 2^40, 4096 slots: the smallest set worth using.
pub fn levels3_scale40() -> Result<Params, Error> {
    Params::builder().degree(1 << 13).base(43.0).levels(40.0, 3).special(44, 1).build()
}

fn levels24_builder() -> ParamsBuilder {
    Params::builder().degree(1 << 16).base(50.0).levels(45.0, 24).special(50, 9)
}

/// Sets that protect nothing: small rings, for tests and examples only.
pub mod insecure {
    use super::{Error, Params};

    /// `levels` multiplications at a scale of 2^`bits` in a ring of degree `degree`. **No
    /// security.**
    ///
    /// # Errors
    /// [`Error::InvalidParams`] or [`Error::Ring`] for sizes that no chain can have.
    pub fn small(degree: usize, bits: f64, levels: usize) -> Result<Params, Error> {
        Params::insecure_for_tests(Params::builder().degree(degree).base(50.0).levels(bits, levels).digits(3))
    }

    /// The peers' benchmark shape at another degree: `levels` of 45 bits, 3 digits. **Insecure
    /// below N = 2^16.**
    ///
    /// # Errors
    /// As [`small`].
    pub fn benchmark(degree: usize, levels: usize) -> Result<Params, Error> {
        small(degree, 45.0, levels)
    }
}
