//! What the commands of a network client share.

use crate::clientfolder::ClientFolder;
use crate::options::PlanSource;
use crate::party::Party;
use anyhow::{Context, bail};
use cipherlm_files::{read, read_text};
use cipherlm_infer::KeyFolder;
use cipherlm_remote::{Endpoint, Remote};
use clap::Args;
use std::path::PathBuf;

/// Largest token and certificate files.
const TOKEN_BYTES: u64 = 1 << 12;
const PEM_BYTES: u64 = 1 << 20;

/// A server, and how to be let in.
#[derive(Args)]
pub(crate) struct ServerOption {
    /// The server: https://HOST:PORT (http:// for this machine alone).
    #[arg(long, value_name = "URL")]
    server: String,
    /// File of the server's token (default: the variable CIPHERLM_TOKEN).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust beside those of the system, PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ServerOption {
    /// The server.
    pub(crate) fn remote(&self) -> anyhow::Result<Remote> {
        remote(&self.server, self.token_file.as_ref(), self.ca.as_ref())
    }
}

/// A server by its options.
pub(crate) fn remote(server: &str, token: Option<&PathBuf>, ca: Option<&PathBuf>) -> anyhow::Result<Remote> {
    let token = match token {
        Some(file) => read_text(file, TOKEN_BYTES).context("--token-file")?,
        None => match std::env::var("CIPHERLM_TOKEN") {
            Ok(token) => token,
            Err(_) => bail!("no token: give --token-file, or set CIPHERLM_TOKEN"),
        },
    };
    let authority = ca.map(|file| read(file, PEM_BYTES).context("--ca")).transpose()?;
    let endpoint = Endpoint::new(server, &token, authority.as_deref()).context("--server")?;
    Ok(Remote::new(endpoint))
}

/// Waits for a conversation with a server.
pub(crate) fn wait<T>(work: impl Future<Output = cipherlm_remote::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

/// What a client needs of the server's plan.
pub(crate) fn fetch(remote: &Remote) -> anyhow::Result<ClientFolder> {
    let (plan, [tokenizer, embedding]) = wait(remote.plan())?;
    Ok(ClientFolder { plan, tokenizer, embedding })
}

/// The client's half: of the model or the folder that was named, else of the server's plan.
pub(crate) fn party_of(keys: &KeyFolder, source: &PlanSource, remote: &Remote) -> anyhow::Result<Party> {
    if source.plan().is_some() || source.model().is_some() {
        return Party::of(keys, source, None);
    }
    Party::of_folder(keys, fetch(remote)?).context("the server's plan")
}
