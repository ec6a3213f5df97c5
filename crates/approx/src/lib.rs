#![doc = include_str!("../README.md")]

pub mod certificate;
pub mod chebyshev;
pub mod choose;
mod error;
mod float;
mod function;
mod interval;
pub mod plan;
mod polynomial;
pub mod remez;
mod samples;
pub mod scheme;

pub use certificate::{Certificate, Measure};
pub use choose::{Candidate, Choice, choose};
pub use error::{Error, Result};
pub use float::Float;
pub use function::{Function, erf, erfc};
pub use interval::{Interval, Violations};
pub use plan::{Arith, Cost, Counter, EvalPlan, F64, Lanes, Sum};
pub use polynomial::{Basis, Parity, Polynomial};
pub use remez::{Minimax, Remez, Weight};
pub use scheme::{Circuit, Scheme};
