//! `cipherlm page`: the browser client's files, served to a browser on this machine.

use crate::console::{out_json, say};
use anyhow::{Context, bail, ensure};
use cipherlm_files::{read, read_text, shown};
use cipherlm_remote::Page;
use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The list of a page's files with their hashes.
const SUMS: &str = "SHA256SUMS";
/// Largest list and largest file.
const SUMS_BYTES: u64 = 1 << 16;
const FILE_BYTES: u64 = 16 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `cargo xtask page` made. Its files are compared with the hashes in its
    /// SHA256SUMS, and no others are served.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The server that the page may speak to: https://HOST:PORT (http:// for this machine alone).
    #[arg(long, value_name = "URL")]
    server: String,
    /// Loopback address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: SocketAddr,
}

/// Serves until it is told to stop.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    if !options.listen.ip().is_loopback() {
        bail!("--listen {}: the page takes the secret, so it is served on loopback alone", options.listen);
    }
    let mut page = Page::new(&options.server).context("--server")?;
    let files = files(&options.dir).context("--dir")?;
    let count = files.len();
    for (name, bytes) in files {
        page = page.with(&name, bytes).context("--dir")?;
    }
    let told = |address: SocketAddr| {
        let origin = format!("http://{address}");
        if as_json {
            out_json(&json!({"listening": origin, "server": options.server, "files": count}));
            return;
        }
        say!("listening         {origin}/  ({count} files, each as SHA256SUMS says)");
        say!("server            {}  (it has to run with --allow-origin {origin})", options.server);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(page.run(options.listen, told, super::serve::stop_signal()))?;
    Ok(true)
}

/// The files of a page, each compared with its hash.
fn files(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let missing = || format!("{} is no page: make one with `cargo xtask page`", shown(folder));
    let list = read_text(&folder.join(SUMS), SUMS_BYTES).with_context(missing)?;
    let mut files = Vec::new();
    for line in list.lines() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let entry = line.split_once("  ");
        let entry = entry.filter(|(_, name)| !name.starts_with('.') && name.chars().all(plain));
        let (hash, name) = entry.with_context(|| format!("{SUMS} has a line that is no hash and file"))?;
        let bytes = read(&folder.join(name), FILE_BYTES)?;
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(
            found == hash,
            "{name} has SHA-256 {found}, and {SUMS} says {hash}: make the page again with `cargo xtask page`"
        );
        files.push((name.to_owned(), bytes));
    }
    ensure!(files.iter().any(|(name, _)| name == "index.html"), missing());
    Ok(files)
}
