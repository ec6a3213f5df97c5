//! `cipherlm push`: registers evaluation keys with a server.

use crate::console::{out_json, say};
use crate::network::ServerOption;
use crate::progress::Console;
use crate::system::gib;
use cipherlm_files::shown;
use cipherlm_infer::SERVER_FOLDER;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `keygen` made; the secret in it stays here.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    server: ServerOption,
}

/// Sends the keys that the server does not have.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let remote = options.server.remote()?;
    let folder = options.keys.join(SERVER_FOLDER);
    let (console, clock) = (Console::new(!as_json), Instant::now());
    let told = |done: u64, all: u64| {
        console.stage(&format!("sending keys, {:.2} of {:.2} GiB", gib(done), gib(all)), done, all);
    };
    let pushed = crate::network::wait(cipherlm_remote::push(&remote, &folder, told))?;
    console.done();
    let seconds = clock.elapsed().as_secs_f64();
    if as_json {
        out_json(&json!({
            "keys": pushed.keys, "sent": pushed.sent, "sent_bytes": pushed.bytes, "seconds": seconds
        }));
    } else {
        let (keys, sent) = (pushed.keys, pushed.sent);
        say!(
            "registered        {keys} keys, {sent} sent now: {:.2} GiB in {seconds:.1} s",
            gib(pushed.bytes)
        );
        say!("next              cipherlm ask --keys {} --server URL --prompt -", shown(&options.keys));
    }
    Ok(true)
}
