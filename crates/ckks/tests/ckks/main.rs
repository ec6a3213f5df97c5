//! What the scheme promises, apart from the property suites and from what watches its own process.

#[path = "../common/mod.rs"]
mod common;

mod attack_lm;
mod evaluator;
mod key_store;
mod large_values;
mod mismatch_matrix;
mod params_table;
mod sharing;
mod subring;
mod threads;
mod wire_survival;
