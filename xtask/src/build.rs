//! One build: every everyday command selects the same packages in the same profile, so that cargo
//! resolves the same features and compiles each package once for demo, tests, benches and CI.

use std::path::PathBuf;
use xshell::{Shell, cmd};

/// All but the crate that builds burn, in the one optimised profile.
pub(crate) const EVERYDAY: [&str; 5] =
    ["--locked", "--release", "--workspace", "--exclude", "cipherlm-train"];

/// All of it, burn included: lints and documentation.
pub(crate) const WHOLE: [&str; 5] = [
    "--locked",
    "--release",
    "--workspace",
    "--features",
    "cipherlm/nats,cipherlm/train,cipherlm-benches/train",
];

/// Builds the `cipherlm` command and says where it is.
pub(crate) fn cipherlm(sh: &Shell) -> anyhow::Result<PathBuf> {
    cmd!(sh, "cargo build --quiet {EVERYDAY...} --bin cipherlm").run()?;
    Ok(target_dir(sh).join("release/cipherlm"))
}

/// Cargo's output folder.
pub(crate) fn target_dir(sh: &Shell) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sh.current_dir().join("target"), Into::into)
}
