//! `cipherlm plan`: what an encrypted run will take, before any key exists.

use crate::console::{out, out_json, say};
use crate::options::{BatchOption, IndexOption, InputOption, ModelOption, ProfileOption, tokens};
use crate::prices::PricesOption;
use crate::setup::Setup;
use crate::system::{gib, mib};
use anyhow::Context;
use cipherlm_files::shown;
use cipherlm_infer::{Candidate, ClientFolder, Step, insecure_profile};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What the JSON of a plan calls itself.
pub(crate) const PLAN: &str = "cipherlm plan 1";

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    #[command(flatten)]
    index: IndexOption,
    #[command(flatten)]
    input: InputOption,
    #[command(flatten)]
    batch: BatchOption,
    /// Prompt length; the plan takes the next power of two.
    #[arg(long, default_value = "32", value_parser = tokens())]
    length: usize,
    /// Print every step with its levels, and the reason of every bootstrap.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    profile: ProfileOption,
    #[command(flatten)]
    prices: PricesOption,
    /// Write what a client needs into this folder: the plan as it sees it, the tokenizer, the
    /// embedding. No other weights.
    #[arg(long, value_name = "DIR")]
    client: Option<PathBuf>,
    /// With --client: of the plan that this server runs, in place of a model.
    #[cfg(feature = "net")]
    #[arg(
        long,
        value_name = "URL",
        requires = "client",
        conflicts_with_all = [
            "model", "public_prefix", "index", "refresh_input", "prompts", "length", "profile",
            "insecure_ring"
        ]
    )]
    server: Option<String>,
    #[cfg(feature = "net")]
    #[command(flatten)]
    entry: crate::network::EntryOption,
}

/// Compiles a plan and prints it.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    #[cfg(feature = "net")]
    if let (Some(server), Some(folder)) = (&options.server, &options.client) {
        return save(&crate::network::fetch(&options.entry.remote(server)?)?, folder, as_json);
    }
    #[cfg(feature = "net")]
    options.entry.ensure_absent()?;
    let loaded = options.input.put_on(options.index.put_on(options.model.load()?)?);
    let loaded = options.batch.put_on(loaded)?;
    let cost = options.prices.table(options.profile.small())?;
    let setup = Setup::on(loaded, options.length, &options.profile.wanted()?, &cost)?;
    if !as_json {
        out(&setup.summary());
    }
    if let Some(folder) = &options.client {
        return save(&setup.client_folder()?, folder, as_json);
    }
    // Takes some seconds: the rest is shown by then.
    let (mse, same) = setup.predicted_quality()?;
    let schedule = setup.plan.schedule();
    let floor = setup.circuits.target()?.chain.floor();
    let reasons = reasons(&schedule, floor);
    if as_json {
        let mut value = to_json(&setup, [mse, same], &schedule, &reasons)?;
        value["prices"] = json!({"machine": cost.machine, "kernel": cost.kernel, "threads": cost.threads});
        out_json(&value);
        return Ok(true);
    }
    say!(
        "error       {mse:.1e} mean square of a logit, {:.2} % of answers the same, by simulated noise",
        100.0 * same
    );
    say!("prices      of {}, kernel {}, {} threads", cost.machine, cost.kernel, cost.threads);
    if options.explain {
        print_candidates(&setup.candidates);
        let account = setup.plan.explain();
        let rest = account.strip_prefix(&setup.loaded.model.spec().name).unwrap_or(&account);
        say!("\n{}{}", setup.loaded.name(), rest.trim_end());
        say!("\nbootstraps, and why");
        for (step, reason) in schedule.iter().zip(&reasons) {
            if let Some(reason) = reason {
                say!("{:<34} {reason}", step.name);
            }
        }
    }
    Ok(true)
}

/// The profiles that were compared.
fn print_candidates(candidates: &[Candidate]) {
    if candidates.is_empty() {
        return;
    }
    say!(
        "\n{:<8} {:>6} {:>5} {:>6} {:>10} {:>8} {:>7} {:>9} {:>8}  {}",
        "profile",
        "levels",
        "scale",
        "bits",
        "bootstraps",
        "seconds",
        "GiB",
        "error",
        "same",
        "verdict"
    );
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for c in candidates {
        say!(
            "{:<8} {:>6} {:>5} {:>6.1} {:>10} {:>8} {:>7} {:>9} {:>8}  {}",
            c.profile,
            c.levels,
            c.scale_bits,
            c.bits,
            or_none(c.bootstraps.map(|n| n.to_string())),
            or_none(c.seconds.map(|s| format!("{s:.1}"))),
            or_none(c.memory_bytes.map(|bytes| format!("{:.1}", gib(bytes)))),
            or_none(c.mse.map(|mse| format!("{mse:.1e}"))),
            or_none(c.same.map(|same| format!("{:.2} %", 100.0 * same))),
            c.verdict
        );
    }
}

