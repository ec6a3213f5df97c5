//! `cipherlm simulate`: what a fleet of workers would do.

use crate::console::{err, out_json, say};
use crate::exit::usage;
use crate::options::{ModelOption, ProfileOption, count, gibibytes, seconds, tokens};
use crate::prices::PricesOption;
use crate::setup::Setup;
use crate::system::{gib, mib};
use cipherlm_service::{Fleet, Outcome};
use clap::Args;
use serde_json::json;

/// Seconds of loading a GiB of keys from files: hashes are checked, and uniform halves made again.
const LOAD_SECONDS_A_GIB: f64 = 4.0;

#[derive(Args)]
pub(crate) struct Options {
    /// Workers; several numbers with commas between them are compared.
    #[arg(long, default_value = "1,10,100,1000", value_delimiter = ',', value_parser = count(1..=100_000))]
    workers: Vec<usize>,
    /// Clients, each with keys of its own.
    #[arg(long, default_value = "10000", value_parser = count(1..=1_000_000))]
    clients: usize,
    /// Clients' keys that a worker has in memory; the program has one.
    #[arg(long, default_value = "1", value_parser = count(1..=1000))]
    held: usize,
    /// Seconds between an answer and the client's next prompt.
    #[arg(long, default_value = "0", value_name = "SECONDS", value_parser = seconds)]
    think: f64,
    #[command(flatten)]
    model: ModelOption,
    /// Longest prompt, in tokens.
    #[arg(long, default_value = "32", value_parser = tokens())]
    length: usize,
    #[command(flatten)]
    profile: ProfileOption,
    #[command(flatten)]
    prices: PricesOption,
    /// Seconds of a job, keys in memory (default: the plan's prediction).
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    job_seconds: Option<f64>,
    /// Seconds of loading a client's keys (default: 4 for each GiB).
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    load_seconds: Option<f64>,
    /// GiB of a client's keys in files (default: the plan's).
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    key_gib: Option<f64>,
    /// GiB of a prompt with its answer (default: the plan's).
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    message_gib: Option<f64>,
    /// Seconds of a worker between two jobs.
    #[arg(long, default_value = "0.05", value_name = "SECONDS", value_parser = seconds)]
    between_seconds: f64,
    /// Seconds that the server's records take for a job.
    #[arg(long, default_value = "0.01", value_name = "SECONDS", value_parser = seconds)]
    record_seconds: f64,
    /// GiB a second that the shared folder gives to all workers together.
    #[arg(long, default_value = "5", value_name = "GIB", value_parser = gibibytes)]
    folder_gib: f64,
    /// GiB a second on the server's line; 0.116 is 1 Gbit/s.
    #[arg(long, default_value = "1.16", value_name = "GIB", value_parser = gibibytes)]
    line_gib: f64,
    /// Jobs for each worker, 1000 at least in all.
    #[arg(long, default_value = "20", value_parser = count(1..=1_000_000))]
    jobs: usize,
    /// So many jobs in all, asked for at once, in place of clients that go on and on.
    #[arg(long, value_name = "JOBS", value_parser = count(1..=1_000_000))]
    burst: Option<usize>,
}

/// Simulates each number of workers.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let fleet = options.fleet(as_json)?;
    if !as_json {
        say!(
            "job {:.2} s, keys {:.2} GiB in {:.1} s, message {:.1} MiB, {} clients, {} keys a worker",
            fleet.job,
            gib(fleet.key_bytes as u64),
            fleet.load,
            mib(fleet.message_bytes as u64),
            fleet.clients,
            fleet.held
        );
        say!(
            "workers    jobs/h  computing  loading  loads/job  \
             latency s:    half      95 %  folder  line  records  bottleneck"
        );
    }
    let mut rows = vec![];
    for &workers in &options.workers {
        let jobs = options.burst.unwrap_or((options.jobs * workers).max(1000));
        let outcome = Fleet { workers, jobs, ..fleet.clone() }.simulate();
        if !as_json {
            show(workers, &outcome);
        }
        rows.push(json!({
            "workers": workers,
            "seconds": outcome.seconds,
            "jobs_per_hour": outcome.jobs_per_hour,
            "computing": outcome.running,
            "loading": outcome.loading,
            "loads_per_job": outcome.loads,
            "latency_seconds": outcome.latency,
            "busy": {"folder": outcome.busy[0], "line": outcome.busy[1], "records": outcome.busy[2]},
            "bottleneck": outcome.bottleneck,
        }));
    }
    if as_json {
        let (job, load) = (fleet.job, fleet.load);
        out_json(
            &json!({"job_seconds": job, "load_seconds": load, "clients": fleet.clients, "fleets": rows}),
        );
    }
    Ok(true)
}

fn show(workers: usize, outcome: &Outcome) {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let [folder, line, records] = outcome.busy.map(percent);
    say!(
        "{workers:>7}  {:>8.0}  {:>9}  {:>7}  {:>9.2}  \
         {:>18.0}  {:>8.0}  {folder:>6}  {line:>4}  {records:>7}  {}",
        outcome.jobs_per_hour,
        percent(outcome.running),
        percent(outcome.loading),
        outcome.loads,
        outcome.latency[0],
        outcome.latency[1],
        outcome.bottleneck
    );
}

impl Options {
    /// The fleet, but for its size. The plan is compiled for what the options do not say.
    fn fleet(&self, as_json: bool) -> anyhow::Result<Fleet> {
        let bytes = |gib: f64| gib * f64::from(1 << 30);
        let plan = match (self.job_seconds, self.key_gib, self.message_gib) {
            (Some(job), Some(keys), Some(message)) => (job, bytes(keys), bytes(message)),
            (job, keys, message) => {
                let (model, wanted) = (self.model.load()?, self.profile.wanted()?);
                let prices = self.prices.table(wanted.insecure())?;
                let setup = Setup::on(model, self.length, &wanted, &prices)?;
                if !as_json {
                    err(&setup.summary());
                }
                let costs = setup.client_folder()?.plan.costs;
                let sent = (costs.prompt_bytes + costs.answer_bytes) as f64;
                (
                    job.unwrap_or(costs.seconds),
                    keys.map_or(costs.key_bytes as f64, bytes),
                    message.map_or(sent, bytes),
                )
            }
        };
        let (job, key_bytes, message_bytes) = plan;
        if job <= 0.0 {
            return Err(usage("--job-seconds: a job takes more than none"));
        }
        Ok(Fleet {
            workers: 1,
            clients: self.clients,
            held: self.held,
            job,
            load: self.load_seconds.unwrap_or(LOAD_SECONDS_A_GIB * key_bytes / f64::from(1 << 30)),
            between: self.between_seconds,
            think: self.think,
            key_bytes,
            message_bytes,
            folder: bytes(self.folder_gib),
            line: bytes(self.line_gib),
            record: self.record_seconds,
            jobs: 0,
            at_once: self.burst.is_some(),
        })
    }
}
