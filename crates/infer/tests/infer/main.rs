//! Plans, runs and parties: one program, since each would build the machines again.

mod batch;
mod checkpoints;
mod clear;
mod clientside;
mod common;
mod decode;
mod encoder;
mod encrypted;
mod families;
mod families_encrypted;
mod identity;
mod keyfolder;
mod ranges;
mod search;
mod small;
