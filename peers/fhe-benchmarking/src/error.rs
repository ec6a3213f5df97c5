//! Everything that can go wrong in a stage.

use std::path::PathBuf;

/// Result of a stage.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a stage stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A command line that the harness does not give.
    #[error("{given:?} is no argument of a stage: it is STAGE SIZE [--count_only] [--seed S], SIZE 0 to 3")]
    Usage {
        /// The argument.
        given: String,
    },
    /// A program name that is no stage.
    #[error("{name:?} is no stage of this workload: start it under one of these names: {known}")]
    Stage {
        /// The name it was started under.
        name: String,
        /// The stages there are.
        known: String,
    },
    /// A file of another length than the size of the instance asks for.
    #[error(
        "{} has {have} {unit}, this instance has {need}: run the stage that writes it again",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// What is counted.
        unit: &'static str,
        /// How many there are.
        have: usize,
        /// How many there have to be.
        need: usize,
    },
    /// A shape that the layout has no place for.
    #[error("{what} is {have}, the layout needs {need}")]
    Shape {
        /// What does not fit.
        what: &'static str,
        /// Its value.
        have: usize,
        /// What is possible.
        need: String,
    },
    /// A value of the answer that is not near an integer: a score near the threshold, or noise.
    #[error(
        "an answer of {value} is {distance:.3} away from an integer (at most {limit} allowed): \
         a score lies within the gap of the threshold, or precision was lost"
    )]
    Precision {
        /// The value decrypted.
        value: f64,
        /// Its distance from the nearest integer.
        distance: f64,
        /// The largest distance that is taken.
        limit: f64,
    },
    /// More matches than the tables of the answer can tell apart.
    #[error(
        "{found} matches were told apart, {left} buckets hold more that cannot be: ask for a larger answer"
    )]
    Crowded {
        /// Matches that were found.
        found: usize,
        /// Buckets with something left in them.
        left: usize,
    },
    /// An answer that no set of records gives.
    #[error("the answer contradicts itself at record {record}: it is not one of this database")]
    Contradiction {
        /// The record at which it does.
        record: usize,
    },
    /// A public key file without the keys of anybody.
    #[error("{} holds no evaluation keys: run client_key_generation first", path.display())]
    NoKeys {
        /// The folder.
        path: PathBuf,
    },
    /// From the scheme.
    #[error(transparent)]
    Scheme(#[from] cipherlm_ckks::Error),
    /// From a circuit.
    #[error(transparent)]
    Circuit(#[from] cipherlm_circuits::slots::Error),
    /// From an approximation.
    #[error(transparent)]
    Approximation(#[from] cipherlm_approx::Error),
    /// From a file.
    #[error(transparent)]
    Files(#[from] cipherlm_files::Error),
}
