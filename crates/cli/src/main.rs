//! The `cipherlm` command.

mod report;

fn main() {}
