//! The project's own commands: `cargo xtask <command>`. Each module is one command.

mod bench;
mod build;
mod ci;
mod cli;
mod experiment;
mod fetch;
mod flags;
mod fuzz;
mod hebench;
mod machine;
mod mutants;
mod nats;
mod page;
mod plot;
mod python;
// The fuzzer's generator; not all of it is needed here.
#[allow(dead_code)]
#[path = "../../fuzz/src/rng.rs"]
mod rng;
mod soak;
mod tables;
mod test;
mod tidy;

use flags::{Xtask, XtaskCmd};
use std::process::ExitCode;
use xshell::Shell;

/// Set by the `cargo run` that starts this program. Build scripts of dependencies watch it: where
/// builds of ours inherit it, those that are called by hand make TLS and all above it again.
const INHERITED: &str = "CARGO_MANIFEST_DIR";

fn main() -> ExitCode {
    if std::env::var_os(INHERITED).is_some() {
        return without_inherited().unwrap_or_else(|error| {
            eprintln!("xtask: starting itself anew: {error}");
            ExitCode::FAILURE
        });
    }
    match run(Xtask::from_env_or_exit()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The same command in a process without that variable.
fn without_inherited() -> std::io::Result<ExitCode> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let status = command.args(std::env::args_os().skip(1)).env_remove(INHERITED).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn run(flags: Xtask) -> anyhow::Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    match flags.subcommand {
        XtaskCmd::Demo(f) => cli::demo(&sh, &f),
        XtaskCmd::Test(f) => test::run(&sh, &f),
        XtaskCmd::Prop(f) => test::prop(&sh, &f),
        XtaskCmd::Bench(f) => bench::run(&sh, &f),
        XtaskCmd::Profile(f) => cli::profile(&sh, &f),
        XtaskCmd::Experiment(f) => experiment::run(&sh, &f),
        XtaskCmd::Fetch(f) => fetch::run(&sh, &f),
        XtaskCmd::Hebench(f) => hebench::run(&sh, &f),
        XtaskCmd::Nats(_) => nats::run(&sh),
        XtaskCmd::Python(_) => python::run(&sh),
        XtaskCmd::Page(f) => page::run(&sh, &f),
        XtaskCmd::Tables(_) => tables::run(&sh),
        XtaskCmd::Train(f) => cli::train(&sh, &f),
        XtaskCmd::Fuzz(f) => fuzz::run(&sh, &f),
        XtaskCmd::Mutants(f) => mutants::run(&sh, &f),
        XtaskCmd::Soak(f) => soak::run(&sh, &f),
        XtaskCmd::Ci(_) => ci::run(&sh),
        XtaskCmd::Tidy(f) => tidy::run(&sh, &f),
    }
}

/// The workspace root: xtask's manifest sits one level below it.
fn root() -> std::path::PathBuf {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
