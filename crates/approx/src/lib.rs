#![doc = include_str!("../README.md")]

pub mod certificate;
pub mod chebyshev;
pub mod choose;
pub mod cosine;
mod error;
mod float;
mod function;
mod interval;
pub mod plan;
mod polynomial;
pub mod remez;
pub mod scheme;

pub use certificate::{Certificate, Measure};
pub use choose::{Candidate, Choice, choose};
pub use cosine::DiscreteCosine;
pub use error::{Error, Result};
pub use float::Float;
pub use function::{Function, erf, erfc};
pub use interval::{Interval, Violations};
pub use plan::{Arith, Cost, Counter, EvalPlan, F64, Lanes, Sum};
pub use polynomial::{Basis, Parity, Polynomial};
pub use remez::{Minimax, Remez, Weight};
pub use scheme::{Circuit, Scheme};
