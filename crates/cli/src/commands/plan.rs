//! `cipherlm plan`: what an encrypted run will take, before any key exists.

use crate::console::{out, out_json, say};
use crate::options::{ModelOption, ParameterSet, small_ring, tokens};
use crate::setup::{self, Setup, insecure_profile};
use anyhow::Context;
use cipherlm_infer::Step;
use clap::Args;
use serde_json::{Value, json};

/// What the JSON of a plan calls itself.
pub(crate) const PLAN: &str = "cipherlm plan 1";
/// Seed of the simulated run.
const SEED: u64 = 1;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    /// Prompt length; the plan takes the next power of two.
    #[arg(long, default_value = "32", value_parser = tokens())]
    length: usize,
    /// Print every step with its levels, and the reason of every bootstrap.
    #[arg(long)]
    explain: bool,
    /// NO SECURITY: a small ring of degree 2^LOG_N.
    #[arg(long, value_name = "LOG_N", value_parser = small_ring)]
    insecure_ring: Option<u32>,
    /// Parameter set, 128-bit secure.
    #[arg(long, value_enum, default_value = "n16")]
    profile: ParameterSet,
}

/// Compiles a plan and prints it.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let loaded = crate::model::load(options.model.get())?;
    let profile = match options.insecure_ring {
        Some(log_degree) => insecure_profile(log_degree)?,
        None => options.profile.chain(),
    };
    let setup = Setup::on(loaded, options.length, profile)?;
    if !as_json {
        out(&setup.summary());
    }
    // Takes some seconds: the rest is shown by then.
    let mse = predicted_mse(&setup)?;
    let schedule = setup.plan.schedule();
    let floor = setup.circuits.target()?.chain.floor();
    let reasons = reasons(&schedule, floor);
    if as_json {
        out_json(&to_json(&setup, mse, &schedule, &reasons)?);
        return Ok(true);
    }
    say!("error       {mse:.1e} mean square of a logit, predicted by a run with simulated noise");
    if options.explain {
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

/// Mean square error of the logits for the sample text, at all positions, from one run of the noise
/// machine.
fn predicted_mse(setup: &Setup) -> anyhow::Result<f64> {
    let plan = &setup.plan;
    let tokens = setup::sample(&setup.loaded, plan.tokens().min(setup.loaded.model.shape().context))?;
    let machine = plan.noise_machine(setup.circuits.params(), setup.circuits.key_request(plan), SEED)?;
    let forecast = plan.forecast(&machine, &tokens).context("predicting the error")?;
    let positions = 1 + setup.loaded.answer_position(tokens.len());
    let errors = (0..positions).map(|position| forecast.logits_mse(plan, position));
    Ok(errors.sum::<Result<f64, _>>()? / positions as f64)
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

fn to_json(setup: &Setup, mse: f64, schedule: &[Step], reasons: &[Option<String>]) -> anyhow::Result<Value> {
    let (stored, resident) = setup.circuits.key_bytes(&setup.plan)?;
    let (params, plan) = (setup.circuits.params(), &setup.plan);
    let mut steps = serde_json::to_value(schedule)?;
    for (step, reason) in steps.as_array_mut().into_iter().flatten().zip(reasons) {
        step["reason"] = json!(reason);
    }
    Ok(json!({
        "format": PLAN,
        "id": plan.id(),
        "model": setup.loaded.model.spec().name,
        "length": plan.tokens(),
        "profile": setup.profile.name,
        "ring_degree": params.degree(),
        "log_qp": params.log_qp(),
        "security_bits": params.security().bits,
        "seconds_predicted": plan.seconds(),
        "predicted_seconds": plan.seconds(),
        "predicted_mse": mse,
        "levels": setup.profile.user_levels,
        "public_prefix_tokens": plan.public_prefix().len(),
        "bootstraps": plan.refreshes().0,
        "bootstraps_by_layer": plan.refreshes_by_layer(),
        "key_bytes": stored,
        "key_bytes_resident": resident,
        "memory_bytes": resident + plan.working_bytes(),
        "steps": steps,
    }))
}
