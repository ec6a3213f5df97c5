//! `cipherlm doctor`: what this machine is, what will fit, and what to change.

use crate::console::{out_json, say};
use crate::options::{ModelOption, Wanted};
use crate::prices::{self, kernel};
use crate::setup::Setup;
use crate::system::{available_memory, gib, huge_pages, load, processor, threads, total_memory};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::ring::kernel::Kernel;
use cipherlm_infer::CostModel;
use clap::Args;
use serde_json::json;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
}

/// Prompt lengths that are tried.
const LENGTHS: [usize; 3] = [16, 32, 128];

/// A run on this machine.
struct Fit {
    length: usize,
    bytes: u64,
    seconds: f64,
}

/// Says what this machine is and what will run on it. False if nothing of the model will.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let kept = prices::kept()?;
    let cost = match &kept {
        Some((_, table)) => table.clone(),
        None => CostModel::builtin(kernel()?),
    };
    let mut fits = Vec::new();
    let longest = options.model.load()?.model.shape().context;
    for length in LENGTHS.into_iter().filter(|length| *length <= longest) {
        let loaded = options.model.load()?;
        let setup = Setup::on(loaded, length, &Wanted::This(Profile::n16()), &cost)?;
        let (_, resident) = setup.circuits.key_bytes(&setup.plan)?;
        let bytes = resident + setup.plan.working_bytes();
        fits.push(Fit { length, bytes, seconds: setup.plan.seconds() });
    }
    let free = available_memory();
    let holds = |fit: &Fit| free.is_none_or(|free| fit.bytes <= free);
    let advice = advice(kept.is_some(), fits.iter().all(holds))?;
    let some = fits.is_empty() || fits.iter().any(holds);
    let kernels: Vec<&str> = Kernel::available().iter().map(|kernel| kernel.name).collect();
    if as_json {
        let runs = fits.iter().map(|fit| {
            json!({
                "length": fit.length,
                "memory_bytes": fit.bytes,
                "predicted_seconds": fit.seconds,
                "fits": holds(fit),
            })
        });
        out_json(&json!({
            "machine": processor(),
            "kernel": kernel()?,
            "kernels": kernels,
            "threads": threads(),
            "load": load(),
            "memory_bytes": total_memory(),
            "memory_free_bytes": free,
            "huge_pages": huge_pages(),
            "prices": kept.as_ref().map(|(path, _)| path.display().to_string()),
            "runs": runs.collect::<Vec<_>>(),
            "advice": advice,
        }));
        return Ok(some);
    }
    say!("processor   {}, {} threads", processor(), threads());
    say!("kernel      {} of {}", kernel()?, kernels.join(", "));
    if let (Some(all), Some(free)) = (total_memory(), free) {
        say!("memory      {:.1} GiB, {:.1} GiB free", gib(all), gib(free));
    }
    say!("huge pages  {}", huge_pages().unwrap_or_else(|| "unknown".into()));
    match &kept {
        Some((path, _)) => say!("prices      measured on this machine, {}", cipherlm_files::shown(path)),
        None => say!("prices      not measured yet: those of {}", cost.machine),
    }
    for fit in &fits {
        let word = if holds(fit) { "fits" } else { "does NOT fit" };
        say!("{:>4} tokens {word}: {:.1} GiB, about {:.0} s", fit.length, gib(fit.bytes), fit.seconds);
    }
    advice.iter().for_each(|line| say!("advice      {line}"));
    Ok(some)
}

/// What would make runs faster or possible.
fn advice(measured: bool, all_fit: bool) -> anyhow::Result<Vec<String>> {
    let mut advice = Vec::new();
    let (chosen, best) = (kernel()?, Kernel::best().name);
    if chosen != best {
        advice.push(format!("CIPHERLM_KERNEL names {chosen} and this CPU runs {best}: unset it"));
    }
    if matches!(best, "scalar" | "integer") {
        advice.push("this CPU has neither AVX2 nor AVX-512: expect several times the time".into());
    }
    if huge_pages().is_some_and(|pages| pages == "never") {
        advice.push("huge pages are off: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".into());
    }
    if load().is_some_and(|load| load > threads() as f64 / 2.0) {
        advice.push("other programs are running: stop them before you measure anything".into());
    }
    if !measured {
        advice.push("measure the prices of this machine: cipherlm plan --prices measure".into());
    }
    if !all_fit {
        advice.push("close other programs, use a shorter --length, or give `run` --key-memory".into());
    }
    Ok(advice)
}
