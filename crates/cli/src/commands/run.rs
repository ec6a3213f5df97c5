//! The server's command: `run`. Nothing here can hold a secret key.

use crate::console::Console;
use crate::flags;
use crate::party::{description, must_be_new, read, setup_of, write_public};
use crate::setup::Setup;
use crate::system::{free_disk, gib, peak_memory, processor, threads};
use anyhow::{Context, bail};
use cipherlm_ckks::slots::Encrypted;
use cipherlm_ckks::{KeyId, KeyStore};
use cipherlm_infer::{Checkpoints, EncryptedLogits, EncryptedPrompt, KeyFolder, Profiler, Progress, Report, Server};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs the model on an encrypted prompt.
pub(crate) fn run(args: &flags::Run, as_json: bool) -> anyhow::Result<bool> {
    must_be_new(&args.out, args.force)?;
    if !args.checkpoint_after.is_finite() || args.checkpoint_after < 0.0 {
        bail!("--checkpoint-after {}: a number of seconds, at least 0", args.checkpoint_after);
    }
    let setup = setup_of(&description(&args.keys)?, args.model.as_deref())?;
    let params = setup.circuits.params();
    let mut console = Console::new(!as_json);
    console.line(&setup.summary());

    // All refusals before the keys are loaded.
    let (_, resident) = setup.circuits.key_bytes(&setup.plan)?;
    let budget = match args.key_memory {
        Some(gib) if !gib.is_finite() || gib <= 0.0 => bail!("--key-memory {gib}: a number of GiB above 0"),
        Some(gib) => (gib * f64::from(1 << 30)) as u64,
        None => u64::MAX,
    };
    let (keys, key_id) = KeyFolder::open(&args.keys, params, &setup.plan, budget)
        .with_context(|| format!("the evaluation keys in {}", args.keys.display()))?;
    let bytes = read(&args.input, "encrypted prompt", "it is what `cipherlm encrypt` wrote")?;
    let prompt = EncryptedPrompt::from_bytes(params, &bytes)
        .with_context(|| format!("{}: encrypt the prompt again, and copy it whole", args.input.display()))?;
    check_prompt(&prompt, &setup, key_id).with_context(|| {
        format!("{}: encrypt it again with the keys that belong to this server", args.input.display())
    })?;
    setup.price_run(resident.min(budget))?;
    if let Some(directory) = &args.checkpoints {
        let need = setup.plan.checkpoint_bytes(params);
        if let Some(free) = free_disk(directory).filter(|free| *free < need) {
            bail!(
                "checkpoints take up to {:.2} GiB on disk and {:.2} GiB are free at {}: free some, choose another --checkpoints, \
                 or drop it",
                gib(need),
                gib(free),
                directory.display()
            );
        }
    }

    let clock = Instant::now();
    let keys = load(keys, &console)?;
    let seconds_load = clock.elapsed().as_secs_f64();
    console.line(&format!("server      keys loaded and checked in {seconds_load:.1} s"));
    let (answer, report) = forward(args, &setup, key_id, keys, prompt, &mut console)?;
    let answer = answer.to_bytes();
    write_public(&args.out, &answer)?;
    let facts = json!({
        "machine": format!("encrypted on {}, kernel {}, {} threads", processor(), params.ring().kernel_name(), threads()),
        "answer": args.out,
        "bytes": answer.len(),
        "security_bits": params.security().bits,
        "seconds_load_keys": seconds_load,
        "peak_rss_bytes": peak_memory(),
        "steps_computed": report.steps.len(),
        "steps": setup.plan.steps() - 1,
        "report": report,
    });
    if let Some(file) = &args.report {
        write_public(file, serde_json::to_string_pretty(&facts)?.as_bytes())?;
    }
    if as_json {
        println!("{facts}");
    } else {
        println!(
            "ran               {:.1} s for {} of {} steps, {:.1} GiB at the peak",
            report.seconds_total,
            report.steps.len(),
            setup.plan.steps() - 1,
            gib(peak_memory())
        );
        println!(
            "encrypted answer  {}  ({:.1} MiB; for the client)",
            args.out.display(),
            answer.len() as f64 / 1048576.0
        );
        println!(
            "next              on the client: cipherlm decrypt --keys DIR --input {} --note NOTE",
            args.out.display()
        );
    }
    Ok(true)
}

/// A prompt of another plan or key is refused while that is cheap.
fn check_prompt(prompt: &EncryptedPrompt, setup: &Setup, key_id: KeyId) -> anyhow::Result<()> {
    if prompt.plan != setup.plan.id() {
        bail!("the prompt was packed for plan {}, the keys are for plan {}", prompt.plan, setup.plan.id());
    }
    if let Some(other) = prompt.ciphertexts.iter().find(|c| c.key_id() != key_id) {
        bail!("the prompt is encrypted under key {}, the evaluation keys belong to key {key_id}", other.key_id());
    }
    Ok(())
}

/// Reads all keys at once if they may all be held.
fn load(keys: KeyStore, console: &Console) -> anyhow::Result<Arc<KeyStore>> {
    let count = keys.len() as u64;
    keys.preload(|loaded| console.stage(&format!("loading keys, {loaded} of {count}"), loaded as u64, count))
        .context("an evaluation key is damaged: copy the folder from the client again")?;
    console.done();
    Ok(Arc::new(keys))
}

fn forward(
    args: &flags::Run,
    setup: &Setup,
    key_id: KeyId,
    keys: Arc<KeyStore>,
    prompt: EncryptedPrompt,
    console: &mut Console,
) -> anyhow::Result<(EncryptedLogits, Report)> {
    let refresher = setup.circuits.refresher(&keys)?;
    let server = Server::new(Encrypted::new(setup.circuits.params(), key_id, keys)?.with_refresher(refresher)?);
    let plan = &setup.plan;
    let mut profiler = Profiler::new(plan, |p: &Progress<'_>| {
        console.step(p);
        true
    });
    let answer = match &args.checkpoints {
        Some(directory) => {
            let at_least = Duration::from_secs_f64(args.checkpoint_after);
            let mut kept = Checkpoints::new(directory, at_least, &mut profiler)?;
            server.run(plan, prompt, &mut kept)?
        }
        None => server.run(plan, prompt, &mut profiler)?,
    };
    let report = profiler.finish();
    console.done();
    Ok((answer, report))
}
