//! `cipherlm run`: the server's command. Nothing here can hold a secret key.

use crate::console::{out_json, say};
use crate::options::{IndexOption, ModelOption, gibibytes, seconds};
use crate::outputs::{Outputs, hold};
use crate::party::{description, read_message, setup_of};
use crate::prices::PricesOption;
use crate::progress::Console;
use crate::setup::Setup;
use crate::system::{free_disk, gib, mib, peak_memory, processor, threads};
use anyhow::{Context, bail};
use cipherlm_ckks::{KeyId, KeyStore};
use cipherlm_files::{Access, Existing, Lock, create_folder, shown};
use cipherlm_infer::{
    Checkpoints, EncryptedLogits, EncryptedPrompt, KeyFolder, KeyOrder, Profiler, Progress, Report, Server,
};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Options {
    /// The folder `server` that `keygen` made.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The encrypted prompt.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where to write the encrypted answer.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelOption,
    #[command(flatten)]
    index: IndexOption,
    #[command(flatten)]
    prices: PricesOption,
    /// Keep finished steps here; after an interruption (Ctrl-C, kill) the same command goes on from
    /// them.
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Keep steps that took at least this many seconds.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    checkpoint_after: f64,
    /// Hold at most this many GiB of keys in memory and load the others when they are needed
    /// (default: all).
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    key_memory: Option<f64>,
    /// Write where the time went as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Overwrite what is there.
    #[arg(long)]
    force: bool,
}

/// Runs the model on an encrypted prompt.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    outputs.input("--input", &options.input)?;
    let out = outputs.file("--out", &options.out, options.force)?;
    let report_out =
        options.report.as_deref().map(|file| outputs.file("--report", file, options.force)).transpose()?;
    let lock = options.checkpoints.as_deref().map(|folder| take(&mut outputs, folder)).transpose()?;
    let message = read_message(&options.input, "encrypted prompt", "it is what `cipherlm encrypt` wrote")?;
    let loaded = options.index.put_on(options.model.load()?)?;
    let setup = setup_of(&description(&options.keys)?, loaded, Some(&options.prices))?;
    let params = setup.circuits.params();
    let (keys, key_id, prompt) = accept(options, &setup, &message)?;
    drop(message);
    let mut console = Console::new(!as_json);
    console.line(&setup.summary());
    let clock = Instant::now();
    let keys = load(keys, &console)?;
    let seconds_load = clock.elapsed().as_secs_f64();
    console.line(&format!("server      keys loaded and checked in {seconds_load:.1} s"));
    let (answer, report) = forward(options, &setup, key_id, &keys, prompt, &mut console)?;
    let answer = answer.to_bytes();
    out.write_or_rescue(&answer, Access::Everyone)?;
    drop(lock);
    let (steps, prompts) = (setup.plan.steps() - 1, setup.plan.prompts());
    let each = report.seconds_total / prompts as f64;
    let facts = json!({
        "machine": format!(
            "encrypted on {}, kernel {}, {} threads", processor(), params.ring().kernel_name(), threads()
        ),
        "answer": shown(out.path()),
        "bytes": answer.len(),
        "security_bits": params.security().bits,
        "seconds_load_keys": seconds_load,
        "peak_rss_bytes": peak_memory(),
        "steps_computed": report.steps.len(),
        "steps": steps,
        "prompts": prompts,
        "seconds_per_prompt": each,
        "public_prefix_tokens": setup.plan.public_prefix().len(),
        "report": report,
    });
    if as_json {
        out_json(&facts);
    } else {
        let (seconds, computed, peak) = (report.seconds_total, report.steps.len(), gib(peak_memory()));
        let (mib, file) = (mib(answer.len() as u64), shown(out.path()));
        say!("ran               {seconds:.1} s for {computed} of {steps} steps, {peak:.1} GiB at the peak");
        if prompts > 1 {
            say!("prompts           {prompts} at once, {each:.2} s each");
        }
        say!("encrypted answer  {file}  ({mib:.1} MiB; for the client)");
        say!("next              on the client: cipherlm decrypt --keys DIR --input {file} --note NOTE");
    }
    if let Some(file) = report_out {
        file.write(serde_json::to_string_pretty(&facts)?.as_bytes(), Access::Everyone)?;
    }
    Ok(true)
}

/// Takes the folder of checkpoints, which is made if it is missing.
fn take(outputs: &mut Outputs, folder: &Path) -> anyhow::Result<Option<Lock>> {
    const OPTION: &str = "--checkpoints";
    outputs.folder(OPTION, folder, Existing::Replace)?;
    create_folder(folder).context(OPTION)?;
    hold(OPTION, folder)
}

/// Opens keys and prompt. All refusals come before the keys are loaded.
fn accept(
    options: &Options,
    setup: &Setup,
    message: &[u8],
) -> anyhow::Result<(KeyStore, KeyId, EncryptedPrompt)> {
    let params = setup.circuits.params();
    let (_, resident) = setup.circuits.key_bytes(&setup.plan)?;
    let budget = options.key_memory.map_or(u64::MAX, |gib| (gib * f64::from(1 << 30)) as u64);
    let order = KeyOrder::of(&setup.circuits, &setup.plan)?;
    let (keys, key_id) = KeyFolder::open(&options.keys, &setup.circuits, &order, budget)
        .with_context(|| format!("the evaluation keys in {}", shown(&options.keys)))?;
    let prompt = EncryptedPrompt::from_bytes(params, &order.small, message)
        .with_context(|| format!("{}: encrypt the prompt again, and copy it whole", shown(&options.input)))?;
    check_prompt(&prompt, setup, key_id).with_context(|| {
        format!("{}: encrypt it again with the keys that belong to this server", shown(&options.input))
    })?;
    setup.price_run(resident.min(budget))?;
    if let Some(directory) = &options.checkpoints {
        let need = setup.plan.checkpoint_bytes(params);
        if let Some(free) = free_disk(directory).filter(|free| *free < need) {
            bail!(
                "checkpoints take up to {:.2} GiB on disk and {:.2} GiB are free at {}: free some, choose \
                 another --checkpoints, or drop it",
                gib(need),
                gib(free),
                shown(directory)
            );
        }
    }
    Ok((keys, key_id, prompt))
}

/// A prompt of another plan or key is refused while that is cheap.
fn check_prompt(prompt: &EncryptedPrompt, setup: &Setup, key_id: KeyId) -> anyhow::Result<()> {
    if prompt.plan != setup.plan.id() {
        bail!("the prompt was packed for plan {}, the keys are for plan {}", prompt.plan, setup.plan.id());
    }
    if prompt.key_id != key_id {
        bail!(
            "the prompt is encrypted under key {}, the evaluation keys belong to key {key_id}",
            prompt.key_id
        );
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
    options: &Options,
    setup: &Setup,
    key_id: KeyId,
    keys: &Arc<KeyStore>,
    prompt: EncryptedPrompt,
    console: &mut Console,
) -> anyhow::Result<(EncryptedLogits, Report)> {
    let server = Server::open(&setup.circuits, key_id, keys)?;
    let plan = &setup.plan;
    let mut profiler = Profiler::new(plan, |p: &Progress<'_>| {
        console.step(p);
        true
    });
    let answer = match &options.checkpoints {
        Some(directory) => {
            let at_least = Duration::from_secs_f64(options.checkpoint_after);
            let mut kept = Checkpoints::new(directory, at_least, &mut profiler)?;
            server.run(plan, prompt, &mut kept)?
        }
        None => server.run(plan, prompt, &mut profiler)?,
    };
    let report = profiler.finish();
    console.done();
    Ok((answer, report))
}
