//! `cipherlm proxy`: programs that speak OpenAI's API, answered by an encrypted run.

use crate::console::{out_json, say};
use crate::network::{ServerOption, party_of};
use crate::options::PlanSource;
use crate::party::description;
use anyhow::{Context, bail};
use cipherlm_files::{Access, Existing, read_text, shown, write};
use cipherlm_infer::{Client, SECRET_FILE, load_secret};
use cipherlm_model::Kind;
use cipherlm_remote::{Oracle, Proxy};
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `keygen` made.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    server: ServerOption,
    #[command(flatten)]
    source: PlanSource,
    /// Loopback address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// File of the token that programs send as their API key; made if it is missing (default:
    /// `proxy-token` in the folder of the keys).
    #[arg(long, value_name = "FILE")]
    proxy_token: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    if !options.listen.ip().is_loopback() {
        bail!("--listen {}: the proxy holds the secret, so it listens on loopback alone", options.listen);
    }
    let keys = description(&options.keys)?;
    let remote = options.server.remote()?;
    let party = party_of(&keys, &options.source, &remote)?.text;
    if party.side.plan().model.kind != Kind::Decoder {
        bail!("the model does not continue text: use `cipherlm ask`");
    }
    let client = Client::with_secret(load_secret(&options.keys.join(SECRET_FILE), party.side.params())?);
    let file = options.proxy_token.clone().unwrap_or_else(|| options.keys.join("proxy-token"));
    if !file.exists() {
        let token = Proxy::fresh_token()?;
        write(&file, token.as_bytes(), Existing::Refuse, Access::Owner).context("--proxy-token")?;
    }
    let token = read_text(&file, 1 << 10).context("--proxy-token")?;
    if token.trim().len() < 32 {
        bail!("--proxy-token: {} is too short to be a token: remove it, a new one is made", shown(&file));
    }
    let proxy = Proxy::new(Oracle::new(party.side, client, party.tokenizer, remote), &token);
    let told = |address: SocketAddr| {
        let base = format!("http://{address}/v1");
        if as_json {
            out_json(&json!({"listening": base, "token_file": shown(&file)}));
        } else {
            say!("listening         {base}  (API key: {})", shown(&file));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(proxy.run(options.listen, told, super::serve::stop_signal()))?;
    Ok(true)
}
