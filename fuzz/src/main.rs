//! Structured fuzzing of every parser and every file of ours, in process, on stable Rust.
//!
//! Inputs start from valid objects, are edited with knowledge of their format, and get their hashes
//! right again, so that they pass the outer gates. An input passes if it is refused by a typed
//! error, or accepted and written again as the same object. A panic, a hang, memory beyond what the
//! header allows, and an accepted object that comes back as another one are faults; each is saved
//! under `target/fuzz`.
//!
//! One process fuzzes one target: a crash ends that process only, and the input that caused it is
//! in a file by then. Inputs whose outcome is new (another error, another panic) join the pool from
//! which later inputs are made.

mod corpus;
mod driver;
mod engine;
mod mutate;
mod rng;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

/// Counts what is allocated, and the peak since it was last reset.
#[global_allocator]
static ALLOCATOR: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

mod flags {
    use std::path::PathBuf;

    xflags::xflags! {
        /// Fuzzes the parsers.
        cmd fuzz {
            /// Only this target.
            optional --target name: String
            /// Stop each target after so many processor seconds (default 600).
            optional --seconds n: f64
            /// Stop each target after so many inputs (default 10^7).
            optional --inputs n: u64
            /// Seed of the mutations (default 1).
            optional --seed s: u64
            /// Targets at a time (default: the cores).
            optional --jobs n: usize
            /// Where to write the counts as JSON.
            optional --json file: PathBuf
            /// Write the corpus again from what this run finds.
            optional --renew
            /// Run one input of a target and say what comes of it.
            optional --replay file: PathBuf
            /// Internal: fuzz the target in this process.
            optional --child
            /// List the targets.
            optional --list
        }
    }
}

/// Where crashes are saved.
fn crashes() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz")
}

fn main() -> ExitCode {
    let flags = flags::Fuzz::from_env_or_exit();
    match run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(flags: &flags::Fuzz) -> anyhow::Result<bool> {
    if flags.list {
        targets::NAMES.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    let names: Vec<&str> =
        targets::NAMES.into_iter().filter(|n| flags.target.as_ref().is_none_or(|t| t == n)).collect();
    anyhow::ensure!(!names.is_empty(), "no such target: fuzz --list names them");
    let limits = engine::Limits {
        seconds: flags.seconds.unwrap_or(600.0),
        inputs: flags.inputs.unwrap_or(10_000_000),
        seed: flags.seed.unwrap_or(1),
        renew: flags.renew,
    };
    match (&flags.replay, flags.child) {
        (Some(file), _) => engine::replay(names[0], file),
        (None, true) => engine::child(names[0], &limits).map(|()| true),
        (None, false) => driver::run(&names, &limits, flags.jobs, flags.json.as_deref()),
    }
}
