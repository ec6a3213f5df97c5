//! What a server and its workers are started with.

use crate::console::err;
use crate::exit::usage;
use crate::options::{InputOption, ModelOption, ProfileOption, gibibytes, seconds, tokens};
use crate::prices::PricesOption;
use crate::setup::Setup;
use cipherlm_service::Served;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// The plan that is served, and how it is computed.
#[derive(Args)]
pub(crate) struct ServedOption {
    #[command(flatten)]
    model: ModelOption,
    /// Longest prompt, in tokens.
    #[arg(long, default_value = "32", value_parser = tokens())]
    length: usize,
    #[command(flatten)]
    input: InputOption,
    #[command(flatten)]
    profile: ProfileOption,
    #[command(flatten)]
    prices: PricesOption,
    /// Keep steps that took at least this many seconds for a restart.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    checkpoint_after: f64,
    /// Hold at most this many GiB of a client's keys in memory (default: all).
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    key_memory: Option<f64>,
    /// Give the memory of keys and circuits back after so many seconds without a job; the next one
    /// loads them again.
    #[arg(long, default_value = "600", value_name = "SECONDS", value_parser = seconds)]
    rest_after: f64,
}

impl ServedOption {
    /// Compiles the plan, and asks for the memory that its runs take where they run `here`.
    pub(crate) fn load(&self, here: bool, as_json: bool) -> anyhow::Result<Served> {
        let (model, wanted) = (self.input.put_on(self.model.load()?), self.profile.wanted()?);
        let setup = Setup::on(model, self.length, &wanted, &self.prices.table(wanted.insecure())?)?;
        if here {
            setup.price_memory()?;
        }
        if !as_json {
            err(&setup.summary());
        }
        Ok(Served::new(setup.circuits, setup.plan, setup.recipe, &setup.loaded.tokenizer)?)
    }

    pub(crate) fn checkpoint_after(&self) -> Duration {
        Duration::from_secs_f64(self.checkpoint_after)
    }

    pub(crate) fn rest_after(&self) -> Duration {
        Duration::from_secs_f64(self.rest_after)
    }

    pub(crate) fn key_memory(&self) -> u64 {
        self.key_memory.map_or(u64::MAX, |gib| (gib * f64::from(1 << 30)) as u64)
    }
}

/// Where NATS is.
#[derive(Args)]
#[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "this build parses the options and has no NATS"))]
pub(crate) struct NatsOption {
    /// Workers compute (`cipherlm worker`), and tasks come over these NATS servers:
    /// nats://HOST:PORT or tls://USER:PASSWORD@HOST, with commas between them. Whoever may speak
    /// there may stop jobs, but not read them. A password shows in the list of processes: the
    /// variable CIPHERLM_NATS is read in place of this option.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    nats: Vec<String>,
    /// Certificates to trust for tls:// beside those of the system, PEM.
    #[arg(long, value_name = "FILE")]
    nats_ca: Option<PathBuf>,
}

impl NatsOption {
    /// The addresses; none if workers are not wanted.
    pub(crate) fn servers(&self) -> Vec<String> {
        if !self.nats.is_empty() {
            return self.nats.clone();
        }
        let named = std::env::var("CIPHERLM_NATS").unwrap_or_default();
        named.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect()
    }
}

/// This build speaks no NATS.
#[cfg(not(feature = "nats"))]
pub(crate) fn no_nats() -> anyhow::Error {
    usage("this build has no NATS: build with `--features nats`")
}

#[cfg(feature = "nats")]
impl NatsOption {
    /// Where NATS is.
    pub(crate) fn nats(&self) -> anyhow::Result<cipherlm_service::Nats> {
        let servers = self.servers();
        if servers.is_empty() {
            return Err(usage("no NATS: give --nats URL, or set CIPHERLM_NATS"));
        }
        Ok(cipherlm_service::Nats { servers, authority: self.nats_ca.clone() })
    }
}
