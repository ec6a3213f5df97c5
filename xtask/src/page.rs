//! `cargo xtask page`: the browser client as files that any web server can serve.

use crate::build::target_dir;
use crate::flags::Page;
use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use xshell::{Shell, cmd};

const TARGET: &str = "wasm32-unknown-unknown";
const PROGRAM: &str = "cipherlm.wasm";
const SUMS: &str = "SHA256SUMS";
/// Largest program, in bytes.
const BUDGET: usize = 1_500_000;

/// Whether this machine can build for browsers.
pub(crate) fn has_target(sh: &Shell) -> bool {
    let installed = cmd!(sh, "rustc --print target-libdir --target {TARGET}").quiet().ignore_stderr().read();
    installed.is_ok_and(|folder| PathBuf::from(folder).is_dir())
}

/// Builds the program and puts it beside the page's other files.
pub(crate) fn run(sh: &Shell, flags: &Page) -> anyhow::Result<()> {
    ensure!(has_target(sh), "no target {TARGET} here: rustup target add {TARGET}");
    let program = build(sh, flags.check)?;
    if flags.check {
        return Ok(());
    }
    let folder = target_dir(sh).join("page");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut files = vec![(PROGRAM.to_owned(), std::fs::read(&program).context("the program")?)];
    for path in sh.read_dir("crates/web/page")? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a name that is no text")?;
        files.push((name.to_owned(), std::fs::read(&path)?));
    }
    files.sort();
    let mut sums = String::new();
    for (name, bytes) in &files {
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push_str(&format!("{hash}  {name}\n"));
        println!("{:>9} bytes  {name}", bytes.len());
        std::fs::write(folder.join(name), bytes).with_context(|| format!("writing {name}"))?;
    }
    std::fs::write(folder.join(SUMS), sums).context("writing the hashes")?;
    println!("{}: `cipherlm page --dir {0} --server URL` serves it", folder.display());
    let size = files.iter().find(|(name, _)| name == PROGRAM).map_or(0, |(_, bytes)| bytes.len());
    ensure!(size <= BUDGET, "{PROGRAM} has {size} bytes, at most {BUDGET} are allowed");
    Ok(())
}

/// Builds or checks the program; where it is.
fn build(sh: &Shell, check: bool) -> anyhow::Result<PathBuf> {
    // Its own folder: other features and another profile than those of the everyday build.
    let target = target_dir(sh).join("web");
    let root = sh.current_dir();
    let root = root.display();
    let home = std::env::var("CARGO_HOME").or_else(|_| Ok(std::env::var("HOME")? + "/.cargo"));
    let home = home.map_err(|_: std::env::VarError| anyhow::anyhow!("neither CARGO_HOME nor HOME is set"))?;
    // Randomness is the page's; no path of this machine is in the program.
    let flags = [
        "--cfg=getrandom_backend=\"custom\"".to_owned(),
        "-Clink-arg=--strip-all".to_owned(),
        format!("--remap-path-prefix={home}=cargo"),
        format!("--remap-path-prefix={root}=cipherlm"),
    ];
    let _flags = sh.push_env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let command = if check { "check" } else { "build" };
    cmd!(sh, "cargo {command} --locked --profile web -p cipherlm-web --lib --target {TARGET}")
        .args(["--target-dir".into(), target.clone()])
        .run()?;
    Ok(target.join(TARGET).join("web/cipherlm_web.wasm"))
}
