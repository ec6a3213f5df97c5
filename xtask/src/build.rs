//! One build: every everyday command selects the same packages in the same profile, so that cargo
//! resolves the same features and compiles each package once for demo, tests, benches and CI.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use xshell::{Shell, cmd};

/// All but the crate that builds burn and the one that Python loads, in the one optimised profile.
const EVERYDAY: [&str; 7] =
    ["--locked", "--release", "--workspace", "--exclude", "cipherlm-train", "--exclude", "cipherlm-py"];

/// All of it, burn and Python's module included: lints, documentation, CI.
pub(crate) const WHOLE: [&str; 5] = [
    "--locked",
    "--release",
    "--workspace",
    "--features",
    "cipherlm/nats,cipherlm/train,cipherlm-benches/train",
];

/// Whether this process builds all of it for whatever it does.
static ALL: AtomicBool = AtomicBool::new(false);

/// From here on, tests and programs are built with [`WHOLE`]: who needs burn anyway would build
/// the other packages twice.
pub(crate) fn select_whole() {
    ALL.store(true, Ordering::Relaxed);
}

/// Whether [`select_whole`] was called.
pub(crate) fn is_whole() -> bool {
    ALL.load(Ordering::Relaxed)
}

/// The packages and features of every build but those of lints and documentation.
pub(crate) fn selection() -> &'static [&'static str] {
    if is_whole() { &WHOLE } else { &EVERYDAY }
}

/// Builds the `cipherlm` command and says where it is.
pub(crate) fn cipherlm(sh: &Shell) -> anyhow::Result<PathBuf> {
    let selection = selection();
    cmd!(sh, "cargo build --quiet {selection...} --bin cipherlm").run()?;
    Ok(target_dir(sh).join("release/cipherlm"))
}

/// Cargo's output folder.
pub(crate) fn target_dir(sh: &Shell) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sh.current_dir().join("target"), Into::into)
}
