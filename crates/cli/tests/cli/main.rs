//! The program from the outside.

mod batch;
mod checkpoints;
mod clear;
mod common;
mod encrypted;
mod import;
mod inspect;
mod misuse;
mod models;
mod mutual;
mod network;
mod page;
mod parties;
mod plans;
mod prefix;
mod search;
mod settings;
mod trouble;
#[cfg(feature = "nats")]
mod workers;

#[path = "../../../../xtask/src/tidy/commands.rs"]
mod tutorial;
