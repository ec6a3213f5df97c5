//! Functions to certified polynomials: minimax, Chebyshev, Goldschmidt and Newton schemes, evaluation plans.

pub mod chebyshev;
mod error;
mod interval;
pub mod plan;
mod polynomial;

pub use error::{Error, Result};
pub use interval::{Interval, Violations};
pub use plan::{Arith, Cost, Counter, EvalPlan, F64, Lanes, Sum};
pub use polynomial::{Basis, Parity, Polynomial};
