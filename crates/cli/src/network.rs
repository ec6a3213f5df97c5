//! What the commands of a network client share.

use crate::exit::usage;
use crate::options::PlanSource;
use crate::party::Party;
use anyhow::{Context, bail};
use cipherlm_files::{read, read_text};
use cipherlm_infer::{ClientFolder, KeyFolder};
use cipherlm_remote::{Certificates, Endpoint, Remote};
use clap::Args;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Largest token and certificate files.
const TOKEN_BYTES: u64 = 1 << 12;
const PEM_BYTES: u64 = 1 << 20;

/// A server, and how to be let in.
#[derive(Args)]
pub(crate) struct ServerOption {
    /// The server: https://HOST:PORT (http:// for this machine alone).
    #[arg(long, value_name = "URL")]
    server: String,
    #[command(flatten)]
    entry: EntryOption,
}

/// How to be let in by a server.
#[derive(Args)]
pub(crate) struct EntryOption {
    /// File of the server's token (default: the variable CIPHERLM_TOKEN).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust beside those of the system, PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client's own certificate chain, PEM, for a server that asks for it.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl ServerOption {
    /// The server.
    pub(crate) fn remote(&self) -> anyhow::Result<Remote> {
        self.entry.remote(&self.server)
    }
}

impl EntryOption {
    /// Refuses options about a server where none is named.
    pub(crate) fn ensure_absent(&self) -> anyhow::Result<()> {
        let given = [&self.token_file, &self.ca, &self.client_cert, &self.client_key];
        match given.iter().any(|file| file.is_some()) {
            true => Err(usage("--token-file, --ca, --client-cert and --client-key go with --server")),
            false => Ok(()),
        }
    }

    /// The server at that address.
    pub(crate) fn remote(&self, server: &str) -> anyhow::Result<Remote> {
        let token = match &self.token_file {
            Some(file) => read_text(file, TOKEN_BYTES).context("--token-file")?,
            None => match std::env::var("CIPHERLM_TOKEN") {
                Ok(token) => token,
                Err(_) => bail!("no token: give --token-file, or set CIPHERLM_TOKEN"),
            },
        };
        let pem = |what: &'static str, file: &Option<PathBuf>| {
            file.as_ref().map(|file| read(file, PEM_BYTES).context(what).map(Zeroizing::new)).transpose()
        };
        let authority = pem("--ca", &self.ca)?;
        let (chain, key) = (pem("--client-cert", &self.client_cert)?, pem("--client-key", &self.client_key)?);
        let own = chain.as_ref().zip(key.as_ref());
        let certificates = Certificates {
            authority: authority.as_ref().map(|pem| pem.as_slice()),
            own: own.map(|(chain, key)| (chain.as_slice(), key.as_slice())),
        };
        Ok(Remote::new(Endpoint::new(server, &token, certificates).context("--server")?))
    }
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