/// Writes what a client needs, and says what it will take.
fn save(made: &ClientFolder, folder: &Path, as_json: bool) -> anyhow::Result<bool> {
    made.save(folder).context("--client")?;
    let (plan, costs) = (&made.plan, &made.plan.costs);
    if as_json {
        out_json(&json!({"client": shown(folder), "plan": plan.plan, "costs": costs}));
        return Ok(true);
    }
    let minutes = |mbit: f64| costs.key_bytes as f64 * 8e-6 / mbit / 60.0;
    say!("client      {}  (no weights but the embedding; plan {})", shown(folder), plan.plan);
    say!(
        "keys        {:.2} GiB to send once: {:.1} min at 20 Mbit/s, {:.1} at 100, {:.1} at 1000",
        gib(costs.key_bytes),
        minutes(20.0),
        minutes(100.0),
        minutes(1000.0)
    );
    say!(
        "a prompt    {:.2} MiB there, {:.3} MiB back, about {:.0} s predicted",
        mib(costs.prompt_bytes),
        mib(costs.answer_bytes),
        costs.seconds
    );
    let insecure = plan.profile == insecure_profile(10)?.name;
    let ring = if insecure { format!(" --insecure-ring {}", plan.log_degree) } else { String::new() };
    say!("next        cipherlm keygen --plan {} --out keys{ring}", shown(folder));
    Ok(true)
}

/// Why a step's result is bootstrapped, for those whose result is.
///
/// A bootstrap is placed where it costs least, so it may come before the last level is used up:
/// what counts is that the steps up to the next one take more levels than would be left.
fn reasons(schedule: &[Step], floor: usize) -> Vec<Option<String>> {
    let reason = |(at, step): (usize, &Step)| {
        let to = step.refreshed_to?;
        let rest = schedule.get(at + 1..).unwrap_or_default();
        let next = rest.iter().position(|s| s.refreshed_to.is_some());
        let stretch = next.map_or(rest, |next| &rest[..=next]);
        let lowest = stretch.iter().map(|s| s.level_out).min().unwrap_or(to).min(to);
        let until = stretch.last().map_or("the end", |s| s.name.as_str());
        Some(format!(
            "{} levels are left above {floor}, and the steps up to {until} take {}: raised to level {to}",
            step.level_out.saturating_sub(floor),
            to - lowest
        ))
    };
    schedule.iter().enumerate().map(reason).collect()
}

fn to_json(
    setup: &Setup,
    [mse, same]: [f64; 2],
    schedule: &[Step],
    reasons: &[Option<String>],
) -> anyhow::Result<Value> {
    let (stored, resident) = setup.circuits.key_bytes(&setup.plan)?;
    let (params, plan) = (setup.circuits.params(), &setup.plan);
    let costs = plan.costs(&setup.circuits)?;
    let mut steps = serde_json::to_value(schedule)?;
    for (step, reason) in steps.as_array_mut().into_iter().flatten().zip(reasons) {
        step["reason"] = json!(reason);
    }
    Ok(json!({
        "format": PLAN,
        "id": plan.id(),
        "model": setup.loaded.model.spec().name,
        "length": plan.tokens(),
        "prompts": plan.prompts(),
        "profile": setup.recipe.profile.name,
        "ring_degree": params.degree(),
        "log_qp": params.log_qp(),
        "security_bits": params.security().bits,
        "seconds_predicted": plan.seconds(),
        "predicted_seconds": plan.seconds(),
        "predicted_seconds_per_prompt": plan.seconds() / plan.prompts() as f64,
        "predicted_mse": mse,
        "predicted_same": same,
        "candidates": setup.candidates,
        "levels": setup.recipe.profile.user_levels,
        "public_prefix_tokens": plan.public_prefix().len(),
        "bootstraps": plan.refreshes().0,
        "bootstraps_by_layer": plan.refreshes_by_layer(),
        "key_bytes": stored,
        "key_bytes_resident": resident,
        "prompt_bytes": costs.prompt_bytes,
        "answer_bytes": costs.answer_bytes,
        "whole_answer_bytes": costs.whole_answer_bytes,
        "memory_bytes": resident + plan.working_bytes(),
        "steps": steps,
    }))
}
