//! `cargo xtask fuzz`: builds the fuzzer and runs it; the work is in the crate `fuzz`.

use crate::build::{selection, target_dir};
use crate::flags::Fuzz;
use std::ffi::OsString;
use xshell::{Shell, cmd};

/// Fuzzes until each target reaches its limit; an error if a fault was found.
pub(crate) fn run(sh: &Shell, flags: &Fuzz) -> anyhow::Result<()> {
    println!("machine: {}", crate::machine::describe());
    let selection = selection();
    cmd!(sh, "cargo build --quiet {selection...} --bin cipherlm-fuzz").run()?;
    let program = target_dir(sh).join("release/cipherlm-fuzz");
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            args.extend([name.into(), value]);
        }
    };
    option("--target", flags.target.clone().map(Into::into));
    option("--seconds", flags.seconds.map(|n| n.to_string().into()));
    option("--inputs", flags.inputs.map(|n| n.to_string().into()));
    option("--seed", flags.seed.map(|n| n.to_string().into()));
    option("--json", flags.json.clone().map(Into::into));
    args.extend(flags.renew.then(|| "--renew".into()));
    Ok(cmd!(sh, "{program} {args...}").run()?)
}
